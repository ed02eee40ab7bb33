"""The groups of a column are not treated too differently."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from slipway.evidence import Fairness, Share
from slipway.gates import Finding, Subject, failed, passed, waived
from slipway.release import Strict

Difference = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Bounds(Strict):
    """Largest differences between groups, as `slipway.evidence.Fairness` describes them: the first
    two of classification, the last two of regression."""

    demographic_parity: Share | None = None
    equalized_odds: Share | None = None
    bias_difference: Difference | None = None
    error_difference: Difference | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if not self.model_fields_set:
            raise PydanticCustomError("slipway", "bounds nothing: name the column not at all")
        return self


class Limits(Strict):
    """Bounds by slice column; `*` is for every column that is not named.

    `unsliced`: whether a model may have no groups to compare.
    """

    columns: dict[str, Bounds]
    unsliced: Literal["refuse", "allow"] = "refuse"


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    found = {f.column: f for f in subject.found().evaluation.fairness}
    settings = f"bentos/{subject.model}/model.yaml"
    for column in limits.columns:
        if column != "*" and column not in found:
            yield failed(
                f"not evaluated: the evidence says nothing of {column}",
                f"name it among the slices of {settings}",
            )
    if not found and "*" in limits.columns:
        if limits.unsliced == "allow":
            yield waived(f"no groups to compare, which {subject.policy.file} allows")
        else:
            yield failed("not evaluated: no groups to compare", f"name slices in {settings}")
    for column, measured in found.items():
        bounds = limits.columns.get(column, limits.columns.get("*"))
        if bounds is None:
            yield failed(
                f"not evaluated: no bounds for {column}",
                f"give some in {subject.policy.file}, or for every other column as '*'",
            )
            continue
        yield _within(subject, measured, bounds)


def _within(subject: Subject, measured: Fairness, bounds: Bounds) -> Finding:
    most: dict[str, float] = bounds.model_dump(exclude_none=True)
    named = [name for name in measured.differences if name in most]
    if len(named) < len(measured.differences):
        unbound = ", ".join(name for name in measured.differences if name not in most)
        return failed(
            f"not evaluated: no bound for {measured.column}: {unbound}",
            f"give one in {subject.policy.file}",
        )
    found = [(name, measured.differences[name], most[name]) for name in named]
    said = "; ".join(
        f"{name.replace('_', ' ')} {value:.3f}, at most {bound:g}" for name, value, bound in found
    )
    at = "" if measured.threshold is None else f"at {measured.threshold:g}, "
    message = f"{measured.column}: {said} ({at}worst group {measured.worst_group})"
    if all(value <= bound for _, value, bound in found):
        return passed(message)
    return failed(message, "look at the worst group, in the evidence's slices")
