"""What steps came to, by what went into them."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

from slipway import digests, paths
from slipway.bento import Folder, Training
from slipway.digests import Digest
from slipway.trial import libraries

# Functions of a training.py that steps call one by one.
_FUNCTIONS = {
    *(name for name in vars(Training) if not name.startswith("_")),
    "derive",
    "requests",
}


class Memory:
    """Outputs of steps in files, as the workflow passes them on: names and digests.

    `fresh`: nothing that was remembered before is used.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self._folder, self._fresh = folder, fresh

    def recall(
        self, step: str, inputs: Mapping[str, Any], make: Callable[[], dict[str, str]]
    ) -> tuple[dict[str, str], bool]:
        """The step's outputs for these inputs, and whether they were remembered."""
        key = digests.of_json({"inputs": dict(inputs), "slipway": _program(), "here": _here()})
        file = self._folder / step / f"{key.removeprefix('sha256:')}.json"
        if file.is_file() and not self._fresh:
            return cast("dict[str, str]", json.loads(file.read_bytes())), True
        outputs = make()
        paths.write(file, digests.canonical_json(outputs))
        return outputs, False


def code(folder: Folder, *functions: str) -> Digest:
    """Names what these functions of a training.py can see of the folder's code.

    That is the module without the other functions that steps call, as long as nothing in it names
    them, and the modules beside it that it imports. So another `fit` fetches no data anew.
    """
    module = ast.parse((folder.path / "training.py").read_bytes())
    others = _FUNCTIONS - set(functions)
    kept = [node for node in module.body if _name(node) not in others]
    while back := [
        node
        for node in module.body
        if node not in kept and any(_name(node) in _words(mine) for mine in kept)
    ]:
        kept += back
    seen = {
        "training.py": "\n".join(
            ast.dump(node, include_attributes=False) for node in module.body if node in kept
        )
    }
    named = {name for node in kept for name in _modules(node)}
    siblings = {file.stem: file for file in folder.path.glob("*.py") if file.name != "training.py"}
    while found := [name for name in siblings if name in named]:
        for name in found:
            text = siblings.pop(name).read_text()
            seen[f"{name}.py"] = text
            named |= _modules(ast.parse(text))
    return digests.of_json(seen)


def _name(node: ast.AST) -> str:
    return node.name if isinstance(node, ast.FunctionDef) else ""


def _words(node: ast.AST) -> set[str]:
    """All by which code can name a function of its module."""
    found: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            found.add(inner.id)
        elif isinstance(inner, ast.Attribute):
            found.add(inner.attr)
        elif isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            found.add(inner.value)
    return found


def _modules(node: ast.AST) -> set[str]:
    """All by which code can name a module beside it."""
    found: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.alias):
            found.add(inner.name.partition(".")[0])
        elif isinstance(inner, ast.ImportFrom):
            found.add((inner.module or "").partition(".")[0])
        elif isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            found.add(inner.value)
    return found


@cache
def _program() -> Digest:
    """Names this program: other steps may come to something else."""
    own = sorted((paths.REPOSITORY / "slipway").rglob("*.py"))
    return digests.of_files({str(f.relative_to(paths.REPOSITORY)): f.read_bytes() for f in own})


@cache
def _here() -> Digest:
    return libraries.digest()
