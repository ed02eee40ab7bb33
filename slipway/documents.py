"""YAML that is data: read strictly into a model, or refused with file, field and fix."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import ValidationError

from slipway import digests
from slipway.errors import BadInput, did_you_mean, from_validation
from slipway.release import Strict, parse_yaml

# What a stack sets, and what Pulumi itself writes beside it.
STACK_KEYS = {*("config", "environment", "secretsprovider", "encryptedkey", "encryptionsalt")}
Model = TypeVar("Model", bound=Strict)


def parse(kind: type[Model], text: str | bytes, file: Path | str) -> Model:
    """A document as its model.

    Raises:
        BadInput: it is not YAML, or not what the model allows.
    """
    document = _plain(parse_yaml(text, file))
    try:
        # As JSON: only from there may a strict model take text for a date and a list for a tuple.
        return kind.model_validate_json(digests.canonical_json(document))
    except ValidationError as error:
        raise from_validation(error, kind, file) from None
    except ValueError as error:
        raise BadInput(f"not what JSON can say: {error}", file=file) from None


def parse_stack(text: str | bytes, file: Path | str) -> dict[str, Any]:
    """A stack file. What its values may be is the program's to say.

    Raises:
        BadInput: it is not YAML, has a key that Pulumi would pass over, or no configuration.
    """
    document = parse_yaml(text, file)
    if not isinstance(document.get("config"), dict):
        raise BadInput("a mapping of keys to values is needed", file=file, field="config")
    for key in document:
        if key not in STACK_KEYS:
            fix = did_you_mean(str(key), STACK_KEYS)
            raise BadInput("unknown key", file=file, field=str(key), fix=fix)
    return document


def with_setting(text: str, key: str, value: Any, file: Path | str) -> str:
    """A stack file's text with this value under `config`, and else as it was, comments included.

    Raises:
        BadInput: its `config` is on one line.
    """
    root = cast("Any", yaml.compose(text, Loader=yaml.SafeLoader))
    config = next(found for name, found in root.value if name.value == "config")
    line = f"{key}: {yaml.safe_dump(value, default_flow_style=True, width=10**6).strip()}"
    if config.flow_style:
        fix = f"write each key on a line of its own; then add {line}"
        raise BadInput("has all its keys on one line", file=file, field="config", fix=fix)
    for name, found in config.value:
        if name.value == key:
            return text[: name.start_mark.index] + line + text[_end(found) :]
    start = config.start_mark
    return f"{text[: start.index]}{line}\n{' ' * start.column}{text[start.index :]}"


def _end(node: Any) -> int:
    """Where a value's text ends; a block's own mark is where the next thing begins."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last: Any = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return cast("Any", node).end_mark.index


def _plain(value: Any) -> Any:
    """YAML as JSON has it: a date is text again, whether it stood in quotes or not."""
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value)
        return {str(key): _plain(item) for key, item in items.items()}
    if isinstance(value, list):
        return [_plain(item) for item in cast("list[Any]", value)]
    return value.isoformat() if isinstance(value, date) else value
