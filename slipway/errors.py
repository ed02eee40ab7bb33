"""Errors that a user can act on: each names the file, the field and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ValidationError

# Exit codes of the command line.
OK, FAILED, BAD_INPUT = 0, 1, 2


class SlipwayError(Exception):
    """Something failed, and the message says what to do. Exit code 1."""

    exit_code = FAILED

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(f"{message}\n  fix: {fix}" if fix else message)


class BadInput(SlipwayError):
    """The user's input is wrong: `file`, `field` and `fix` say where. Exit code 2."""

    exit_code = BAD_INPUT

    def __init__(
        self, problem: str, *, file: Path | str = "", field: str = "", fix: str = ""
    ) -> None:
        where = ": ".join(str(part) for part in (file, field) if str(part))
        super().__init__(f"{where}: {problem}" if where else problem, fix=fix)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A fix for an unknown word: the nearest known one, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Names of the fields that the model allows at `path` (a pydantic error location)."""
    current: type[BaseModel] | None = model
    for part in path:
        if current is None or isinstance(part, int):
            continue
        info = current.model_fields.get(part) or next(
            (f for f in current.model_fields.values() if f.alias == part), None
        )
        candidates = [info.annotation, *getattr(info.annotation, "__args__", ())] if info else []
        current = next(
            (c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None
        )
    return [f.alias or n for n, f in current.model_fields.items()] if current else []


def from_validation(error: ValidationError, model: type[BaseModel], file: Path | str) -> BadInput:
    """Turns pydantic's errors into one `BadInput` that lists every wrong field, in file order."""
    lines: list[str] = []
    for item in error.errors():
        *parents, last = item["loc"] or ("",)
        field = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = _fields_at(model, tuple(parents))
            lines.append(f"{file}: {field}: unknown key\n  fix: {did_you_mean(str(last), known)}")
        else:
            got = "" if item["type"] == "missing" else f" (got {item['input']!r:.80})"
            lines.append(f"{file}: {field}: {item['msg']}{got}")
    return BadInput("\n".join(lines))
