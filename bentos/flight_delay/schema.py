"""What the data must look like before a model is trained on it."""

from __future__ import annotations

from pandera.pandas import Check, Column, DataFrameSchema


def _number(low: float, high: float, *, nullable: bool = True) -> Column:
    return Column(float, Check.in_range(low, high), nullable=nullable)


SCHEMA = DataFrameSchema(
    {
        "scheduled_departure": Column("datetime64[s]"),
        "carrier": Column(str, Check.str_matches(r"^[A-Z0-9]{2}$")),
        "flight": Column(int, Check.gt(0)),
        "tail_number": Column(str, nullable=True),
        "origin": Column(str, Check.isin(["EWR", "JFK", "LGA"])),
        "destination": Column(str, Check.str_matches(r"^[A-Z]{3}$")),
        "distance_miles": _number(1, 6000, nullable=False),
        "plane_age_years": _number(0, 100),
        "plane_seats": _number(1, 900),
        "temperature_f": _number(-60, 130),
        "dew_point_f": _number(-80, 100),
        "humidity_percent": _number(0, 100),
        "wind_direction_degrees": _number(0, 360),
        "wind_speed_mph": _number(0, 150),
        "wind_gust_mph": _number(0, 200),
        "precipitation_inches": _number(0, 10),
        "pressure_mbar": _number(850, 1100),
        "visibility_miles": _number(0, 100),
        "arrival_delay_minutes": _number(-180, 2880),
    },
    strict=True,
    unique=["scheduled_departure", "carrier", "flight", "origin", "destination"],
)
