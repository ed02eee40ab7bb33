"""A real API server, the provider served as the engine would start it, and the engine itself."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pulumi  # noqa: F401 - whole, before the provider puts empty packages in its place
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
STAND_IN = REPOSITORY / "toolchain" / "pulumi-kubernetes"
sys.path[:0] = [str(REPOSITORY / "tests"), str(STAND_IN)]

import apiserver  # noqa: E402
from standin.api import Cluster  # noqa: E402
from standin.kubeconfig import Access, load  # noqa: E402
from standin.protocol import provider_pb2_grpc  # noqa: E402

from provider.harness import Client, Objects, Stack  # noqa: E402


@pytest.fixture(scope="package")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("apiserver")
    with apiserver.start_apiserver(folder, *apiserver.DELETION) as path:
        yield path


@pytest.fixture(scope="package")
def cluster(kubeconfig: Path) -> Cluster:
    return Cluster(Access.of(load(str(kubeconfig))))


@pytest.fixture
def objects(cluster: Cluster, request: pytest.FixtureRequest) -> Objects:
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:50].strip("-")
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    cluster.request("POST", "/api/v1/namespaces", body=body)
    return Objects(cluster, name)


@contextlib.contextmanager
def serve() -> Iterator[Client]:
    """A provider, started as the engine starts it."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "standin"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(STAND_IN), "KUBECONFIG": "/nowhere"},
        text=True,
    )
    assert process.stdout
    with grpc.insecure_channel(f"127.0.0.1:{process.stdout.readline().strip()}") as channel:
        yield Client(provider_pb2_grpc.ResourceProviderStub(channel))
    process.kill()
    process.wait()


@pytest.fixture
def unconfigured() -> Iterator[Client]:
    """A provider of the test's own."""
    with serve() as client:
        yield client


@pytest.fixture(scope="package")
def provider(kubeconfig: Path) -> Iterator[Client]:
    with serve() as client:
        client.configure(kubeconfig=str(kubeconfig))
        yield client


@pytest.fixture(scope="package")
def engine(tmp_path_factory: pytest.TempPathFactory, kubeconfig: Path) -> dict[str, str]:
    """The environment in which `pulumi` runs with the stand-in installed, on a file backend."""
    home = tmp_path_factory.mktemp("pulumi")
    (home / "state").mkdir()
    pulumi_binary = apiserver.binary("pulumi")
    folders = [
        Path(sys.executable).parent,
        REPOSITORY / "toolchain" / "pulumi-language-python" / "bin",
        pulumi_binary.parent,
        apiserver.binary("pulumi-language-python").parent,
    ]
    environment = {
        **os.environ,
        "PATH": ":".join([*map(str, folders), os.environ["PATH"]]),
        "PULUMI_HOME": str(home),
        "PULUMI_BACKEND_URL": f"file://{home}/state",
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "KUBECONFIG": str(kubeconfig),
    }
    subprocess.run([sys.executable, STAND_IN / "install", "--offline"], env=environment, check=True)
    return environment


@pytest.fixture
def stack(tmp_path: Path, engine: dict[str, str], objects: Objects) -> Stack:
    folder = tmp_path / objects.namespace
    folder.mkdir()
    return Stack(folder, {**engine, "NAMESPACE": objects.namespace})
