"""GPUs that nodes had and pods asked for, this month: from a cluster, or as it was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, Field

from slipway import documents
from slipway.endpoints import Cluster, part
from slipway.release import Strict

GPU = "nvidia.com/gpu"
# How many there are of flesh and blood, where pods share them.
PHYSICAL = "nvidia.com/gpu.count"
POOLS = ("slipway/pool", "karpenter.sh/nodepool", "eks.amazonaws.com/nodegroup")
TEAMS = ("slipway.dev/team", "kueue.x-k8s.io/queue-name")
MODEL = "slipway.dev/model"
NONE = "-"
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RanNode(Strict):
    """A machine, its GPUs, and for how many hours it was there."""

    pool: str
    type: str
    gpus: Amount
    hours: Amount


class RanPod(Strict):
    """What a pod asked for, and for how many hours it had it; of a shared GPU, its part."""

    team: str
    model: str
    pool: str
    gpus: Amount
    hours: Amount


class Usage(Strict):
    """What ran between two moments."""

    start: AwareDatetime
    end: AwareDatetime
    nodes: tuple[RanNode, ...] = ()
    pods: tuple[RanPod, ...] = ()


def parse(text: str | bytes, file: Path | str) -> Usage:
    """A recorded one. `BadInput` names what is wrong in it."""
    return documents.parse(Usage, text, file)


def of_cluster(cluster: Cluster, now: datetime | None = None) -> Usage:
    """What a cluster still knows of this month: nodes that are there, and pods on them."""
    now = now or datetime.now(UTC)
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    nodes: dict[str, tuple[RanNode, float]] = {}
    for node in cluster.items("/api/v1/nodes"):
        capacity = _number(part(node, "status", "capacity", GPU))
        if not capacity:
            continue
        labels: Mapping[str, str] = part(node, "metadata", "labels") or {}
        gpus = _number(labels.get(PHYSICAL)) or capacity
        came = _time(part(node, "metadata", "creationTimestamp")) or now
        nodes[str(part(node, "metadata", "name"))] = (
            RanNode(
                pool=_first(labels, POOLS),
                type=labels.get("node.kubernetes.io/instance-type", NONE),
                gpus=gpus,
                hours=_hours(came, now, start),
            ),
            gpus / capacity,
        )
    pods: list[RanPod] = []
    for pod in cluster.items("/api/v1/pods"):
        asked = sum(_asked(c) for c in part(pod, "spec", "containers") or [])
        where = nodes.get(str(part(pod, "spec", "nodeName")))
        began = _time(part(pod, "status", "startTime"))
        if not asked or where is None or began is None:
            continue
        node, share = where
        labels = part(pod, "metadata", "labels") or {}
        team = _first(labels, TEAMS, str(part(pod, "metadata", "namespace")))
        hours = _hours(began, _ended(pod) or now, start)
        pods.append(
            RanPod(
                team=team,
                model=labels.get(MODEL, NONE),
                pool=node.pool,
                gpus=asked * share,
                hours=hours,
            )
        )
    return Usage(
        start=start, end=now, nodes=tuple(node for node, _ in nodes.values()), pods=tuple(pods)
    )


def _asked(container: Any) -> float:
    # Of what is no number of cores or bytes, requests and limits are the same.
    return _number(part(container, "resources", "limits", GPU))


def _ended(pod: Mapping[str, Any]) -> datetime | None:
    """When the last container of a pod that has ended did."""
    if part(pod, "status", "phase") not in ("Succeeded", "Failed"):
        return None
    statuses: list[Any] = part(pod, "status", "containerStatuses") or []
    times = [_time(part(status, "state", "terminated", "finishedAt")) for status in statuses]
    return max((t for t in times if t), default=None)


def _first(labels: Mapping[str, str], names: tuple[str, ...], otherwise: str = NONE) -> str:
    return next((labels[name] for name in names if labels.get(name)), otherwise)


def _hours(start: datetime, end: datetime, not_before: datetime) -> float:
    return max(0.0, (end - max(start, not_before)).total_seconds() / 3600)


def _time(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return 0.0
