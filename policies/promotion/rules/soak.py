"""The bento has served long enough in the previous environment, and served well."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from typing import Annotated

from pydantic import Field

from slipway.gates import (
    CLOCK_SKEW,
    Finding,
    NotEvaluated,
    Soak,
    Subject,
    duration,
    failed,
    not_applicable,
    passed,
)
from slipway.release import Strict
from slipway.tasks import LARGER_IS_BETTER, TASKS

Count = Annotated[int, Field(ge=0)]


class Limits(Strict):
    """Time that it served while it was released there, predictions, and how many of them have an
    outcome by now.

    `error_margin`: how much more than on the holdout the squared error of the labelled ones may be;
    of probabilities it is the Brier score, of values a share of the outcome's variance (a loss of
    R²).
    """

    lasting: Annotated[
        str, Field(pattern=r"^[0-9]+[smhd]$", alias="for", description="e.g. 30m, 24h")
    ]
    predictions: Count
    labelled: Count
    error_margin: Annotated[float, Field(ge=0, le=1)] | None = None


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    before, asked = subject.previous_environment, duration(limits.lasting)
    if before is None:
        yield not_applicable(f"{subject.environment} is the first environment")
        return
    if not asked and not limits.predictions and not limits.labelled and limits.error_margin is None:
        yield passed(f"{subject.policy.file} asks for no time in {before}")
        return
    soak = subject.soak
    if soak is None:
        raise NotEvaluated(
            subject.soak_problem or f"what {before} served is not known here",
            fix="slipway check on the platform reads the prediction log",
        )
    if not soak.times:
        yield failed(
            f"{before} has served nothing yet by this bento", f"send it requests in {before}"
        )
        return
    yield _lasting(subject, soak, limits.lasting, before)
    message = f"{soak.predictions:,} predictions, at least {limits.predictions:,}"
    yield (
        passed(message)
        if soak.predictions >= limits.predictions
        else failed(message, f"wait for more requests in {before}")
    )
    message = f"{soak.labelled:,} labelled, at least {limits.labelled:,}"
    yield (
        passed(message)
        if soak.labelled >= limits.labelled
        else failed(message, f"slipway label {subject.model} --env {before} --file OUTCOMES")
    )
    if limits.error_margin is not None:
        yield _error(subject, soak.squared_error, limits.error_margin)


def _lasting(subject: Subject, soak: Soak, asked: str, where: str) -> Finding:
    now, first = subject.now, soak.times[0]
    if first - now > CLOCK_SKEW:
        return failed(
            f"its first prediction in {where} is {(first - now).total_seconds() / 60:.0f} min in "
            "the future",
            "set the clocks of the machines right (NTP)",
        )
    lasted = soak.lasted(subject.stays, now)
    message = f"{_words(lasted.total_seconds())} in {where}, at least {asked}"
    if lasted >= duration(asked):
        return passed(message)
    present = [stay for stay in subject.stays if stay.until is None]
    begun = max((times[0] for stay in present if (times := soak.within(stay))), default=None)
    if begun is None:
        return failed(
            f"{message}, and nothing since it was released there (again)",
            f"send it requests in {where}",
        )
    over = (max(now, begun) + duration(asked) - lasted).astimezone(UTC)
    return failed(message, f"wait until {over:%Y-%m-%d %H:%M:%S}Z; it is looked at again by then")


def _error(subject: Subject, squared: float | None, margin: float) -> Finding:
    evaluation = subject.found().evaluation
    metric = TASKS[evaluation.task].squared
    promised = evaluation.metrics.get(metric)
    if squared is None or promised is None:
        return failed(
            f"not evaluated: no {metric} of what was served",
            "label predictions: it is over those with an outcome",
        )
    if metric in LARGER_IS_BETTER:
        served = 1 - squared / evaluation.holdout.deviation**2
        worse = promised.value - served
    else:
        served = squared
        worse = served - promised.value
    message = (
        f"{metric} {served:.4f} served, {promised.value:.4f} on the holdout, margin {margin:g}"
    )
    if worse <= margin:
        return passed(message)
    return failed(message, "the model does not hold what its evidence promised: see the drift")


def _words(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
