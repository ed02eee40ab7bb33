"""No slice is below its floor, nor worse than under the champion: the worst are named."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from slipway.evidence import Comparison, Slice
from slipway.gates import Finding, NotEvaluated, Subject, difference, failed, passed, waived
from slipway.release import Strict
from slipway.tasks import TASKS, MetricName


class Floor(Strict):
    """How good a metric must be; which way it points is for who writes it to know."""

    at_least: Annotated[float, Field(allow_inf_nan=False)] | None = None
    at_most: Annotated[float, Field(allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise PydanticCustomError("slipway", "give either at_least or at_most")
        return self

    def holds(self, value: float) -> bool:
        return value <= self.at_most if self.at_most is not None else value >= (self.at_least or 0)

    def __str__(self) -> str:
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return f"at least {self.at_least:g}"


class Limits(Strict):
    """Slices of fewer rows than `evidence.minimum_slice_rows` are not judged, nor are floors of
    another task's metrics.

    `refuse`: slices shown to be worse than the champion's by more than the margin, or also those
    not proven to be within it. `unsliced`: whether a model may have no slices at all.
    """

    floors: dict[MetricName, Floor]
    refuse: Literal["worse", "unproven"]
    unsliced: Literal["refuse", "allow"] = "refuse"


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    every, least = subject.found().evaluation.slices, subject.policy.evidence.minimum_slice_rows
    compared = subject.compared()
    large = [s for s in every if s.rows >= least]
    if not large:
        message = f"no slice of {least:,} rows or more"
        if limits.unsliced == "allow":
            yield waived(f"{message}, which {subject.policy.file} allows")
        else:
            yield failed(
                f"not evaluated: {message}", f"name columns in bentos/{subject.model}/model.yaml"
            )
        return
    task = TASKS[subject.found().evaluation.task]
    floors = {name: floor for name, floor in limits.floors.items() if name in task.metrics}
    findings = [f for name, floor in floors.items() for f in _floor(name, floor, large)]
    if compared is not None:
        findings += _champion(subject, limits, compared, large)
    yield from findings
    if not findings:
        small = len(every) - len(large)
        yield passed(
            "; ".join(
                [
                    f"{len(large)} slices, {small} below {least:,} rows not judged",
                    *(_worst(name, floor, large) for name, floor in floors.items()),
                ]
            )
        )


def _name(found: Slice) -> str:
    return f"{found.column} {found.value}"


def _floor(metric: str, floor: Floor, slices: list[Slice]) -> Iterator[Finding]:
    for found in slices:
        value = found.metrics.get(metric)
        if value is None and metric == "roc_auc" and found.mean_outcome in (0, 1):
            continue  # of one outcome alone there is none
        if value is None:
            yield failed(f"{_name(found)}: not evaluated: the evidence has no {metric} of it")
        elif not floor.holds(value):
            yield failed(
                f"{_name(found)} ({found.rows:,} rows): {metric} {value:.4f}, {floor}",
                "see what these rows have in common that the model does not see",
            )


def _worst(metric: str, floor: Floor, slices: list[Slice]) -> str:
    by_value = sorted((s for s in slices if metric in s.metrics), key=lambda s: s.metrics[metric])
    if not by_value:
        return f"{metric}: nowhere defined"
    worst = by_value[-1] if floor.at_most is not None else by_value[0]
    return f"worst {metric}: {_name(worst)}, {worst.metrics[metric]:.4f}, {floor}"


def _champion(
    subject: Subject, limits: Limits, compared: Comparison, slices: list[Slice]
) -> Iterator[Finding]:
    asked = subject.policy.evidence
    tests = {
        (t.column, t.value, t.metric): t for t in compared.tests if t.kind == "non_inferiority"
    }
    task = subject.found().evaluation.task
    if not (margins := asked.sliced(task)):
        raise NotEvaluated(
            f"no metric of {task} has a margin for slices",
            fix=f"{subject.policy.file}: name one in evidence.slice_margins",
        )
    # Rows of one group alone say nothing of chance, so no test can be made.
    testable = [s for s in slices if s.groups > 1]
    for found, (metric, margin) in itertools.product(testable, margins.items()):
        test = tests.get((found.column, found.value, metric))
        if test is None:
            yield failed(
                f"{_name(found)}: not evaluated: {metric} not tested against the champion",
                subject.again,
            )
        elif (test.margin, test.alpha) != (margin, asked.alpha):
            yield failed(
                f"{_name(found)}: tested with margin {test.margin:g} and α {test.alpha:g}, "
                f"{subject.policy.file} says {margin:g} and {asked.alpha:g}",
                subject.again,
            )
        elif test.difference.high < -test.margin or (
            limits.refuse == "unproven" and not test.passed
        ):
            yield failed(difference(test), "see who is behind these rows before they are worse off")
