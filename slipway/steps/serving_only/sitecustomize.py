"""Hides modules from the process that starts with this on PYTHONPATH (slipway.steps.serving_only).

They are not found, as in an image without them: `import` fails, `find_spec` answers None.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_HIDDEN = frozenset(os.environ["SLIPWAY_HIDDEN_MODULES"].split())


class Served(PathFinder):
    """Finds what the path has, but for what is hidden."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None for a hidden module; the modules below it are never asked for."""
        if fullname in _HIDDEN:
            return None
        return super().find_spec(fullname, path, target)


sys.meta_path[:] = [Served if finder is PathFinder else finder for finder in sys.meta_path]

# The one that this file stands before, as Debian has one.
_here = os.path.dirname(__file__)
_next = PathFinder.find_spec(__name__, [entry for entry in sys.path if entry != _here])
if _next and _next.loader:
    _next.loader.exec_module(importlib.util.module_from_spec(_next))
