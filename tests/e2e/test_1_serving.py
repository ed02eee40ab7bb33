"""A model that was trained on the platform answers, says what it is, and refuses bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway import paths
from slipway.endpoints import Cluster

from .conftest import ENV, MODEL, document, until

REQUESTS = Path(__file__).parent.parent / "fixtures" / "requests"


def test_status_says_what_truly_answers() -> None:
    def settled() -> Any:
        board = document("status")
        row = next(r for r in board if (r["model"], r["environment"]) == (MODEL, ENV))
        return row if (row["sync"], row["health"]) == ("Synced", "Healthy") else None

    row = until(settled, 60, "Argo CD does not say that it is synced and healthy", every_s=3)
    assert row["serving"] is True
    assert row["answers"] == row["bento"]


def test_prediction(slipway: Callable[..., str]) -> None:
    answer = slipway("predict", MODEL, "--env", ENV)
    assert 0 < json.loads(answer.splitlines()[0])["probability_late"] < 1
    assert "answered by sha256:" in answer


def test_every_link_of_the_trace_holds() -> None:
    links = document("trace", MODEL, "--env", ENV)
    assert len(links) >= 6
    assert all(link["ok"] for link in links), links


def ask(platform: Cluster, path: str, body: bytes) -> Any:
    return platform.ask(ENV, MODEL, path, body=body)


@pytest.mark.parametrize("file", sorted(REQUESTS.glob("valid/*.json")), ids=lambda f: f.stem)
def test_good_requests(platform: Cluster, file: Path) -> None:
    path = "predict_batch" if "batch" in file.stem else "predict"
    assert ask(platform, path, file.read_bytes()).status_code == 200


@pytest.mark.parametrize("file", sorted(REQUESTS.glob("invalid/*.json")), ids=lambda f: f.stem)
def test_bad_requests_are_refused_with_the_field(platform: Cluster, file: Path) -> None:
    path = "predict_batch" if "batch" in file.stem else "predict"
    response = ask(platform, path, file.read_bytes())
    assert 400 <= response.status_code < 500, response.text
    assert file.with_suffix(".expected").read_text().strip() in response.text


def test_ten_megabytes_are_refused_and_the_model_goes_on(
    platform: Cluster, slipway: Callable[..., str]
) -> None:
    response = ask(platform, "predict", b'{"flight": "' + b"x" * (10 << 20) + b'"}')
    assert response.status_code == 413
    slipway("predict", MODEL, "--env", ENV)


def test_metrics_are_served(platform: Cluster) -> None:
    assert "bentoml_service_request_total" in platform.ask(ENV, MODEL, "metrics").text


def test_unknown_words_are_answered_with_known_ones(slipway: Callable[..., str]) -> None:
    assert "did you mean 'staging'" in slipway("predict", MODEL, "--env", "stagin", code=2)


def test_example_is_the_readme_s(slipway: Callable[..., str]) -> None:
    example = paths.REPOSITORY / "bentos" / MODEL / "example.json"
    assert slipway("predict", MODEL, "--env", ENV, "--data", f"@{example}")
