"""Errors that a user can act on: each names the file, the field and the fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

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


def _model_at(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel] | None:
    """The model at `path` (a pydantic error location)."""
    current: type[BaseModel] | None = model
    for part in path:
        if current is None or isinstance(part, int):
            continue
        info = _field(current, part)
        candidates = [info.annotation, *get_args(info.annotation)] if info else []
        current = next(
            (c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None
        )
    return current


def _field(model: type[BaseModel], name: int | str) -> FieldInfo | None:
    fields = model.model_fields
    return next((f for n, f in fields.items() if name in (n, f.alias)), None)


def _fields_at(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Names of the fields that the model allows at `path`."""
    current = _model_at(model, path)
    return [f.alias or n for n, f in current.model_fields.items()] if current else []


def _description(model: type[BaseModel], path: Sequence[int | str]) -> str:
    """What the model says of the value at `path`, which may be an item of a list."""
    names = [part for part in path if isinstance(part, str)]
    parent = _model_at(model, names[:-1]) if names else None
    info = _field(parent, names[-1]) if parent else None
    if info and isinstance(path[-1], int):
        told = [m for item in get_args(info.annotation) for m in getattr(item, "__metadata__", ())]
        info = next((m for m in told if isinstance(m, FieldInfo)), None)
    return (info.description or "") if info else ""


def from_validation(error: ValidationError, model: type[BaseModel], file: Path | str) -> BadInput:
    """Turns pydantic's errors into one `BadInput` that lists every wrong field, in file order."""
    lines: list[str] = []
    for item in error.errors():
        path, kind = item["loc"], item["type"]
        # What is wrong with the whole has no field, and what was given is the whole file.
        got = f" (got {item['input']!r:.80})" if path and kind != "missing" else ""
        problem = item["msg"].removeprefix("Value error, ")
        fix = str(item.get("ctx", {}).get("fix", ""))
        if kind == "extra_forbidden":
            problem, got = "unknown key", ""
            fix = did_you_mean(str(path[-1]), _fields_at(model, path[:-1]))
        elif kind == "literal_error" and isinstance(item["input"], str):
            fix = did_you_mean(
                item["input"], re.findall(r"'([^']+)'", item.get("ctx", {}).get("expected", ""))
            )
        elif kind == "string_type" and isinstance(item["input"], int | float | date):
            fix = "put it in quotes: without them it is no text in YAML"
        elif kind in ("missing", "string_pattern_mismatch"):
            fix = _description(model, path)
            if fix and kind != "missing":
                problem = "malformed"
        field = ".".join(str(part) for part in path)
        lines.append(str(BadInput(f"{problem}{got}", file=file, field=field, fix=fix)))
    return BadInput("\n".join(lines))
