"""What is around every service: who answered, how much it may be sent, what it predicted."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable, Generator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from bentos.serving import envelope

BENTO = "sha256:" + "a" * 64


async def answering(scope: Any, receive: Any, send: Any) -> None:
    """Behind the envelope: answers with the request's body, or refuses what is no JSON."""
    if scope["type"] == "lifespan":
        return
    body = (await receive()).get("body", b"")
    status = 200 if body.startswith((b"{", b"[")) else 400
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body[:5], "more_body": True})
    await send({"type": "http.response.body", "body": body[5:]})


@pytest.fixture
def logged(tmp_path: Path) -> Generator[Callable[..., Any]]:
    """Sends one request to a server that logs; gives the answer and what was logged by its end."""
    file = tmp_path / "log.jsonl"

    async def ask(method: str, path: str, **options: Any) -> httpx.Response:
        app = envelope.Envelope(answering)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
            answer = await client.request(method, path, **options)
        await app({"type": "lifespan"}, None, None)
        return answer

    def run(*arguments: Any, **options: Any) -> Any:
        answer = asyncio.run(ask(*arguments, **options))
        lines = file.read_text().splitlines() if file.exists() else []
        return answer, [json.loads(line) for line in lines]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIPWAY_BENTO_DIGEST", BENTO)
        patch.setenv("SLIPWAY_PREDICTION_LOG", str(file))
        patch.setenv("SLIPWAY_DRAINING", str(tmp_path / "draining"))
        yield run


ONE, TWO = {"probability": 0.25, "sure": 0.9}, {"probability": 0.75, "sure": None}


def test_a_prediction_is_logged_under_the_id_that_its_caller_got(logged: Any) -> None:
    before = time.time() - 0.001
    answer, [line] = logged("POST", "/predict", json=ONE)
    assert line == {
        "time": line["time"],
        "id": answer.headers["x-slipway-prediction"],
        "bento": BENTO,
        "path": "/predict",
        "status": 200,
        "input_sha256": hashlib.sha256(answer.request.content).hexdigest(),
        "prediction": [0.25],
    }
    when = datetime.fromisoformat(line["time"]).timestamp()
    assert before <= when <= time.time()
    assert int(line["id"][:12], 16) / 1000 == pytest.approx(when)
    assert re.fullmatch("[0-9a-f]{28}", line["id"])


def test_a_batch_is_one_line(logged: Any) -> None:
    _, [line] = logged("POST", "/predict_batch", json=[ONE, TWO])
    assert line["prediction"] == [0.25, 0.75]


@pytest.mark.parametrize(
    "answered",
    [b"{cut o", b"[]x", b"{}", b"[1, 2]", b'{"late": true}', b'{"late": "yes"}', b'[{"a": 1}, {}]'],
)
def test_an_answer_of_no_numbers_is_logged_without_a_prediction(
    logged: Any, answered: bytes
) -> None:
    answer, [line] = logged("POST", "/predict", content=answered)
    assert (answer.status_code, answer.content) == (200, answered)
    assert line["id"] == answer.headers["x-slipway-prediction"]
    assert "prediction" not in line


@pytest.mark.parametrize(("body", "status"), [(b"x", 400), (b"x" * (2 << 20), 413)])
def test_what_was_refused_is_logged_without_a_prediction(
    logged: Any, body: bytes, status: int
) -> None:
    answer, [line] = logged("POST", "/predict", content=body)
    assert answer.status_code == line["status"] == status
    assert "prediction" not in line


def test_what_is_no_prediction_is_not_logged(
    logged: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, lines = logged("GET", "/readyz")
    assert "x-slipway-prediction" not in answer.headers
    assert lines == []
    assert not list(tmp_path.iterdir())
    monkeypatch.delenv("SLIPWAY_PREDICTION_LOG")
    assert "x-slipway-prediction" not in logged("POST", "/predict", json=ONE)[0].headers


def test_a_log_that_cannot_be_written_fails_no_request(
    logged: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_PREDICTION_LOG", str(tmp_path / "gone" / "log.jsonl"))
    assert logged("POST", "/predict", json=ONE)[0].status_code == 200


def test_a_log_that_nobody_ships_stops_growing(
    logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envelope, "MAXIMUM_LOG_BYTES", 100)
    for _ in range(3):
        _, lines = logged("POST", "/predict", json=ONE)
    assert len(lines) == 1


def test_a_replica_that_drains_sends_its_clients_away(logged: Any, tmp_path: Path) -> None:
    assert "connection" not in logged("POST", "/predict", json=ONE)[0].headers
    (tmp_path / "draining").touch()
    answer, _ = logged("POST", "/predict", json=ONE)
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"
