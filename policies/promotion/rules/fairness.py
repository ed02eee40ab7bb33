"""The groups of a column are not treated too differently."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from slipway.evidence import Share
from slipway.gates import Finding, Subject, failed, passed, waived
from slipway.release import Strict


class Bounds(Strict):
    """Largest differences between groups (fairlearn's definitions)."""

    demographic_parity: Share
    equalized_odds: Share


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
        parity, odds = measured.demographic_parity, measured.equalized_odds
        message = (
            f"{column}: demographic parity {parity:.3f}, at most {bounds.demographic_parity:g}; "
            f"equalized odds {odds:.3f}, at most {bounds.equalized_odds:g} "
            f"(at {measured.threshold:g}, worst group {measured.worst_group})"
        )
        within = parity <= bounds.demographic_parity and odds <= bounds.equalized_odds
        yield (
            passed(message)
            if within
            else failed(message, "look at the rates of the worst group, in the evidence's slices")
        )
