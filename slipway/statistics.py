"""What a model's answers are worth: metrics, intervals, paired tests, calibration, fairness, drift.

Arrays are float64 of shape (rows,): `y` outcomes, `p` answers. A classifier's `y` is 0 or 1 and its
`p` a probability, of a regressor both are in the outcome's unit. `groups` are integer codes from 0
without gaps, one a row: rows of one group share their fate (flights of one day share its weather)
and say less than as many independent rows would. Intervals and tests count groups as the
independent observations; where every row is its own group they are the textbook's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from slipway.evidence import Bin, Estimate, Fairness
from slipway.tasks import LARGER_IS_BETTER, TASKS, Task, TaskName

if TYPE_CHECKING:
    import pandas as pd

    Array = np.ndarray[Any, np.dtype[np.float64]]
    Codes = np.ndarray[Any, np.dtype[np.intp]]

BINS = 10
# Weights drawn at once: enough for vector arithmetic, few enough to stay in the processor's cache.
_CELLS = 1 << 20


class Scores(ABC):
    """One model's answers, ready to be weighed again and again.

    `deviation` is the unit of what has none of its own: for a part of a holdout the whole's.
    """

    task: Task

    def __init__(
        self, y: Array, p: Array, groups: Codes | None = None, deviation: float | None = None
    ) -> None:
        self.y, self.p = y, p
        self.groups = np.arange(len(y)) if groups is None else groups
        self.deviation = float(np.std(y)) if deviation is None else deviation

    @property
    def cells(self) -> int:
        """How many numbers it takes to weigh all once."""
        return len(self.y)

    def sums(self, values: Array) -> Array:
        """Sums over each group, of shape (groups,), of a value a row."""
        return np.bincount(self.groups, values).astype(float)

    @cached_property
    def losses(self) -> dict[str, Array]:
        """Of each row: the losses whose means are metrics, or 1 less a metric."""
        return {name: self.loss(name) for name in self.task.means}

    @cached_property
    def _sums(self) -> tuple[Array, Array]:
        """Of each group: rows and losses; p - y in each bin."""
        off, bins = self.p - self.y, self.bins()
        columns = [self.sums(np.ones_like(self.p)), *map(self.sums, self.losses.values())]
        by_bin = [self.sums(np.where(bins == b, off, 0.0)) for b in range(BINS)]
        return np.column_stack(columns), np.column_stack(by_bin)

    def metrics(self, weights: Array | None = None) -> dict[str, Array]:
        """Every metric, of shape (n,), under `weights` of the groups, of shape (n, groups).

        Without weights: of the rows as they are, of shape (1,). NaN where it is undefined.
        """
        losses, off = self._sums
        if weights is None:
            weights = np.ones((1, len(losses)))
        rows, *sums = (weights @ losses).T
        means = {name: found / rows for name, found in zip(self.losses, sums, strict=True)}
        # Expected calibration error over the bins.
        error = np.abs(weights @ off).sum(axis=1) / rows / self.unit
        found = self.weighed(weights, means) | {"calibration_error": error}
        return {name: found[name] for name in self.task.metrics}

    def chance(self) -> float:
        """The calibration error that chance alone would show of these rows: of each bin the mean
        distance that a mean as uncertain as its own has from its true value."""
        bins, off, error = self.bins(), self.p - self.y, 0.0
        for index in np.unique(bins):
            groups, gains = self.groups[bins == index], off[bins == index]
            if np.ptp(groups):
                error += mean_gain(gains, groups).error * len(gains)
        return error * float(np.sqrt(2 / np.pi)) / len(off) / self.unit

    @property
    @abstractmethod
    def unit(self) -> float:
        """What the calibration error is measured in."""

    @abstractmethod
    def loss(self, metric: str) -> Array:
        """The loss of each row whose mean is the metric, or 1 less it."""

    @abstractmethod
    def bins(self) -> Codes:
        """The bin of each row, from 0 to BINS - 1, by what was predicted."""

    @abstractmethod
    def weighed(self, weights: Array, means: dict[str, Array]) -> dict[str, Array]:
        """The metrics under weights of the groups; `means` of the losses under the same."""


class Probabilities(Scores):
    """A classifier's. Bins are of equal width."""

    task = TASKS["classification"]

    @property
    def unit(self) -> float:
        return 1.0

    @cached_property
    def _sorted(self) -> tuple[Array, Codes, Codes]:
        """Outcomes and groups by probability, and where each run of equal ones begins."""
        order = np.argsort(self.p, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(self.p[order]) > 0])
        return self.y[order], self.groups[order], starts

    @property
    def cells(self) -> int:
        return len(self.y) if self._won is None else self._won.size

    @cached_property
    def _won(self) -> Array | None:
        """Of shape (groups, groups): pairs of a positive of the one and a negative of the other of
        which the positive has the larger probability; ties count half.

        None where groups are so many that looking at all rows is less.
        """
        groups = int(self.groups.max()) + 1
        if groups**2 > len(self.y):
            return None
        y, of, starts = self._sorted
        run = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(y)]))
        positive = y == 1
        won = np.empty((groups, groups))
        for group in range(groups):
            negative = ~positive & (of == group)
            here = np.bincount(run[negative], minlength=len(starts))
            below = np.cumsum(here) - here / 2
            won[:, group] = np.bincount(of[positive], below[run[positive]], minlength=groups)
        return won

    def loss(self, metric: str) -> Array:
        """Brier's, or the negative log-likelihood in nats."""
        if metric == "brier":
            return (self.p - self.y) ** 2
        p = np.clip(self.p, 1e-15, 1 - 1e-15)
        return -np.log(np.where(self.y == 1, p, 1 - p))

    def bins(self) -> Codes:
        return np.clip((self.p * BINS).astype(np.intp), 0, BINS - 1)

    def weighed(self, weights: Array, means: dict[str, Array]) -> dict[str, Array]:
        return means | {"roc_auc": self._roc_auc(weights)}

    def _roc_auc(self, weights: Array) -> Array:
        """Area under the ROC curve; ties count half."""
        if self._won is not None:
            won = np.einsum("ij,ij->i", weights @ self._won, weights)
            pairs = (weights @ self.sums(self.y)) * (weights @ self.sums(1 - self.y))
            return np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
        y, of, starts = self._sorted
        w = weights[:, of]
        positive = w * y
        negative = np.subtract(w, positive, out=w)
        if len(starts) < len(y):
            positive = np.add.reduceat(positive, starts, axis=1)
            negative = np.add.reduceat(negative, starts, axis=1)
        below = np.cumsum(negative, axis=1)
        pairs = positive.sum(axis=1) * below[:, -1]
        won = np.einsum("ij,ij->i", positive, below)
        won -= np.einsum("ij,ij->i", positive, negative) / 2
        return np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


class Values(Scores):
    """A regressor's. Bins have equally many rows, as far as equal answers let them.

    R² is 1 less the squared error over the outcome's variance, which for a part of a holdout is the
    whole's: where outcomes hardly differ, that of the part alone would call a good answer bad. It
    is not drawn anew with the rows: an interval is that of the error.
    """

    task = TASKS["regression"]

    @property
    def unit(self) -> float:
        return self.deviation

    def loss(self, metric: str) -> Array:
        """The squared error over the variance, or the absolute error."""
        off = self.p - self.y
        return (off / self.deviation) ** 2 if metric == "r2" else np.abs(off)

    def bins(self) -> Codes:
        edges = np.unique(np.quantile(self.p, np.arange(1, BINS) / BINS))
        return np.searchsorted(edges, self.p, "right").astype(np.intp)

    def weighed(self, weights: Array, means: dict[str, Array]) -> dict[str, Array]:
        squared = means["r2"]
        return means | {"r2": 1 - squared, "rmse": self.deviation * np.sqrt(squared)}


_KINDS: dict[TaskName, type[Scores]] = {
    "classification": Probabilities,
    "regression": Values,
}


def scores(
    task: TaskName,
    y: Array,
    p: Array,
    groups: Codes | None = None,
    deviation: float | None = None,
) -> Scores:
    """A model's answers, of its kind."""
    return _KINDS[task](y, p, groups, deviation)


def metrics(task: TaskName, y: Array, p: Array, deviation: float | None = None) -> dict[str, float]:
    """Every metric that is defined; a ROC curve needs both outcomes."""
    measured = scores(task, y, p, deviation=deviation).metrics()
    found = {name: float(value[0]) for name, value in measured.items()}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def resamples(groups: int, count: int, cells: int) -> Iterator[Array]:
    """How often each group is drawn, of shape (n, groups), until `count` draws: always the same.

    `cells` says how many numbers the caller will have for each draw.
    """
    random, left = np.random.default_rng(0), count
    while left:
        n = min(left, max(1, _CELLS // cells))
        drawn = random.integers(0, groups, (n, groups)) + np.arange(n)[:, None] * groups
        yield np.bincount(drawn.ravel(), minlength=n * groups).reshape(n, groups).astype(float)
        left -= n


def estimates(
    found: Scores,
    *,
    baselines: Mapping[str, Array] | None = None,
    count: int,
    confidence: float,
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Every metric, and the skill over each baseline, with percentile bootstrap intervals.

    Skill: 1 less the squared error over the baseline's. Whole groups are drawn, `count` times.
    Model and baseline see the same draws, so the skill is paired. (A calibration error cannot be
    negative, so chance only adds to it: its interval lies a little high where rows are few.)
    """
    ours = found.sums((found.p - found.y) ** 2)
    others = [found.sums((answer - found.y) ** 2) for answer in (baselines or {}).values()]

    def all_of(weights: Array | None) -> dict[str, Array]:
        w = np.ones((1, len(ours))) if weights is None else weights
        skills = {
            f"gain {name}": 1 - (w @ ours) / (w @ theirs)
            for name, theirs in zip(baselines or {}, others, strict=True)
        }
        return found.metrics(weights) | skills

    value = all_of(None)
    draws = [all_of(w) for w in resamples(len(ours), count, found.cells)]
    tail = (1 - confidence) / 2
    result: dict[str, Estimate] = {}
    for name, point in value.items():
        # A draw without both outcomes has no ROC curve.
        drawn = np.concatenate([draw[name] for draw in draws])
        low, high = np.nanquantile(drawn, [tail, 1 - tail])
        result[name] = Estimate(value=float(point[0]), low=float(low), high=float(high))
    gains = {name: result.pop(f"gain {name}") for name in baselines or {}}
    return result, gains


# Paired tests


@dataclass(frozen=True)
class Gain:
    """An estimated difference, its standard error, and degrees of freedom (groups - 1)."""

    value: float
    error: float
    freedom: int

    def non_inferiority(self, margin: float) -> float:
        """One-sided p-value, by Student's t, of "the true gain is -`margin` or less".

        A gain without any spread comes of equal predictions, which nothing makes uncertain.
        """
        return self._tail(-margin) if self.error else float(self.value < -margin)

    def superiority(self) -> float:
        """The same of "there is no true gain"."""
        return self._tail(0.0) if self.error else float(self.value <= 0)

    def _tail(self, bound: float) -> float:
        from scipy import stats

        return float(stats.t.sf((self.value - bound) / self.error, self.freedom))

    def interval(self, confidence: float) -> Estimate:
        """Two-sided, from the same distribution as the tests."""
        from scipy import stats

        reach = float(stats.t.ppf((1 + confidence) / 2, self.freedom)) * self.error
        return Estimate(value=self.value, low=self.value - reach, high=self.value + reach)


def mean_gain(gains: Array, groups: Codes) -> Gain:
    """The mean of a gain a row. Its error is the linearised one of a ratio over groups.

    The paired t-test where each row is its own group. `groups` may have gaps here (a slice).
    """
    rows = np.bincount(groups)
    sums = np.bincount(groups, gains)[rows > 0]
    rows = rows[rows > 0]
    value, n = float(gains.mean()), len(rows)
    if n < 2:
        raise ValueError("a test needs two groups or more")
    residual = sums - value * rows
    # Rounding is no spread: equal predictions must have none.
    spread = float(residual @ residual) if np.ptp(gains) else 0.0
    return Gain(value, float(np.sqrt(n / (n - 1) * spread)) / len(gains), n - 1)


def metric_gains(new: Scores, old: Scores, count: int) -> dict[str, Gain]:
    """The gain of `new` over `old` in every metric that is defined; positive is better.

    Those that are means of a loss a row: `mean_gain`. The others' error is the standard deviation
    over bootstrap draws of whole groups, the same draws for both models.
    """
    n = int(new.groups.max()) + 1
    if n < 2:
        raise ValueError("a test needs two groups or more")
    draws = [(new.metrics(w), old.metrics(w)) for w in resamples(n, count, new.cells)]
    ours, theirs = new.metrics(), old.metrics()
    found: dict[str, Gain] = {}
    for name in new.task.metrics:
        if name in new.losses:
            found[name] = mean_gain(old.losses[name] - new.losses[name], new.groups)
            continue
        sign = 1 if name in LARGER_IS_BETTER else -1
        value = sign * float(ours[name][0] - theirs[name][0])
        if np.isfinite(value):
            drawn = np.concatenate([a[name] - b[name] for a, b in draws])
            # The bootstrap's variance divides by n where the sample's divides by n - 1.
            error = float(np.nanstd(drawn)) * float(np.sqrt(n / (n - 1)))
            found[name] = Gain(value, error, n - 1)
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order: each is to be compared with alpha itself."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = highest
    return adjusted


# Calibration, fairness, drift


def reliability(found: Scores) -> list[Bin]:
    """The reliability curve, those bins left out that have no rows."""
    y, p, bins = found.y, found.p, found.bins()
    curve: list[Bin] = []
    for index in np.unique(bins):
        here = bins == index
        inside = p[here]
        low, high = inside.min(), inside.max()
        if isinstance(found, Probabilities):
            low, high = index / BINS, (index + 1) / BINS
        curve.append(
            Bin(
                low=float(low),
                high=float(high),
                rows=int(here.sum()),
                # Rounding of a mean must not leave its bin.
                predicted=float(np.clip(inside.mean(), low, high)),
                observed=float(y[here].mean()),
            )
        )
    return curve


def fairness(
    found: Scores, column: str, values: Any, threshold: float, smallest: int
) -> Fairness | None:
    """Differences between the values of one column, as `Fairness` describes them.

    Only values with at least `smallest` rows count, and of classes half as many of each outcome: a
    rate of few rows is chance. None when fewer than two are left. The worst group has the lowest
    balanced accuracy, or the largest mean absolute error.
    """
    names, codes = np.unique(np.asarray(values, dtype=str), return_inverse=True)
    sizes = np.bincount(codes)
    fit = sizes >= smallest
    if isinstance(found, Probabilities):
        positives = np.bincount(codes, found.y)
        fit &= np.minimum(positives, sizes - positives) >= smallest / 2
    if fit.sum() < 2:
        return None
    keep = fit[codes]
    if isinstance(found, Probabilities):
        rows = np.column_stack([codes[keep], found.y[keep] == 1, found.p[keep] >= threshold])
        return _rates(column, names, rows, threshold)
    return _errors(found, column, names[codes], keep)


def _rates(column: str, names: Any, rows: Any, threshold: float) -> Fairness:
    """`rows`: code of the group, what happened, what was decided."""
    from fairlearn.metrics import (
        MetricFrame,
        demographic_parity_difference,
        equalized_odds_difference,
        false_positive_rate,
        true_positive_rate,
    )

    # Each of the few kinds of rows once, with its number: fairlearn copies row by row.
    kinds, numbers = np.unique(rows, axis=0, return_counts=True)
    weights: Any = {"sample_weight": numbers}
    group, happened, decided = names[kinds[:, 0]], kinds[:, 1], kinds[:, 2]
    rates: Any = MetricFrame(
        metrics={"true": true_positive_rate, "false": false_positive_rate},
        y_true=happened,
        y_pred=decided,
        sensitive_features=group,
        sample_params={"true": weights, "false": weights},
    ).by_group
    sides: Any = {"sensitive_features": group, **weights}
    return Fairness(
        column=column,
        threshold=threshold,
        differences={
            "demographic_parity": float(demographic_parity_difference(happened, decided, **sides)),
            "equalized_odds": float(equalized_odds_difference(happened, decided, **sides)),
        },
        worst_group=str((rates["true"] - rates["false"]).idxmin()),
    )


def _errors(found: Scores, column: str, groups: Any, keep: Any) -> Fairness:
    from fairlearn.metrics import MetricFrame

    def bias(y: Array, p: Array) -> float:
        return float(np.mean(p - y))

    def error(y: Array, p: Array) -> float:
        return float(np.mean(np.abs(p - y)))

    frame: Any = MetricFrame(
        metrics={"bias": bias, "error": error},
        y_true=found.y[keep] / found.deviation,
        y_pred=found.p[keep] / found.deviation,
        sensitive_features=groups[keep],
    )
    largest = frame.difference()
    return Fairness(
        column=column,
        differences={
            "bias_difference": float(largest["bias"]),
            "error_difference": float(largest["error"]),
        },
        worst_group=str(frame.by_group["error"].idxmax()),
    )


_CATEGORIES = 20
_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")


def psi(reference: pd.Series, current: pd.Series) -> float:
    """Population stability index of one column, over bins that `reference` fixes.

    Numbers: each value that a tenth of the rows have, and the deciles of all others. Text, and
    numbers of which there are no more than 20: the 20 most frequent values, and all others as one.
    Missing values are a bin of their own. Half a row is added to each bin, so that an empty one is
    finite.
    """
    import pandas as pd
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    def numeric(column: pd.Series) -> bool:
        return is_numeric_dtype(column) and not is_bool_dtype(column)

    if numeric(reference) and numeric(current) and reference.nunique() > _CATEGORIES:
        known = np.asarray(reference.dropna(), dtype=float)
        values, counts = np.unique(known, return_counts=True)
        frequent = values[counts >= len(known) / BINS]
        others = known[~np.isin(known, frequent)]
        edges = np.unique(np.r_[frequent, np.quantile(others, np.arange(1, BINS) / BINS)])
        bins = 2 * len(edges) + 2

        def code(column: pd.Series) -> Codes:
            values = np.asarray(column, dtype=float)
            # A value that is an edge has a bin of its own, between those on either side.
            sides = [np.searchsorted(edges, values, side) for side in _SIDES]
            return np.where(np.isnan(values), bins - 1, sides[0] + sides[1])
    else:
        frequent = reference.value_counts().index[:_CATEGORIES]
        bins = len(frequent) + 2

        def code(column: pd.Series) -> Codes:
            known = frequent.get_indexer(pd.Index(column))
            return np.where(column.isna(), bins - 1, np.where(known < 0, bins - 2, known))

    shares = [
        (np.bincount(code(column), minlength=bins) + 0.5) / (len(column) + bins / 2)
        for column in (reference, current)
    ]
    return max(0.0, float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum()))
