"""What the model sees of a flight: one definition, used in training and in serving.

Everything here is known before departure. `arrays` works on plain Python values, so serving needs
no pandas; `frame` does the same to whole tables. A test holds the two to the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

TEXT = ("carrier", "origin", "destination")
MEASURED = (
    "distance_miles",
    "plane_age_years",
    "plane_seats",
    "temperature_f",
    "dew_point_f",
    "humidity_percent",
    "wind_direction_degrees",
    "wind_speed_mph",
    "wind_gust_mph",
    "precipitation_inches",
    "pressure_mbar",
    "visibility_miles",
)
DERIVED = ("minute_of_day", "weekday")
NUMBERS = (*MEASURED, *DERIVED)


class Flight(Protocol):
    """Has the attributes of TEXT and MEASURED too."""

    @property
    def scheduled_departure(self) -> datetime: ...


def arrays(flights: Sequence[Flight]) -> dict[str, np.ndarray[Any, Any]]:
    """The model's inputs: `text` (n, 3) of objects, `numbers` (n, 14) float32 with NaN for None."""
    text = [[getattr(flight, name) for name in TEXT] for flight in flights]
    numbers = [
        [
            *(getattr(flight, name) for name in MEASURED),
            flight.scheduled_departure.hour * 60 + flight.scheduled_departure.minute,
            flight.scheduled_departure.weekday(),
        ]
        for flight in flights
    ]
    return {"text": np.array(text, dtype=object), "numbers": np.array(numbers, dtype=np.float32)}


def frame(flights: pd.DataFrame) -> pd.DataFrame:
    """The same for a table of flights: columns TEXT then NUMBERS, one row a flight."""
    times = flights["scheduled_departure"].dt
    derived = flights.assign(
        minute_of_day=times.hour * 60 + times.minute, weekday=times.day_of_week
    )
    return derived[[*TEXT, *NUMBERS]].astype(dict.fromkeys(NUMBERS, np.float32))
