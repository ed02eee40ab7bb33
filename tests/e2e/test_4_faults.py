"""Parts are killed while the platform works; what was asked for happens all the same."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable

import psutil

from slipway import cluster, serving, training
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


def wait_ready(platform: Cluster) -> None:
    deadline = time.monotonic() + 180
    while True:
        with contextlib.suppress(ClusterError):
            if cluster.is_up() and serving.answering(platform, ENV, MODEL):
                return
        assert time.monotonic() < deadline, "the platform did not come back"
        time.sleep(1)


def test_a_killed_api_server_comes_back(platform: Cluster) -> None:
    kill_api_server()
    time.sleep(1)
    wait_ready(platform)


def test_a_killed_kubelet_comes_back(platform: Cluster) -> None:
    kill("--kubeconfig=/etc/kubernetes/kubelet.conf")
    time.sleep(1)
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
