"""What of a service's requests and answers is another, and whom it breaks."""

from __future__ import annotations

from typing import Any

import pytest

from slipway import interface
from slipway.evidence import Change

NUMBER: dict[str, Any] = {"type": "number"}
NULLABLE = {"anyOf": [NUMBER, {"type": "null"}]}
INTEGER: dict[str, Any] = {"type": "integer"}
STRING: dict[str, Any] = {"type": "string"}


def case(properties: dict[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), **more}


def content(schema: dict[str, Any], media: str = "application/json") -> dict[str, Any]:
    return {"content": {media: {"schema": schema}}}


def api(
    given: dict[str, Any],
    answered: dict[str, Any] = NUMBER,
    *,
    media: str = "application/json",
    **schemas: Any,
) -> dict[str, Any]:
    health = {"get": {"tags": ["Infrastructure"], "responses": {"200": {}}}}
    return {
        "paths": {
            "/livez": health,
            "/predict": {
                "post": {
                    "x-bentoml-name": "predict",
                    "requestBody": content(given, media),
                    "responses": {200: content(answered), 400: content(STRING)},
                }
            },
        },
        "components": {"schemas": schemas},
    }


def met(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    return interface.changes(interface.fields(before), interface.fields(after))


def field(schema: dict[str, Any], *required: str) -> dict[str, Any]:
    return case({"x": schema}, *required)


X = field(NUMBER, "x")
XY = case({"x": NUMBER, "y": STRING}, "x")
ENUM = {"enum": ["a", "b"], **STRING}
NESTED = {"example": case({"radius": NUMBER}, "radius")}

GIVEN: list[tuple[dict[str, Any], dict[str, Any], tuple[str, ...] | None]] = [
    (XY, XY, None),
    (XY, X, ("y", "removed", "string", "")),
    (X, XY, ("y", "added_optional", "", "string")),
    (X, case({"x": NUMBER, "y": STRING}, "x", "y"), ("y", "added_required", "", "string")),
    # A required part of what need not be sent.
    (X, case({"x": NUMBER} | NESTED, "x"), ("example", "added_optional", "", "object")),
    (case(NESTED), case({}), ("example", "removed", "object", "")),
    (field(NUMBER), X, ("x", "made_required", "number", "number")),
    (X, field(NUMBER), None),
    (X, field(STRING, "x"), ("x", "retyped", "number", "string")),
    (X, field(NULLABLE, "x"), None),
    (field(NULLABLE), field(NUMBER), ("x", "retyped", "number or null", "number")),
    (field(INTEGER), field(NUMBER), None),
    (field(NUMBER), field(INTEGER), ("x", "retyped", "number", "integer")),
    (field(NUMBER), field({}), None),
    (field({}), field(NUMBER), ("x", "retyped", "any", "number")),
    (
        field(STRING),
        field({"format": "date-time", **STRING}),
        ("x", "retyped", "string", "string date-time"),
    ),
    (field({"format": "date-time", **STRING}), field(STRING), None),
    (field({"minimum": 1, **NUMBER}), field({"minimum": 0, **NUMBER}), None),
    (field({"minimum": 1, **NUMBER}), field(NUMBER), None),
    (
        field({"minimum": 0, **NUMBER}),
        field({"minimum": 1, **NUMBER}),
        ("x", "narrowed", "minimum 0", "minimum 1"),
    ),
    (field(NUMBER), field({"maximum": 9, **NUMBER}), ("x", "narrowed", "", "maximum 9")),
    (
        field({"minimum": 0, **NUMBER}),
        field({"exclusiveMinimum": 0, **NUMBER}),
        ("x", "narrowed", "minimum 0", "exclusiveMinimum 0"),
    ),
    (field({"exclusiveMinimum": 0, **NUMBER}), field({"minimum": 0, **NUMBER}), None),
    (
        field({"anyOf": [{"maximum": 9, **NUMBER}, {"type": "null"}]}),
        field({"anyOf": [{"maximum": 5, **NUMBER}, {"type": "null"}]}),
        ("x", "narrowed", "maximum 9", "maximum 5"),
    ),
    (
        field({"pattern": "^a$", **STRING}),
        field({"pattern": "^b$", **STRING}),
        ("x", "narrowed", "pattern ^a$", "pattern ^b$"),
    ),
    (field(ENUM), field(ENUM | {"enum": ["c", "b", "a"]}), None),
    (field(ENUM), field({"const": "a", **STRING}), ("x", "narrowed", '"a", "b"', '"a"')),
    (field(ENUM), field(STRING), None),
    (X, X | {"additionalProperties": False}, ("", "narrowed", "", "nothing else")),
    (
        field({"type": "array", "items": NUMBER}),
        field({"type": "array", "items": STRING}),
        ("x[]", "retyped", "number", "string"),
    ),
]


@pytest.mark.parametrize(("before", "after", "change"), GIVEN)
def test_what_is_sent(
    before: dict[str, Any], after: dict[str, Any], change: tuple[str, ...] | None
) -> None:
    found = [(c.name, c.kind, c.before, c.after) for c in met(api(before), api(after))]
    assert found == ([(f"/predict {change[0]}".rstrip(), *change[1:])] if change else [])


ANSWERED: list[tuple[dict[str, Any], dict[str, Any], tuple[str, ...] | None]] = [
    (XY, X, ("y", "removed", "string", "")),
    (X, case({"x": NUMBER, "y": STRING}, "x", "y"), ("y", "added_optional", "", "string")),
    (X, field(NULLABLE, "x"), ("x", "retyped", "number", "number or null")),
    (field(NULLABLE, "x"), X, None),
    (X, field(INTEGER, "x"), None),
    (field(INTEGER), field(NUMBER), ("x", "retyped", "integer", "number")),
    (X, field(NUMBER), None),
    (field(NUMBER), X, None),
    (field({"maximum": 1, **NUMBER}), field({"maximum": 0.5, **NUMBER}), None),
    (
        field({"maximum": 1, **NUMBER}),
        field({"maximum": 100, **NUMBER}),
        ("x", "widened", "maximum 1", "maximum 100"),
    ),
    (field(ENUM), field(ENUM | {"enum": ["a"]}), None),
    (X | {"additionalProperties": False}, X, None),
]


@pytest.mark.parametrize(("before", "after", "change"), ANSWERED)
def test_what_is_answered(
    before: dict[str, Any], after: dict[str, Any], change: tuple[str, ...] | None
) -> None:
    found = [(c.name, c.kind, c.before, c.after) for c in met(api(X, before), api(X, after))]
    assert found == ([(f"output /predict {change[0]}", *change[1:])] if change else [])


def test_only_what_asks_nothing_of_a_caller_breaks_none() -> None:
    kinds = {c[1] for *_, c in GIVEN + ANSWERED if c}
    broken = {k for k in kinds if Change.model_validate({"name": "x", "kind": k}).breaks}
    assert broken == kinds - {"added_optional"}


def test_a_route_is_new_or_gone_as_a_whole() -> None:
    one, none = api(case(NESTED, "example")), api(X)
    del none["paths"]["/predict"]
    (gone,), (new,) = met(one, none), met(none, one)
    assert (gone.name, gone.kind, gone.before) == ("/predict", "removed", "object")
    assert (new.name, new.kind) == ("/predict", "added_optional")


def test_another_media_type_is_another_type() -> None:
    (found,) = met(api(X), api(X, media="multipart/form-data"))
    assert (found.name, found.kind, found.after) == (
        *("/predict", "retyped"),
        "object multipart/form-data",
    )


def test_references_are_followed_and_end() -> None:
    node = case({"value": NUMBER, "next": {"anyOf": [{"$ref": "#/components/schemas/Node"}]}})
    found = interface.fields(api(field({"$ref": "#/components/schemas/Node"}), Node=node))
    assert [n for n in found if not n.startswith("output")] == [
        *("/predict", "/predict x", "/predict x.value", "/predict x.next")
    ]


def test_bentomls_components_know_of_null_where_its_routes_do_not() -> None:
    whole = field(NULLABLE, "x") | {"title": "predict__Input"}
    found = interface.fields(api(X | {"title": "Input"}, predict__Input=whole))
    assert str(found["/predict x"]) == "number or null"
    other = interface.fields(api(X | {"title": "Input"}, predict__Input=XY))
    assert set(other) == {"/predict", "/predict x", "output /predict"}


def test_alternatives_are_told_together() -> None:
    """Of a union of objects what all require is required, and what all refuse refused."""
    one = case({"kind": {"const": "a", **STRING}, "a": NUMBER}, "kind", "a")
    two = case({"kind": {"const": "b", **STRING}}, "kind")
    found = interface.fields(api(field({"oneOf": [one, two]})))
    assert found["/predict x.kind"].required
    assert not found["/predict x.a"].required
    assert found["/predict x.kind"].types == {"string": {}}
