"""GPUs that nodes had and pods asked for, this month: from a cluster, or as it was recorded.

A cluster knows nodes and pods that are there. Of pods that are gone the archive of Argo Workflows
knows those that ended by themselves. Nodes that are gone nobody knows: who wants to know what was
idle on them records what there is every few minutes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import yaml
from pydantic import AwareDatetime, Field

from slipway import documents, paths
from slipway.endpoints import Cluster, ClusterError, part, parts
from slipway.errors import BadInput
from slipway.release import Strict

GPU = "nvidia.com/gpu"
POOLS = ("slipway/pool", "karpenter.sh/nodepool", "eks.amazonaws.com/nodegroup")
TEAMS = ("slipway.dev/team", "kueue.x-k8s.io/queue-name")
MODEL = "slipway.dev/model"
# Of a workflow, whose pods stand in a queue that is called as the team.
TEAM = "slipway.dev/team"
# By which a pod and a step of a workflow know each other.
STEP = "workflows.argoproj.io/node-id"
PAGE = 200
NONE = "-"
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RanNode(Strict):
    """A machine, its GPUs, and for how many hours it was there; by `id` it is known again."""

    pool: str
    type: str
    gpus: Amount
    hours: Amount
    id: str = ""


class RanPod(Strict):
    """What a pod asked for, and for how many hours it had it; of a shared GPU, its part."""

    team: str
    model: str
    pool: str
    gpus: Amount
    hours: Amount
    id: str = ""


class Usage(Strict):
    """What ran between two moments."""

    start: AwareDatetime
    end: AwareDatetime
    nodes: tuple[RanNode, ...] = ()
    pods: tuple[RanPod, ...] = ()


def parse(text: str | bytes, file: Path | str) -> Usage:
    """A recorded one. `BadInput` names what is wrong in it."""
    return documents.parse(Usage, text, file)


def merged(before: Usage, now: Usage) -> Usage:
    """What was recorded before, and what of it went on, or began, since.

    Raises:
        BadInput: the record is of another month.
    """
    if before.start != now.start:
        raise BadInput(f"it is of the month that began {before.start}", fix="a file a month")
    nodes = {node.id or str(index): node for index, node in enumerate(before.nodes)}
    pods = {pod.id or str(index): pod for index, pod in enumerate(before.pods)}
    nodes |= {node.id: node for node in now.nodes}
    pods |= {pod.id: pod for pod in now.pods}
    return Usage(
        start=now.start, end=now.end, nodes=tuple(nodes.values()), pods=tuple(pods.values())
    )


def record(file: Path, now: Usage) -> Usage:
    """Adds to a record, or begins one; all that it then has.

    Raises:
        BadInput: the file is no record, or of another month.
    """
    before = parse(file.read_bytes(), file) if file.exists() else None
    whole = merged(before, now) if before else now
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(yaml.safe_dump(whole.model_dump(mode="json"), sort_keys=False))
    fresh.replace(file)
    return whole


def of_cluster(
    cluster: Cluster, now: datetime | None = None, shares: Mapping[str, int] | None = None
) -> Usage:
    """What a cluster knows of this month: nodes and pods that are there, and steps that ended.

    Args:
        shares: pool to as how many its GPUs are offered, for pools of which no node is there.
    """
    now = now or datetime.now(UTC)
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    physical = _physical()
    nodes: dict[str, tuple[RanNode, float]] = {}
    for node in cluster.items("/api/v1/nodes"):
        capacity = _number(part(node, "status", "capacity", GPU))
        if not capacity:
            continue
        labels: Mapping[str, str] = part(node, "metadata", "labels") or {}
        kind = labels.get("node.kubernetes.io/instance-type", NONE)
        # Where pods share them, a node says that it has more.
        gpus = physical.get(kind, capacity)
        came = _time(part(node, "metadata", "creationTimestamp")) or now
        nodes[str(part(node, "metadata", "name"))] = (
            RanNode(
                pool=_first(labels, POOLS),
                type=kind,
                gpus=gpus,
                hours=_hours(came, now, start),
                id=str(part(node, "metadata", "uid") or ""),
            ),
            gpus / capacity,
        )
    pods: list[RanPod] = []
    steps: set[str] = set()
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
        step = part(pod, "metadata", "annotations", STEP)
        steps.add(str(step))
        pods.append(
            RanPod(
                team=team,
                model=labels.get(MODEL, NONE),
                pool=node.pool,
                gpus=asked * share,
                hours=hours,
                id=str(step or part(pod, "metadata", "uid") or ""),
            )
        )
    pools = {name: node.pool for name, (node, _) in nodes.items()}
    parts_of_one = {pool: 1 / many for pool, many in (shares or {}).items()}
    parts_of_one |= {node.pool: share for node, share in nodes.values()}
    for ran in _steps(cluster, start, pools):
        if ran.id not in steps:
            gpus = ran.gpus * parts_of_one.get(ran.pool, 1)
            pods.append(ran.model_copy(update={"gpus": gpus}))
    return Usage(
        start=start, end=now, nodes=tuple(node for node, _ in nodes.values()), pods=tuple(pods)
    )


def _physical() -> dict[str, int]:
    """Instance type to the GPUs that are in it."""
    # The program is run by Pulumi from the checkout, and is no package that is installed.
    if str(paths.REPOSITORY) not in sys.path:
        sys.path.append(str(paths.REPOSITORY))
    families = importlib.import_module("infra.aws.families")
    every = families.sizes(list(families.catalogue().families))
    return {name: size.gpus for name, size in every.items()}


def _steps(cluster: Cluster, start: datetime, pools: Mapping[str, str]) -> Iterator[RanPod]:
    """Steps of workflows that ended and had GPUs, their pods there or not; from Argo's archive.

    Args:
        pools: of the nodes that are there.
    """
    try:
        token = cluster.secret("argo", "console-token")["token"]
        place = cluster.service("argo", "argo-server")
        with (
            place as url,
            httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=30) as argo,
        ):
            for name, uid in _with_gpus(argo, f"{url}/api/v1/workflows/pipelines", start):
                where = f"{url}/api/v1/workflows/pipelines/{name}"
                yield from _of_workflow(_answer(argo, where, uid=uid), start, pools)
    except ClusterError as error:
        if error.status != 404:  # without Argo Workflows nothing was run by it
            raise


def _answer(argo: httpx.Client, url: str, **params: str) -> Any:
    try:
        return argo.get(url, params=params).raise_for_status().json()
    except httpx.HTTPError as error:
        raise ClusterError(f"Argo Workflows does not answer: {error}") from error


def _with_gpus(argo: httpx.Client, url: str, start: datetime) -> Iterator[tuple[str, str]]:
    """Name and uid of this month's workflows that had GPUs, the newest first."""
    wanted = ("metadata.name", "metadata.uid", "status.finishedAt", "status.resourcesDuration")
    fields = ",".join(["metadata.continue", *(f"items.{field}" for field in wanted)])
    more = ""
    while True:
        limits = {"listOptions.limit": str(PAGE), "listOptions.continue": more}
        page = _answer(argo, url, fields=fields, **limits)
        found = parts(page, "items")
        ended = [_time(part(item, "status", "finishedAt")) for item in found]
        for item, end in zip(found, ended, strict=True):
            if GPU in (part(item, "status", "resourcesDuration") or {}) and (
                not end or end > start
            ):
                yield str(part(item, "metadata", "name")), str(part(item, "metadata", "uid"))
        more = str(part(page, "metadata", "continue") or "")
        if not more or all(end and end < start for end in ended):
            return


def _of_workflow(workflow: Any, start: datetime, pools: Mapping[str, str]) -> Iterator[RanPod]:
    labels: Mapping[str, str] = part(workflow, "metadata", "labels") or {}
    given = {p["name"]: p.get("value") for p in parts(workflow, "spec", "arguments", "parameters")}
    for step in (part(workflow, "status", "nodes") or {}).values():
        gpu_seconds = _number(part(step, "resourcesDuration", GPU))
        began, ended = (_time(part(step, when)) for when in ("startedAt", "finishedAt"))
        if not gpu_seconds or part(step, "type") != "Pod" or not (began and ended):
            continue
        whole = _hours(began, ended, began)
        within = _hours(began, ended, start) / whole if whole else 1.0
        pool = given.get("pool") or pools.get(str(part(step, "hostNodeName")), NONE)
        # What Argo keeps is GPUs times seconds.
        yield RanPod(
            team=labels.get(TEAM, "pipelines"),
            model=labels.get(MODEL, NONE),
            pool=str(pool),
            gpus=1,
            hours=gpu_seconds / 3600 * within,
            id=str(part(step, "id")),
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
