"""On destroy, ends what is in a queue while Kueue can still let go of it.

Kueue holds on to pods and workloads by finalizers. Once it has gone, nobody removes those, and
neither they nor their definitions could ever be deleted.
"""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult


class DrainedProvider(ResourceProvider):
    """Makes nothing; deleting it deletes the pods that Kueue holds on to, and waits."""

    wait_seconds, poll_seconds = 300, 0.5

    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult("drained", dict(props))

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        # An edit of this very file changes the serialized provider; it must not replace it.
        return DiffResult(changes=_olds["kubeconfig"] != _news["kubeconfig"])

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(dict(_news))

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        import os
        import tempfile

        from slipway.endpoints import Cluster

        given = str(_props["kubeconfig"])
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(given)
            file.flush()
            os.environ["KUBECONFIG"] = given if os.path.exists(given) else file.name
            self.drain(Cluster.connect())

    def drain(self, cluster: Any) -> None:
        """Deletes queued pods until there is none, and no workload.

        Args:
            cluster: a `slipway.endpoints.Cluster`.

        Raises:
            RuntimeError: something still is there after `wait_seconds`; it is named.
        """
        import time

        workloads = "/apis/kueue.x-k8s.io/v1beta1"
        end = time.monotonic() + self.wait_seconds
        while True:
            found = [
                (f"{api}/namespaces/{m['namespace']}/{kind}/{m['name']}", "deletionTimestamp" in m)
                for api, kind, query in (
                    ("/api/v1", "pods", {"labelSelector": "kueue.x-k8s.io/managed=true"}),
                    (workloads, "workloads", {}),
                )
                for m in (item["metadata"] for item in cluster.items(f"{api}/{kind}", **query))
            ]
            if not found:
                return
            if time.monotonic() >= end:
                paths = ", ".join(path for path, _ in found[:5])
                raise RuntimeError(
                    f"{len(found)} still in a queue, such as {paths}\n  fix: end the workflows "
                    "that make them, or see why they do not end; then destroy again"
                )
            for path, ends in found:
                if not ends:
                    cluster.delete(path)
            time.sleep(self.poll_seconds)


# Pickled by value, not by name: the process that runs the provider cannot import this package.
DrainedProvider.__module__ = "__main__"


class Drained(Resource, name="Drained"):
    """Nothing, until it is deleted: then queues are emptied."""

    def __init__(
        self,
        name: str,
        kubeconfig: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(DrainedProvider(), name, {"kubeconfig": kubeconfig}, opts)
