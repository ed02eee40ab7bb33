"""What rules look at: the resources of a stack as they are about to be made, as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast


class Unknown:
    """A value that only an update will tell. Rules do not judge it."""

    def __repr__(self) -> str:
        return "(not known yet)"


UNKNOWN: Final = Unknown()


def at(value: Any, *path: str | int) -> Any:
    """The value under `path`; None where there is none, UNKNOWN where that is not known yet."""
    for part in path:
        if value is UNKNOWN:
            return UNKNOWN
        if isinstance(value, Mapping):
            value = cast("Mapping[Any, Any]", value).get(part)
        elif isinstance(value, Sequence) and isinstance(part, int) and not isinstance(value, str):
            items = cast("Sequence[Any]", value)
            value = items[part] if part < len(items) else None
        else:
            return None
    return value


def each(value: Any) -> list[Any]:
    """The items of a list; none where the value is not one, or not known yet."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(cast("Sequence[Any]", value))
    return []


def texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a value, and where it stands, e.g. spec.containers[0].image."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, item in cast("Mapping[str, Any]", value).items():
            yield from texts(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, Sequence):
        for index, item in enumerate(cast("Sequence[Any]", value)):
            yield from texts(item, f"{where}[{index}]")


@dataclass(frozen=True)
class Resource:
    """One resource.

    Args:
        type: Pulumi's token, e.g. aws:rds/instance:Instance.
        properties: its inputs, by the provider's names (camelCase).
        ids: what other resources' inputs hold to name it (id, ARN); none where not known.
        refers: property to the URNs of the resources that its value comes from.
        provider: the inputs of the provider that makes it.
    """

    type: str
    name: str
    properties: Mapping[str, Any] = field(default_factory=dict[str, Any])
    urn: str = ""
    ids: frozenset[str] = frozenset()
    refers: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    provider: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def get(self, *path: str | int) -> Any:
        return at(self.properties, *path)

    @property
    def aws(self) -> str:
        """What it is on AWS, e.g. rds/Instance; "" for all else."""
        provider, _, rest = self.type.partition(":")
        module, _, kind = rest.partition(":")
        return f"{module.partition('/')[0]}/{kind}" if provider == "aws" else ""

    @property
    def kind(self) -> str:
        """The kind of a Kubernetes object; "" for all else."""
        kubernetes = self.type.startswith("kubernetes:") and "apiVersion" in self.properties
        return str(self.get("kind")) if kubernetes else ""

    @property
    def namespace(self) -> str:
        return str(self.get("metadata", "namespace") or "")

    def names(self, property: str, other: Resource) -> bool:
        """Whether `other` is in the value of `property`, by its URN or one of its ids."""
        if other.urn in self.refers.get(property, ()):
            return True
        return any(text in other.ids for _, text in texts(self.get(property)))


@dataclass(frozen=True)
class Stack:
    """All resources that one program registers."""

    resources: Sequence[Resource]

    def on_aws(self, *what: str) -> Iterator[Resource]:
        return (r for r in self.resources if r.aws in what)

    def of_kind(self, *kinds: str) -> Iterator[Resource]:
        return (r for r in self.resources if r.kind in kinds)

    def naming(self, other: Resource, property: str, *what: str) -> Iterator[Resource]:
        """Resources on AWS whose `property` is `other`."""
        return (r for r in self.on_aws(*what) if r.names(property, other))
