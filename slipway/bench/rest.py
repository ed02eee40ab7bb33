"""The platform at rest: memory and processor time of its control groups, and its disk."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from slipway import cluster, paths, training
from slipway.bench.figures import GB, GIB, Figure
from slipway.endpoints import Cluster, part
from slipway.errors import SlipwayError

WINDOW_S, SAMPLES = 30, 6
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Groups:
    """Where the kubelet keeps the pods' control groups: version 1 has a tree a resource."""

    memory: Path
    cpu: Path
    unified: bool

    @classmethod
    def find(cls, root: Path = CGROUPS) -> Groups:
        """The groups of this machine.

        Raises:
            SlipwayError: there are none, so no pod runs here.
        """
        if (root / "kubepods").is_dir():
            return cls(root / "kubepods", root / "kubepods", unified=True)
        if (root / "memory" / "kubepods").is_dir():
            return cls(root / "memory" / "kubepods", root / "cpuacct" / "kubepods", unified=False)
        raise SlipwayError(f"no pods' control groups under {root}", fix="run `make up`")

    def pods(self) -> dict[str, Path]:
        """Path below the root by pod uid."""
        found = [*self.memory.glob("pod*"), *self.memory.glob("*/pod*")]
        return {path.name.removeprefix("pod"): path.relative_to(self.memory) for path in found}

    def working_set(self, group: Path) -> int:
        """Bytes in use without the file pages that can go at once, as the kubelet counts them."""
        folder = self.memory / group
        usage = "memory.current" if self.unified else "memory.usage_in_bytes"
        inactive = "inactive_file" if self.unified else "total_inactive_file"
        used = int((folder / usage).read_text())
        return max(used - _field(folder / "memory.stat", inactive), 0)

    def cpu_seconds(self, group: Path) -> float:
        """Processor time used so far."""
        folder = self.cpu / group
        if self.unified:
            return _field(folder / "cpu.stat", "usage_usec") / 1e6
        return int((folder / "cpuacct.usage").read_text()) / 1e9


def _field(file: Path, name: str) -> int:
    lines = (line.split() for line in file.read_text().splitlines())
    return next(int(value) for key, value in lines if key == name)


@dataclass
class Use:
    """What one part used: processor seconds at the window's ends, bytes at each sample."""

    cpu: list[float] = field(default_factory=list[float])
    memory: list[int] = field(default_factory=list[int])

    def add(self, cpu: float, memory: int) -> None:
        self.cpu.append(cpu)
        self.memory.append(memory)

    def document(self, seconds: float) -> dict[str, float]:
        return {"cores": round(self.cores(seconds), 4), "mib": round(self.bytes / 2**20, 1)}

    def cores(self, seconds: float) -> float:
        return max(self.cpu[-1] - self.cpu[0], 0) / seconds

    @property
    def bytes(self) -> float:
        return statistics.median(self.memory)


def rest(platform: Cluster, say: Callable[[str], None]) -> list[Figure]:
    """Memory (median) and processor use of every pod and of the processes that carry them."""
    if not platform.embedded:
        raise SlipwayError("only the embedded cluster's control groups are on this machine")
    busy = [w["metadata"]["name"] for w in _workflows(platform) if _runs(w)]
    if busy:
        raise SlipwayError(f"not at rest: {', '.join(busy)} runs", fix="wait until it has ended")
    say(f"watching for {WINDOW_S} s")
    names, groups = pod_names(platform), Groups.find()
    used: dict[str, Use] = {}
    began = time.monotonic()
    for sample in range(SAMPLES + 1):
        time.sleep(max(began + sample * WINDOW_S / SAMPLES - time.monotonic(), 0))
        for uid, group in groups.pods().items():
            with suppress(FileNotFoundError):  # a pod that has just ended
                use = groups.cpu_seconds(group), groups.working_set(group)
                used.setdefault(names.get(uid, f"?/{uid}"), Use()).add(*use)
        for name, (cpu, memory) in _supervised().items():
            used.setdefault(name, Use()).add(cpu, memory)
    seconds = time.monotonic() - began
    return _rest_figures(used, seconds)


def _rest_figures(used: dict[str, Use], seconds: float) -> list[Figure]:
    # A pod that came or went in between has no two ends to compare; it says so in the details.
    parts = {name: use.document(seconds) for name, use in sorted(used.items())}
    by_place: dict[str, dict[str, float]] = {}
    for name, use in parts.items():
        place = by_place.setdefault(name.partition("/")[0], {"cores": 0, "mib": 0})
        for key, value in use.items():
            place[key] = round(place[key] + value, 4)
    details = {"seconds": round(seconds, 1), "namespaces": by_place, "parts": parts}
    memory = sum(use.bytes for use in used.values()) / GIB
    cpu = sum(use.cores(seconds) for use in used.values())
    largest = sorted(by_place.items(), key=lambda item: -item[1]["mib"])[:3]
    most = sorted(by_place.items(), key=lambda item: -item[1]["cores"])[:3]
    said_memory = ", ".join(f"{name} {use['mib']:.0f} MiB" for name, use in largest)
    said_cpu = ", ".join(f"{name} {use['cores']:.2f}" for name, use in most)
    window = f"{seconds:.0f} s; {len(used)} parts"
    return [
        Figure("memory", memory, f"working sets, median of {window}: {said_memory}", "", details),
        Figure("cpu", cpu, f"over {window}: {said_cpu}", "", details),
    ]


def _workflows(platform: Cluster) -> list[dict[str, Any]]:
    return platform.items(f"{training.API}/workflows")


def _runs(workflow: dict[str, Any]) -> bool:
    # What a schedule starts is part of being at rest.
    scheduled = part(workflow, "metadata", "labels", "workflows.argoproj.io/cron-workflow")
    return not scheduled and (part(workflow, "status", "phase") or "") in training.RUNNING


def pod_names(platform: Cluster) -> dict[str, str]:
    """namespace/name by uid. The kubelet knows a static pod by its manifest's hash."""
    names: dict[str, str] = {}
    for pod in platform.items("/api/v1/pods"):
        meta = pod["metadata"]
        static = part(meta, "annotations", "kubernetes.io/config.hash")
        names[static or meta["uid"]] = f"{meta['namespace']}/{meta['name']}"
    return names


def _supervised() -> dict[str, tuple[float, int]]:
    """Processor seconds and bytes of what runs beside the pods, by program."""
    found: dict[str, tuple[float, int]] = {}
    for process in {p.pid: p for p in cluster.orphans()}.values():
        try:
            if in_pod(Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()):
                continue
            times = process.cpu_times()
            # Shared pages are counted once, over all processes that share them.
            memory = int(process.memory_full_info().pss)
            name = f"node/{process.name()}"
        except (psutil.Error, OSError):
            continue
        cpu, before = found.get(name, (0, 0))
        # Children that have ended are part of it: what the kubelet starts ends at once.
        spent = times.user + times.system + times.children_user + times.children_system
        found[name] = (cpu + spent, before + memory)
    return found


def in_pod(lines: Iterable[str]) -> bool:
    """Whether /proc/PID/cgroup tells of a pod's process, which its pod's group counts."""
    return any("/kubepods" in line for line in lines)


def disk(_: Cluster | None, say: Callable[[str], None]) -> list[Figure]:
    """What the platform takes of this machine's disk, caches and data included."""
    say("du")
    places = {
        "cache": paths.cache(),
        "data": paths.data(),
        "state": paths.state(),
        "kubelet": cluster.KUBELET,
        ".venv": paths.REPOSITORY / ".venv",
    }
    sizes = dict(zip(places, allocated(*places.values()), strict=True))
    said = ", ".join(f"{name} {size / GB:.1f}" for name, size in sizes.items())
    return [Figure("disk", sum(sizes.values()) / GB, f"du: {said}", "", {"bytes": sizes})]


def allocated(*places: Path) -> list[int]:
    """Bytes that each folder takes on its own file system, 0 where it is not there.

    What several have, as hard links of one file, counts for the first of them.
    """
    named = {place: f"{place}{os.sep}" for place in places}  # what a link leads to, not the link
    there = [name for place, name in named.items() if place.exists()]
    command = ["du", "--summarize", "--one-file-system", "--block-size=1", *there]
    # Files that go while it reads are no failure; without any number it is one.
    said = subprocess.run(command, capture_output=True, text=True)
    lines = [line.partition("\t") for line in said.stdout.splitlines()]
    sizes = {place: int(size) for size, _, place in lines}
    if there and not sizes:
        raise SlipwayError(f"du {' '.join(there)}: {said.stderr.strip()}")
    return [sizes.get(name, 0) for name in named.values()]
