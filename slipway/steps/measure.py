"""Measure: a bento served as the chart serves it, on this machine, asked one request at a time."""

from __future__ import annotations

import http.client
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from slipway import store
from slipway.errors import SlipwayError
from slipway.evidence import Serving
from slipway.steps import serving_only

REQUESTS = 300
# What is lazy in a new process is not what its users wait for.
WARM_UP = 30
START_SECONDS = 120
# As in bentos/serving. No credentials: a model that serves has none but the store's.
ENVIRONMENT = {
    "BENTOML_DO_NOT_TRACK": "True",
    "OMP_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True)
class Question:
    """A body for /predict, and the number that was evaluated for it."""

    body: bytes
    answer: float


# Sends a body to /predict: status and text of the answer.
Post = Callable[[bytes], tuple[int, bytes]]


def measure(
    bundle: bytes, example: bytes, questions: Sequence[Question] = (), tolerance: float = 0
) -> Serving:
    """Serves the bento tar `bundle` and sends `example` to /predict, over and over.

    Then it asks the questions, see `compare`.

    Latency is of the whole request on a kept connection, in ms; memory the resident set of all of
    its processes after the last request, in MiB; the start ends with the first ready answer.

    Raises:
        SlipwayError: it does not become ready, refuses its own example, or answers a question
            otherwise than was evaluated.
    """
    with tempfile.TemporaryDirectory() as scratch:
        unpack(bundle, Path(scratch, "bento"))
        with _serve(Path(scratch)) as (process, port, start), _client(port) as post:
            took = _ask(post, example, scratch)
            memory = _resident(process.pid)
            compare(post, questions, tolerance)
    p50, p99 = np.quantile(took[WARM_UP:], [0.5, 0.99]) * 1000
    return Serving(
        requests=REQUESTS,
        latency_p50_ms=round(float(p50), 3),
        latency_p99_ms=round(float(p99), 3),
        memory_mib=round(memory / 2**20, 1),
        start_seconds=round(start, 2),
        bento_bytes=len(bundle),
        compared=len(questions),
    )


def unpack(bundle: bytes, folder: Path) -> None:
    """Writes the files of a bento tar."""
    for name, content in store.untar(bundle).items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def environment(scratch: Path) -> dict[str, str]:
    """Variables of a process that serves the bento in `scratch`, and keeps there what it writes."""
    own = serving_only.environment(file.name for file in (scratch / "bento" / "src").glob("*.py"))
    home = {"HOME": str(scratch), "BENTOML_HOME": str(scratch / "home")}
    return {"PATH": os.environ["PATH"]} | ENVIRONMENT | home | own


def compare(post: Post, questions: Sequence[Question], tolerance: float) -> None:
    """Holds the service to what was evaluated: the first field of its answers is the prediction.

    Raises:
        SlipwayError: an answer is further than `tolerance` from the number evaluated, or is none.
    """
    for question in questions:
        status, text = post(question.body)
        try:
            found = float(next(iter(json.loads(text).values())))
        except (ValueError, TypeError, AttributeError, StopIteration):
            found = math.nan
        # Written so that NaN is no answer either.
        if status != 200 or not abs(found - question.answer) <= tolerance:
            raise SlipwayError(
                f"the service answers otherwise than was evaluated\n"
                f"  request: {question.body[:1000].decode()}\n"
                f"  answer: {status} {text[:500].decode(errors='replace')}\n"
                f"  expected: {question.answer:.6g} (within {tolerance:g}) in its first field",
                fix="service.py must answer as training.predict does, and training.requests must "
                "ask about its row",
            )


@contextmanager
def _serve(scratch: Path) -> Generator[tuple[subprocess.Popen[bytes], int, float]]:
    """The running server, its port, and the seconds from nothing to its first ready answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "bentoml", "serve", str(scratch / "bento")]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    log, began = scratch / "log", time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env=environment(scratch),
            cwd=scratch,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        while not is_ready(port):
            waited = time.monotonic() - began
            if process.poll() is not None or waited > START_SECONDS:
                raise serving_only.missing(_tail(scratch)) or SlipwayError(
                    f"the bento does not become ready ({waited:.0f} s)\n{_tail(scratch)}",
                    fix="see service.py: the example must be answered before anything else is",
                )
            time.sleep(0.05)
        yield process, port, time.monotonic() - began
    finally:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def is_ready(port: int) -> bool:
    """Whether a bento on this machine is ready to answer."""
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


@contextmanager
def _client(port: int) -> Generator[Post]:
    headers = {"content-type": "application/json"}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:

        def post(body: bytes) -> tuple[int, bytes]:
            connection.request("POST", "/predict", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

        yield post


def _ask(post: Post, example: bytes, scratch: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Seconds of each request, those to warm up first."""
    took = np.empty(WARM_UP + REQUESTS)
    for index in range(len(took)):
        began = time.perf_counter()
        status, text = post(example)
        took[index] = time.perf_counter() - began
        if status != 200:
            said = _tail(Path(scratch))
            raise serving_only.missing(said) or SlipwayError(
                f"the bento refuses its own example.json: {status} "
                f"{text[:500].decode(errors='replace')}\n{said}",
                fix="example.json is a body for /predict",
            )
    return took


def _tail(scratch: Path) -> str:
    return (scratch / "log").read_text(errors="replace")[-2000:]


def _resident(pid: int) -> int:
    """Bytes of the process and all below it."""
    top = psutil.Process(pid)
    return sum(p.memory_info().rss for p in (top, *top.children(recursive=True)))
