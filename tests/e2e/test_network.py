"""Who reaches whom: what the network policies say is what connections do, from every pod to every
other. It looks out of each pod's own network, so nothing in the pod takes part. No other
machine reaches anything, whatever way it takes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from slipway import cluster, up
from slipway.bench.gpus import PODS, RESTRICTED
from slipway.endpoints import Cluster, part, parts
from slipway.release import ENVIRONMENTS

from .conftest import until

DNS, API = "kube-system/kube-dns:53", "default/kubernetes:443"
REDIS = "argocd/argocd-redis:6379"
ARGO_CD = {REDIS, "argocd/argocd-repo-server:8081"}
POSTGRES, MINIO, GITEA = "storage/postgres:5432", "storage/minio:9000", "forge/gitea:3000"
# Besides itself, and DNS, which all may ask. What Kubernetes itself brings is not listed.
REACHES: dict[str, set[str]] = {
    "argo/argo-server": {API, MINIO, POSTGRES},
    "argo/workflow-controller": {API, POSTGRES},
    "argocd/argocd-application-controller": {API, *ARGO_CD},
    "argocd/argocd-applicationset-controller": {API, *ARGO_CD},
    "argocd/argocd-redis": ARGO_CD - {REDIS},
    "argocd/argocd-repo-server": {GITEA, REDIS},
    "argocd/argocd-server": {API, *ARGO_CD},
    "forge/gitea": {POSTGRES, "argocd/argocd-server:8080", "argo/argo-server:2746"},
    "local-path-storage/local-path": {API},
    "mlflow/mlflow": {POSTGRES, MINIO},
    "storage/minio": set(),
    "storage/postgres": set(),
}
# Refused is reached: it is the other end that says no.
CONNECT = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def reached(target):
    host, port = target.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=4).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True

targets = sys.argv[1:]
with ThreadPoolExecutor(len(targets)) as pool:
    print(json.dumps([t for t, r in zip(targets, pool.map(reached, targets)) if r]))
"""


@pytest.fixture
def probe(platform: Cluster) -> Iterator[str]:
    """A pod beside the workflows' steps, which run what anybody has pushed."""
    image = platform.config("pipelines", "platform")["SERVING_IMAGE"]
    container = {
        "name": "probe",
        "image": image,
        "command": ["python", "-c", "import time; time.sleep(600)"],
        "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": RESTRICTED,
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "probe-"},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        },
    }
    name = part(platform.create(PODS, pod), "metadata", "name")
    try:
        yield f"{PODS}/{name}"
    finally:
        platform.delete(f"{PODS}/{name}")


def owner(pod: Any) -> str:
    """namespace/name of what made a pod."""
    metadata = pod["metadata"]
    hashed = f"-{part(metadata, 'labels', 'pod-template-hash')}"
    name = metadata.get("generateName", metadata["name"]).rstrip("-").removesuffix(hashed)
    return f"{metadata['namespace']}/{name}"


def clients(platform: Cluster) -> dict[str, str]:
    """IP of each pod that stays and has a network of its own -> what made it."""
    return {
        pod["status"]["podIP"]: owner(pod)
        for pod in platform.items("/api/v1/pods")
        if pod["status"]["phase"] == "Running"
        and not pod["spec"].get("hostNetwork")
        and not pod["metadata"].get("deletionTimestamp")
    }


def servers(platform: Cluster) -> dict[str, str]:
    """Address of each TCP port of a pod that a Service leads to -> namespace/service:port."""
    api = part(platform.find("/api/v1/namespaces/default/services/kubernetes"), "spec", "clusterIP")
    found = {f"{api}:443": API}
    for piece in platform.items("/apis/discovery.k8s.io/v1/endpointslices"):
        metadata = piece["metadata"]
        service = f"{metadata['namespace']}/{metadata['labels']['kubernetes.io/service-name']}"
        for endpoint in parts(piece, "endpoints"):
            if part(endpoint, "targetRef", "kind") == "Pod":
                found |= {
                    f"{endpoint['addresses'][0]}:{port['port']}": f"{service}:{port['port']}"
                    for port in parts(piece, "ports")
                    if port["protocol"] == "TCP"
                }
    return found


def connect(place: Path, targets: Iterable[str]) -> set[str]:
    """Which of these are reached from a network namespace."""
    command = ["nsenter", f"--net={place}", sys.executable, "-c", CONNECT, *targets]
    return set(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def test_who_reaches_whom(platform: Cluster, probe: str) -> None:
    until(up.all_ready, 180, "not every pod is ready")
    until(lambda: part(platform.find(probe), "status", "phase") == "Running", 60, "no probe")
    sources, targets = clients(platform), servers(platform)
    places = {ip: place for place, ip in cluster.network_namespaces().items()}

    def reached(source: str) -> set[str]:
        others = {t for t in connect(places[source], targets) if not t.startswith(f"{source}:")}
        return {targets[target] for target in others} - {DNS}

    models = {name for name in targets.values() if name.split("/")[0] in ENVIRONMENTS}
    expected = REACHES | {name.partition(":")[0]: {MINIO} for name in models}
    expected["pipelines/probe"] = {API, MINIO, GITEA, "mlflow/mlflow:5000", *models}
    chosen = [ip for ip, name in sources.items() if name in expected]
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip((sources[ip] for ip in chosen), pool.map(reached, chosen), strict=True))
    assert found == expected


# --- other machines ---------------------------------------------------------------------------


HERE, THERE = "203.0.113.1", "203.0.113.2"  # of TEST-NET-3, which nobody has
HERE_6, THERE_6 = "2001:db8::1", "2001:db8::2"


def has_ipv6() -> bool:
    file = Path("/proc/net/if_inet6")
    return file.exists() and bool(file.read_text())


@pytest.fixture
def neighbour() -> Iterator[Path]:
    """The network of a machine that is joined to this one by a wire and nothing else, and sends by
    way of it all that is for pods, services, and even this machine's loopback."""
    name, wire = "slipway-neighbour", "neighbour0"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    def there(*arguments: str) -> None:
        ip("-netns", name, *arguments)

    a = cluster.addresses()
    try:
        ip("netns", "add", name)
        ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("address", "add", f"{HERE}/30", "dev", wire)
        there("address", "add", f"{THERE}/30", "dev", "eth0")
        if has_ipv6():
            ip("address", "add", f"{HERE_6}/64", "dev", wire, "nodad")
            there("address", "add", f"{THERE_6}/64", "dev", "eth0", "nodad")
        ip("link", "set", wire, "up")
        there("link", "set", "eth0", "up")
        for network in (str(a.pod_subnet), str(a.service_subnet), "127.0.0.0/8"):
            there("route", "add", network, "via", HERE)
        loopback = "/proc/sys/net/ipv4/conf/all/route_localnet"
        ip("netns", "exec", name, "sh", "-c", f"echo 1 > {loopback}")
        yield Path("/run/netns", name)
    finally:
        for what in (["link", "delete", wire], ["netns", "delete", name]):
            subprocess.run(["ip", *what], check=False)


def test_no_other_machine_reaches_the_platform(platform: Cluster, neighbour: Path) -> None:
    """Nor does it where MLflow, which asks for no login, listens; this machine itself does."""
    mlflow = part(platform.find("/api/v1/namespaces/mlflow/services/mlflow"), "spec")
    [port] = parts(mlflow, "ports")
    [pod] = [at for at, name in servers(platform).items() if name == "mlflow/mlflow:5000"]
    api = part(platform.find("/api/v1/namespaces/default/services/kubernetes"), "spec", "clusterIP")
    a = cluster.addresses()
    targets = {
        *(pod, f"{mlflow['clusterIP']}:{port['port']}", f"127.0.0.1:{port['nodePort']}"),
        *(f"{api}:443", f"{a.node_ip}:2379"),
        *(
            f"{address}:{listener}"
            for address in (str(a.node_ip), HERE, *([HERE_6] if has_ipv6() else []))
            for listener in (a.api_port, *cluster.LISTENERS.values())
        ),
    }
    with socket.create_server((HERE, 0)) as other:
        anybody = f"{HERE}:{other.getsockname()[1]}"  # what is not of the platform stays as it was
        assert connect(Path("/proc/self/ns/net"), [*targets, anybody]) == {*targets, anybody}
        assert connect(neighbour, [*targets, anybody]) == {anybody}
