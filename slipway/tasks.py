"""What models are for, and what each kind is measured by.

A classifier answers the probability that something happens, a regressor a number in the unit of the
outcome. Each metric belongs to one of the two, but for the calibration error, so that a policy can
name limits for both: those of the other task are not asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TaskName = Literal["classification", "regression"]
MetricName = Literal["roc_auc", "brier", "log_loss", "r2", "mae", "rmse", "calibration_error"]
# Those in which a test can bound a loss. Chance adds to a calibration error, most to a good one,
# and hides what was lost.
BoundedName = Literal["roc_auc", "brier", "log_loss", "r2", "mae", "rmse"]
# Means of a loss a row: what a slice can be tested by, too.
MeanName = Literal["brier", "log_loss", "r2", "mae"]
LARGER_IS_BETTER = frozenset({"roc_auc", "r2"})


@dataclass(frozen=True)
class Task:
    """`lead`: the metric that stands for all in a line or a plot; `squared`: that of the squared
    error, in which a gain is a skill; `constant`: the baseline that says the same of every row."""

    name: TaskName
    metrics: tuple[MetricName, ...]
    means: tuple[MeanName, ...]
    lead: MetricName
    squared: MeanName
    constant: str


TASKS: dict[TaskName, Task] = {
    "classification": Task(
        "classification",
        metrics=("roc_auc", "brier", "log_loss", "calibration_error"),
        means=("brier", "log_loss"),
        lead="brier",
        squared="brier",
        constant="base_rate",
    ),
    "regression": Task(
        "regression",
        metrics=("r2", "mae", "rmse", "calibration_error"),
        means=("r2", "mae"),
        lead="rmse",
        squared="r2",
        constant="mean",
    ),
}
