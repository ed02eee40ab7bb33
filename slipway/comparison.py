"""Challenger against champion: paired tests on one holdout, and what else differs between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from slipway.errors import SlipwayError
from slipway.evidence import (
    Change,
    ChangeKind,
    Column,
    Comparison,
    Data,
    Dependencies,
    Drift,
    Estimate,
    Evaluation,
    Level,
    Positive,
    Signature,
    Test,
    Yardstick,
    YardstickChange,
)
from slipway.release import Strict
from slipway.tasks import TASKS, BoundedName, MeanName, TaskName

if TYPE_CHECKING:
    import pandas as pd

    from slipway.statistics import Gain, Scores
    from slipway.store import Store

Margin = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class EvidencePolicy(Strict):
    """The `evidence:` block of policies/promotion/<env>.yaml: how a comparison is to be made."""

    alpha: Level = Field(default=0.05, description="one-sided, of each family after Holm")
    confidence: Level = Field(default=0.95, description="of the intervals of differences")
    resamples: Annotated[int, Field(ge=100, le=10_000)] = 1000
    margins: dict[BoundedName, Margin] = Field(
        default={},
        description="what a metric may lose and still be non-inferior; one that is not named here "
        "is tested for superiority alone",
    )
    slice_margins: dict[MeanName, Margin] = Field(
        default={"brier": 0.01, "r2": 0.01},
        description="the same for each slice",
    )
    minimum_slice_rows: Positive = Field(default=500, description="a smaller slice is not tested")
    maximum_age_days: Positive = Field(default=30, description="older evidence has expired")

    def whole(self, task: TaskName) -> dict[str, float]:
        """The margins that a model of this task is judged by."""
        return {n: m for n, m in self.margins.items() if n in TASKS[task].metrics}

    def sliced(self, task: TaskName) -> dict[str, float]:
        """The same of each slice."""
        return {n: m for n, m in self.slice_margins.items() if n in TASKS[task].means}


class NotComparable(SlipwayError):
    """Not answers to the same question about the same rows, or too few to be tested."""


def compare(
    challenger: Evaluation,
    table: pd.DataFrame,
    champion: Evaluation,
    champion_table: pd.DataFrame,
    policy: EvidencePolicy,
    *,
    signature: Sequence[Change] = (),
    drift: Sequence[Drift] = (),
    locks: tuple[Dependencies, Dependencies] | None = None,
) -> Comparison:
    """Tests from the predictions tables of one holdout, beside what else differs.

    Args:
        table: the challenger's predictions. Its slices and its groups (slipway.statistics: the
            independent observations) are those of the tests.
        champion_table: the champion's on the same rows. Its evaluation may be on others.
        signature: what callers meet, from slipway.interface.
        drift: of the training data, from `drift` below.
        locks: the challenger's dependencies and the champion's.

    The tests are one-sided at `policy.alpha`:

    - superiority in each metric;
    - non-inferiority in each metric that has a margin in the policy;
    - non-inferiority in the metrics of `policy.slice_margins` for each slice of enough rows.

    Brier score, log loss, R² and MAE: the paired t-test of the losses, with standard errors that
    are robust within groups (the textbook's where each row is its own group). The others: a t
    statistic whose standard error is that of the paired bootstrap over groups. No p-value is thus
    bounded from below by the number of resamples, which many slices under Holm would run into.
    Holm's correction is made over all tests of the same kind, slices included. For "no slice is
    worse", where all must pass, that is stricter than it need be: it errs against the challenger.

    Raises:
        NotComparable: another task, other rows, other outcomes, or fewer than two groups.
    """
    import numpy as np

    from slipway.statistics import mean_gain, metric_gains, scores
    from slipway.steps import predictions

    check_task(challenger, champion)
    y, p = (table[name].to_numpy() for name in ("outcome", "prediction"))
    if not np.array_equal(y, champion_table["outcome"].to_numpy()):
        raise NotComparable(
            f"the champion's predictions are of {len(champion_table):,} rows that are not the "
            f"challenger's {len(y):,}",
            fix="run the rescore step again with this evaluation",
        )
    new = scores(challenger.task, y, p, predictions.groups(table))
    old = scores(challenger.task, y, champion_table["prediction"].to_numpy(), new.groups)
    if new.groups.max() < 1:
        raise NotComparable(
            "the holdout is of one group: nothing tells chance from a difference",
            fix="hold out more, or name another group in model.yaml",
        )
    whole = [_Draft(m, g, len(y)) for m, g in metric_gains(new, old, policy.resamples).items()]
    margins, slice_margins = policy.whole(challenger.task), policy.sliced(challenger.task)
    bounded = [replace(d, margin=margins[d.metric]) for d in whole if d.metric in margins]
    gains = {name: old.losses[name] - new.losses[name] for name in slice_margins}
    for column, values in predictions.slices(table).items():
        for value in sorted(set(values)):
            here = values == value
            rows, groups = int(here.sum()), new.groups[here]
            # Rows of one group alone say nothing of chance.
            if rows >= policy.minimum_slice_rows and np.ptp(groups):
                bounded += [
                    _Draft(name, mean_gain(gains[name][here], groups), rows, margin, column, value)
                    for name, margin in slice_margins.items()
                ]
    return Comparison(
        tests=[
            *_tests("superiority", whole, policy),
            *_tests("non_inferiority", bounded, policy),
        ],
        yardstick=yardstick_changes(champion, challenger),
        signature=list(signature),
        model_signature=signature_changes(champion.signature, challenger.signature),
        drift=list(drift),
        dependencies=dependency_changes(*reversed(locks)) if locks else [],
    )


def check_task(challenger: Evaluation, champion: Evaluation) -> None:
    """`NotComparable` unless both answer the same kind of question."""
    if challenger.task != champion.task:
        raise NotComparable(
            f"the champion of {challenger.model} is made for {champion.task}, the challenger for "
            f"{challenger.task}",
            fix="release it as another model: slipway new NAME",
        )


@dataclass(frozen=True)
class _Draft:
    """A test before its p-value is adjusted for the others."""

    metric: str
    gain: Gain
    rows: int
    margin: float = 0.0
    column: str = ""
    value: str = ""


def _tests(
    kind: Literal["non_inferiority", "superiority"], drafts: list[_Draft], policy: EvidencePolicy
) -> list[Test]:
    from slipway.statistics import holm

    raw = [
        d.gain.superiority() if kind == "superiority" else d.gain.non_inferiority(d.margin)
        for d in drafts
    ]
    return [
        Test(
            kind=kind,
            metric=draft.metric,
            column=draft.column,
            value=draft.value,
            rows=draft.rows,
            margin=draft.margin,
            alpha=policy.alpha,
            difference=draft.gain.interval(policy.confidence),
            p_value=p_value,
            p_adjusted=adjusted,
            passed=adjusted <= policy.alpha,
        )
        for draft, p_value, adjusted in zip(drafts, raw, holm(raw), strict=True)
    ]


def metrics(found: Scores, policy: EvidencePolicy) -> dict[str, Estimate]:
    """Every metric with its interval: the champion's on our holdout."""
    from slipway import statistics

    return statistics.estimates(found, count=policy.resamples, confidence=policy.confidence)[0]


def curves(found: Scores, periods: Any) -> dict[str, Any]:
    """`reliability` and `by_period` of answers, as an evaluation has them."""
    from slipway import statistics

    name, unit = found.task.name, found.deviation
    return {
        "reliability": statistics.reliability(found),
        "by_period": {
            str(period): statistics.metrics(name, found.y[here], found.p[here], unit)
            for period in dict.fromkeys(periods)
            for here in (periods == period,)
        },
    }


def yardstick_changes(champion: Evaluation, challenger: Evaluation) -> list[YardstickChange]:
    """What the challenger's own model.yaml and code say of how both are now measured, where the
    champion's said otherwise."""

    def outcomes(of: Evaluation, names: Sequence[str]) -> list[str]:
        return [f"{name} {of.holdout.outcomes[name]}" for name in names]

    def threshold(of: Evaluation) -> list[str]:
        return [] if of.decision_threshold is None else [f"{of.decision_threshold:g}"]

    old, new = champion.holdout, challenger.holdout
    theirs, ours = old.outcomes, new.outcomes
    other = [name for name in ours if name in theirs and theirs[name] != ours[name]]
    seen = [name for name in new.partitions if name in champion.data.train]
    sides: list[tuple[Yardstick, list[str], list[str]]] = [
        ("group", [old.group] if old.group else [], [new.group] if new.group else []),
        ("slices", champion.slice_columns, challenger.slice_columns),
        ("decision threshold", threshold(champion), threshold(challenger)),
        ("holdout", old.partitions, new.partitions),
        ("outcomes", outcomes(champion, other), outcomes(challenger, other)),
        ("champion's training", [], seen),
    ]
    return [
        YardstickChange(what=what, before=before, after=after)
        for what, before, after in sides
        if set(before) != set(after)
    ]


def signature_changes(before: Signature, after: Signature) -> list[Change]:
    """What of the model's own columns is another; a name, then what happened to it."""
    found: list[Change] = []
    for side, old, new in (
        ("", before.inputs, after.inputs),
        ("output ", before.outputs, after.outputs),
    ):
        theirs, ours = ({c.name: c for c in columns} for columns in (old, new))
        for name in dict.fromkeys([*theirs, *ours]):
            kind = _column_change(theirs.get(name), ours.get(name))
            if kind:
                sides = [c.type if c else "" for c in (theirs.get(name), ours.get(name))]
                found.append(
                    Change(name=f"{side}{name}", kind=kind, before=sides[0], after=sides[1])
                )
    return found


def _column_change(old: Column | None, new: Column | None) -> ChangeKind | None:
    if old is None or new is None:
        if new is None:
            return "removed"
        return "added_required" if new.required else "added_optional"
    if old.type != new.type:
        return "retyped"
    if old.required != new.required:
        return "made_required" if new.required else "made_optional"
    return None


def dependency_changes(before: Dependencies, after: Dependencies) -> list[str]:
    """`name old -> new`, by name; `-` where it is not there."""
    theirs, ours = ({p.name: p.version for p in d.packages} for d in (before, after))
    return [
        f"{name} {theirs.get(name, '-')} -> {ours.get(name, '-')}"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]


def drift(store: Store, ours: Data, theirs: Data) -> list[Drift]:
    """How far each column of our training data moved from theirs, the outcome included.

    Moments in time are left out, which always move; so are columns that only one side has, which
    are a change and no drift. Zero where the partitions learned from are the same.
    """
    from slipway.statistics import psi
    from slipway.steps import dataset

    manifests = [dataset.manifest(store, data.digest) for data in (ours, theirs)]
    parts = [
        [p for p in manifest.partitions if p.name in data.train or not data.train]
        for manifest, data in zip(manifests, (ours, theirs), strict=True)
    ]
    if [p.digest for p in parts[0]] == [p.digest for p in parts[1]]:
        parts = [side[:1] for side in parts]  # for the columns' names: equal data has not moved
    tables: list[Any] = [
        dataset.read(store, manifest, [p.name for p in side])
        for manifest, side in zip(manifests, parts, strict=True)
    ]
    current, reference = tables
    return [
        Drift(column=str(column), psi=psi(reference[column], current[column]))
        for column in current.columns
        if column in reference and current[column].dtype.kind != "M"
    ]
