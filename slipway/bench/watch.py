"""Callers of a model who ask all the time: what each was answered, by which bento, and when.

A process of its own: `python -m slipway.bench.watch URL BODY_FILE` prints a line of JSON for every
answer until its input ends, at most for MAXIMUM_SECONDS. It asks this machine alone. Each request
comes on a connection of its own: a kept one would go on to the pod that it once got.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from slipway import paths
from slipway.bench.load import address, answer_head, request
from slipway.endpoints import BENTO_HEADER
from slipway.errors import SlipwayError

RATE, MAXIMUM_RATE, MAXIMUM_SECONDS, TIMEOUT_S = 20.0, 50.0, 3600.0, 10.0


@dataclass(frozen=True)
class Answer:
    """One request. Times in seconds since the epoch; `bento` is "" where the answer names none;
    `status` is HTTP's, or why there was no answer."""

    asked: float
    answered: float
    status: str
    bento: str

    @property
    def good(self) -> bool:
        return self.status == "200"


@dataclass
class Watch:
    """All answers so far, in the order in which they came; `over` when none come any more."""

    answers: list[Answer] = field(default_factory=list[Answer])
    over: threading.Event = field(default_factory=threading.Event)

    def since(self, begin: float) -> list[Answer]:
        """Answers to what was asked at `begin` or later, in the order of asking."""
        return sorted((a for a in self.answers if a.asked >= begin), key=lambda a: a.asked)

    def settled(self, begin: float, bento: str, *, for_s: float) -> float | None:
        """Seconds from `begin` until the first request of those that only `bento` answered.

        None while that is not so, or has been so for less than `for_s` seconds.
        """
        first = last = None
        for answer in self.since(begin):
            if not answer.good:
                continue
            if answer.bento != bento:
                first = None
            elif first is None:
                first = answer.asked
            last = answer.asked
        if first is None or last is None or last - first < for_s:
            return None
        return first - begin

    def failures(self, begin: float) -> dict[str, int]:
        """How many requests since `begin` failed, by status."""
        found: dict[str, int] = {}
        for answer in self.since(begin):
            if not answer.good:
                found[answer.status] = found.get(answer.status, 0) + 1
        return found


@contextmanager
def watching(url: str, body: Path, rate: float = RATE) -> Generator[Watch, None, None]:
    """Asks `rate` times a second while the body runs.

    Raises:
        SlipwayError: the process that asks has ended by itself.
    """
    command = [sys.executable, "-m", "slipway.bench.watch", url, str(body), "--rate", str(rate)]
    process = subprocess.Popen(
        command,
        cwd=paths.REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watch = Watch()

    def read() -> None:
        assert process.stdout  # noqa: S101 -- it was asked for
        for line in process.stdout:
            watch.answers.append(Answer(**json.loads(line)))
        watch.over.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield watch
        ended = watch.over.is_set()
    finally:
        _, said = process.communicate("")
        reader.join()
    if ended:
        raise SlipwayError(f"requests to {url} ended: {said.strip()[-500:]}")


async def ask(host: str, port: int, message: bytes) -> Answer:
    """One request on a connection of its own."""
    asked = time.time()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(message)
                head = await reader.readuntil(b"\r\n\r\n")
                status, length = answer_head(head)
                await reader.readexactly(length or 0)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        return Answer(asked, time.time(), type(error).__name__, "")
    return Answer(asked, time.time(), status, bento(head))


def bento(head: bytes) -> str:
    """The bento that an answer's head names, or ""."""
    fields = (line.partition(":") for line in head.decode("latin-1").split("\r\n"))
    named = (value.strip() for name, _, value in fields if name.lower() == BENTO_HEADER)
    return next(named, "")


async def loop(url: str, body: bytes, rate: float, tell: Callable[[Answer], None]) -> None:
    """Asks at a constant rate, whatever the answers take, until standard input ends."""
    host, port = address(url)
    message = request(url, body).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
    began, number = time.monotonic(), 0
    running: set[asyncio.Task[None]] = set()

    async def one() -> None:
        tell(await ask(host, port, message))

    while not ended.done() and time.monotonic() - began < MAXIMUM_SECONDS:
        task = asyncio.create_task(one())
        running.add(task)
        task.add_done_callback(running.discard)
        number += 1
        await asyncio.sleep(max(began + number / rate - time.monotonic(), 0))
    await asyncio.gather(*running)


def main(argv: list[str] | None = None) -> None:
    """The process."""
    parser = argparse.ArgumentParser(prog="python -m slipway.bench.watch")
    parser.add_argument("url")
    parser.add_argument("body", type=Path)
    parser.add_argument("--rate", type=float, default=RATE)
    given = parser.parse_args(argv)
    rate = min(max(given.rate, 0.1), MAXIMUM_RATE)

    def tell(answer: Answer) -> None:
        print(json.dumps(asdict(answer)), flush=True)

    asyncio.run(loop(given.url, given.body.read_bytes(), rate, tell))


if __name__ == "__main__":
    main()
