"""Speed and memory of the platform beside their targets. Each measurement gives some figures."""

from __future__ import annotations

import functools
import inspect
import json
import os
import subprocess
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from slipway import paths
from slipway.bench import (
    command,
    gpus,
    prediction,
    promotion,
    push,
    repository,
    rest,
    scale,
    staging,
    train,
)
from slipway.bench.figures import TARGETS, Figure
from slipway.endpoints import Cluster
from slipway.errors import BadInput, SlipwayError, did_you_mean
from slipway.publish import head

# Some take `rounds` besides, how often they repeat what they measure, or `models`.
Measure = Callable[..., list[Figure]]

# What rests is measured before anything is asked of it.
MEASUREMENTS: dict[Measure, tuple[str, ...]] = {
    command.installs: ("up-cold", "up-cached", "disk-peak"),
    command.destroyed: ("destroy",),
    command.checked: ("make-check",),
    rest.rest: ("memory", "cpu"),
    rest.disk: ("disk",),
    command.no_op_up: ("up",),
    command.pulumi_up: ("pulumi-up",),
    command.preview: ("preview",),
    repository.repository: ("check", "check-large", "status-large"),
    push.push: ("push",),
    promotion.promotion: ("promotion", "failed", "revert", "gates", "polling"),
    staging.staging: ("gates-release", "staging"),
    train.train: ("training", "step-overhead"),
    prediction.prediction: ("throughput", "p99", "in-cluster"),
    scale.scale: ("scale", "scale-memory", "scale-push"),
    gpus.gpus: ("gpus", "gpus-rate", "gpus-scheduler", "gpus-idle"),
}
# They take the platform to its limits, or need a stack of their own, so somebody has to name them;
# one name gives all its figures.
ON_REQUEST = {scale.scale, gpus.gpus}
# They push to main past the gates, and propose what nobody wants.
PUSH = {push.push, promotion.promotion, staging.staging, scale.scale}
# They ask nothing of the platform.
WITHOUT_PLATFORM = {command.installs, command.checked, command.preview}


def check_names(names: Collection[str]) -> None:
    """`BadInput` unless all are names of figures."""
    for name in names:
        if name not in TARGETS:
            raise BadInput(f"no figure {name!r}", field="FIGURE", fix=did_you_mean(name, TARGETS))


def platform(names: Collection[str]) -> Cluster | None:
    """The platform to measure; None where the named figures need none."""
    alone = (given for m, given in MEASUREMENTS.items() if m in WITHOUT_PLATFORM)
    without = {name for given in alone for name in given}
    return None if names and without.issuperset(names) else Cluster.connect()


def measure(
    platform: Cluster | None,
    names: Collection[str],
    say: Callable[[str, str], None],
    **sizes: int | None,
) -> Iterator[Figure]:
    """The named figures, by default all but those on request; one that cannot be says why.

    `say` gets the figure's name and what is done for it. `sizes` are `rounds`, how often what is
    repeated is so, and `models`; each goes to the measurements that know it.
    """
    for measurement, given in MEASUREMENTS.items():
        wanted = _wanted(measurement, given, names)
        if not wanted:
            continue
        try:
            if measurement in PUSH and platform and platform.outside_forge():
                raise BadInput("it pushes to the forge, and this platform reads somebody's own")
            known = inspect.signature(measurement).parameters
            more = {key: size for key, size in sizes.items() if size and key in known}
            figures = measurement(platform, functools.partial(say, wanted[0]), **more)
            found = {figure.name: figure for figure in figures}
        except (SlipwayError, OSError, subprocess.SubprocessError, httpx.HTTPError) as error:
            problem = str(error) or type(error).__name__
            found = {name: Figure(name, None, problem=problem) for name in wanted}
        yield from (found[name] for name in wanted if name in found)


def _wanted(measurement: Measure, given: Collection[str], names: Collection[str]) -> list[str]:
    if measurement in ON_REQUEST:
        return list(given) if any(name in names for name in given) else []
    return [name for name in given if not names or name in names]


def document(figures: list[Figure]) -> dict[str, Any]:
    """What was measured, on what, when."""
    return {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": head(),
        "machine": {
            "cores": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
            "load_average": os.getloadavg(),
        },
        "figures": [figure.document() for figure in figures],
    }


def default_file() -> Path:
    """Where the last run's figures are."""
    return paths.state() / "bench.json"


def write(file: Path, content: dict[str, Any]) -> None:
    """Writes the document as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n")
