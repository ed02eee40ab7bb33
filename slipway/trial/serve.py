"""A bento served on this machine as the chart serves it, until somebody has seen enough."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from slipway import chart
from slipway.errors import BadInput, SlipwayError
from slipway.steps import measure

SCRIPT = chart.CHART / "files" / "serve.py"
HOST, GRACE_SECONDS = "127.0.0.1", 5


def serve(bundle: bytes, digest: str, port: int, ready: Callable[[str], None]) -> None:
    """Runs the chart's own script, with the service's envelope, and calls `ready` with its address.

    Returns once it was interrupted (Ctrl-C) and has ended.

    Raises:
        BadInput: the port is taken.
        SlipwayError: the service does not start, or ends by itself.
    """
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        problem = f"{port}: {error.strerror or error}"
        raise BadInput(problem, field="--port", fix="name another") from None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "bento")
        measure.unpack(bundle, folder)
        own = {"SLIPWAY_BENTO_DIGEST": digest, "SLIPWAY_HOST": HOST}
        environment = measure.environment(Path(scratch)) | own
        command = [sys.executable, str(SCRIPT), str(folder), str(port), str(GRACE_SECONDS)]
        process = subprocess.Popen(
            command, env=environment, cwd=scratch, stdout=sys.stderr, stdin=subprocess.DEVNULL
        )
        try:
            _await(process, port)
            ready(f"http://{HOST}:{port}")
            raise SlipwayError(f"the service has ended by itself ({process.wait()})")
        except KeyboardInterrupt:
            pass  # the terminal has interrupted it as well
        finally:
            process.terminate()
            try:
                process.wait(GRACE_SECONDS + 5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + measure.START_SECONDS
    while not measure.is_ready(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SlipwayError("the service does not become ready: what it said is above")
        time.sleep(0.05)
