"""What the platform's own pods use while something is asked of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from slipway.bench.rest import Groups
from slipway.endpoints import Cluster, part, parts

SAMPLE_S = 0.5
NAMES = ("app.kubernetes.io/name", "component", "k8s-app")


@dataclass(frozen=True)
class Use:
    """Of one pod over a while: the largest working set that a sample saw, and processor time."""

    peak_bytes: int
    cores: float

    def document(self) -> dict[str, float]:
        return {"peak_mib": round(self.peak_bytes / 2**20, 1), "cores": round(self.cores, 3)}


class Meter:
    """Watches the control groups of some namespaces' pods, by the names of their workloads.

    They must be pods that stay: of those that come later it knows nothing.
    """

    def __init__(self, platform: Cluster, namespaces: Collection[str]) -> None:
        self._platform, self._namespaces = platform, namespaces
        self._groups, self._ended = Groups.find(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        names = {_uid(pod): workload(pod) for pod in self._pods()}
        found = {names[uid]: group for uid, group in self._groups.pods().items() if uid in names}
        self._found: dict[str, Path] = found
        self._begin()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def lap(self) -> dict[str, Use]:
        """What each used since the last lap."""
        with self._lock:
            seconds = time.monotonic() - self._begun
            now = self._cpu()
            used = {
                name: Use(peak, (now[name] - self._before[name]) / seconds)
                for name, peak in self._peaks.items()
                if name in now
            }
            self._begin()
        return used

    def restarts(self) -> dict[str, str]:
        """Why containers ended that run again, by workload; as often as they have ever done."""
        found: dict[str, str] = {}
        for pod in self._pods():
            for container in parts(pod, "status", "containerStatuses"):
                if count := container["restartCount"]:
                    reason = part(container, "lastState", "terminated", "reason") or "?"
                    found[workload(pod)] = f"{reason}, {count} times"
        return found

    def limits(self) -> dict[str, str]:
        """Memory limits of the pods' first containers, by workload."""
        return {
            workload(pod): str(part(pod["spec"]["containers"][0], "resources", "limits", "memory"))
            for pod in self._pods()
        }

    def _pods(self) -> list[dict[str, Any]]:
        found = [f"/api/v1/namespaces/{namespace}/pods" for namespace in self._namespaces]
        return [pod for path in found for pod in self._platform.items(path)]

    def _begin(self) -> None:
        self._begun, self._before = time.monotonic(), self._cpu()
        self._peaks = dict.fromkeys(self._before, 0)

    def _cpu(self) -> dict[str, float]:
        return {name: self._groups.cpu_seconds(group) for name, group in self._found.items()}

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            with self._lock, suppress(FileNotFoundError):
                for name, group in self._found.items():
                    used = self._groups.working_set(group)
                    self._peaks[name] = max(self._peaks[name], used)


def workload(pod: dict[str, Any]) -> str:
    """The name by which a pod's workload is known, without what differs from pod to pod."""
    labels: dict[str, str] = part(pod, "metadata", "labels") or {}
    return next((labels[name] for name in NAMES if name in labels), pod["metadata"]["name"])


def _uid(pod: dict[str, Any]) -> str:
    # The kubelet knows a static pod by its manifest's hash.
    meta = pod["metadata"]
    return part(meta, "annotations", "kubernetes.io/config.hash") or meta["uid"]
