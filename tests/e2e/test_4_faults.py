"""Parts are killed while the platform works; what was asked for happens all the same."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable

import psutil

from slipway import cluster, serving, training, up
from slipway.endpoints import Cluster, ClusterError
from slipway.forge import Gitea

from .conftest import ENV, MODEL, released


def kill(*arguments: str) -> None:
    """Kills, by its process id, the one process of ours whose command line holds `arguments`."""
    found = list(cluster.our_processes(*arguments))
    assert len(found) == 1, found
    os.kill(found[0].pid, signal.SIGKILL)


def kill_api_server() -> None:
    kill("kube-apiserver", f"--advertise-address={cluster.addresses().node_ip}")


def wait_ready(platform: Cluster, seconds: float = 10) -> None:
    """Until all has been ready for so long: what the API server says of the pods is for a while
    what was so before the fault."""
    began = since = time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(1)
        ready = False
        with contextlib.suppress(ClusterError):
            ready = up.all_ready() and bool(serving.answering(platform, ENV, MODEL))
        since = since if ready else time.monotonic()
        assert time.monotonic() < began + 180, "the platform did not come back"


def test_a_killed_api_server_comes_back(platform: Cluster) -> None:
    kill_api_server()
    wait_ready(platform)


def test_a_killed_kubelet_comes_back(platform: Cluster) -> None:
    kill("--kubeconfig=/etc/kubernetes/kubelet.conf")
    wait_ready(platform)


def test_training_and_who_follows_it_outlive_what_it_needs_and_it_gives_the_same_bento(
    platform: Cluster, forge: Gitea
) -> None:
    """Of other code with the same inputs, so that it truly trains; MLflow, the engine and the API
    server die in the middle of it."""
    path, branch = f"bentos/{MODEL}/model.yaml", f"test/{secrets.token_hex(4)}"
    forge.write(branch, {path: forge.read(path) + f"\n# {branch}\n".encode()}, "Train anew")
    commit = forge.commit(branch)
    workflow = training.start(platform, MODEL, commit, ENV)
    faults: list[Callable[[], object]] = [
        lambda: cluster.kubectl("-n", "mlflow", "delete", "pod", "--all", "--force"),
        lambda: kill("--config", f"{cluster.paths.state()}/containerd.toml"),
        kill_api_server,
    ]
    waited: list[str] = []
    try:
        for seen in training.follow(platform, workflow.name, waited.append, every_s=0.5):
            begun = {s.name for s in seen.steps if s.phase == "Running"}
            if faults and begun & {"train", "evaluate"}:
                faults.pop(0)()
                # What follows is to find the API server away.
                time.sleep(5 if faults else 0)
            workflow = seen
    finally:
        forge.delete_branch(branch)
    assert not faults, "training was over before its faults"
    assert waited
    assert all(said.startswith("waiting for the API server") for said in waited)
    assert workflow.phase == "Succeeded", training.failure(platform, workflow)
    before = released(forge, ENV)
    assert before
    assert workflow.outputs["run"] != before.mlflow.run
    assert workflow.outputs["bento"] == before.bento.digest
    assert "has this bento" in workflow.outputs["note"]
    wait_ready(platform)


def test_supervised_processes_are_all_there_again() -> None:
    assert cluster.running() == dict.fromkeys(cluster.PROGRAMS, True)
    assert all(psutil.pid_exists(p.pid) for p in cluster.our_processes("serve"))
