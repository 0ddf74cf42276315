"""Make a CUDA build of torchvision importable beside a CPU build of torch.

PyPI has one torchvision wheel for Linux, a CUDA build. Its extension does not load beside a CPU torch, its operators
are then missing, and ``import torchvision`` dies on the first one ("operator torchvision::nms does not exist"), and
with it every video processor of transformers. Those processors need the pure-Python transforms only.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import threading
from pathlib import Path

import torch

_OPERATOR = re.compile(r'(?:register_meta\(|torchvision::)"?(\w+)"')
_lock = threading.Lock()
_library: torch.library.Library | None = None


def declare_missing_ops() -> bool:
    """Declare torchvision's operators, without kernels, where its extension cannot load; returns whether it did.

    Call it before the first import of torchvision in a process. A torchvision whose extension loads is left alone.
    """
    with _lock:  # a thread pool of video readers may be the first to need it
        return _declare()


def _declare() -> bool:
    global _library
    if _library is not None:
        return True
    if "torchvision" in sys.modules or torch.version.cuda is not None or torch.version.hip is not None:
        return False
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    folder = Path(spec.origin).parent
    for extension in folder.glob("_C*.so"):
        try:
            torch.ops.load_library(str(extension))
            return False
        except OSError:  # the CUDA runtime that it links against is not there
            continue
    sources = "".join((folder / name).read_text() for name in ("_meta_registrations.py", "_autograd_registrations.py"))
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in sorted(set(_OPERATOR.findall(sources))):
        # The schema is never used: without a kernel, calling the operator is an error either way.
        library.define(f"{name}(Tensor input) -> Tensor")
    _library = library  # the declarations live as long as this object
    return True
