"""What parts of the platform do that no flow of a model asks for."""

from __future__ import annotations

from typing import Any

import httpx

from slipway import training
from slipway.endpoints import Cluster, part, parts

from .conftest import sweep, until

METRICS = "/apis/metrics.k8s.io/v1beta1"


def test_a_workflow_that_is_gone_is_in_the_archive(platform: Cluster) -> None:
    """As who looks at Argo's console sees it; it is kept in PostgreSQL."""
    where = f"{training.API}/workflows/{sweep(platform)}"
    uid = part(platform.find(where), "metadata", "uid")
    token = platform.secret("argo", "console-token")["token"]
    with (
        platform.service("argo", "argo-server") as url,
        httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, trust_env=False
        ) as console,
    ):

        def archived() -> Any:
            answer = console.get(f"/api/v1/archived-workflows/{uid}")
            return answer.json() if answer.is_success else None

        until(archived, 60, "it is not archived")
        platform.delete(where)
        until(lambda: platform.find(where) is None, 60, "it is still there")
        kept = archived()
    assert part(kept, "status", "phase") == "Succeeded"
    assert part(kept, "spec", "workflowTemplateRef", "name") == "sweep"


def test_what_nodes_and_pods_use_is_known(platform: Cluster) -> None:
    """By it pods are scaled; `kubectl top` shows it."""

    def used(item: Any) -> bool:
        return all(str(part(item, "usage", what)).strip("0num") for what in ("cpu", "memory"))

    until(lambda: platform.items(f"{METRICS}/nodes"), 120, "no node has metrics")
    assert all(used(node) for node in platform.items(f"{METRICS}/nodes"))
    [pod] = until(
        lambda: platform.items(
            f"{METRICS}/namespaces/storage/pods", labelSelector="app.kubernetes.io/name=postgres"
        ),
        120,
        "PostgreSQL's pod has no metrics",
    )
    assert all(used(container) for container in parts(pod, "containers"))
