"""The init container's script against the real object store."""

from __future__ import annotations

import hashlib
import io
import os
import runpy
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from slipway.chart import CHART
from tests.apiserver import binary, free_ports

pytestmark = pytest.mark.apiserver


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a MinIO of our own, whose keys and address are in the environment."""
    folder = tmp_path_factory.mktemp("minio")
    port, console = free_ports(2)
    addresses = [f"--address=127.0.0.1:{port}", f"--console-address=127.0.0.1:{console}"]
    keys = {"MINIO_ROOT_USER": "root-user", "MINIO_ROOT_PASSWORD": "root-password"}
    with pytest.MonkeyPatch.context() as patch, (folder / "log").open("wb") as log:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "root-user")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "root-password")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        command = [binary("minio"), "server", folder / "data", *addresses]
        process = subprocess.Popen(command, env={**os.environ, **keys}, stdout=log, stderr=log)
        try:
            client: Any = boto3.client("s3")
            deadline = time.monotonic() + 120
            while True:
                try:
                    client.create_bucket(Bucket="bentos")
                    break
                except (BotoCoreError, ClientError):
                    assert time.monotonic() < deadline, (folder / "log").read_text()
                    time.sleep(0.2)
            yield client
        finally:
            process.kill()
            process.wait()


def bento() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("bento.yaml")
        info.size = 11
        tar.addfile(info, io.BytesIO(b"name: toy\n\n"))
    return out.getvalue()


BENTO = bento()
DIGEST = hashlib.sha256(BENTO).hexdigest()


@pytest.mark.parametrize(
    ("stored", "code", "said"),
    [
        (BENTO, 0, ""),
        (BENTO[:-512] + b"x" * 512, 2, "wrong bytes"),
        (BENTO[:-100], 2, f"the object has {len(BENTO) - 100} bytes"),
        (b"", 2, "the object is empty"),
        (None, 2, "the store has no such object"),
    ],
    ids=["good", "altered", "truncated", "empty", "missing"],
)
def test_takes_only_what_the_digest_names(
    store: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stored: bytes | None,
    code: int,
    said: str,
) -> None:
    key = f"sha256/{DIGEST}"
    if stored is None:
        store.delete_object(Bucket="bentos", Key=key)
    else:
        store.put_object(Bucket="bentos", Key=key, Body=stored)
    script = runpy.run_path(str(CHART / "files" / "fetch_bento.py"))
    arguments = (f"s3://bentos/{key}", f"sha256:{DIGEST}", str(len(BENTO)), str(tmp_path))
    assert script["main"](*arguments) == code
    assert said in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ([] if code else ["bento.yaml"])
