"""That a destroy waits until the volumes of the embedded cluster have gone with their claims.

A claim goes with its namespace; its volume a little later, by the provisioner's hand. So this
resource stands between the provisioner and the namespaces that hold claims: it is removed after
them, before the provisioner, and only once none of their volumes is there any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult


class VolumesGoneProvider(ResourceProvider):
    """Makes nothing; deleting it waits."""

    wait_seconds, poll_seconds = 120, 0.25

    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult("volumes", dict(props))

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        # An edit of this very file changes the serialized provider; it must not replace it.
        return DiffResult(changes=list(_olds["namespaces"]) != list(_news["namespaces"]))

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(dict(_news))

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        import time

        end = time.monotonic() + self.wait_seconds
        while found := self.left(list(_props["namespaces"])):
            if time.monotonic() >= end:
                raise RuntimeError(
                    f"volumes without a claim are still there: {', '.join(found)}\n  fix: see why "
                    "by `kubectl -n local-path-storage logs deployment/local-path`, then destroy "
                    "again"
                )
            time.sleep(self.poll_seconds)

    def left(self, namespaces: list[str]) -> list[str]:
        """Names of the volumes whose claims are, or were, in these namespaces."""
        import json

        from slipway.cluster import kubectl

        volumes = json.loads(kubectl("get", "persistentvolumes", "-o", "json"))["items"]
        return [
            volume["metadata"]["name"]
            for volume in volumes
            if volume["spec"].get("claimRef", {}).get("namespace") in namespaces
        ]


# Pickled by value, not by name: the process that runs the provider cannot import this package.
VolumesGoneProvider.__module__ = "__main__"


class VolumesGone(Resource, name="VolumesGone"):
    """Nothing, until it is deleted: then it waits for the volumes of `namespaces` to have gone."""

    def __init__(
        self, name: str, namespaces: Sequence[str], opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(VolumesGoneProvider(), name, {"namespaces": sorted(namespaces)}, opts)
