"""What a bento folder's modules cannot import, and where: file, line and the way out."""

from __future__ import annotations

import difflib
import importlib.util
import traceback
from pathlib import Path

from slipway.errors import BadInput


def place(error: BaseException, file: Path) -> str:
    """File and line, of the folder of `file`, at fault for an error while `file` was imported."""
    folder = file.parent.resolve()
    if isinstance(error, SyntaxError) and error.filename:
        last = [(error.filename, error.lineno)]
    else:
        last = [
            (frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)
        ]
    for name, line in reversed(last):
        if Path(name).resolve().is_relative_to(folder):
            return f"{file.parent / Path(name).resolve().relative_to(folder)}:{line}"
    return str(file)


def failed(error: Exception, file: Path) -> BadInput:
    """The same error as one that says where, and what to do."""
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    fix = missing(error, file) if isinstance(error, ModuleNotFoundError) else ""
    problem = f"cannot be imported: {type(error).__name__}: {said}"
    return BadInput(problem, file=place(error, file), fix=fix)


def missing(error: ModuleNotFoundError, file: Path) -> str:
    """A fix for a module that the code in `file` has not found; empty where there is none."""
    name = (error.name or "").partition(".")[0]
    siblings = [path.stem for path in file.parent.glob("*.py")]
    if name in siblings:
        return (
            f"import {name} at the top of {file.name}: modules of the folder are found while it is "
            "imported, and not later"
        )
    if near := difflib.get_close_matches(name, siblings, n=1, cutoff=0.6):
        return f"did you mean {near[0]!r}?"
    if not name or importlib.util.find_spec(name):
        return ""  # the package is there, and has no such module
    return (
        "where it is a package, name it in requirements/training.in (what service.py imports in "
        "serving.in) and run `make lock`: only locked packages are installed where models are "
        "trained"
    )
