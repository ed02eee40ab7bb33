"""The platform goes, to the last object and volume, and its secrets with it; from a backup it comes
again as it was. It is the last of all, so that what the others have taken away is there, too."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slipway import cluster, paths, pulumi

from .conftest import SETTINGS, document
from .kept import Kept

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


@contextmanager
def damaged(file: Path, change: Callable[[bytes], bytes]) -> Iterator[None]:
    """A file of a backup is another for a while."""
    content = file.read_bytes()
    file.write_bytes(change(content))
    yield
    file.write_bytes(content)


def test_everything_goes_and_comes_again(
    slipway: Callable[..., str], kept: Kept, tmp_path: Path
) -> None:
    if pulumi.known("simulated").types:
        slipway("pulumi", "destroy", "--stack", "simulated", *SETTINGS)
    ours = in_state(slipway("pulumi", "stack", "export"))
    assert len(ours) > 200
    assert ours <= there()
    kept.lost = True
    slipway("pulumi", "destroy", *SETTINGS)
    # As on another machine: what generated secrets there were is gone, but for what was kept.
    shutil.move(pulumi.passphrase_file().parent, tmp_path / "pulumi")

    assert "no such file" in slipway("restore", str(kept.place), code=2)
    [folder] = kept.place.glob("2*")
    with damaged(folder / "forge.tar", lambda content: content[:-1] + bytes([content[-1] ^ 1])):
        assert "missing or damaged: " in slipway(*kept.restore, code=2)
    objects = [file for file in (kept.place / "objects").rglob("*") if file.is_file()]
    with damaged(max(objects, key=lambda file: file.stat().st_size), lambda content: content[:-1]):
        assert "missing or damaged: " in slipway(*kept.restore, code=2)
    assert left(there(), ours) == set()
    assert list((paths.data() / "volumes").iterdir()) == []
    assert document("doctor", "--leftovers")["leftovers"] == []

    slipway(*kept.restore)
    kept.check()
    assert ours <= there()
    assert "the platform has data of its own" in slipway(*kept.restore, code=2)
