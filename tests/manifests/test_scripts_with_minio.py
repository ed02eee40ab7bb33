"""The chart's scripts, and who reads what they ship, against the real object store."""

from __future__ import annotations

import hashlib
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from slipway import predictions, soak
from slipway.chart import CHART
from slipway.store import Missing, Store, uri
from tests.apiserver import binary, free_ports

pytestmark = pytest.mark.apiserver
# As on S3, where buckets' names are everybody's.
BUCKETS = "slipway-dev-111111111111-"


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
        patch.setenv("SLIPWAY_BUCKET_PREFIX", BUCKETS)
        command = [binary("minio"), "server", folder / "data", *addresses]
        process = subprocess.Popen(command, env={**os.environ, **keys}, stdout=log, stderr=log)
        try:
            client: Any = boto3.client("s3")
            deadline = time.monotonic() + 120
            while True:
                try:
                    client.create_bucket(Bucket=f"{BUCKETS}bentos")
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
        store.delete_object(Bucket=f"{BUCKETS}bentos", Key=key)
    else:
        store.put_object(Bucket=f"{BUCKETS}bentos", Key=key, Body=stored)
    script = runpy.run_path(str(CHART / "files" / "fetch_bento.py"))
    arguments = (f"s3://bentos/{key}", f"sha256:{DIGEST}", str(len(BENTO)), str(tmp_path))
    assert script["main"](*arguments) == code
    assert said in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ([] if code else ["bento.yaml"])


def test_what_is_written_down_names_no_prefix(store: Any) -> None:
    ours = Store()
    digest = ours.put("bentos", BENTO)
    assert ours.get("bentos", digest) == BENTO
    assert uri("bentos", digest) == f"s3://bentos/sha256/{DIGEST}"
    with pytest.raises(Missing, match=r"s3://labels/sha256/.*: no such bucket"):
        ours.get("labels", digest)
    held = store.head_object(Bucket=f"{BUCKETS}bentos", Key=f"sha256/{DIGEST}")
    assert held["ContentLength"] == len(BENTO)


@pytest.mark.slow
def test_what_is_shipped_is_what_soak_reads(store: Any, tmp_path: Path) -> None:
    for bucket in ("predictions", "labels"):
        store.create_bucket(Bucket=f"{BUCKETS}{bucket}")
    ids = [f"{1767225600_000 + 1000 * number:012x}{number:016x}" for number in range(3)]
    log = tmp_path / "log.jsonl"
    prefix = f"s3://predictions/dev/toy/{DIGEST}"
    command = [sys.executable, CHART / "files" / "ship_predictions.py", log, prefix, "toy-1"]
    process = subprocess.Popen([*command, str(48 << 20)])
    try:
        for number in range(3):
            entry = {"time": f"2026-01-01T00:00:0{number}.000Z", "id": ids[number]}
            line = json.dumps({**entry, "prediction": [0.5]}, separators=(",", ":"))
            # As much as is shipped at once, so that it is shipped now; and what it keeps in memory.
            log.write_text(line + "\n" + ("x" * 1000 + "\n") * 4200)
            deadline = time.monotonic() + 120
            while any(
                file.suffix == ".jsonl" or file.name == "renamed" for file in tmp_path.iterdir()
            ):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        status = Path(f"/proc/{process.pid}/status").read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    [anonymous] = [line for line in status.splitlines() if line.startswith("RssAnon")]
    assert int(anonymous.split()[1]) < 48 << 10, "of the 64 MiB that it may use"
    ours = Store()
    assert len(predictions.segments(ours, "dev", "toy", f"sha256:{DIGEST}")) == 3
    labels = [predictions.Label(identity, 1, "2026-01-02") for identity in ids[:2]]
    predictions.write_labels(ours, "dev", "toy", labels)
    found = soak.measure(ours, "dev", "toy", f"sha256:{DIGEST}")
    assert (found.predictions, found.labelled, found.squared_error) == (3, 2, 0.25)
