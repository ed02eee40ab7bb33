"""Two hundred experiments on simulated GPUs: until all run, how fast, and until the nodes are gone.

The schedulers are the real ones: Argo Workflows makes the pods, Kueue lets them begin, Karpenter
makes nodes for them, kube-scheduler puts them there. Only the nodes are played, by kwok.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from slipway import experiments, training, up
from slipway.bench.figures import Figure
from slipway.endpoints import Cluster, part, parts
from slipway.errors import SlipwayError
from slipway.experiments import KUEUE, POOL, Queue
from slipway.training import NAMESPACE
from slipway.usage import GPU

COUNT = 200
# Long enough that the first still run when the last begin.
SIMULATED_FOR = "90s"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
# What a container there has to be content with.
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "seccompProfile": {"type": "RuntimeDefault"},
}
NODES = "/api/v1/nodes"
WORKFLOWS = f"{training.API}/workflows"
GPU_NODES = "slipway/nodes=gpu"
QUEUE = "kueue.x-k8s.io/queue-name"
MARK = "slipway.dev/bench"
LOOK_S, FAST_S = 1.0, 0.2
PATIENCE_S, AT_ONCE = 300.0, 8


@dataclass(frozen=True)
class Quota:
    """A team's GPUs in a pool: its own, what it may have in all, and what it has."""

    team: str
    pool: str
    own: int
    most: int
    used: int


def quotas(platform: Cluster) -> list[Quota]:
    """What Kueue has given to whom.

    A team may have what is its own, and what others of its cohort leave, as far as it may borrow.
    """
    queues = platform.items(f"{KUEUE}/clusterqueues")
    own: dict[tuple[str, str], tuple[int, int | None]] = {}
    used: dict[tuple[str, str], int] = {}
    for queue in queues:
        team = queue["metadata"]["name"]
        for group in parts(queue, "spec", "resourceGroups"):
            for flavor in parts(group, "flavors"):
                for resource in parts(flavor, "resources"):
                    if resource["name"] == GPU:
                        limit = resource.get("borrowingLimit")
                        borrows = None if limit is None else int(limit)
                        own[team, flavor["name"]] = int(resource["nominalQuota"]), borrows
        for flavor in parts(queue, "status", "flavorsReservation"):
            for resource in parts(flavor, "resources"):
                if resource["name"] == GPU:
                    used[team, flavor["name"]] = int(resource.get("total") or 0)
    whole: dict[str, int] = {}
    for (_, pool), (gpus, _) in own.items():
        whole[pool] = whole.get(pool, 0) + gpus
    return [
        Quota(
            team,
            pool,
            gpus,
            whole[pool] if borrows is None else min(whole[pool], gpus + borrows),
            used.get((team, pool), 0),
        )
        for (team, pool), (gpus, borrows) in own.items()
    ]


def broken(found: list[Quota]) -> list[str]:
    """Quotas that do not hold, in words: a team has more than it may, or all together have."""
    said = [f"{q.team} has {q.used} of {q.most} in {q.pool}" for q in found if q.used > q.most]
    for pool in {q.pool for q in found}:
        here = [q for q in found if q.pool == pool]
        used, whole = sum(q.used for q in here), sum(q.own for q in here)
        if used > whole:
            said.append(f"all teams have {used} of {whole} in {pool}")
    return said


def check_simulated(platform: Cluster) -> None:
    """`SlipwayError` unless the GPU pools of this cluster are simulated: others cost money."""
    pools = platform.items("/apis/karpenter.sh/v1/nodepools")
    kinds = {part(p, "spec", "template", "spec", "nodeClassRef", "kind") for p in pools}
    if kinds != {"KWOKNodeClass"}:
        raise SlipwayError(
            "this cluster has no simulated GPU pools",
            fix="slipway pulumi up --stack simulated --yes",
        )


def largest(platform: Cluster) -> tuple[Queue, str]:
    """The pool with the most GPUs, and the team that has most of them."""
    found = quotas(platform)
    if not found:
        raise SlipwayError("no team has a quota of GPUs", fix="name teams in the stack file")
    mine = max(found, key=lambda q: (q.most, q.own))
    return experiments.queue(platform, mine.team), mine.pool


def rows(platform: Cluster, path: str, **asked: str) -> list[list[Any]]:
    """What a list shows as a table, a row an object: pods whole would be megabytes at each look."""
    table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    params = {"includeObject": "None", "resourceVersion": "0", **asked}
    answer = platform.send("GET", path, params=params, headers=table)
    body: dict[str, Any] = answer.raise_for_status().json()
    return [row["cells"] for row in body["rows"] or ()]


def nodes(platform: Cluster) -> int:
    """How many simulated machines there are."""
    return len(rows(platform, NODES, labelSelector=GPU_NODES))


@dataclass
class Course:
    """What was seen of a search. Seconds count from its submission."""

    all_run: float | None = None
    first_pod: float | None = None
    most_nodes: int = 0
    broken: list[str] = field(default_factory=list[str])
    # (seconds, pods, those that run, those that have ended, nodes)
    looks: list[tuple[float, int, int, int, int]] = field(
        default_factory=list[tuple[float, int, int, int, int]]
    )


def gpus(platform: Cluster, say: Callable[[str], None], *, count: int = COUNT) -> list[Figure]:
    """Submits so many experiments on simulated GPUs, and watches them and their nodes."""
    check_simulated(platform)
    queue, pool = largest(platform)
    clear(platform, say)
    await_no_nodes(platform, say)
    workflow = ""
    try:
        began = time.monotonic()
        workflow, course = submit(platform, queue, pool, count), Course()
        while not watch(platform, workflow, count, course, began, say):
            time.sleep(LOOK_S)
        # The nodes are ready, and idle nodes are gone soon: so at once, and in this order.
        alone = placed(platform, pool, None, count, say)
        queued = placed(platform, pool, queue.team, count, say)
        began = time.monotonic()
        await_no_nodes(platform, say)
        idle = time.monotonic() - began
        lost = ended(platform, workflow, count, say)
    finally:
        clear(platform, say)
        if workflow:
            platform.delete(f"{WORKFLOWS}/{workflow}")
    return figures(course, alone, queued, idle, lost, count, f"{pool} for {queue.team}")


def submit(platform: Cluster, queue: Queue, pool: str, count: int) -> str:
    """The workflow of a search on GPUs alone."""
    with platform.forge() as forge:
        commit = training.commit_of(forge, None)
    return experiments.start(
        platform,
        up.FIRST_MODEL,
        commit,
        queue.team,
        pool,
        count=count,
        real=0,
        simulated_for=SIMULATED_FOR,
    ).name


def watch(
    platform: Cluster,
    workflow: str,
    count: int,
    course: Course,
    began: float,
    say: Callable[[str], None],
) -> bool:
    """One look; whether all have ended."""
    selector = f"workflows.argoproj.io/workflow={workflow},{QUEUE}"
    states = [str(row[2]) for row in rows(platform, PODS, labelSelector=selector)]
    course.broken += broken(quotas(platform))
    there = nodes(platform)
    now = time.monotonic() - began
    running, done = states.count("Running"), states.count("Completed")
    course.looks.append((round(now, 1), len(states), running, done, there))
    course.most_nodes = max(course.most_nodes, there)
    if states and course.first_pod is None:
        course.first_pod = now
    if course.all_run is None and running >= count:
        course.all_run = now
    say(f"{len(states)} pods, {running} run on {there} nodes, {now:.0f} s")
    if course.first_pod is not None and not running and not set(states) - {"Completed"}:
        return True
    found = rows(platform, WORKFLOWS, fieldSelector=f"metadata.name={workflow}")
    phase = str(found[0][1] or "") if found else "gone"
    if phase not in training.RUNNING or now > PATIENCE_S:
        raise SlipwayError(
            f"{workflow}: {phase}; {running} of {count} pods run after {now:.0f} s",
            fix=f"kubectl -n {NAMESPACE} get workflow {workflow} -o yaml",
        )
    return False


@dataclass(frozen=True)
class Placed:
    """Pods on nodes that were ready: seconds until all were made, and until all had a node."""

    made: float
    bound: float
    count: int

    @property
    def rate(self) -> float:
        return self.count / self.bound


def placed(
    platform: Cluster, pool: str, team: str | None, count: int, say: Callable[[str], None]
) -> Placed:
    """Makes so many pods, in a team's queue or in none, waits for their nodes, removes them."""
    image = platform.config(NAMESPACE, "platform")["TRAINING_IMAGE"]
    bodies = [pod(pool, team, image) for _ in range(count)]
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as workers:
        list(workers.map(platform.create, itertools.repeat(PODS), bodies))
    made = time.monotonic() - began
    while True:
        bound = len(rows(platform, PODS, labelSelector=MARK, fieldSelector="spec.nodeName!="))
        took = time.monotonic() - began
        if bound >= count:
            break
        if took > PATIENCE_S:
            raise SlipwayError(f"{bound} of {count} pods have a node after {took:.0f} s")
        time.sleep(FAST_S)
    say(f"{count} pods {'by Kueue' if team else 'by kube-scheduler alone'}: {took:.1f} s")
    clear(platform, say)
    return Placed(made, took, count)


def pod(pool: str, team: str | None, image: str) -> dict[str, Any]:
    """As an experiment's, but for Argo's containers; it runs until it is deleted."""
    labels = {MARK: "gpus"} | ({QUEUE: team} if team else {})
    limits = {"cpu": "2", "memory": "2Gi", GPU: "1"}
    container = {
        "name": "main",
        "image": image,
        "resources": {"requests": limits | {"cpu": "50m", "memory": "256Mi"}, "limits": limits},
        "securityContext": RESTRICTED,
    }
    return {
        "metadata": {"generateName": "bench-gpus-", "labels": labels},
        "spec": {
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "nodeSelector": {POOL: pool},
            "tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}],
            "containers": [container],
        },
    }


def clear(platform: Cluster, say: Callable[[str], None]) -> None:
    """Removes the bench's own pods, those of one that was killed included."""
    platform.delete(PODS, labelSelector=MARK, gracePeriodSeconds="0")
    deadline = time.monotonic() + PATIENCE_S
    while left := len(rows(platform, PODS, labelSelector=MARK)):
        if time.monotonic() > deadline:
            raise SlipwayError(f"{left} pods are not gone", fix=f"kubectl -n {NAMESPACE} get pods")
        say(f"removing {left} pods")
        time.sleep(FAST_S)


def await_no_nodes(platform: Cluster, say: Callable[[str], None]) -> None:
    """Waits until Karpenter has removed every GPU node, as it does with idle ones."""
    deadline = time.monotonic() + PATIENCE_S
    while there := nodes(platform):
        if time.monotonic() > deadline:
            raise SlipwayError(
                f"{there} GPU nodes do not go",
                fix="see what runs there: kubectl get pods -A -o wide, and kubectl get nodeclaims",
            )
        say(f"{there} nodes are still there")
        time.sleep(LOOK_S)


def ended(platform: Cluster, workflow: str, count: int, say: Callable[[str], None]) -> int:
    """How many experiments the workflow has lost, once it has ended."""
    found = experiments.look(platform, workflow)
    for found in experiments.follow(platform, workflow):
        say(f"{workflow} {found.workflow.phase}")
    return count - found.gpu.succeeded


def figures(
    course: Course,
    alone: Placed,
    queued: Placed,
    idle: float,
    lost: int,
    count: int,
    where: str,
) -> list[Figure]:
    """What it comes to."""
    details: Mapping[str, Any] = {
        "looks": course.looks,
        "most_nodes": course.most_nodes,
        "first_pod_seconds": course.first_pod,
        "broken_quotas": course.broken,
        "lost": lost,
    }
    wrong = [f"{lost} of {count} experiments were lost"] if lost else []
    wrong += sorted(set(course.broken))[:3]
    if course.all_run is None:
        most = max(look[2] for look in course.looks)
        wrong.append(f"at most {most} of {count} ran at once")
    how = (
        f"{count} of pool {where}, from no node to {course.most_nodes}; first pod after "
        f"{course.first_pod or 0:.0f} s; none lost, quotas held at {len(course.looks)} looks"
    )
    rates = {
        "gpus-rate": (queued, "by Kueue and kube-scheduler on ready nodes"),
        "gpus-scheduler": (alone, "the same pods without a queue"),
    }
    return [
        Figure("gpus", None if wrong else course.all_run, how, "; ".join(wrong), dict(details)),
        *(
            Figure(
                name,
                placed.rate,
                f"{said}: {placed.count} made in {placed.made:.1f} s, on nodes after "
                f"{placed.bound:.1f} s",
            )
            for name, (placed, said) in rates.items()
        ),
        Figure("gpus-idle", idle, "from the last pod's end; Karpenter's consolidation"),
    ]
