"""Asking a model that runs: which bento answers, and what it predicts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from slipway.endpoints import (
    BENTO_HEADER,
    PREDICTION_HEADER,
    Cluster,
    ClusterError,
    part,
    parts,
)
from slipway.errors import BadInput, SlipwayError
from slipway.release import service


@dataclass(frozen=True)
class Answer:
    """A prediction, and the digest of the bento that made it. `id` is "" where none is logged."""

    bento: str
    prediction: Any
    id: str = ""


def predict(cluster: Cluster, env: str, model: str, body: bytes) -> Answer:
    """POSTs a JSON `body` to the model.

    Raises:
        BadInput: the model refuses the input (HTTP 4xx); the message names the fields.
        ClusterError: no model answers in `env`.
    """
    response = cluster.ask(env, model, "predict", body=body, timeout_s=30)
    if response.is_success:
        headers = response.headers
        identity = headers.get(PREDICTION_HEADER, "")
        return Answer(headers.get(BENTO_HEADER, ""), response.json(), identity)
    if response.status_code < 500:
        raise BadInput(f"{model} refuses the input ({response.status_code}):\n{_fields(response)}")
    raise SlipwayError(
        f"{model} in {env} failed: {response.status_code} {response.text[:500]}",
        fix=f"kubectl -n {env} logs deploy/{model.replace('_', '-')} -c model",
    )


def _fields(response: httpx.Response) -> str:
    """One line a wrong field, from BentoML's answer (pydantic's errors under `detail`)."""
    try:
        answer = response.json()
    except ValueError:
        return f"  {response.text[:500]}"
    details = parts(answer, "detail")
    lines = [f"  {'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in details]
    return "\n".join(lines) or f"  {part(answer, 'error') or response.text[:500]}"


def answering(cluster: Cluster, env: str, model: str, *, timeout_s: float = 10) -> str | None:
    """Digest of the bento that answers now, from a readiness check that makes a real prediction.

    None when nothing does.
    """
    try:
        response = cluster.ask(env, model, "readyz", timeout_s=timeout_s)
    except ClusterError as error:
        if error.status:
            return None
        raise
    return response.headers.get(BENTO_HEADER) if response.is_success else None


def wait_until_answering(
    cluster: Cluster,
    env: str,
    model: str,
    digest: str,
    *,
    timeout_s: float = 300,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Returns once `digest` is what answers, and nothing else any more; `say` gets the news.

    Raises:
        SlipwayError: it is not after `timeout_s` seconds; says what answers instead, and why.
    """
    deadline, seen = time.monotonic() + timeout_s, ""
    while what := _otherwise(cluster, env, model, digest):
        if what != seen:
            say(f"{model} in {env}: {what}")
            seen = what
        if time.monotonic() > deadline:
            raise SlipwayError(
                f"{model} in {env} does not answer as {digest} after {timeout_s:.0f} s: {what}",
                fix=f"kubectl -n {env} describe pods -l slipway.dev/model={model}",
            )
        time.sleep(0.5)


def _otherwise(cluster: Cluster, env: str, model: str, digest: str) -> str:
    """What is not yet so that `digest` alone should answer; empty once it does."""
    try:
        found = answering(cluster, env, model)
        if found == digest:
            return "" if _is_alone(cluster, env, model) else "the replicas before still answer"
        return f"{found} answers" if found else trouble(cluster, env, model) or "no answer yet"
    except ClusterError as error:
        if error.status:
            raise
        return str(error)  # an API server that is busy, or begins anew, answers a moment later


def _is_alone(cluster: Cluster, env: str, model: str) -> bool:
    """Whether every replica is of the newest release: one more may serve beside those before."""
    deployment = cluster.find(f"/apis/apps/v1/namespaces/{env}/deployments/{service(model)}")
    status = part(deployment, "status")
    seen, wanted = part(status, "observedGeneration"), part(deployment, "metadata", "generation")
    counts = {part(status, kind) for kind in ("replicas", "updatedReplicas", "readyReplicas")}
    return seen == wanted and len(counts) == 1


def trouble(cluster: Cluster, env: str, model: str) -> str:
    """Why a pod of the model does not come up, in its containers' own words; empty if none says."""
    selector = f"slipway.dev/model={model}"
    for pod in cluster.items(f"/api/v1/namespaces/{env}/pods", labelSelector=selector):
        containers = parts(pod, "status", "initContainerStatuses")
        for container in containers + parts(pod, "status", "containerStatuses"):
            for state in ("state", "lastState"):
                ended = part(container, state, "terminated")
                if part(ended, "exitCode") and part(ended, "message"):
                    return str(ended["message"]).strip()
            if message := part(container, "state", "waiting", "message"):
                return f"{part(container, 'state', 'waiting', 'reason')}: {message}"
    return ""
