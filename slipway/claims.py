"""What a stack is to make on a cluster and somebody else has made: nothing is taken over."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from slipway.endpoints import Cluster, part, parts

# How many are named; the rest are counted.
NAMED = 10


@dataclass(frozen=True)
class Object:
    """An object of the cluster by its name; `namespace` is empty where it is in none."""

    api: str
    kind: str
    name: str
    namespace: str = ""

    @classmethod
    def of(cls, inputs: Any) -> Object | None:
        """The one that a resource's inputs declare; None where they declare no object, or name
        none."""
        metadata = part(inputs, "metadata")
        found = (part(inputs, "apiVersion"), part(inputs, "kind"), part(metadata, "name"))
        if not all(isinstance(value, str) for value in found):
            return None
        namespace = part(metadata, "namespace")
        return cls(*found, namespace if isinstance(namespace, str) else "")

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


def taken(
    platform: Cluster, wanted: Iterable[Object], ours: Collection[str | Object]
) -> list[Object]:
    """Those of `wanted` that are there, made by another.

    Of what is within a namespace that is wanted too, the namespace tells.

    Args:
        ours: UIDs of what a state has made, and what it had begun to make.
    """
    wanted = dict.fromkeys(wanted)
    made = {one.name for one in wanted if one.kind == "Namespace"}
    kinds: dict[str, dict[str, str]] = {}
    found: list[Object] = []
    for one in wanted:
        if one.namespace in made or one in ours:
            continue
        if one.api not in kinds:
            kinds[one.api] = _kinds(platform, one.api)
        if plural := kinds[one.api].get(one.kind):
            within = f"/namespaces/{one.namespace}" if one.namespace else ""
            live = platform.find(f"{_root(one.api)}{within}/{plural}/{one.name}")
            if live and part(live, "metadata", "uid") not in ours:
                found.append(one)
    return found


def _root(api: str) -> str:
    return f"/apis/{api}" if "/" in api else f"/api/{api}"


def _kinds(platform: Cluster, api: str) -> dict[str, str]:
    """What the kinds of an API version are called in paths; none where there is no such version."""
    listed = parts(platform.find(_root(api)), "resources")
    return {one["kind"]: one["name"] for one in listed if "/" not in one["name"]}


def told(found: list[Object]) -> str:
    more = f" and {len(found) - NAMED} more" if found[NAMED:] else ""
    return ", ".join(map(str, found[:NAMED])) + more
