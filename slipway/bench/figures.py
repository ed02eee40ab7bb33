"""What is measured, and what it should be: the one table of targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

GIB, GB = 2**30, 10**9


@dataclass(frozen=True)
class Target:
    """A figure's description and limit; `limit` None: shown for information."""

    what: str
    unit: str
    limit: float | None
    at_least: bool = False

    def met(self, value: float | None) -> bool | None:
        """Whether `value` keeps the limit; None when one of the two is missing."""
        if value is None or self.limit is None:
            return None
        return value >= self.limit if self.at_least else value <= self.limit


TARGETS = {
    "up-cold": Target("make up, nothing cached", "s", 45 * 60),
    "up-cached": Target("make up, toolchain cached", "s", 4 * 60),
    "disk-peak": Target("disk meanwhile, peak", "GB", 25),
    "make-check": Target("make check", "s", 180),
    "destroy": Target("pulumi destroy, to zero objects", "s", 60),
    "up": Target("slipway up, already running", "s", 5),
    "pulumi-up": Target("pulumi up, nothing to change", "s", 10),
    "preview": Target("pulumi preview of a stack on AWS, mocked", "s", 10),
    "memory": Target("platform at rest, memory", "GiB", 2.5),
    "cpu": Target("platform at rest, processor", "cores", 0.3),
    "disk": Target("disk at rest", "GB", 10),
    "push": Target("push to synced, p95", "s", 5),
    "promotion": Target("merge to new answers only, p95", "s", 15),
    "failed": Target("failed requests meanwhile", "", 0),
    "revert": Target("revert merged to old answers only, p95", "s", 15),
    "gates": Target("push to the gates' verdict, p95", "s", 30),
    "gates-release": Target("the same of a promotion to staging", "s", 30),
    "staging": Target("merge in staging to new answers only", "s", 15),
    "polling": Target("merge to new answers, beside polling", "×", 8, at_least=True),
    "check": Target("slipway check, one change", "s", 2),
    "check-large": Target("the same among 3,000 releases", "s", 3),
    "status-large": Target("slipway status of these from git", "s", 3),
    "training": Target("training workflow, all rows", "s", 180),
    "step-overhead": Target("a step's overhead, the largest", "s", 5),
    "throughput": Target("predictions/s beside MLflow's", "×", 3, at_least=True),
    "p99": Target("prediction p99 beside MLflow's", "×", 1),
    "in-cluster": Target("predictions/s of the pod, by its Service", "/s", None),
    "scale": Target("ApplicationSet of many files to all synced", "s", None),
    "scale-memory": Target("Argo CD's controller meanwhile, peak", "MiB", None),
    "scale-push": Target("one file among many, push to synced", "s", None),
    "gpus": Target("experiments on simulated GPUs until all run", "s", 60),
    "gpus-rate": Target("pods/s by Kueue, on ready nodes", "/s", None),
    "gpus-scheduler": Target("pods/s by kube-scheduler alone", "/s", None),
    "gpus-idle": Target("idle GPU nodes, until none is left", "s", None),
}


@dataclass(frozen=True)
class Figure:
    """One measured figure, in its target's unit.

    `value` None: never measured, or, where `problem` says why, it could not be.
    """

    name: str
    value: float | None
    how: str = ""
    problem: str = ""
    details: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def target(self) -> Target:
        return TARGETS[self.name]

    def document(self) -> dict[str, Any]:
        """As it stands in the JSON."""
        target = self.target
        limits = {"target": target.limit, "at_least": target.at_least}
        return {
            **{"name": self.name, "what": target.what, "measured": self.value},
            **{"unit": target.unit, **limits, "met": target.met(self.value)},
            **{"how": self.how, "problem": self.problem or None, "details": self.details},
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` % of all values do not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(math.ceil(len(ranked) * percent / 100) - 1, 0)]
