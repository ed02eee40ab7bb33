"""A model that was trained on the platform answers, says what it is, and refuses bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway import bento, lineage, paths
from slipway.endpoints import Cluster
from slipway.forge import Gitea
from slipway.steps import serving_only

from .conftest import ENV, MODEL, document, released, until

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


@pytest.mark.timeout(600)
def test_a_try_makes_the_bento_that_is_released(forge: Gitea) -> None:
    """On this machine, from the working tree, without what the platform has trained."""
    pins = released(forge, ENV)
    assert pins
    commit, same = pins.code.commit, [bento.ENVELOPE, bento.LOCK, serving_only.SERVING]
    here = {f.relative_to(paths.REPOSITORY).as_posix(): f.read_bytes() for f in same}
    if lineage.code_at(forge, MODEL, commit) != bento.find(MODEL).code() or any(
        forge.read(path, commit) != content for path, content in here.items()
    ):
        pytest.skip(f"this checkout has other code than {commit[:12]}, which dev runs")
    tried = document("try", MODEL, "--skip-serve", "--against", ENV)
    assert tried["bento"]["digest"] == pins.bento.digest
    assert tried["evaluation"]["data"]["digest"] == pins.data.digest
    assert tried["champion"]["bento"] == pins.bento.digest
    known = [f for f in tried["findings"] if f["rule"] in ("non_inferior", "signature")]
    assert {f["state"] for f in known} == {"pass"}


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
