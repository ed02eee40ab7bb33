"""Load for a prediction service: connections that stay open, each asks again when it is answered.

A process of its own, so that who measures does not wait for what else the measuring program does:
`python -m slipway.bench.load URL BODY_FILE`, which prints JSON. It asks this machine alone.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from slipway import cluster
from slipway.bench.figures import percentile
from slipway.errors import BadInput, SlipwayError

MAXIMUM_CONNECTIONS, MAXIMUM_SECONDS = 64, 60.0
# Before anything is counted: caches, lazy imports, a batcher that learns.
WARM_UP_S = 1.0


@dataclass
class Tally:
    """What has been answered since the warm-up: seconds of each good answer, and other statuses."""

    begin: float
    end: float
    latencies: list[float] = field(default_factory=list[float])
    errors: dict[str, int] = field(default_factory=dict[str, int])

    def count(self, asked: float, answered: float, status: str) -> None:
        if not self.begin <= asked <= self.end:
            return
        if status == "200":
            self.latencies.append(answered - asked)
        else:
            self.errors[status] = self.errors.get(status, 0) + 1

    def document(self) -> dict[str, float | int | dict[str, int]]:
        """Requests a second, and latencies in milliseconds.

        Raises:
            SlipwayError: nothing was answered.
        """
        if not self.latencies:
            raise SlipwayError(f"no prediction was answered: {self.errors or 'no answer'}")
        answered = len(self.latencies)
        return {
            "requests": answered,
            "requests_per_second": answered / (self.end - self.begin),
            "p50_ms": percentile(self.latencies, 50) * 1000,
            "p99_ms": percentile(self.latencies, 99) * 1000,
            "slowest_ms": max(self.latencies) * 1000,
            "errors": self.errors,
        }


class Asker(asyncio.Protocol):
    """One connection. Parses just enough of HTTP/1.1 to know where an answer ends."""

    def __init__(self, request: bytes, tally: Tally, done: asyncio.Future[None]) -> None:
        self.request, self.tally, self.done = request, tally, done
        self.buffer = b""
        self.asked = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._ask()

    def _ask(self) -> None:
        self.asked = time.perf_counter()
        if self.asked > self.tally.end:
            self._finish(None)
            return
        self.transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, blank, body = self.buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        status, length = answer_head(head)
        if length is None:
            self._finish(SlipwayError("an answer without a length"))
            return
        if len(body) < length:
            return
        self.tally.count(self.asked, time.perf_counter(), status)
        self.buffer = body[length:]
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(SlipwayError("the service closed a connection"))

    def _finish(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error) if error else self.done.set_result(None)
            self.transport.close()


def answer_head(head: bytes) -> tuple[str, int | None]:
    """Status and length of the body from an answer's head; None when it does not say."""
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines)
    lengths = (int(value) for name, _, value in fields if name.lower() == "content-length")
    return first.split(" ")[1], next(lengths, None)


def address(url: str) -> tuple[str, int]:
    """Host and port.

    Raises:
        BadInput: it is not an address of this machine or of its cluster.
    """
    parts = urlsplit(url)
    try:
        host = ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        raise BadInput(f"{url}: not an IP address", fix="give 127.0.0.1 or a ClusterIP") from None
    own = cluster.addresses()
    if not (host.is_loopback or host in own.service_subnet or host in own.pod_subnet):
        raise BadInput(f"{url} is not on this machine", fix="load is for this machine's services")
    return str(host), parts.port or 80


def request(url: str, body: bytes) -> bytes:
    """A POST of JSON, as it goes over the wire."""
    parts = urlsplit(url)
    head = (
        f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def load(url: str, body: bytes, connections: int, seconds: float) -> Tally:
    """Asks over `connections` connections for `seconds` after a warm-up."""
    host, port = address(url)
    loop = asyncio.get_running_loop()
    begin = time.perf_counter() + WARM_UP_S
    tally, message = Tally(begin, begin + seconds), request(url, body)
    waits: list[asyncio.Future[None]] = []
    for _ in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        waits.append(done)
        await loop.create_connection(lambda d=done: Asker(message, tally, d), host, port)
    async with asyncio.timeout(WARM_UP_S + seconds + 30):
        await asyncio.gather(*waits)
    return tally


def main(argv: list[str] | None = None) -> None:
    """The process."""
    parser = argparse.ArgumentParser(prog="python -m slipway.bench.load")
    parser.add_argument("url")
    parser.add_argument("body", type=Path)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args(argv)
    connections = min(max(given.connections, 1), MAXIMUM_CONNECTIONS)
    seconds = min(max(given.seconds, 0.1), MAXIMUM_SECONDS)
    tally = asyncio.run(load(given.url, given.body.read_bytes(), connections, seconds))
    print(json.dumps(tally.document()))


if __name__ == "__main__":
    main()
