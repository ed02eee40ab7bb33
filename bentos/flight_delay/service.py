"""Serves the probability that a flight lands 15 minutes late or more."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import bentoml
import features
import numpy as np
import onnxruntime
from pydantic import BaseModel, ConfigDict, Field, NaiveDatetime

HERE = Path(__file__).parent
MAXIMUM_BODY_BYTES = 1 << 20
DROPPED_BODY_BYTES = 64 << 20
MAXIMUM_LOG_BYTES = 16 << 20
MAXIMUM_FLIGHTS = 1000


def _unit(unit: str, low: float, high: float) -> Any:
    return Field(description=f"{unit}; null if unknown", ge=low, le=high, allow_inf_nan=False)


class Flight(BaseModel):
    """A flight as known before departure. Every field is required; a measurement may be null."""

    model_config = ConfigDict(extra="forbid")

    carrier: str = Field(description="IATA code of the airline", pattern=r"^[A-Z0-9]{2}$")
    origin: Literal["EWR", "JFK", "LGA"] = Field(description="IATA code of the airport")
    destination: str = Field(description="IATA code of the airport", pattern=r"^[A-Z]{3}$")
    scheduled_departure: NaiveDatetime = Field(
        description="local time in New York, without offset: 2013-12-20T18:30:00"
    )
    distance_miles: float = Field(
        description="miles between the airports", ge=1, le=6000, allow_inf_nan=False
    )
    plane_age_years: Annotated[float | None, _unit("years", 0, 100)]
    plane_seats: Annotated[float | None, _unit("seats", 1, 900)]
    temperature_f: Annotated[float | None, _unit("°F at the scheduled hour", -60, 130)]
    dew_point_f: Annotated[float | None, _unit("°F", -80, 100)]
    humidity_percent: Annotated[float | None, _unit("% relative humidity", 0, 100)]
    wind_direction_degrees: Annotated[float | None, _unit("degrees, 0 and 360 are north", 0, 360)]
    wind_speed_mph: Annotated[float | None, _unit("miles an hour", 0, 150)]
    wind_gust_mph: Annotated[float | None, _unit("miles an hour; null without gusts", 0, 200)]
    precipitation_inches: Annotated[float | None, _unit("inches in the hour", 0, 10)]
    pressure_mbar: Annotated[float | None, _unit("millibar at sea level", 850, 1100)]
    visibility_miles: Annotated[float | None, _unit("miles", 0, 100)]


class Prediction(BaseModel):
    """What the model answers for one flight."""

    probability_late: float = Field(description="of landing 15 minutes late or more", ge=0, le=1)


PROBABILITY = next(iter(Prediction.model_fields))


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
        with contextlib.suppress(ValueError, TypeError, KeyError):
            found = json.loads(answer)
            entry["input_sha256"] = hashlib.sha256(body).hexdigest()
            answers = found if isinstance(found, list) else [found]
            entry["probability"] = [one[PROBABILITY] for one in answers]
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


@bentoml.service(
    traffic={"timeout": 10},
    # One line a request costs more than the prediction; /metrics counts and times them all.
    logging={"access": {"enabled": False}},
    # Spans that nothing collects were two fifths of the time of a request.
    tracing={"excluded_urls": ".*"},
)
class FlightDelay:
    """Probability that a flight from New York lands 15 minutes late or more."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        # One flight is 50 µs of work: handing it to another thread costs more than doing it.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.model = onnxruntime.InferenceSession(
            str(HERE / "model" / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        example = json.loads((HERE / "example.json").read_text())
        self.example = Flight.model_validate(example["flight"])

    def probabilities(self, flights: list[Flight]) -> list[float]:
        """Of landing late, one a flight."""
        answer: Any = self.model.run(["probabilities"], features.arrays(flights))[0]
        return np.asarray(answer)[:, 1].tolist()

    # Asynchronous though it never waits: BentoML hands a plain method to a thread pool.
    @bentoml.api
    async def predict(self, flight: Flight) -> Prediction:
        """The probability for one flight, answered at once."""
        return Prediction(probability_late=self.probabilities([flight])[0])

    @bentoml.api(batchable=True, max_batch_size=MAXIMUM_FLIGHTS, max_latency_ms=1000)
    def predict_batch(
        self, flights: Annotated[list[Flight], Field(min_length=1, max_length=MAXIMUM_FLIGHTS)]
    ) -> list[Prediction]:
        """The probabilities for up to 1,000 flights; requests that wait together run together."""
        return [Prediction(probability_late=p) for p in self.probabilities(flights)]

    async def __is_ready__(self) -> bool:
        """Ready is what has just made a real prediction."""
        return 0 <= self.probabilities([self.example])[0] <= 1


FlightDelay.add_asgi_middleware(Envelope)
