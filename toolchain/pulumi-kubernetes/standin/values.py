"""Pulumi's property values on the wire (protobuf Struct) to Python values, and back.

Two things plain JSON lacks: `Secret` wraps a value that must never be shown or stored in the clear,
and `UNKNOWN` stands for a value that only an update will bring.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value

# The engine's markers, part of its protocol.
_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
_SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105
_OUTPUT: Final = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
_UNKNOWN_STRING: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
_UNKNOWNS: Final = frozenset(
    {
        _UNKNOWN_STRING,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # boolean
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # number
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # array
        "030794c1-ac77-496b-92df-f27374a8bd58",  # asset
        "e48ece36-62e2-4504-bad9-02848725956a",  # archive
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # object
    }
)

# The SDK's property names cannot hold dashes, so these differ between a program and a manifest.
_TO_MANIFEST: Final = {
    f"x_kubernetes_{word.replace('-', '_')}": f"x-kubernetes-{word}"
    for word in (
        "embedded-resource",
        "int-or-string",
        "list-map-keys",
        "list-type",
        "map-type",
        "preserve-unknown-fields",
        "validations",
    )
}
_TO_PROGRAM: Final = {dashed: underscored for underscored, dashed in _TO_MANIFEST.items()}

Object = dict[str, Any]


class Unknown:
    """The type of `UNKNOWN`."""

    def __repr__(self) -> str:
        return "<unknown>"


UNKNOWN: Final = Unknown()


class Secret:
    """A value that must stay secret; its text form shows nothing of it."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "[secret]"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.value == other.value

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def decode(struct: Struct) -> Object:
    """The properties, their keys as manifests have them, with `Secret` and `UNKNOWN` inside."""
    return {_TO_MANIFEST.get(k, k): _decode(v) for k, v in struct.fields.items()}


def _decode(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "string_value":
            return UNKNOWN if value.string_value in _UNKNOWNS else value.string_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [_decode(v) for v in value.list_value.values]
        case "struct_value":
            fields = value.struct_value.fields
            if _SIGNATURE not in fields:
                return decode(value.struct_value)
            signature = fields[_SIGNATURE].string_value
            inner = _decode(fields["value"]) if "value" in fields else UNKNOWN
            if signature == _SECRET:
                return inner if isinstance(inner, Secret) else Secret(inner)
            if signature == _OUTPUT:
                return Secret(inner) if fields["secret"].bool_value else inner
            raise ValueError("assets, archives and resources cannot be in a Kubernetes object")
        case _:
            return None


def encode(properties: Mapping[str, Any]) -> Struct:
    """The inverse of `decode`."""
    struct = Struct()
    for key, value in properties.items():
        _encode(value, struct.fields[_TO_PROGRAM.get(key, key)])
    return struct


def _encode(value: Any, into: Value) -> None:
    match value:
        case None:
            into.null_value = NULL_VALUE
        case bool():
            into.bool_value = value
        case str():
            into.string_value = value
        case int() | float():
            into.number_value = value
        case Unknown():
            into.string_value = _UNKNOWN_STRING
        case Secret():
            fields = into.struct_value.fields
            fields[_SIGNATURE].string_value = _SECRET
            _encode(value.value, fields["value"])
        case Mapping():
            into.struct_value.CopyFrom(encode(value))
        case _:
            into.list_value.SetInParent()
            for item in value:
                _encode(item, into.list_value.values.add())


def plain(value: Any) -> Any:
    """A copy without secret wrappers. Only for the API server and for comparing."""
    match value:
        case Secret():
            return plain(value.value)
        case dict():
            return {k: plain(v) for k, v in value.items()}
        case list():
            return [plain(v) for v in value]
        case _:
            return value


def without_nulls(value: Any) -> Any:
    """A copy in which null members of objects are absent, as they are to Kubernetes."""
    match value:
        case dict():
            return {k: without_nulls(v) for k, v in value.items() if v is not None}
        case list():
            return [without_nulls(v) for v in value]
        case _:
            return value


def has_unknown(value: Any) -> bool:
    """Whether `UNKNOWN` is anywhere inside."""
    match value:
        case Unknown():
            return True
        case Secret():
            return has_unknown(value.value)
        case dict():
            return any(has_unknown(v) for v in value.values())
        case list():
            return any(has_unknown(v) for v in value)
        case _:
            return False


def secret_texts(value: Any, inside: bool = False) -> Iterator[str]:
    """Every string that is, or lies inside, a secret."""
    match value:
        case Secret():
            yield from secret_texts(value.value, True)
        case dict():
            for member in value.values():
                yield from secret_texts(member, inside)
        case list():
            for member in value:
                yield from secret_texts(member, inside)
        case str() if inside:
            yield value
        case _:
            pass


def mark_secrets(target: Object, source: Mapping[str, Any]) -> Object:
    """Marks in `target` (in place; also returned) what is secret in `source`, at the same place.

    A list with a secret anywhere becomes a secret as a whole: its members may have moved. What a
    Kubernetes Secret holds is secret whatever `source` says.
    """
    if target.get("kind") == "Secret":
        for key in ("data", "stringData"):
            if key in target and not isinstance(target[key], Secret):
                target[key] = Secret(plain(target[key]))
    for key, value in source.items():
        if key not in target or isinstance(target[key], Secret):
            continue
        if isinstance(value, dict) and isinstance(target[key], dict):
            mark_secrets(target[key], value)
        elif next(_secrets(value), None) is not None:
            target[key] = Secret(target[key])
    return target


def _secrets(value: Any) -> Iterator[Secret]:
    match value:
        case Secret():
            yield value
        case dict():
            for member in value.values():
                yield from _secrets(member)
        case list():
            for member in value:
                yield from _secrets(member)
        case _:
            pass
