"""The init container's script against a store that misbehaves. The real MinIO: tests/manifests."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import os
import runpy
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from slipway import attestation, release
from slipway.chart import CHART
from tests import samples

SCRIPT = CHART / "files" / "fetch_bento.py"


def archive(*members: tuple[str, bytes | str]) -> bytes:
    """A tar of files (bytes) and symlinks (text)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


BENTO = archive(("bento.yaml", b"name: toy\n"), ("models/toy/1/weights", os.urandom(300_000)))


@contextmanager
def store(
    bento: bytes | None, faults: list[int], evidence: bytes | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Objects behind S3's GET; a fault is a status to answer, or minus the bytes to send."""
    ranges: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ranges.append(self.headers["Range"])
            fault = faults.pop(0) if faults else 0
            content = evidence if self.path.startswith("/evidence/") else bento
            if content is None or fault > 0:
                self.send_response(fault or 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            body = content[start:]
            self.send_response(206)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            self.wfile.write(body[: -fault or None])
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", ranges
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Result:
    code: int
    said: str


Fetch = Callable[..., Result]


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fetch:
    """Runs the script as the init container does, but without its pauses between tries."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "k")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr("time.sleep", lambda _: None)
    script = runpy.run_path(str(SCRIPT))

    def run(url: str, folder: Path, content: bytes, size: int = 0) -> Result:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        name = hashlib.sha256(content).hexdigest()
        arguments = [f"s3://bentos/sha256/{name}", f"sha256:{name}", str(size or len(content))]
        code = script["main"](*arguments, str(folder))
        return Result(code, capsys.readouterr().err)

    return run


def test_unpacks_what_the_digest_names(fetch: Fetch, tmp_path: Path) -> None:
    with store(BENTO, []) as (url, _):
        result = fetch(url, tmp_path, BENTO)
    assert result.code == 0, result.said
    assert (tmp_path / "bento.yaml").read_text() == "name: toy\n"
    assert (tmp_path / "models/toy/1/weights").stat().st_size == 300_000
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bento.yaml", "models"]


def test_goes_on_where_a_try_broke_off(fetch: Fetch, tmp_path: Path) -> None:
    with store(BENTO, [503, -100_000, 500]) as (url, ranges):
        result = fetch(url, tmp_path, BENTO)
    assert result.code == 0, result.said
    assert ranges[:2] == ["bytes=0-", "bytes=0-"]
    assert ranges[2] == ranges[3] != "bytes=0-"


def test_starts_over_on_the_rest_of_an_interrupted_run(fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / ".download").write_bytes(b"half")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "old").write_bytes(b"x")
    with store(BENTO, []) as (url, _):
        assert fetch(url, tmp_path, BENTO).code == 0
    assert not (tmp_path / "models" / "old").exists()


UNSAFE = {
    "leads out of it": archive(("bento.yaml", b""), ("../escaped", b"x")),
    "'/escaped' in the archive leads out": archive(("/escaped", b"x")),
    "neither a file nor a folder": archive(("models", "/etc")),
    "no bento.yaml": archive(("models/a", b"x")),
    "ReadError": b"no tar",
}


@pytest.mark.parametrize("expected", UNSAFE)
def test_unsafe_archives_are_refused(fetch: Fetch, tmp_path: Path, expected: str) -> None:
    folder = tmp_path / "bento"
    folder.mkdir()
    content = UNSAFE[expected]
    with store(content, []) as (url, _):
        result = fetch(url, folder, content)
    assert result.code == 2
    assert expected in result.said or expected == "ReadError"
    assert "refused" in result.said
    assert list(folder.iterdir()) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["bento"]


def test_wrong_bytes_are_refused_and_leave_nothing(fetch: Fetch, tmp_path: Path) -> None:
    altered = bytes([BENTO[0] ^ 1]) + BENTO[1:]
    with store(altered, []) as (url, _):
        result = fetch(url, tmp_path, BENTO)
    assert result.code == 2
    assert f"wrong bytes: the object's digest is sha256:{hashlib.sha256(altered).hexdigest()}" in (
        result.said
    )
    assert list(tmp_path.iterdir()) == []


def test_wrong_size_is_refused_before_it_is_fetched(fetch: Fetch, tmp_path: Path) -> None:
    with store(BENTO, []) as (url, _):
        result = fetch(url, tmp_path, BENTO, size=7)
    assert result.code == 2
    assert f"the object has {len(BENTO)} bytes, the release says 7" in result.said


@pytest.mark.parametrize(
    ("status", "expected"),
    [(404, "the store has no such object"), (403, "no such object, or no right to read it")],
)
def test_what_no_try_can_change_is_not_tried_again(
    fetch: Fetch, tmp_path: Path, status: int, expected: str
) -> None:
    with store(BENTO, [status]) as (url, ranges):
        result = fetch(url, tmp_path, BENTO)
    assert result.code == 2
    assert expected in result.said
    assert len(ranges) == 1


def test_a_store_that_stays_down_is_another_exit_code(fetch: Fetch, tmp_path: Path) -> None:
    with store(BENTO, [500] * 8) as (url, _):
        result = fetch(url, tmp_path, BENTO)
    assert result.code == 1
    assert f"could not be fetched from {url}" in result.said
    assert "gave up after 8 tries" in result.said


# --- evidence -------------------------------------------------------------------------------------

KEY = Ed25519PrivateKey.from_private_bytes(b"1" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"2" * 32)
NAME = hashlib.sha256(BENTO).hexdigest()


def pem(*keys: Ed25519PrivateKey) -> str:
    return "".join(
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
        for key in keys
    )


def signed(
    key: Ed25519PrivateKey = KEY, kind: str = attestation.PAYLOAD_TYPE, **changes: Any
) -> bytes:
    """An envelope as the platform writes them, its statement changed before it is signed."""
    document = samples.document()
    bento = release.Bento(
        digest=f"sha256:{NAME}", uri=f"s3://bentos/sha256/{NAME}", size=len(BENTO)
    )
    document = document.model_copy(update={"bento": bento})
    envelope = json.loads(attestation.sign(document, key))
    statement = json.loads(base64.b64decode(envelope["payload"]))
    for path, value in changes.items():
        *parents, last = path.split("__")
        functools.reduce(lambda item, part: item[part], parents, statement)[last] = value
    payload = json.dumps(statement).encode()
    signature = key.sign(attestation.pae(kind, payload))
    envelope["payload"], envelope["payloadType"] = base64.b64encode(payload).decode(), kind
    envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    return json.dumps(envelope).encode()


ENVIRONMENT = samples.document().environment


@pytest.fixture
def verified(
    fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Callable[..., Result]:
    """Fetches BENTO with evidence; `stored` is what the store holds in its place."""
    script = runpy.run_path(str(SCRIPT))
    folder = tmp_path / "bento"
    folder.mkdir()

    def run(
        evidence: bytes,
        *,
        stored: bytes | None = None,
        keys: str = pem(KEY),
        model: str = "toy",
        version: str = "3",
        runtime: str = samples.IMAGE,
        environment: str = ENVIRONMENT,
        faults: Iterable[int] = (),
    ) -> Result:
        file = tmp_path / "public.pem"
        file.write_text(keys)
        named = hashlib.sha256(evidence).hexdigest()
        options = {
            "evidence": f"s3://evidence/sha256/{named}",
            "model": model,
            "version": version,
            "runtime": runtime,
            "environment": environment,
            "keys": str(file),
        }
        with store(BENTO, list(faults), stored if stored is not None else evidence) as (url, _):
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            bento = [f"s3://bentos/sha256/{NAME}", f"sha256:{NAME}", str(len(BENTO)), str(folder)]
            code = script["main"](*bento, *(f"--{k}={v}" for k, v in options.items()))
        assert bool(list(folder.iterdir())) == (code == 0)
        return Result(code, capsys.readouterr().err)

    return run


def test_a_bento_comes_with_evidence_of_its_own(verified: Callable[..., Result]) -> None:
    assert verified(signed()).code == 0
    assert verified(signed(), faults=[503, -100]).code == 0


def test_a_former_key_stays_good_while_it_is_listed(verified: Callable[..., Result]) -> None:
    assert verified(signed(), keys=pem(STRANGER, KEY)).code == 0


@pytest.mark.parametrize(
    ("evidence", "options", "said"),
    [
        (signed(STRANGER), {}, "not signed by a key that is trusted here: signed by "),
        (signed(), {"stored": signed() + b" "}, "wrong bytes: the object's digest is sha256:"),
        (signed(), {"keys": ""}, "holds no Ed25519 public key"),
        (signed(), {"keys": pem(KEY).replace("MCow", "XXXX")}, "holds what is no public key"),
        (signed(), {"model": "other"}, "its subject is [('toy', "),
        (signed(), {"environment": "prod"}, f"its environment is {ENVIRONMENT}, the release's is"),
        (signed(), {"version": "1"}, "its version is 3, the release's is 1"),
        (signed(), {"runtime": "other"}, f"its runtime image is {samples.IMAGE}, the release's"),
        (signed(subject=[]), {}, "its subject is []"),
        (signed(predicate__bento={"digest": "sha256:0"}), {}, "its bento is sha256:0"),
        (signed(predicateType="https://slsa.dev/provenance/v1"), {}, "its predicate is https"),
        (signed(_type="other"), {}, "its statement is other"),
        (signed(predicate=None), {}, "not an envelope with evidence"),
        (signed(kind="text/plain"), {}, "its payload is 'text/plain'"),
        (b"{}", {}, "not an envelope with evidence: KeyError('payloadType')"),
        (b"not JSON", {}, "not an envelope with evidence"),
        (signed().replace(b'"sig": "', b'"sig": "AA'), {}, "altered since it was signed"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_evidence_that_proves_nothing_is_refused(
    verified: Callable[..., Result], evidence: bytes, options: dict[str, Any], said: str
) -> None:
    result = verified(evidence, **options)
    assert result.code == 2, result.said
    assert said in result.said
    assert "evidence s3://evidence/sha256/" in result.said


def test_a_payload_altered_under_its_signature_is_refused(verified: Callable[..., Result]) -> None:
    envelope = json.loads(signed())
    payload = base64.b64decode(envelope["payload"]).replace(b"toy", b"joy")
    envelope["payload"] = base64.b64encode(payload).decode()
    result = verified(json.dumps(envelope).encode(), model="joy")
    assert "altered since it was signed" in result.said


def test_evidence_that_cannot_be_had_now_may_be_had_later(verified: Callable[..., Result]) -> None:
    result = verified(signed(), faults=[500] * 8)
    assert result.code == 1
    assert "s3://evidence/sha256/" in result.said
