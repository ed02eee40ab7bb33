"""The model is better than something: than the champion, than a baseline, or both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from slipway.gates import Finding, NotEvaluated, Subject, difference, failed, passed
from slipway.release import Strict
from slipway.tasks import TASKS, MetricName


class Limits(Strict):
    """Superior to the champion in one of these metrics at least; skill over each of these baselines
    above its number, with the whole interval. What is of the other task alone is not asked."""

    over_champion: tuple[MetricName, ...] = ()
    over_baseline: dict[str, Annotated[float, Field(lt=1)]] = Field(default={})

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self.over_champion and not self.over_baseline:
            raise PydanticCustomError("slipway", "asks nothing: skip the rule instead")
        return self


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    evaluation = subject.found().evaluation
    task, gains = TASKS[evaluation.task], evaluation.gain
    others = {other.constant for other in TASKS.values()} - {task.constant}
    for baseline, least in limits.over_baseline.items():
        if baseline in others:
            continue
        if (gain := gains.get(baseline)) is None:
            yield failed(
                f"not evaluated: the evidence has no baseline {baseline}",
                f"bentos/{subject.model}/training.py: baselines() gives it",
            )
            continue
        message = (
            f"skill over {baseline}: {gain.value:+.1%} [{gain.low:+.1%}, {gain.high:+.1%}], "
            f"above {least:.1%}"
        )
        yield (
            passed(message)
            if gain.low > least
            else failed(
                f"{message}: not shown", "a model that adds nothing to its baseline is not needed"
            )
        )
    metrics = [name for name in limits.over_champion if name in task.metrics]
    if not metrics:
        if not limits.over_baseline.keys() - others:
            raise NotEvaluated(
                f"asks nothing of {task.name}",
                fix=f"{subject.policy.file}: name a metric or a baseline of it in superior",
            )
        return
    compared = subject.compared()
    if compared is None:
        yield subject.no_champion
        return
    tests = [
        t
        for t in compared.tests
        if t.kind == "superiority" and not t.column and t.metric in metrics
    ]
    if missing := set(metrics) - {t.metric for t in tests}:
        yield failed(
            f"not evaluated: no test of superiority in {', '.join(sorted(missing))}", subject.again
        )
        return
    better = [t for t in tests if t.passed]
    if better:
        yield passed("; ".join(map(difference, better)))
    else:
        yield failed(
            "; ".join(map(difference, tests)), "train a better model, or keep the champion"
        )
