"""The script that gives MinIO its buckets, users and rights, against a real MinIO."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from infra.platform.pods import SCRIPTS
from tests.apiserver import binary, free_ports

pytestmark = pytest.mark.apiserver
ROOT = {"MINIO_ROOT_USER": "root-user", "MINIO_ROOT_PASSWORD": "root-password"}
USERS = {
    "pipelines": {"read": [], "write": ["data"], "delete": [], "put": []},
    "models-dev": {"read": ["data"], "write": [], "delete": [], "put": ["mlflow/dev/"]},
    "mlflow": {"read": [], "write": ["mlflow"], "delete": ["mlflow"], "put": []},
}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("minio")
    port, console = free_ports(2)
    addresses = [f"--address=127.0.0.1:{port}", f"--console-address=127.0.0.1:{console}"]
    command = [binary("minio"), "server", folder / "data", *addresses]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **ROOT}, stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/minio/health/ready")
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait(url: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.2)


@pytest.fixture
def set_up(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The script run twice, the second time with another password of one user."""
    shutil.copy(SCRIPTS / "buckets.py", tmp_path)
    settings = {
        "endpoint": endpoint,
        "secrets": str(tmp_path),
        "buckets": ["data", "mlflow"],
        "users": USERS,
    }
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    for name, value in ROOT.items():
        monkeypatch.setenv(name, value)
    for password in ("first-password", "the-password"):
        for user in USERS:
            (tmp_path / user).write_text(password)
        runpy.run_path(str(tmp_path / "buckets.py"))
    return f"http://{endpoint}"


def client(url: str, user: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=user,
        aws_secret_access_key="the-password",
        region_name="us-east-1",
    )


def test_each_user_has_its_rights_and_no_others(set_up: str) -> None:
    pipelines, models, mlflow = (client(set_up, user) for user in USERS)
    pipelines.put_object(Bucket="data", Key="sha256/ab", Body=b"x")
    pipelines.put_object(Bucket="data", Key="sha256/ab", Body=b"x")
    assert models.get_object(Bucket="data", Key="sha256/ab")["Body"].read() == b"x"
    assert models.list_objects_v2(Bucket="data")["KeyCount"] == 1
    mlflow.put_object(Bucket="mlflow", Key="a", Body=b"x")
    mlflow.delete_object(Bucket="mlflow", Key="a")
    models.put_object(Bucket="mlflow", Key="dev/a", Body=b"x")
    refused = [
        lambda: models.get_object(Bucket="mlflow", Key="dev/a"),
        lambda: models.put_object(Bucket="mlflow", Key="device/a", Body=b"x"),
        lambda: models.delete_object(Bucket="mlflow", Key="dev/a"),
        lambda: pipelines.delete_object(Bucket="data", Key="sha256/ab"),
        lambda: pipelines.list_objects_v2(Bucket="mlflow"),
        lambda: pipelines.create_bucket(Bucket="another"),
        lambda: models.put_object(Bucket="data", Key="b", Body=b"x"),
        lambda: models.list_objects_v2(Bucket="mlflow"),
        lambda: mlflow.get_object(Bucket="data", Key="sha256/ab"),
    ]
    for attempt in refused:
        with pytest.raises(ClientError, match="AccessDenied"):
            attempt()
