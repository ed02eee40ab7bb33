"""One ApplicationSet over a thousand release files: until all are synced, and what that takes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slipway import toolchain
from slipway.bench import kwok
from slipway.bench.figures import Figure, percentile
from slipway.bench.many import ARGO, ENV, Many
from slipway.bench.meter import Meter, Use
from slipway.endpoints import Cluster, part, parts
from slipway.errors import SlipwayError

MODELS, PUSHES = 1000, 3
# That the real model has not reached.
VERSION = 100_000
LOOK_S, PUSH_LOOK_S = 2.0, 0.1
# So long nothing more gets synced before it counts as stuck; one push; the rest at the end.
STUCK_S, PUSH_PATIENCE_S, CALM_S = 300.0, 120.0, 60.0
NAMESPACES = ("argocd", "kube-system")
CONTROLLER = "argocd-application-controller"
MEASURED = {
    CONTROLLER: "controller",
    "argocd-repo-server": "repo-server",
    "argocd-applicationset-controller": "ApplicationSets",
    "argocd-redis": "redis",
}
GOOD = ("Synced", "Healthy")
PODS = "/api/v1/namespaces/argocd/pods"
CONFIG = "/api/v1/namespaces/argocd/configmaps"
PARAMETERS = {
    "controller.status.processors": "20",
    "controller.operation.processors": "10",
    "controller.kubectl.parallelism.limit": "20",
    "reposerver.parallelism.limit": "0",
    "applicationsetcontroller.concurrent.reconciliations.max": "10",
}


@dataclass
class Course:
    """Seconds from the ApplicationSet until all Applications exist and until all are good."""

    exist: float | None = None
    settled: float | None = None
    # (seconds, how many exist, how many are good), as they were looked at
    looks: list[tuple[float, int, int]] = field(default_factory=list[tuple[float, int, int]])


def scale(platform: Cluster, say: Callable[[str], None], *, models: int = MODELS) -> list[Figure]:
    """Makes an environment with so many models on simulated nodes, and removes it again."""
    if not platform.embedded:
        raise SlipwayError("only the embedded cluster's control groups are on this machine")
    toolchain.build(["kwok"], progress=lambda _tool, what: say(f"kwok: {what}"))
    with (
        tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder,
        platform.forge() as forge,
        kwok.running(Path(folder)) as log,
    ):
        many = Many(platform, forge, Path(folder), models)
        many.clear(say)
        try:
            say(f"making {models:,} release files and {many.nodes} nodes")
            many.make(log)
            return _measured(platform, many, say)
        finally:
            many.clear(say)
            say("Argo CD begins anew")
            begin_anew(platform)


def _measured(platform: Cluster, many: Many, say: Callable[[str], None]) -> list[Figure]:
    in_force = settings(platform)
    with Meter(platform, NAMESPACES) as meter:
        before = meter.restarts()
        many.begin()
        course = watch(many, say)
        used = meter.lap()
        restarts = {n: why for n, why in meter.restarts().items() if why != before.get(n)}
        pushes: list[float] = []
        calm: dict[str, Use] = {}
        if course.settled is not None:
            for number in range(PUSHES):
                pushes.append(pushed(many, number))
                say(f"push {number + 1} of {PUSHES}: {pushes[-1]:.1f} s")
            say(f"at rest, for {CALM_S:.0f} s")
            meter.lap()
            time.sleep(CALM_S)
            calm = meter.lap()
        limits = meter.limits()
    details = {
        "models": many.models,
        "nodes": many.nodes,
        "settings": in_force,
        "limits": {name: limits[name] for name in MEASURED if name in limits},
        "restarts": restarts,
        "exist_seconds": course.exist,
        "looks": course.looks,
        "until_settled": {name: use.document() for name, use in used.items()},
        "at_rest": {name: use.document() for name, use in calm.items()},
        "push_seconds": pushes,
    }
    return figures(course, used, calm, pushes, details)


def watch(many: Many, say: Callable[[str], None]) -> Course:
    """Looks until all are good, or until nothing more becomes so for `STUCK_S`."""
    began, course = time.monotonic(), Course()
    best, moved = (0, 0), began
    while True:
        states = many.states()
        now = time.monotonic()
        seconds, good = round(now - began, 1), states.count(GOOD)
        course.looks.append((seconds, len(states), good))
        say(f"{len(states):,} Applications, {good:,} synced and healthy, {seconds:.0f} s")
        if course.exist is None and len(states) >= many.models:
            course.exist = seconds
        if good >= many.models:
            course.settled = seconds
            return course
        if (len(states), good) > best:
            best, moved = (len(states), good), now
        if now - moved > STUCK_S:
            return course
        time.sleep(LOOK_S)


def pushed(many: Many, round_: int) -> float:
    """Seconds from the push of a model's next version until it is synced and healthy."""
    number = 1 + round_ * many.models // PUSHES
    began = time.monotonic()
    commit = many.change(number, VERSION)
    while True:
        status = many.application(number)["status"]
        took = time.monotonic() - began
        state = part(status, "sync", "status"), part(status, "health", "status")
        if state == GOOD and part(status, "sync", "revision") == commit:
            return took
        if took > PUSH_PATIENCE_S:
            raise SlipwayError(f"one release file among {many.models:,} was not synced: {state}")
        time.sleep(PUSH_LOOK_S)


def figures(
    course: Course,
    used: dict[str, Use],
    calm: dict[str, Use],
    pushes: list[float],
    details: dict[str, Any],
) -> list[Figure]:
    """What it comes to."""
    in_force = ", ".join(f"{name} {value}" for name, value in details["settings"].items())
    peaks = ", ".join(
        f"{word} {used[name].peak_bytes / 2**20:.0f} of {details['limits'].get(name)}"
        for name, word in MEASURED.items()
        if name in used
    )
    ended = "; ".join(f"{name} was stopped: {why}" for name, why in details["restarts"].items())
    peak = used[CONTROLLER].peak_bytes / 2**20 if CONTROLLER in used else None
    memory = Figure("scale-memory", peak, f"MiB: {peaks}{'; ' if ended else ''}{ended}")
    if course.settled is None:
        _, exist, good = course.looks[-1]
        problem = f"{good:,} of {details['models']:,} synced, {exist:,} exist. {ended or peaks}"
        return [
            Figure("scale", None, in_force, problem, details),
            memory,
            Figure("scale-push", None, problem="not all were synced before it"),
        ]
    how = f"{details['models']:,} files, all Applications after {course.exist:.0f} s; {in_force}"
    cores = ", ".join(f"{w} {calm[n].cores:.2f}" for n, w in MEASURED.items() if n in calm)
    rest = f"median of {len(pushes)}, slowest {max(pushes):.1f} s; cores at rest: {cores}"
    return [
        Figure("scale", course.settled, how, "", details),
        memory,
        Figure("scale-push", percentile(pushes, 50), rest),
    ]


def settings(platform: Cluster) -> dict[str, str]:
    """What decides how fast Argo CD is, as it is set; its defaults where it is not."""
    given = platform.config("argocd", "argocd-cmd-params-cm")
    found = {key: given.get(key, default) for key, default in PARAMETERS.items()}
    found["timeout.reconciliation"] = platform.config("argocd", "argocd-cm").get(
        "timeout.reconciliation", "180s"
    )
    pod = platform.find(f"{PODS}/{CONTROLLER}-0")
    containers = parts(pod, "spec", "containers") or [{}]
    variables = {v["name"]: v.get("value") for v in parts(containers[0], "env")}
    found["QPS"] = variables.get("ARGOCD_K8S_CLIENT_QPS") or "50"
    live = platform.find(f"{ARGO}/applicationsets/{ENV}") or {}
    generators = parts(live, "spec", "generators") or [{}]
    found["requeueAfterSeconds"] = str(part(generators[0], "git", "requeueAfterSeconds") or 180)
    annotations = part(live, "spec", "template", "metadata", "annotations") or {}
    by_path = "argocd.argoproj.io/manifest-generate-paths" in annotations
    found["manifest-generate-paths"] = "yes" if by_path else "no"
    return found


def begin_anew(platform: Cluster) -> None:
    """Gives Argo CD new pods: heaps and caches of the former hold a thousand models still."""
    former = {
        pod["metadata"]["uid"]: pod["metadata"]["name"]
        for pod in platform.items(PODS)
        if part(pod, "metadata", "labels", "app.kubernetes.io/name") in MEASURED
    }
    for name in former.values():
        platform.delete(f"{PODS}/{name}")
    deadline = time.monotonic() + PUSH_PATIENCE_S
    while True:
        pods = platform.items(PODS)
        names = {pod["metadata"]["uid"] for pod in pods}
        if not names & former.keys() and all(map(kwok.is_ready, pods)):
            return
        if time.monotonic() > deadline:
            raise SlipwayError("Argo CD does not come back", fix="kubectl -n argocd get pods")
        time.sleep(0.5)
