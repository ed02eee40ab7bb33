"""What callers of a bento send and get, and what of it is another between two bentos.

Read from `apis/openapi.yaml`, which BentoML writes when it builds. Its schemas in `bento.yaml`
will not do: of alternatives they keep the first, so that none of them says `null`.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from slipway import store
from slipway.errors import SlipwayError
from slipway.evidence import Change

FILE = "apis/openapi.yaml"
# Keyword to what it bounds, and the sign that makes the greater the narrower.
BOUNDS = {
    "minimum": ("minimum", 1),
    "exclusiveMinimum": ("minimum", 1),
    "maximum": ("maximum", -1),
    "exclusiveMaximum": ("maximum", -1),
    **{f"min{what}": (f"min{what}", 1) for what in ("Length", "Items", "Properties")},
    **{f"max{what}": (f"max{what}", -1) for what in ("Length", "Items", "Properties")},
}
OTHER_LIMITS = ("pattern", "multipleOf", "uniqueItems", "dtype", "shape")

# Keyword to what values are compared by (`_allows`), and how it is said.
Limits = dict[str, tuple[Any, str]]
Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Field:
    """A place in a request or an answer: the JSON types that may be there, each with its limits.

    `inside` names the field that it is a part of; a route's request is inside nothing.
    """

    types: dict[str, Limits]
    required: bool = False
    inside: str = ""
    output: bool = False

    def __str__(self) -> str:
        return " or ".join(self.types)


def read(bento: bytes, where: str) -> dict[str, Field]:
    """The fields of a bento, by name; `where` says in errors which bento it is."""
    try:
        return fields(yaml.safe_load(store.untar(bento)[FILE]))
    except (
        *(AttributeError, KeyError, RecursionError, TypeError, ValueError),
        *(tarfile.TarError, yaml.YAMLError),
    ) as error:
        raise SlipwayError(
            f"{where}: what its callers send and get is not to be read from {FILE}: {error!r}",
            fix="release a bento that the package step has built: run the model's workflow again",
        ) from None


def fields(document: Schema) -> dict[str, Field]:
    """The fields of every route of an OpenAPI document but those for health and metrics.

    `/predict flight.carrier` and `output /predict probability_late`; `[]` are items, `[0]` those
    of a tuple, `*` the values under any other key. `/predict` is its request as a whole.
    """
    found: dict[str, Field] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "Infrastructure" in operation.get("tags", ()):
                continue
            route = path if method == "post" else f"{method.upper()} {path}"
            answers = {str(status): answer for status, answer in operation["responses"].items()}
            for root, body in (
                (route, operation.get("requestBody", {})),
                (f"output {route}", answers.get("200", {})),
            ):
                schemas = [
                    (_whole(document, operation, content["schema"]) | {"media": media}, ())
                    for media, content in body.get("content", {}).items()
                ]
                _add(found, document, root, "", schemas, "" if root == route else route)
            for one in operation.get("parameters", ()):
                needed = one.get("required", False)
                _add(
                    found, document, route, f"?{one['name']}", [(one["schema"], ())], route, needed
                )
    return found


def _whole(document: Schema, operation: Schema, schema: Schema) -> dict[str, Any]:
    """The schema as the components have it: BentoML leaves alternatives out where it is used."""
    name = str(schema.get("title", ""))
    if name == "Input":
        name = f"{operation.get('x-bentoml-name', '')}__Input"
    whole = document.get("components", {}).get("schemas", {}).get(name, schema)
    same = whole.get("properties", {}).keys() == schema.get("properties", {}).keys()
    return dict(whole if same else schema)


def _add(
    found: dict[str, Field],
    document: Schema,
    root: str,
    path: str,
    schemas: Sequence[tuple[Schema, tuple[str, ...]]],
    inside: str,
    required: bool = False,
) -> None:
    """Adds the field whose alternatives the schemas are, and all that are in it.

    Beside each schema are the references that led to it: one that is its own part ends there.
    """
    name = f"{root} {path}".rstrip()
    cases = [case for schema, seen in schemas for case in _cases(document, schema, seen)]
    types: dict[str, Limits] = {}
    for case, _ in cases:
        for kind in _kinds(case):
            limits = _limits(case)
            types[kind] = _either(types[kind], limits) if kind in types else limits
    found[name] = Field(types, required, inside, root.startswith("output "))
    parts: dict[str, list[tuple[Schema, tuple[str, ...]]]] = {}
    objects = [case for case, _ in cases if "properties" in case]
    needed = {
        f"{path}.{key}".lstrip(".")
        for key in (objects[0].get("required", ()) if objects else ())
        if all(key in case.get("required", ()) for case in objects)
    }
    for case, seen in cases:
        inner = {
            f"{path}.{key}".lstrip("."): part for key, part in case.get("properties", {}).items()
        }
        inner |= {f"{path}[{i}]": part for i, part in enumerate(case.get("prefixItems", ()))}
        for key, part in (
            (f"{path}[]", "items"),
            (f"{path}.*".lstrip("."), "additionalProperties"),
        ):
            if isinstance(case.get(part), dict):
                inner[key] = case[part]
        for key, part in inner.items():
            parts.setdefault(key, []).append((part, seen))
    for key, alternatives in parts.items():
        _add(found, document, root, key, alternatives, name, key in needed)


def _cases(
    document: Schema, schema: Schema, seen: tuple[str, ...]
) -> Iterator[tuple[Schema, tuple[str, ...]]]:
    """The alternatives of a schema, references resolved."""
    while "$ref" in schema or "allOf" in schema:
        parts: list[Schema] = [{k: v for k, v in schema.items() if k not in ("$ref", "allOf")}]
        parts += schema.get("allOf", ())
        if reference := schema.get("$ref"):
            if reference in seen:
                yield {"type": "object"}, seen
                return
            seen = (*seen, reference)
            target: Any = document
            for step in reference.removeprefix("#/").split("/"):
                target = target[step]
            parts.append(target)
        schema = {k: v for part in parts for k, v in part.items()}
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if alternatives is None:
        yield schema, seen
    for one in alternatives or ():
        yield from _cases(document, one, seen)


def _kinds(schema: Schema) -> list[str]:
    """`number`, `string date-time`, `any`; with its media type what is sent as other than JSON."""
    kinds = schema.get("type", "any")
    more = [schema.get("format", ""), schema.get("media", "").replace("application/json", "")]
    return [
        " ".join(filter(None, (k, *more))) for k in ([kinds] if isinstance(kinds, str) else kinds)
    ]


def _limits(schema: Schema) -> Limits:
    found: Limits = {}
    for key, (what, sign) in BOUNDS.items():
        if key in schema:
            found[what] = ((sign * schema[key], "exclusive" in key), f"{key} {schema[key]}")
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        said = [json.dumps(value) for value in values]
        found["enum"] = (frozenset(said), ", ".join(said))
    if schema.get("additionalProperties") is False:
        found["additionalProperties"] = ("false", "nothing else")
    return found | {k: (str(schema[k]), f"{k} {schema[k]}") for k in OTHER_LIMITS if k in schema}


def _allows(ours: Any, theirs: Any) -> bool:
    """Whether whatever keeps their limit keeps ours."""
    if isinstance(ours, frozenset):
        return bool(theirs <= ours)
    return bool(ours <= theirs) if isinstance(ours, tuple) else bool(ours == theirs)


def _either(one: Limits, other: Limits) -> Limits:
    """The limits that both have."""
    return {key: limit for key, limit in one.items() if other.get(key) == limit}


def changes(before: Mapping[str, Field], after: Mapping[str, Field]) -> list[Change]:
    """What a caller of `before` meets in `after`. What is new or gone is told as a whole."""
    found: list[Change] = []
    for name in sorted(before.keys() | after.keys()):
        inside = (after.get(name) or before[name]).inside
        if (inside in before) == (inside in after):
            change = _change(name, before.get(name), after.get(name))
            found += [change] if change else []
    return found


def _change(name: str, old: Field | None, new: Field | None) -> Change | None:
    if old is None or new is None:
        if new is None:
            return Change(name=name, kind="removed", before=str(old))
        # What is answered besides asks nothing of a caller.
        kind = "added_required" if new.required and not new.output else "added_optional"
        return Change(name=name, kind=kind, after=str(new))
    given, taken = (new, old) if new.output else (old, new)
    for kind, limits in given.types.items():
        takers = [
            taken.types[k]
            for k in (kind, kind.split()[0], *["number"] * (kind == "integer"), "any")
            if k in taken.types
        ]
        if not takers:
            return Change(name=name, kind="retyped", before=str(old), after=str(new))
        broken, taker = min(((_broken(limits, t, new.output), t) for t in takers), key=_count)
        if broken:
            sides = [", ".join(s[k][1] for k in broken if k in s) for s in (limits, taker)]
            if new.output:
                return Change(name=name, kind="widened", before=sides[1], after=sides[0])
            return Change(name=name, kind="narrowed", before=sides[0], after=sides[1])
    if new.required and not old.required and not new.output:
        return Change(name=name, kind="made_required", before=str(old), after=str(new))
    return None


def _count(found: tuple[list[str], Limits]) -> int:
    return len(found[0])


def _broken(given: Limits, taker: Limits, output: bool) -> list[str]:
    """The limits of `taker` that what keeps those of `given` may not keep."""
    return [
        key
        for key, (limit, _) in taker.items()
        if not (key in given and _allows(limit, given[key][0]))
        # An answer with more in it asks nothing of a caller.
        and not (output and key == "additionalProperties")
    ]
