"""The training workflow from its start to its end, and what each step costs beyond its own work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from slipway import training, up
from slipway.bench.figures import Figure
from slipway.endpoints import Cluster, part, parts
from slipway.errors import SlipwayError
from slipway.steps import dataset

# A branch of its own: main, and what is released from it, stay as they are.
BRANCH = "bench/training"
NODE = "workflows.argoproj.io/node-name"


@dataclass(frozen=True)
class Cost:
    """A step in seconds: until its container runs, in its container, until the next step begins."""

    step: str
    before: float
    work: float
    after: float

    @property
    def overhead(self) -> float:
        return self.before + self.after


def train(platform: Cluster, say: Callable[[str], None]) -> list[Figure]:
    """Trains on a commit whose model.yaml differs in a comment, so that nothing is reused."""
    model, env = up.FIRST_MODEL, up.FIRST_ENVIRONMENT
    path = f"bentos/{model}/model.yaml"
    with platform.forge() as forge:
        forge.delete_branch(BRANCH)
        changed = forge.read(path) + f"\n# bench {time.time_ns()}\n".encode()
        commit = forge.write(BRANCH, {path: changed}, "Bench: train anew")
        try:
            began = time.monotonic()
            started = training.start(platform, model, commit, env, dry_run=True)
            pods: dict[str, Any] = {}
            workflow, seen = started, ""
            for workflow in training.follow(platform, started.name, every_s=0.5):
                pods |= _pods(platform, started.name)
                running = [s.name for s in workflow.steps if s.phase == "Running"]
                if running and running[-1] != seen:
                    seen = running[-1]
                    say(f"{workflow.name}: {seen}")
            seconds = time.monotonic() - began
            if workflow.phase != training.SUCCEEDED:
                raise SlipwayError(training.failure(platform, workflow))
        finally:
            forge.delete_branch(BRANCH)
    document = platform.find(f"{training.API}/workflows/{workflow.name}")
    rows, spent = _rows(platform, document), costs(list(pods.values()), document)
    details = {
        "workflow": workflow.name,
        "rows": rows,
        "steps": [{**asdict(cost), "overhead": cost.overhead} for cost in spent],
    }
    worst = max(spent, key=lambda cost: cost.overhead)
    work = ", ".join(f"{cost.step} {cost.work:.0f}" for cost in spent)
    each = ", ".join(f"{cost.step} {cost.overhead:.0f}" for cost in spent)
    return [
        Figure("training", seconds, f"{rows:,} rows; seconds of own work: {work}", "", details),
        Figure("step-overhead", worst.overhead, f"wall clock less own work, ±1 s: {each}"),
    ]


def _pods(platform: Cluster, workflow: str) -> dict[str, Any]:
    """The workflow's pods by uid. They are deleted as soon as they have ended."""
    selector = f"workflows.argoproj.io/workflow={workflow}"
    path = f"/api/v1/namespaces/{training.NAMESPACE}/pods"
    return {pod["metadata"]["uid"]: pod for pod in platform.items(path, labelSelector=selector)}


def _rows(platform: Cluster, document: Any) -> int:
    for node in (part(document, "status", "nodes") or {}).values():
        for output in parts(node, "outputs", "parameters"):
            if output["name"] == "data":
                with platform.store() as store:
                    return dataset.manifest(store, output["value"]).rows
    raise SlipwayError("the workflow names no data")


def costs(pods: list[Any], workflow: Any) -> list[Cost]:
    """Each step's cost, in order; steps follow one another, so one ends where the next begins.

    What a step spends on being scheduled, fetching the code, handing on its outputs and a retry is
    overhead; its own work is what its last pod's main container took, Python's start included.
    """
    begins: dict[str, float] = {}
    mains: dict[str, tuple[float, float]] = {}
    for pod in sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"]):
        step = step_of(pod)
        begins.setdefault(step, _seconds(pod["metadata"]["creationTimestamp"]))
        for container in parts(pod, "status", "containerStatuses"):
            ran = part(container, "state", "terminated")
            if container["name"] == "main" and ran:
                mains[step] = _seconds(ran["startedAt"]), _seconds(ran["finishedAt"])
    if unseen := [step for step in begins if step not in mains]:
        raise SlipwayError(f"the end of {', '.join(unseen)} was not seen", fix="measure again")
    ends = [*list(begins.values())[1:], _seconds(workflow["status"]["finishedAt"])]
    return [
        Cost(step, mains[step][0] - begin, mains[step][1] - mains[step][0], end - mains[step][1])
        for (step, begin), end in zip(begins.items(), ends, strict=True)
    ]


def step_of(pod: Any) -> str:
    """`train-x.ingest(0)` is the first try of step ingest."""
    return str(pod["metadata"]["annotations"][NODE]).rpartition(".")[2].partition("(")[0]


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
