"""The platform goes, to the last object and volume, and comes again: the last test of all.

What it leaves is a platform without a model: `slipway up` trains the first one again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from slipway import cluster, paths, pulumi, up

from .conftest import document, until

Object = tuple[str, str, str]
# What a bare cluster of kubeadm has by itself, by kind; any name, where there is none.
BARE = {
    "APIService": r"v\d\w*\.(|\S+\.k8s\.io|apps|autoscaling|batch|policy)",
    "CSINode": "slipway",
    "CertificateSigningRequest": "",
    "ClusterRole": r"system:\S+|kubeadm:\S+|admin|cluster-admin|edit|view|network-policies",
    "ClusterRoleBinding": r"system:\S+|kubeadm:\S+|cluster-admin|network-policies",
    "ComponentStatus": "",
    "FlowSchema": "",
    "IPAddress": "",
    "Namespace": r"default|kube-(system|public|node-lease)",
    "Node": "slipway",
    "PriorityClass": r"system-\S+",
    "PriorityLevelConfiguration": "",
    "ServiceCIDR": "",
}
SETTINGS = ("--yes", "--skip-preview", "--non-interactive")


def in_state(exported: str) -> set[Object]:
    """The Kubernetes objects that Pulumi's state has, but for those that it only reads."""
    resources: list[Any] = json.loads(exported)["deployment"]["resources"]
    made = [r for r in resources if not r.get("external")]
    objects = [r["outputs"] for r in made if r["type"].startswith("kubernetes:")]
    return {(o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]) for o in objects}


def there() -> set[Object]:
    """Every object of the cluster."""
    kinds = cluster.kubectl("api-resources", "--verbs=list", "--output=name").split()
    wanted = ",".join(k for k in kinds if not k.startswith(("events", "leases")))
    items = json.loads(cluster.kubectl("get", wanted, "--all-namespaces", "-o", "json"))["items"]
    return {(i["kind"], i["metadata"].get("namespace", ""), i["metadata"]["name"]) for i in items}


def left(found: set[Object], ours: set[Object]) -> set[Object]:
    """What of `found` the platform, or somebody on it, made: all that no bare cluster has."""

    def is_bare(kind: str, namespace: str, name: str) -> bool:
        if namespace:
            made = any(name.startswith(n) for _, where, n in ours if where == namespace)
            return not made and bool(re.fullmatch(BARE["Namespace"], namespace))
        return kind in BARE and bool(re.fullmatch(BARE[kind] or ".*", name))

    return {thing for thing in found if not is_bare(*thing)}


def test_everything_goes_and_comes_again(slipway: Callable[..., str]) -> None:
    if pulumi.known("simulated").types:
        slipway("pulumi", "destroy", "--stack", "simulated", *SETTINGS)
    ours = in_state(slipway("pulumi", "stack", "export"))
    assert len(ours) > 200
    assert ours <= there()
    slipway("pulumi", "destroy", *SETTINGS)
    found = left(there(), ours)
    assert found == set()
    assert list((paths.data() / "volumes").iterdir()) == []
    assert document("doctor", "--leftovers")["leftovers"] == []
    slipway("pulumi", "up", *SETTINGS)
    until(up.all_ready, 180, "not every pod is ready")
    assert ours <= there()
