"""Token weightings, one file each. A file in this folder that registers one is all that it takes.

From outside the package: a class with ``@WEIGHTINGS.register`` in a module that each process imports, which the
entry-point group ``verl_twgrpo.weightings`` or verl's VERL_USE_EXTERNAL_MODULES do.
"""

from importlib import import_module
from pkgutil import iter_modules

from verl_twgrpo.algorithm.weightings.apply import make_weighting, weigh_groups
from verl_twgrpo.algorithm.weightings.base import WEIGHTINGS, Group, Weighting

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["WEIGHTINGS", "Group", "Weighting", "make_weighting", "weigh_groups"]
