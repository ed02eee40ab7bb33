"""Waiting for a model: an environment has arrived once nothing but its bento answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from slipway import serving
from slipway.endpoints import BENTO_HEADER, Cluster
from slipway.errors import SlipwayError

NEW, OLD = "sha256:" + "b" * 64, "sha256:" + "a" * 64


def deployment(*, seen: int = 2, updated: int = 1, ready: int = 1) -> dict[str, Any]:
    status = {
        **{"observedGeneration": seen, "replicas": 1},
        **{"updatedReplicas": updated, "readyReplicas": ready},
    }
    return {"metadata": {"generation": 2}, "status": status}


def cluster(answers: Iterator[str | None], deployments: Iterator[dict[str, Any]]) -> Cluster:
    """`answers`: which bento answers each request; None for an API server that does not."""

    def api(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if "/proxy/" in path:
            if (bento := next(answers)) is None:
                raise httpx.ConnectError("refused")
            return httpx.Response(200, headers={BENTO_HEADER: bento})
        if path == "/apis/apps/v1/namespaces/dev/deployments/toy-model":
            return httpx.Response(200, json=next(deployments))
        return httpx.Response(404, json={"message": path})

    client = httpx.Client(base_url="https://api", transport=httpx.MockTransport(api))
    return Cluster(client, embedded=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.time, "sleep", lambda _: None)


def wait(platform: Cluster, **options: Any) -> list[str]:
    news: list[str] = []
    serving.wait_until_answering(platform, "dev", "toy_model", NEW, say=news.append, **options)
    return news


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(deployment(seen=1), id="not looked at yet"),
        pytest.param(deployment(updated=0), id="of the release before"),
        pytest.param(deployment(ready=2), id="one more of the release before"),
    ],
)
def test_it_has_not_arrived_while_an_earlier_replica_may_answer(before: dict[str, Any]) -> None:
    platform = cluster(iter([OLD, NEW, NEW]), iter([before, deployment()]))
    assert wait(platform) == [
        f"toy_model in dev: {OLD} answers",
        "toy_model in dev: the replicas before still answer",
    ]


def test_an_api_server_that_begins_anew_is_waited_for() -> None:
    news = wait(cluster(iter([None, NEW]), iter([deployment()])))
    assert len(news) == 1
    assert "the cluster does not answer" in news[0]


def test_patience_ends_and_says_what_answers_instead() -> None:
    with pytest.raises(SlipwayError, match=f"does not answer as {NEW} after -1 s: {OLD} answers"):
        wait(cluster(iter([OLD]), iter([])), timeout_s=-1)
