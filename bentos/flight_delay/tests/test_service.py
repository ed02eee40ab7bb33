"""The service as its users meet it: over HTTP, on a small model trained here."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from slipway import bento

FOLDER = Path(__file__).parent.parent
EXAMPLE: dict[str, Any] = json.loads((FOLDER / "example.json").read_text())
BENTO = "sha256:" + "a" * 64


@pytest.fixture(scope="module")
def training() -> Any:
    return bento.load(FOLDER).training()


@pytest.fixture(scope="module")
def months(training: Any) -> dict[str, pd.DataFrame]:
    return dict(training.ingest())


@pytest.fixture(scope="module")
def sample(months: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([rows.iloc[::80] for rows in months.values()], ignore_index=True)


@pytest.fixture(scope="module")
def model(training: Any, sample: pd.DataFrame) -> Any:
    parameters = bento.load(FOLDER).config.parameters
    y = training.target(sample)
    known = ~np.isnan(y)
    return training.fit(
        training.features(sample)[known],
        y[known],
        {**parameters, "max_iter": 30, "min_samples_leaf": 20},
    )


@pytest.fixture(scope="module")
def service(training: Any, model: Any, tmp_path_factory: pytest.TempPathFactory) -> Generator[Any]:
    """The service class, imported from a folder laid out as in the bento."""
    folder = tmp_path_factory.mktemp("bento")
    served = bento.load(FOLDER).served
    for name, source in served.items():
        shutil.copy(source, folder / name)
    (folder / "model").mkdir()
    for name, content in training.export(model).items():
        (folder / "model" / name).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIPWAY_BENTO_DIGEST", BENTO)
        patch.syspath_prepend(str(folder))
        for name in served:
            sys.modules.pop(Path(name).stem, None)
        import service

        yield service
    sys.modules.pop("service", None)


@pytest.fixture(scope="module")
def call(service: Any) -> Generator[Callable[..., httpx.Response]]:
    """Sends one request to the whole ASGI application, middleware included."""
    app = service.FlightDelay.to_asgi()
    lifespan = app.router.lifespan_context(app)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://model")
    with asyncio.Runner() as runner:  # one loop: the batching queue belongs to it
        runner.run(lifespan.__aenter__())
        yield lambda *arguments, **options: runner.run(client.request(*arguments, **options))
        runner.run(client.aclose())
        runner.run(lifespan.__aexit__(None, None, None))


def flight(**changes: Any) -> dict[str, Any]:
    return {"flight": {**EXAMPLE["flight"], **changes}}


def test_no_input_is_known_only_after_departure(training: Any, sample: pd.DataFrame) -> None:
    after = {"dep_time", "dep_delay", "arr_time", "air_time", "arrival_delay_minutes"}
    assert not after & set(training.features(sample).columns)
    changed = sample.assign(arrival_delay_minutes=0.0)
    pd.testing.assert_frame_equal(training.features(sample), training.features(changed))


def test_cancelled_flights_have_no_target(training: Any, sample: pd.DataFrame) -> None:
    unknown = np.isnan(training.target(sample))
    assert 0 < unknown.mean() < 0.1
    assert (unknown == sample["arrival_delay_minutes"].isna()).all()


def test_all_flights_of_the_year_are_ingested_in_twelve_months(
    months: dict[str, pd.DataFrame],
) -> None:
    assert len(months) == 12
    assert sum(map(len, months.values())) == 336_776


def test_onnx_agrees_with_scikit_learn(training: Any, model: Any, sample: pd.DataFrame) -> None:
    x = training.features(sample).copy()
    x.loc[:9, "carrier"] = "ZZ"  # a category never seen
    served = training.predict(training.export(model), x)
    np.testing.assert_allclose(served, model.predict_proba(x)[:, 1], atol=1e-5)


def test_serving_sees_the_features_that_training_saw(
    training: Any, service: Any, sample: pd.DataFrame
) -> None:
    rows = sample.head(50)
    fields = service.Flight.model_fields
    flights = [
        service.Flight.model_validate({k: None if pd.isna(v) else v for k, v in row.items()})
        for row in rows[list(fields)].to_dict("records")
    ]
    arrays, table = service.features.arrays(flights), training.features(rows)
    names = service.features.TEXT, service.features.NUMBERS
    np.testing.assert_array_equal(arrays["text"], table[list(names[0])].to_numpy(dtype=object))
    np.testing.assert_array_equal(arrays["numbers"], table[list(names[1])].to_numpy())


def test_a_prediction(call: Any) -> None:
    answer = call("POST", "/predict", json=EXAMPLE)
    assert answer.status_code == 200
    assert 0 < answer.json()["probability_late"] < 1
    assert answer.headers["x-slipway-bento"] == BENTO


def test_a_batch_is_the_single_predictions(call: Any) -> None:
    flights = [flight()["flight"], flight(carrier="B6", temperature_f=None)["flight"]]
    singles = [call("POST", "/predict", json={"flight": one}).json() for one in flights]
    answer = call("POST", "/predict_batch", json={"flights": flights})
    probabilities = [one["probability_late"] for one in singles]
    assert [one["probability_late"] for one in answer.json()] == pytest.approx(probabilities)


@pytest.mark.parametrize("count", [0, 1001])
def test_a_batch_too_small_or_too_large_is_refused(call: Any, count: int) -> None:
    answer = call("POST", "/predict_batch", json={"flights": [EXAMPLE["flight"]] * count})
    assert answer.status_code == 400
    assert "flights" in answer.text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (flight(carrier="united"), "carrier"),
        (flight(origin="BOS"), "origin"),
        (flight(scheduled_departure="tomorrow"), "scheduled_departure"),
        (flight(scheduled_departure="2013-12-20T18:30:00Z"), "scheduled_departure"),
        (flight(distance_miles="far"), "distance_miles"),
        (flight(distance_miles=None), "distance_miles"),
        (flight(humidity_percent=101), "humidity_percent"),
        (flight(temperature_f=float("nan")), "temperature_f"),
        (flight(visibility_miles=float("inf")), "visibility_miles"),
        (flight(dep_delay=20), "dep_delay"),
        ({"flight": {k: v for k, v in EXAMPLE["flight"].items() if k != "carrier"}}, "carrier"),
        ({}, "flight"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_refused_by_name(call: Any, body: dict[str, Any], field: str) -> None:
    answer = call(
        "POST",
        "/predict",
        content=json.dumps(body),
        headers={"content-type": "application/json"},
    )
    assert 400 <= answer.status_code < 500
    assert field in answer.text
    assert answer.headers["x-slipway-bento"] == BENTO


def test_a_body_over_a_mebibyte_is_refused(call: Any) -> None:
    answer = call("POST", "/predict", content=b"x" * (10 << 20))
    assert answer.status_code == 413
    assert answer.headers["x-slipway-bento"] == BENTO
    assert answer.headers["content-length"] == str(len(answer.content))


def test_text_that_is_not_json_is_refused(call: Any) -> None:
    answer = call("POST", "/predict", content=b"{", headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500


def test_ready_is_a_real_prediction(
    call: Any, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("GET", "/readyz").status_code == 200
    monkeypatch.setattr(service.FlightDelay.inner, "probabilities", lambda *_: [float("nan")])
    assert call("GET", "/readyz").status_code == 503


@pytest.mark.slow
def test_the_served_process_answers_and_counts(service: Any, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bentoml", "serve", "service:FlightDelay"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--working-dir", str(Path(service.__file__).parent)]
    log = tmp_path / "log.jsonl"
    environment = {**os.environ, "SLIPWAY_PREDICTION_LOG": str(log)}
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                deadline = time.monotonic() + 120
                while time.monotonic() < deadline:
                    try:
                        if client.get("/readyz").status_code == 200:
                            break
                    except httpx.TransportError:
                        time.sleep(0.2)
                assert client.post("/predict", json=EXAMPLE).status_code == 200
                assert client.post("/predict", content=b"x" * (10 << 20)).status_code == 413
                metrics = client.get("/metrics")
                assert metrics.headers["x-slipway-bento"] == BENTO
                assert 'endpoint="/predict",http_response_code="200"' in metrics.text
        finally:
            os.killpg(process.pid, signal.SIGTERM)
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["status"] for line in logged] == [200, 413]
    assert 0 < logged[0]["prediction"][0] < 1
