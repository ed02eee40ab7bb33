"""The container that ships the prediction log: nothing is lost that there is room for."""

from __future__ import annotations

import fcntl
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from slipway.chart import CHART

SCRIPT = CHART / "files" / "ship_predictions.py"
PREFIX = "s3://predictions/dev/toy/" + "a" * 64
SEGMENT = re.compile(PREFIX + r"/(\d{8}T\d{6})-toy-1-(\d+)\.jsonl")


class Store:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.away = False

    def put(self, uri: str, body: bytes) -> None:
        if self.away:
            raise OSError("503 away")
        self.objects[uri] = body

    @property
    def lines(self) -> list[bytes]:
        return [line for body in self.objects.values() for line in body.splitlines()]


class Clock:
    """Time that passes when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("time.sleep", made.sleep)
    monkeypatch.setattr("time.monotonic", lambda: made.now)
    return made


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def start(tmp_path: Path, store: Store, clock: Clock) -> Callable[..., Any]:
    script = runpy.run_path(str(SCRIPT))
    return lambda maximum=1 << 20: script["Shipper"](
        tmp_path / "log.jsonl", PREFIX, "toy-1", maximum, lambda: store
    )


def line(second: int, predictions: int = 1, status: int = 200) -> bytes:
    entry: dict[str, Any] = {"time": f"2026-01-01T00:00:{second:02}.500Z", "status": status}
    if status == 200:
        entry["prediction"] = [0.5] * predictions
    return json.dumps(entry).encode() + b"\n"


def log(shipper: Any, *lines: bytes) -> None:
    with shipper.log.open("ab") as file:
        file.writelines(lines)


def test_a_segments_name_tells_when_and_how_many(start: Any, store: Store) -> None:
    shipper = start()
    log(shipper, line(7, 3), line(8, status=400), b'{"cut o\n', line(9))
    shipper.rotate()
    assert shipper.ship()
    assert list(store.objects) == [f"{PREFIX}/20260101T000007-toy-1-4.jsonl"]
    assert len(store.lines) == 4
    assert list(shipper.log.parent.iterdir()) == []


def test_a_segment_is_due_when_it_is_old_or_large(start: Any, clock: Clock) -> None:
    shipper = start()
    assert not shipper.due()
    log(shipper, line(1))
    assert not shipper.due()
    clock.sleep(10)
    assert shipper.due()
    shipper.rotate()
    log(shipper, b"x" * (4 << 20))
    assert shipper.due()


def test_no_two_segments_have_one_name(start: Any, store: Store) -> None:
    shipper = start()
    for _ in range(3):
        log(shipper, line(7))
        shipper.rotate()
    assert shipper.ship()
    assert sorted(SEGMENT.fullmatch(name)[1] for name in store.objects) == [  # type: ignore[index]
        *("20260101T000007", "20260101T000008", "20260101T000009")
    ]


def test_an_outage_loses_nothing_and_is_said(
    start: Any, store: Store, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shipper, store.away = start(), True
    tries: list[str] = []
    for second in range(40):
        log(shipper, line(second))
        shipper.rotate()
        shipper.ship()
        tries += capsys.readouterr().err.splitlines()
    assert tries[0] == "1 predictions wait for the store: 503 away; again in 1 s"
    assert len(tries) < 10, "each try is further from the last"
    store.away = False
    clock.sleep(60)
    assert shipper.ship()
    assert "the store takes predictions again" in capsys.readouterr().err
    assert len(store.lines) == 40


def test_without_room_the_oldest_goes_and_is_counted(
    start: Any, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    shipper, store.away = start(maximum=3 * len(line(0))), True
    for second in range(5):
        log(shipper, line(second))
        shipper.rotate()
        shipper.bound()
    said = capsys.readouterr().err
    assert said.count("dropped 1 predictions, ") == 2
    assert "20260101T000000-toy-1-1.jsonl: no room to wait" in said
    store.away = False
    assert shipper.ship()
    assert [json.loads(one)["time"][17:19] for one in sorted(store.lines)] == ["02", "03", "04"]


def test_what_an_interrupted_run_left_is_shipped_by_the_next(start: Any, store: Store) -> None:
    first = start()
    store.away = True
    log(first, line(1))
    first.rotate()
    log(first, line(2))
    first.log.rename(first.renamed)
    log(first, line(3))
    store.away = False
    second = start()
    second.rotate()
    second.rotate()
    assert second.ship()
    assert len(store.lines) == 3


@contextmanager
def http_store(taken: dict[str, bytes], refusals: list[int]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = refusals.pop(0) if refusals else 200
            assert self.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=k/")
            if status == 200:
                taken[self.path] = body
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
def test_when_it_is_stopped_everything_is_shipped_first(tmp_path: Path) -> None:
    taken: dict[str, bytes] = {}
    file = tmp_path / "log.jsonl"
    with http_store(taken, [503]) as url:
        keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "k", "AWS_ENDPOINT_URL": url}
        process = subprocess.Popen(
            [sys.executable, SCRIPT, file, PREFIX, "toy-1", str(1 << 20)],
            # Whatever servers of other tests have left in the environment.
            env={"PATH": os.environ["PATH"], **keys, "AWS_DEFAULT_REGION": "us-east-1"},
            stderr=subprocess.PIPE,
        )
        try:
            file.write_bytes(line(1))
            with (tmp_path / "writing").open("a") as server:
                fcntl.flock(server, fcntl.LOCK_SH)
                time.sleep(1)
                process.send_signal(signal.SIGTERM)
                time.sleep(2)
                assert process.poll() is None
                file.write_bytes(line(1) + line(2))
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert b"2 predictions wait for the store: 503" in said
    assert list(taken.values()) == [line(1) + line(2)]
    [path] = taken
    assert path == f"/{PREFIX.removeprefix('s3://')}/20260101T000001-toy-1-2.jsonl"
    assert not [entry for entry in tmp_path.iterdir() if entry.suffix == ".jsonl"]
