"""The platform goes, to the last object and volume, and its secrets with it; from a backup it comes
again as it was."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

from slipway import cluster, paths, pulumi, up
from slipway.endpoints import Cluster
from slipway.lineage import MLflow

from .conftest import ENV, MODEL, document, until

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


def seen() -> dict[str, Any]:
    """What must be the same afterwards: what is released and answers, and how it came to be."""
    rows = document("status")
    places = [(row["model"], row["environment"]) for row in rows if row["version"]]
    trace = document("trace", MODEL, "--env", ENV)
    platform = Cluster.connect()
    with platform.forge(administrator=True) as forge, platform.mlflow() as url:
        merged = [pull for pull in forge.pulls("all") if pull.merged]
        versions = MLflow(url).get("model-versions/search")["model_versions"]
        for version in versions:  # whose tags come in the order in which the database has them
            version["tags"].sort(key=itemgetter("key"))
        versions.sort(key=itemgetter("name", "version"))
        return {
            "status": {
                (row["model"], row["environment"]): (row["version"], row["bento"], row["answers"])
                for row in rows
                if row["version"]
            },
            "trace": [(link["what"], link["value"], link["ok"]) for link in trace],
            "history": {
                place: document("history", place[0], "--env", place[1]) for place in places
            },
            "merged": merged,
            "comments": {pull.number: forge.comments(pull.number) for pull in merged},
            "approvals": {pull.number: forge.reviews(pull.number) for pull in merged},
            "versions": versions,
            "runs": {
                v["run_id"]: MLflow(url).get("runs/get", run_id=v["run_id"]) for v in versions
            },
        }


@contextmanager
def damaged(file: Path, change: Callable[[bytes], bytes]) -> Iterator[None]:
    """A file of a backup is another for a while."""
    content = file.read_bytes()
    file.write_bytes(change(content))
    yield
    file.write_bytes(content)


def test_everything_goes_and_comes_again(slipway: Callable[..., str], tmp_path: Path) -> None:
    if pulumi.known("simulated").types:
        slipway("pulumi", "destroy", "--stack", "simulated", *SETTINGS)
    place, passphrase = tmp_path / "backups", tmp_path / "passphrase"
    before = seen()
    assert before["status"][MODEL, ENV]
    assert all(ok for _, _, ok in before["trace"])
    taken = document("backup", str(place))
    assert taken["counts"]["releases"] == len(before["status"])
    assert document("backups", str(place))[0]["name"] == taken["name"]
    # A second one copies next to nothing, and takes the place of the first.
    assert document("backup", str(place), "--keep", "1")["removed"] == [taken["name"]]
    [folder] = place.glob("2*")

    ours = in_state(slipway("pulumi", "stack", "export"))
    assert len(ours) > 200
    assert ours <= there()
    slipway("pulumi", "destroy", *SETTINGS)
    # As on another machine: what generated secrets there were is gone, but for what was kept.
    shutil.copy(pulumi.passphrase_file(), passphrase)
    shutil.move(pulumi.passphrase_file().parent, tmp_path / "pulumi")

    assert "no such file" in slipway("restore", str(place), code=2)
    restore = ("restore", str(place), "--passphrase-file", str(passphrase))
    with damaged(folder / "forge.tar", lambda content: content[:-1] + bytes([content[-1] ^ 1])):
        assert "missing or damaged: " in slipway(*restore, code=2)
    objects = [file for file in (place / "objects").rglob("*") if file.is_file()]
    with damaged(max(objects, key=lambda file: file.stat().st_size), lambda content: content[:-1]):
        assert "missing or damaged: " in slipway(*restore, code=2)
    assert left(there(), ours) == set()
    assert list((paths.data() / "volumes").iterdir()) == []
    assert document("doctor", "--leftovers")["leftovers"] == []

    slipway(*restore)
    until(up.all_ready, 180, "not every pod is ready")
    assert ours <= there()
    after = seen()
    for what, was in before.items():
        assert after[what] == was, what
    assert "the platform has data of its own" in slipway(*restore, code=2)
