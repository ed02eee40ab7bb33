"""The init container's script against a store that misbehaves. The real MinIO: tests/manifests."""

from __future__ import annotations

import hashlib
import io
import os
import runpy
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from slipway.chart import CHART

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
def store(content: bytes | None, faults: list[int]) -> Iterator[tuple[str, list[str]]]:
    """One object behind S3's GET; a fault is a status to answer, or minus the bytes to send."""
    ranges: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ranges.append(self.headers["Range"])
            fault = faults.pop(0) if faults else 0
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
