"""Around every service: names its bento, bounds what it is sent, logs what it predicts.

Each bento is given this file, beside its `service.py`, which hands `Envelope` to BentoML's
`add_asgi_middleware`. A prediction is the first field of the object that a service answers, or of
each object in a list; it is logged where it is a number.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import os
import time
from datetime import UTC, datetime
from typing import Any

MAXIMUM_BODY_BYTES = 1 << 20
DROPPED_BODY_BYTES = 64 << 20
MAXIMUM_LOG_BYTES = 16 << 20


class PredictionLog:
    """JSON lines in a file: what was asked and answered, and under which id.

    Lines are made and written ten times a second, all that wait at once: one by one, between
    requests, each would cost three times as much. No fault here may fail a request.
    """

    def __init__(self, path: str, bento: str) -> None:
        self.path, self.bento = path, bento
        self.waiting: list[tuple[dict[str, Any], bytes, bytes]] = []
        self.size = 0

    def entry(self, route: str, status: int) -> dict[str, Any]:
        """A line but for what was predicted. Ids begin with their milliseconds."""
        now = time.time_ns() // 1_000_000
        return {
            "time": now,
            "id": f"{now:012x}{os.urandom(8).hex()}",
            "bento": self.bento,
            "path": route[:200],
            "status": status,
        }

    def append(self, entry: dict[str, Any], body: bytes, answer: bytes) -> None:
        """The line is in the file a moment from now, or when the server stops."""
        self.waiting.append((entry, body, answer))
        self.size += len(body) + len(answer)
        if self.size > MAXIMUM_LOG_BYTES:
            self.write()
        elif len(self.waiting) == 1:
            asyncio.get_running_loop().call_later(0.1, self.write)

    def write(self) -> None:
        """Writes what waits."""
        waiting, self.waiting, self.size = self.waiting, [], 0
        if not waiting:
            return
        # Opened anew each time: who ships the log takes it by renaming it.
        with contextlib.suppress(OSError), open(self.path, "ab") as file:
            # Where nobody ships it, it must not fill the disk.
            if file.tell() < MAXIMUM_LOG_BYTES:
                file.writelines(_line(*one) for one in waiting)


_compact = json.JSONEncoder(separators=(",", ":")).encode


def _line(entry: dict[str, Any], body: bytes, answer: bytes) -> bytes:
    seconds, milliseconds = divmod(entry["time"], 1000)
    entry["time"] = f"{_second(seconds)}.{milliseconds:03}Z"
    if entry["status"] == 200:
        with contextlib.suppress(ValueError, AttributeError, StopIteration):
            found = json.loads(answer)
            entry["input_sha256"] = hashlib.sha256(body).hexdigest()
            answers = found if isinstance(found, list) else [found]
            numbers = [next(iter(one.values())) for one in answers]
            # By type: to `isinstance` a bool is a number.
            if {float, int}.issuperset(map(type, numbers)):
                entry["prediction"] = numbers
    return _compact(entry).encode() + b"\n"


@functools.lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class Envelope:
    """ASGI middleware around every response.

    It names the bento, refuses bodies over 1 MiB with 413, and gives each answered POST an id and a
    line in the log that SLIPWAY_PREDICTION_LOG names. While the file that SLIPWAY_DRAINING names is
    there, it asks clients to come again by another connection, which leads to another replica.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        bento = os.environ.get("SLIPWAY_BENTO_DIGEST", "")
        self.header = (b"x-slipway-bento", bento.encode())
        log = os.environ.get("SLIPWAY_PREDICTION_LOG")
        self.log = PredictionLog(log, bento) if log else None
        self.draining = os.environ.get("SLIPWAY_DRAINING", "")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            if self.log:  # the server's lifespan has ended
                self.log.write()
            return
        post = scope["method"] == "POST"
        entry: dict[str, Any] = {}
        body, answer = b"", b""

        async def named(message: Any) -> None:
            nonlocal answer
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], self.header]
                if self.draining and os.path.exists(self.draining):
                    message["headers"].append((b"connection", b"close"))
                if post and self.log:
                    entry.update(self.log.entry(scope["path"], message["status"]))
                    message["headers"].append((b"x-slipway-prediction", entry["id"].encode()))
            elif entry:
                answer += message.get("body", b"")
            await send(message)
            if self.log and answer and not message.get("more_body"):
                self.log.append(entry, body, answer)

        if not post:
            await self.app(scope, receive, named)
            return
        # Read here, so that a body without a length (chunked) is counted too. What is too much is
        # read and dropped: a client that is still sending would not hear the refusal.
        size, more = 0, True
        while more and size <= DROPPED_BODY_BYTES:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            chunk = message.get("body", b"")
            size += len(chunk)
            body = body + chunk if size <= MAXIMUM_BODY_BYTES else b""
            more = message.get("more_body", False)
        if size > MAXIMUM_BODY_BYTES:
            await _refuse(named)
            return
        whole: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Any:
            return whole.pop() if whole else await receive()

        await self.app(scope, again, named)


async def _refuse(send: Any) -> None:
    body = json.dumps({"error": f"body over {MAXIMUM_BODY_BYTES} bytes"}).encode()
    # With a length a proxy passes it on whole; of chunks it may break off between two.
    length = (b"content-length", str(len(body)).encode())
    headers = [(b"content-type", b"application/json"), length, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
