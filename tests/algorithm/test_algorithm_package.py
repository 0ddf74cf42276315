"""What the package promises as a whole."""

from __future__ import annotations

import ast
from pathlib import Path

import verl_twgrpo.algorithm as algorithm


def test_the_algorithm_is_pure_torch():
    """No import of verl, nor of other parts of the package but the ground that has neither."""
    for path in Path(algorithm.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, path
                names = [node.module]
            for name in names:
                assert name.split(".")[0] != "verl", (path, name)
                below = name.startswith("verl_twgrpo.algorithm") or name == "verl_twgrpo.rows"
                assert not name.startswith("verl_twgrpo") or below, (path, name)


def test_public_names_are_exported():
    assert {
        "group_divergence",
        "chunked_group_divergence",
        "token_weights",
        "tw_grpo_policy_loss",
        "group_normalised_advantage",
    } <= set(algorithm.__all__)
