"""The real object store and the real MLflow server, on loopback, for the steps' tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest

from slipway.errors import SlipwayError
from slipway.store import Store

# As on S3, where buckets' names are everybody's: no step may name a bucket but by the store.
BUCKETS = "slipway-test-111111111111-"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"no answer at {url}\n{log.read_text()[-3000:]}")


def _serve(
    command: list[str], url: str, folder: Path, seconds: float, env: dict[str, str]
) -> Generator[None]:
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | env,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        _await(url, process, log, seconds)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # its workers too
        process.wait(20)


def _minio() -> str:
    try:
        from slipway.toolchain import binary

        return str(binary("minio"))
    except (ImportError, SlipwayError):
        return os.environ.get("MINIO_BINARY", "minio")


@pytest.fixture(scope="package")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """A running store, its environment set; the folder where it keeps objects."""
    folder = tmp_path_factory.mktemp("minio")
    data = folder / "data"
    for bucket in ("data", "bentos", "evidence"):
        (data / f"{BUCKETS}{bucket}").mkdir(parents=True)
    port, secret = _free_port(), "test-secret"
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "SLIPWAY_BUCKET_PREFIX": BUCKETS,
    }
    os.environ.update(environment)
    command = [_minio(), "server", "--quiet", "--address", f"127.0.0.1:{port}", str(data)]
    root = {"MINIO_ROOT_USER": "test", "MINIO_ROOT_PASSWORD": secret}
    server = _serve(command, f"http://127.0.0.1:{port}/minio/health/ready", folder, 60, root)
    next(server)
    yield data
    server.close()
    for name in environment:
        del os.environ[name]


@pytest.fixture
def store(minio: Path) -> Store:
    return Store()


@pytest.fixture(scope="package")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Address of a running MLflow, with a database file that ends with the tests."""
    folder, port = tmp_path_factory.mktemp("mlflow"), _free_port()
    url = f"http://127.0.0.1:{port}"
    # What `mlflow server` starts, without the seconds that it takes to do so.
    command = [sys.executable, "-m", "uvicorn", "mlflow.server.fastapi_app:app"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    os.environ["MLFLOW_TRACKING_URI"] = url
    settings = {
        "_MLFLOW_SERVER_FILE_STORE": "sqlite:///mlflow.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": "artifacts",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    server = _serve(command, f"{url}/health", folder, 180, settings)
    next(server)
    yield url
    server.close()
    del os.environ["MLFLOW_TRACKING_URI"]
