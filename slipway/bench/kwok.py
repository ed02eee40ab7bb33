"""Nodes that are simulated: the API server, the scheduler and the controllers take them for real.

kwok plays their kubelets. No pod there runs anything; each is ready as soon as it is scheduled.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slipway import toolchain
from slipway.endpoints import Cluster, kubeconfig, parts
from slipway.errors import SlipwayError

LABEL = "slipway.dev/simulated"
NODES = "/api/v1/nodes"
PODS_EACH, PATIENCE_S = 250, 60.0
STAGES = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat/node-heartbeat.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
)
# Addresses that are set aside for benchmarks of networks, so that they are nobody's.
POD_ADDRESSES = "198.18.0.1/15"
# Nobody else's pods come to these nodes, and those that are meant for them go nowhere else.
PLACEMENT: dict[str, Any] = {
    "nodeSelector": {LABEL: "true"},
    "tolerations": [{"key": LABEL, "operator": "Exists"}],
}
# It ends with its standard input, so also when the bench is killed.
_WITH_INPUT = '"$@" & kwok=$!; read -r _; kill $kwok; wait $kwok'


@contextmanager
def running(folder: Path) -> Generator[Path, None, None]:
    """Runs kwok while the body runs; yields its log, which lies in `folder`.

    Raises:
        SlipwayError: it cannot be built.
    """
    log = folder / "kwok.log"
    stages = toolchain.files("kwok") / "kustomize" / "stage"
    command = [
        str(toolchain.binary("kwok")),
        f"--kubeconfig={kubeconfig()}",
        *(f"--config={stages / stage}" for stage in STAGES),
        "--manage-all-nodes=false",
        f"--manage-nodes-with-label-selector={LABEL}",
        f"--cidr={POD_ADDRESSES}",
        "--node-ip=127.0.0.1",
        # The nodes' status is heartbeat enough, and leaves no leases behind.
        "--node-lease-duration-seconds=0",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["sh", "-c", _WITH_INPUT, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            # Ctrl-C is for the bench, which needs kwok to clean up.
            start_new_session=True,
        )
        try:
            yield log
        finally:
            process.communicate()


def add(platform: Cluster, count: int, log: Path) -> None:
    """Adds so many nodes and waits until they are ready.

    Raises:
        SlipwayError: kwok does not make them ready.
    """
    for number in range(count):
        platform.create(NODES, node(f"simulated-{number + 1}"))
    deadline = time.monotonic() + PATIENCE_S
    while sum(map(is_ready, platform.items(NODES, labelSelector=LABEL))) < count:
        if time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-1000:]
            raise SlipwayError(f"simulated nodes do not become ready\n{said}", fix="try again")
        time.sleep(0.5)


def node(name: str) -> dict[str, Any]:
    """A node that is larger than what its pods can ask for."""
    resources = {"cpu": "1000", "memory": "4Ti", "pods": str(PODS_EACH)}
    labels = {
        LABEL: "true",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    }
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [{"key": LABEL, "effect": "NoSchedule"}]},
        "status": {"allocatable": resources, "capacity": resources},
    }


def remove(platform: Cluster) -> None:
    """Removes the nodes, and the pods that no kubelet will end any more."""
    nodes = [item["metadata"]["name"] for item in platform.items(NODES, labelSelector=LABEL)]
    for name in nodes:
        platform.delete(f"{NODES}/{name}")
    for name in nodes:
        for pod in platform.items("/api/v1/pods", fieldSelector=f"spec.nodeName={name}"):
            meta = pod["metadata"]
            path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
            platform.delete(path, gracePeriodSeconds="0")


def is_ready(item: dict[str, Any]) -> bool:
    """Whether a node or pod says that it is ready."""
    conditions = parts(item, "status", "conditions")
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
