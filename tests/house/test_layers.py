"""The order of the layers: a file imports from its own package and from layers below, and no files import in a circle.

Imports count wherever they stand: at the top, inside a function, for types only.
"""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "verl_twgrpo"
ROOT = Path(__file__).resolve().parents[2] / PACKAGE

# From the ground up; the parts of one layer do not import each other. A new package or top-level file is named here.
LAYERS = [
    {"__init__", "files", "progress", "rows", "run_folder", "torchvision_ops"},
    {"algorithm", "rewards", "video", "config"},
    {"data"},
    {"platforms"},
    {"compat"},
    {"training"},
    {"planning", "evaluation", "bench", "doctor", "parity"},
    {"report"},
    {"weigh"},
    {"mini_clevrer"},
    {"plugin", "cli"},
]
HEIGHT = {part: height for height, layer in enumerate(LAYERS) for part in layer}

# what a package does without, and the files that may have it: their task is to face it
DOES_WITHOUT = {
    "algorithm": ({"verl", "ray", "vllm", "transformers", "matplotlib", "subprocess"}, set()),
    "rewards": ({"verl", "ray", "vllm", "transformers", "torch", "numpy"}, {"manager.py"}),
    "data": ({"verl", "vllm"}, set()),
    "evaluation": ({"verl", "ray", "vllm", "torch", "transformers"}, set()),
    "report": ({"verl", "ray", "vllm", "torch"}, set()),
}

FILES = sorted(ROOT.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports_of(source: str, module: str, is_package: bool) -> set[str]:
    """Everything that ``source`` imports, by its full name; ``from a import b`` gives "a.b"."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".") if node.module else []
            if node.level:
                here = module.split(".")
                base = here[: len(here) - node.level + is_package] + base
            found |= {".".join([*base, alias.name]) for alias in node.names}
    return found


def ours(imported: set[str], modules: dict[str, Path]) -> set[str]:
    """The files among what is imported: "a.b" is the file a/b.py if there is one, else a name inside a.py."""
    found = set()
    for name in imported:
        if name.split(".")[0] == PACKAGE:
            found.add(name if name in modules else name.rpartition(".")[0] if name != PACKAGE else name)
    return found


@cache  # every process of a parallel run collects this file, one of them parses the package
def imports() -> dict[str, set[str]]:
    return {
        module: imports_of(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
        for module, path in MODULES.items()
    }


def graph() -> dict[str, set[str]]:
    return {module: ours(imported, MODULES) for module, imported in imports().items()}


def part_of(module: str) -> str:
    return (module.split(".") + ["__init__"])[1]


def breaks_the_order(importer: str, imported: str) -> bool:
    above, below = part_of(importer), part_of(imported)
    return above != below and HEIGHT[above] <= HEIGHT[below]


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_part_has_its_layer():
    assert {part_of(module) for module in MODULES} == set(HEIGHT)


@pytest.mark.parametrize("part", sorted(HEIGHT))
def test_nothing_imports_upwards(part):
    found = [
        f"{module} imports {imported}"
        for module, targets in graph().items()
        for imported in targets
        if part_of(module) == part and breaks_the_order(module, imported)
    ]
    assert not found


def test_no_files_import_in_a_circle():
    assert not circle(graph())


def test_whatever_is_imported_exists():
    """Also where the import stands inside a function that no test calls."""
    gone = {(module, name) for module, targets in graph().items() for name in targets if name not in MODULES}
    assert not gone


@pytest.mark.parametrize("package", DOES_WITHOUT)
def test_a_package_does_without(package):
    unwanted, faces = DOES_WITHOUT[package]
    found = [
        f"{module} imports {name}"
        for module, imported in imports().items()
        if part_of(module) == package and MODULES[module].name not in faces
        for name in imported
        if name.split(".")[0] in unwanted
    ]
    assert not found


def test_the_rules_themselves_see_a_breach():
    modules = {f"{PACKAGE}.video": Path(), f"{PACKAGE}.video.decode": Path(), f"{PACKAGE}.data.check": Path()}
    source = (
        f"def f():\n    from {PACKAGE}.data.check import check\n    from . import decode\n    from .decode import a\n"
    )
    found = ours(imports_of(source, f"{PACKAGE}.video", is_package=True), modules)
    assert found == {f"{PACKAGE}.data.check", f"{PACKAGE}.video.decode"}
    inside = imports_of("from .decode import a\nfrom .. import data", f"{PACKAGE}.video.cache", is_package=False)
    assert inside == {f"{PACKAGE}.video.decode.a", f"{PACKAGE}.data"}
    assert breaks_the_order(f"{PACKAGE}.video.cache", f"{PACKAGE}.data.check")
    assert breaks_the_order(f"{PACKAGE}.rewards", f"{PACKAGE}.algorithm.objective")
    assert not breaks_the_order(f"{PACKAGE}.data.check", f"{PACKAGE}.video.cache")
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}})
