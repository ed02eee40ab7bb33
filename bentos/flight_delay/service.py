"""Serves the probability that a flight lands 15 minutes late or more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import bentoml
import features
import numpy as np
import onnxruntime
from envelope import Envelope
from pydantic import BaseModel, ConfigDict, Field, NaiveDatetime

HERE = Path(__file__).parent
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
