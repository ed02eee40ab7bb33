"""When is an object ready, and if it is not, why not: in the words of its pods and events."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .api import ApiError, Cluster, NoKind, Unreachable
from .diff import group_of

Object = dict[str, Any]
LOG_LINES = 20


@dataclass(frozen=True)
class State:
    """How far an object is: `failed` means that waiting longer cannot help."""

    ready: bool
    message: str = ""
    failed: bool = False


class NotReady(Exception):
    """An object exists and did not become ready; `live` is its last state, `reasons` say why."""

    def __init__(self, live: Object, reasons: list[str]) -> None:
        super().__init__("\n".join(reasons))
        self.live, self.reasons = live, reasons


READY = State(True)
Check = Callable[[Cluster, Object], State]


def _condition(obj: Object, kind: str) -> Object:
    for condition in obj.get("status", {}).get("conditions") or []:
        if condition.get("type") == kind:
            return condition
    return {}


def _holds(obj: Object, kind: str) -> bool:
    return _condition(obj, kind).get("status") == "True"


def _observed(obj: Object) -> bool:
    generation = obj["metadata"].get("generation", 0)
    return obj.get("status", {}).get("observedGeneration", 0) >= generation


def _deployment(_: Cluster, obj: Object) -> State:
    spec, status = obj["spec"], obj.get("status", {})
    want = spec.get("replicas", 1)
    if spec.get("paused"):
        return READY
    if not _observed(obj):
        return State(False, "waiting for the controller to see the change")
    progressing = _condition(obj, "Progressing")
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        return State(False, progressing.get("message", "progress deadline exceeded"), failed=True)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    old = status.get("replicas", 0) - updated
    if updated < want:
        return State(False, f"{updated} of {want} new replicas created")
    if old > 0:
        return State(False, f"{old} old replicas are still to go")
    return State(available >= want, f"{available} of {want} replicas available")


def _stateful_set(_: Cluster, obj: Object) -> State:
    spec, status = obj["spec"], obj.get("status", {})
    want = spec.get("replicas", 1)
    if not _observed(obj):
        return State(False, "waiting for the controller to see the change")
    strategy = spec.get("updateStrategy", {})
    if strategy.get("type") != "OnDelete":
        partition = strategy.get("rollingUpdate", {}).get("partition", 0)
        updated = status.get("updatedReplicas", 0)
        current = status.get("currentRevision") == status.get("updateRevision")
        if not (current and partition == 0) and updated < want - partition:
            return State(False, f"{updated} of {want - partition} replicas updated")
    ready = status.get("readyReplicas", 0)
    return State(ready >= want, f"{ready} of {want} replicas ready")


def _daemon_set(_: Cluster, obj: Object) -> State:
    status = obj.get("status", {})
    if not _observed(obj):
        return State(False, "waiting for the controller to see the change")
    want = status.get("desiredNumberScheduled", 0)
    rolling = obj["spec"].get("updateStrategy", {}).get("type") != "OnDelete"
    updated = status.get("updatedNumberScheduled", 0) if rolling else want
    available = min(updated, status.get("numberAvailable", 0))
    return State(available >= want, f"{available} of {want} pods updated and available")


def _job(_: Cluster, obj: Object) -> State:
    if _holds(obj, "Complete") or _holds(obj, "SuccessCriteriaMet") or obj["spec"].get("suspend"):
        return READY
    failed = _condition(obj, "Failed")
    if failed.get("status") == "True":
        return State(False, f"{failed.get('reason')}: {failed.get('message')}", failed=True)
    return State(False, f"{obj.get('status', {}).get('active', 0)} pods active")


def _pod(_: Cluster, obj: Object) -> State:
    status = obj.get("status", {})
    phase = status.get("phase")
    if phase == "Succeeded" or _holds(obj, "Ready"):
        return READY
    if phase == "Failed":
        return State(False, status.get("message") or "the pod failed", failed=True)
    return State(False, f"phase {phase}")


def _service(cluster: Cluster, obj: Object) -> State:
    spec = obj["spec"]
    if spec.get("type") == "ExternalName":
        return READY
    balancer = obj.get("status", {}).get("loadBalancer", {})
    if spec.get("type") == "LoadBalancer" and not balancer.get("ingress"):
        return State(False, "waiting for the load balancer's address")
    if not spec.get("selector") or spec.get("clusterIP") == "None":
        return READY
    name = obj["metadata"]["name"]
    slices = cluster.list(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        obj["metadata"]["namespace"],
        labelSelector=f"kubernetes.io/service-name={name}",
    )
    for endpoint in (e for s in slices for e in s.get("endpoints") or []):
        if endpoint.get("conditions", {}).get("ready", True) and endpoint.get("addresses"):
            return READY
    return State(
        False,
        "no pod answers for it: the selected pods may not be ready,"
        " or spec.selector may match the labels of none",
    )


def _claim(cluster: Cluster, obj: Object) -> State:
    phase = obj.get("status", {}).get("phase")
    if phase == "Bound":
        return READY
    if phase == "Lost":
        return State(False, "its volume is lost", failed=True)
    name = obj["spec"].get("storageClassName")
    storage = cluster.get("storage.k8s.io/v1", "StorageClass", "", name) if name else None
    if storage and storage.get("volumeBindingMode") == "WaitForFirstConsumer":
        return READY
    return State(False, f"phase {phase}")


def _volume(_: Cluster, obj: Object) -> State:
    phase = obj.get("status", {}).get("phase")
    return State(phase in ("Available", "Bound"), f"phase {phase}")


def _namespace(_: Cluster, obj: Object) -> State:
    phase = obj.get("status", {}).get("phase")
    return State(phase == "Active", f"phase {phase}")


def _crd(_: Cluster, obj: Object) -> State:
    names = _condition(obj, "NamesAccepted")
    if names.get("status") == "False":
        return State(False, names.get("message", "its names are taken"), failed=True)
    return State(_holds(obj, "Established"), "not established yet")


_CHECKS: dict[tuple[str, str], Check] = {
    ("apps", "Deployment"): _deployment,
    ("apps", "StatefulSet"): _stateful_set,
    ("apps", "DaemonSet"): _daemon_set,
    ("batch", "Job"): _job,
    ("", "Pod"): _pod,
    ("", "Service"): _service,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "PersistentVolume"): _volume,
    ("", "Namespace"): _namespace,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _crd,
}


def annotation(obj: Object, name: str) -> str:
    """The value of the annotation `pulumi.com/<name>`, or empty."""
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    return str(annotations.get(f"pulumi.com/{name}") or "")


def check_for(inputs: Object) -> Check | None:
    """How to tell that the object is ready; None where there is nothing to wait for.

    Raises `ValueError` where the annotation pulumi.com/waitFor is not understood.
    """
    if annotation(inputs, "skipAwait").lower() == "true":
        return None
    wait_for = annotation(inputs, "waitFor")
    if not wait_for:
        return _CHECKS.get((group_of(inputs), inputs.get("kind", "")))
    wanted = json.loads(wait_for) if wait_for.startswith("[") else [wait_for]
    checks = [_wait_for(str(w)) for w in wanted]

    def every(_: Cluster, obj: Object) -> State:
        missing = [w for w, met in zip(wanted, checks, strict=True) if not met(obj)]
        return State(not missing, f"waiting for {', '.join(map(str, missing))}")

    return every


def _wait_for(text: str) -> Callable[[Object], bool]:
    if match := re.fullmatch(r"condition=([\w./-]+)(?:=(\w+))?", text):
        kind, status = match[1], match[2] or "True"
        return lambda obj: _condition(obj, kind).get("status") == status
    if match := re.fullmatch(r"jsonpath=\{\$?((?:\.\w+)+)\}(?:=(.+))?", text):
        names, value = match[1].strip(".").split("."), match[2]

        def at_path(obj: Any) -> bool:
            for name in names:
                obj = obj.get(name) if isinstance(obj, dict) else None
            return obj is not None and (value is None or str(obj) == value)

        return at_path
    raise ValueError(
        f"annotation pulumi.com/waitFor: not understood: {text!r};"
        " use condition=NAME[=STATUS] or jsonpath={.field.path}[=VALUE]"
    )


def until_ready(
    cluster: Cluster,
    live: Object,
    check: Check,
    timeout_s: float,
    stop: threading.Event,
    tell: Callable[[str], None],
) -> Object:
    """Waits until `check` is content; the object as it is then.

    Raises `NotReady` when it fails, is gone, `timeout_s` have passed or `stop` is set.
    """
    deadline = time.monotonic() + timeout_s
    pause, told = 0.2, ""
    while True:
        state = check(cluster, live)
        if state.ready:
            return live
        if state.failed:
            raise NotReady(live, [state.message, *explain(cluster, live)])
        if time.monotonic() > deadline:
            raise NotReady(
                live,
                [f"timed out after {timeout_s:.0f} s: {state.message}", *explain(cluster, live)],
            )
        if pause > 1:  # what takes longer is worth a word
            troubles = pod_troubles(pods_of(cluster, live))
            message = "; ".join([state.message, *troubles[:1]])
            if message != told:
                tell(message)
                told = message
        if stop.wait(pause):
            raise NotReady(live, [f"canceled: {state.message}"])
        pause = min(pause * 1.3, 2.0)
        with suppress(Unreachable):  # a server that restarts; the deadline holds
            found = _same(cluster, live)
            if found is None:
                raise NotReady(live, ["it was deleted while we waited for it"])
            live = found


def _same(cluster: Cluster, obj: Object) -> Object | None:
    """The object as it is now; None where it is gone, or another of the same name."""
    metadata = obj["metadata"]
    found = cluster.get(
        obj["apiVersion"], obj["kind"], metadata.get("namespace", ""), metadata["name"]
    )
    return found if found and found["metadata"]["uid"] == metadata["uid"] else None


def until_gone(
    cluster: Cluster, live: Object, timeout_s: float, stop: threading.Event
) -> Object | None:
    """Waits until the object (by its uid) is gone; its last state if it is still there after
    `timeout_s`, or when `stop` is set."""
    deadline, pause, left = time.monotonic() + timeout_s, 0.05, live
    while True:
        with suppress(Unreachable):
            try:
                found = _same(cluster, live)
            except NoKind:
                return None
            if found is None:
                return None
            left = found
        if time.monotonic() > deadline or stop.wait(pause):
            return left
        pause = min(pause * 1.5, 1.0)


def _selector(spec: Object) -> str:
    """A label selector as a query; empty where it selects nothing in particular."""
    terms = [f"{k}={v}" for k, v in (spec.get("matchLabels") or {}).items()]
    for e in spec.get("matchExpressions") or []:
        values = ",".join(e.get("values") or [])
        terms.append(
            {
                "In": f"{e['key']} in ({values})",
                "NotIn": f"{e['key']} notin ({values})",
                "Exists": e["key"],
                "DoesNotExist": f"!{e['key']}",
            }[e["operator"]]
        )
    return ",".join(terms)


def pods_of(cluster: Cluster, obj: Object) -> list[Object]:
    """The pods that an object runs or selects."""
    if obj["kind"] == "Pod":
        return [obj]
    selector: Object = obj.get("spec", {}).get("selector") or {}
    query = _selector({"matchLabels": selector} if obj["kind"] == "Service" else selector)
    if not query or obj["kind"] not in {k for _, k in _CHECKS} - {"PersistentVolumeClaim"}:
        return []
    with suppress(ApiError, Unreachable):
        return cluster.list("v1", "Pod", obj["metadata"]["namespace"], labelSelector=query)
    return []


def _containers(pod: Object) -> Iterable[Object]:
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def pod_troubles(pods: list[Object]) -> list[str]:
    """What is wrong with pods, a line for each container or pod that has trouble."""
    lines: list[str] = []
    for pod in pods:
        name = f"pod {pod['metadata']['name']}"
        scheduled = _condition(pod, "PodScheduled")
        if scheduled.get("status") == "False":
            lines.append(f"{name}: {scheduled.get('reason')}: {scheduled.get('message')}")
        if pod.get("status", {}).get("reason"):
            status = pod["status"]
            lines.append(f"{name}: {status['reason']}: {status.get('message', '')}")
        for container in _containers(pod):
            where = f"{name}: container {container['name']}"
            state = container.get("state", {})
            waiting, ended = state.get("waiting", {}), state.get("terminated", {})
            last = container.get("lastState", {}).get("terminated", {})
            if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                lines.append(f"{where}: {waiting['reason']}: {waiting.get('message', '')}")
            for end in (ended, last):
                if end and end.get("exitCode") != 0:
                    said = f": {end['message']}" if end.get("message") else ""
                    lines.append(f"{where}: {end.get('reason')}, exit code {end['exitCode']}{said}")
    return [line.rstrip(": ") for line in dict.fromkeys(lines)]


def _logs(cluster: Cluster, pods: list[Object]) -> list[str]:
    """The last lines of the containers that ended badly, the latest pod's first; at most three."""
    out: list[str] = []
    for pod in sorted(pods, key=lambda p: p["metadata"]["creationTimestamp"], reverse=True):
        for container in _containers(pod):
            now = container.get("state", {}).get("terminated", {})
            ended = now or container.get("lastState", {}).get("terminated", {})
            if not ended or ended.get("exitCode") == 0 or len(out) == 3:
                continue
            metadata = pod["metadata"]
            path = cluster.path("v1", "Pod", metadata["namespace"], metadata["name"]) + "/log"
            query = {"container": container["name"], "tailLines": str(LOG_LINES)}
            with suppress(ApiError, Unreachable):
                text = str(
                    cluster.request("GET", path, query if now else {**query, "previous": "true"})
                )
                lines = "\n".join(f"    {line}" for line in text.strip().splitlines())
                out.append(f"log of {metadata['name']}/{container['name']}:\n{lines}")
    return out


def _warnings(cluster: Cluster, obj: Object, pods: list[Object]) -> list[str]:
    """The latest warning events about an object, its pods, and what it owns by name."""
    namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
    about = {p["metadata"]["name"] for p in pods} | {name}
    with suppress(ApiError, Unreachable):
        events = cluster.list("v1", "Event", namespace, fieldSelector="type=Warning")
        events = [
            e
            for e in events
            if e["involvedObject"].get("name") in about
            or str(e["involvedObject"].get("name")).startswith(f"{name}-")
        ]
        events.sort(key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "")
        lines = [
            f"event: {e['involvedObject']['kind']} {e['involvedObject']['name']}:"
            f" {e.get('reason')}: {e.get('message')}"
            for e in events
        ]
        return list(dict.fromkeys(lines))[-10:]
    return []


def explain(cluster: Cluster, obj: Object) -> list[str]:
    """Why an object is not ready: its pods' containers, warning events, logs of what crashed."""
    pods = pods_of(cluster, obj)
    return [*pod_troubles(pods), *_warnings(cluster, obj, pods), *_logs(cluster, pods)]
