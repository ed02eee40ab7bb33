"""Challenger against champion: paired tests on one holdout, and what else differs between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from slipway.errors import SlipwayError
from slipway.evidence import (
    Change,
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
)
from slipway.release import Strict

if TYPE_CHECKING:
    import pandas as pd

    from slipway.statistics import Gain
    from slipway.store import Store

MetricName = Literal["roc_auc", "brier", "log_loss", "calibration_error"]
Margin = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class EvidencePolicy(Strict):
    """The `evidence:` block of policies/promotion/<env>.yaml: how a comparison is to be made."""

    alpha: Level = Field(default=0.05, description="one-sided, of each family after Holm")
    confidence: Level = Field(default=0.95, description="of the intervals of differences")
    resamples: Annotated[int, Field(ge=100, le=10_000)] = 1000
    margins: dict[MetricName, Margin] = Field(
        default={},
        description="what a metric may lose and still be non-inferior; one that is not named here "
        "is tested for superiority alone",
    )
    slice_metric: Literal["brier", "log_loss"] = "brier"
    slice_margin: Margin = 0.01
    minimum_slice_rows: Positive = Field(default=500, description="a smaller slice is not tested")
    maximum_age_days: Positive = Field(default=30, description="older evidence has expired")


class NotComparable(SlipwayError):
    """The two tables are not predictions of the same rows, or are too few to be tested."""


def compare(
    challenger: Evaluation,
    table: pd.DataFrame,
    champion: Evaluation,
    champion_table: pd.DataFrame,
    policy: EvidencePolicy,
    *,
    drift: Sequence[Drift] = (),
    locks: tuple[Dependencies, Dependencies] | None = None,
) -> Comparison:
    """Tests from the predictions tables of one holdout; changes from the two evaluations.

    Args:
        table: the challenger's predictions. Its slices and its groups (slipway.statistics: the
            independent observations) are those of the tests.
        champion_table: the champion's on the same rows. Its evaluation may be on others.
        drift: of the training data, from `drift` below.
        locks: the challenger's dependencies and the champion's.

    The tests are one-sided at `policy.alpha`:

    - superiority in each metric;
    - non-inferiority in each metric that has a margin in the policy;
    - non-inferiority in `policy.slice_metric` for each slice of enough rows.

    Brier score and log loss: the paired t-test of the losses, with standard errors that are robust
    within groups (the textbook's where each row is its own group). ROC AUC and calibration error: a
    t statistic whose standard error is that of the paired bootstrap over groups. No p-value is thus
    bounded from below by the number of resamples, which many slices under Holm would run into.
    Holm's correction is made over all tests of the same kind, slices included. For "no slice is
    worse", where all must pass, that is stricter than it need be: it errs against the challenger.

    Raises:
        NotComparable: other rows, other outcomes, or fewer than two groups.
    """
    import numpy as np

    from slipway.statistics import Scores, loss, mean_gain, metric_gains
    from slipway.steps import predictions

    y, p = (table[name].to_numpy() for name in ("outcome", "probability"))
    if not np.array_equal(y, champion_table["outcome"].to_numpy()):
        raise NotComparable(
            f"the champion's predictions are of {len(champion_table):,} rows that are not the "
            f"challenger's {len(y):,}",
            fix="run the rescore step again with this evaluation",
        )
    new = Scores(y, p, predictions.groups(table))
    old = Scores(y, champion_table["probability"].to_numpy(), new.groups)
    if new.groups.max() < 1:
        raise NotComparable(
            "the holdout is of one group: nothing tells chance from a difference",
            fix="hold out more, or name another group in model.yaml",
        )
    whole = [_Draft(m, g, len(y)) for m, g in metric_gains(new, old, policy.resamples).items()]
    margins: dict[str, float] = {**policy.margins}
    bounded = [replace(d, margin=margins[d.metric]) for d in whole if d.metric in margins]
    gains = loss(policy.slice_metric, old) - loss(policy.slice_metric, new)
    for column, values in predictions.slices(table).items():
        for value in sorted(set(values)):
            here = values == value
            rows, groups = int(here.sum()), new.groups[here]
            # Rows of one group alone say nothing of chance.
            if rows >= policy.minimum_slice_rows and np.ptp(groups):
                gain = mean_gain(gains[here], groups)
                about = _Draft(policy.slice_metric, gain, rows, policy.slice_margin, column, value)
                bounded.append(about)
    return Comparison(
        tests=[
            *_tests("superiority", whole, policy),
            *_tests("non_inferiority", bounded, policy),
        ],
        signature=signature_changes(champion.signature, challenger.signature),
        drift=list(drift),
        dependencies=dependency_changes(*reversed(locks)) if locks else [],
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


def metrics(table: pd.DataFrame, policy: EvidencePolicy) -> dict[str, Estimate]:
    """Every metric of a predictions table with its interval: the champion's on our holdout."""
    from slipway import statistics
    from slipway.steps import predictions

    return statistics.estimates(
        table["outcome"].to_numpy(),
        table["probability"].to_numpy(),
        groups=predictions.groups(table),
        count=policy.resamples,
        confidence=policy.confidence,
    )[0]


def curves(table: pd.DataFrame) -> dict[str, Any]:
    """`reliability` and `by_period` of a predictions table, as an evaluation has them."""
    from slipway import statistics

    y, p, periods = (table[name].to_numpy() for name in ("outcome", "probability", "period"))
    return {
        "reliability": statistics.reliability(y, p),
        "by_period": {
            str(period): statistics.metrics(y[periods == period], p[periods == period])
            for period in dict.fromkeys(periods)
        },
    }


def signature_changes(before: Signature, after: Signature) -> list[Change]:
    """What a caller of `before` meets in `after`. Outputs are named `output …`."""
    changes: list[Change] = []
    for prefix, old, new in (
        ("", before.inputs, after.inputs),
        ("output ", before.outputs, after.outputs),
    ):
        theirs, ours = ({c.name: c for c in columns} for columns in (old, new))
        for name in sorted(theirs.keys() | ours.keys()):
            change = _change(theirs.get(name), ours.get(name), output=bool(prefix))
            if change is not None:
                changes.append(change.model_copy(update={"name": f"{prefix}{name}".rstrip()}))
    return changes


def _change(old: Column | None, new: Column | None, *, output: bool) -> Change | None:
    if new is None:
        return Change(name="", kind="removed", before=old.type) if old else None
    if old is None:
        # What is answered besides asks nothing of a caller.
        optional = output or not new.required
        kind = "added_optional" if optional else "added_required"
        return Change(name="", kind=kind, after=new.type)
    if old.type != new.type:
        return Change(name="", kind="retyped", before=old.type, after=new.type)
    if new.required and not old.required and not output:
        return Change(name="", kind="made_required", before=old.type, after=new.type)
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
