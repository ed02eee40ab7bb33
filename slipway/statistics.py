"""What probabilities are worth: metrics, intervals, paired tests, calibration, fairness, drift.

Arrays are float64 of shape (rows,): `y` outcomes (0 or 1), `p` probabilities. `groups` are integer
codes from 0 without gaps, one a row: rows of one group share their fate (flights of one day share
its weather) and say less than as many independent rows would. Intervals and tests count groups as
the independent observations; where every row is its own group they are the textbook's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from slipway.evidence import Bin, Estimate, Fairness

if TYPE_CHECKING:
    import pandas as pd

    Array = np.ndarray[Any, np.dtype[np.float64]]
    Codes = np.ndarray[Any, np.dtype[np.intp]]

METRICS = ("roc_auc", "brier", "log_loss", "calibration_error")
LARGER_IS_BETTER = frozenset({"roc_auc"})
BINS = 10
# Weights drawn at once: enough for vector arithmetic, few enough to stay in the processor's cache.
_CELLS = 1 << 20


class Scores:
    """One model's probabilities, ready to be weighed again and again."""

    def __init__(self, y: Array, p: Array, groups: Codes | None = None) -> None:
        self.y, self.p = y, p
        self.groups = np.arange(len(y)) if groups is None else groups
        self._order = np.argsort(p, kind="stable")
        sorted_p = p[self._order]
        # Where each run of equal probabilities begins.
        self._starts = np.flatnonzero(np.r_[True, np.diff(sorted_p) > 0])
        self._sorted_y = y[self._order]
        self._sorted_groups = self.groups[self._order]

    @property
    def cells(self) -> int:
        """How many numbers it takes to weigh all once."""
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
        run = np.repeat(np.arange(len(self._starts)), np.diff(np.r_[self._starts, len(self.y)]))
        positive = self._sorted_y == 1
        won = np.empty((groups, groups))
        for group in range(groups):
            negative = ~positive & (self._sorted_groups == group)
            here = np.bincount(run[negative], minlength=len(self._starts))
            below = np.cumsum(here) - here / 2
            won[:, group] = np.bincount(
                self._sorted_groups[positive], below[run[positive]], minlength=groups
            )
        return won

    def sums(self, values: Array) -> Array:
        """Sums over each group, of shape (groups,), of a value a row."""
        return np.bincount(self.groups, values).astype(float)

    @cached_property
    def _losses(self) -> tuple[Array, Array]:
        """Of each group: rows, squared error, negative log-likelihood; p - y in each bin."""
        losses = (np.ones_like(self.p), squared_error(self), surprise(self))
        bins, off = _bins(self.p), self.p - self.y
        by_bin = [self.sums(np.where(bins == b, off, 0.0)) for b in range(BINS)]
        return np.column_stack([self.sums(loss) for loss in losses]), np.column_stack(by_bin)

    def metrics(self, weights: Array | None = None) -> dict[str, Array]:
        """Every metric, of shape (n,), under `weights` of the groups, of shape (n, groups).

        Without weights: of the rows as they are, of shape (1,). NaN where it is undefined.
        """
        losses, off = self._losses
        if weights is None:
            weights = np.ones((1, len(losses)))
        rows, brier, log_loss = (weights @ losses).T
        return {
            "roc_auc": self._roc_auc(weights),
            "brier": brier / rows,
            "log_loss": log_loss / rows,
            # Expected calibration error over bins of equal width.
            "calibration_error": np.abs(weights @ off).sum(axis=1) / rows,
        }

    def _roc_auc(self, weights: Array) -> Array:
        """Area under the ROC curve; ties count half."""
        if self._won is not None:
            won = np.einsum("ij,ij->i", weights @ self._won, weights)
            pairs = (weights @ self.sums(self.y)) * (weights @ self.sums(1 - self.y))
            return np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
        w = weights[:, self._sorted_groups]
        positive = w * self._sorted_y
        negative = np.subtract(w, positive, out=w)
        if len(self._starts) < len(self.p):
            positive = np.add.reduceat(positive, self._starts, axis=1)
            negative = np.add.reduceat(negative, self._starts, axis=1)
        below = np.cumsum(negative, axis=1)
        pairs = positive.sum(axis=1) * below[:, -1]
        won = np.einsum("ij,ij->i", positive, below)
        won -= np.einsum("ij,ij->i", positive, negative) / 2
        return np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def _bins(p: Array) -> Codes:
    return np.clip((p * BINS).astype(np.intp), 0, BINS - 1)


def metrics(y: Array, p: Array) -> dict[str, float]:
    """Every metric that is defined; a ROC curve needs both outcomes."""
    found = {name: float(value[0]) for name, value in Scores(y, p).metrics().items()}
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
    y: Array,
    p: Array,
    *,
    groups: Codes | None = None,
    baselines: Mapping[str, Array] | None = None,
    count: int,
    confidence: float,
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Every metric, and the Brier skill over each baseline, with percentile bootstrap intervals.

    Whole groups are drawn, `count` times. Model and baseline see the same draws, so the skill is
    paired. (A calibration error cannot be negative, so chance only adds to it: its interval lies a
    little high where rows are few.)
    """
    scores = Scores(y, p, groups)
    others = [scores.sums((baseline - y) ** 2) for baseline in (baselines or {}).values()]
    sizes = scores.sums(np.ones_like(y))

    def all_of(weights: Array | None) -> dict[str, Array]:
        found = scores.metrics(weights)
        w = np.ones((1, len(sizes))) if weights is None else weights
        for name, squares in zip(baselines or {}, others, strict=True):
            found[f"gain {name}"] = 1 - found["brier"] * (w @ sizes) / (w @ squares)
        return found

    value = all_of(None)
    draws = [all_of(w) for w in resamples(len(sizes), count, scores.cells)]
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

    Brier and log loss are means of a loss a row: `mean_gain`. The other two are not; their error is
    the standard deviation over bootstrap draws of whole groups, the same draws for both models.
    """
    n = int(new.groups.max()) + 1
    if n < 2:
        raise ValueError("a test needs two groups or more")
    means = {name: mean_gain(loss(old) - loss(new), new.groups) for name, loss in _LOSSES.items()}
    rest = [name for name in METRICS if name not in means]
    sign = {name: 1 if name in LARGER_IS_BETTER else -1 for name in rest}
    draws = [(new.metrics(w), old.metrics(w)) for w in resamples(n, count, new.cells)]
    ours, theirs = new.metrics(), old.metrics()
    found: dict[str, Gain] = {}
    for name in METRICS:
        if name in means:
            found[name] = means[name]
            continue
        value = sign[name] * float(ours[name][0] - theirs[name][0])
        if np.isfinite(value):
            drawn = np.concatenate([a[name] - b[name] for a, b in draws])
            # The bootstrap's variance divides by n where the sample's divides by n - 1.
            error = float(np.nanstd(drawn)) * float(np.sqrt(n / (n - 1)))
            found[name] = Gain(value, error, n - 1)
    return found


def squared_error(scores: Scores) -> Array:
    """Brier's loss of each row."""
    return (scores.p - scores.y) ** 2


def surprise(scores: Scores) -> Array:
    """Negative log-likelihood of each row, in nats."""
    p = np.clip(scores.p, 1e-15, 1 - 1e-15)
    return -np.log(np.where(scores.y == 1, p, 1 - p))


_LOSSES = {"brier": squared_error, "log_loss": surprise}


def loss(metric: str, scores: Scores) -> Array:
    """The loss of each row whose mean is the metric: brier or log_loss."""
    return _LOSSES[metric](scores)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order: each is to be compared with alpha itself."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = highest
    return adjusted


# Calibration, fairness, drift


def reliability(y: Array, p: Array) -> list[Bin]:
    """The reliability curve: ten bins of equal width, those without rows left out."""
    bins = _bins(p)
    found: list[Bin] = []
    for index in np.unique(bins):
        here = bins == index
        found.append(
            Bin(
                low=float(index) / BINS,
                high=float(index + 1) / BINS,
                rows=int(here.sum()),
                predicted=float(np.clip(p[here].mean(), 0, 1)),
                observed=float(y[here].mean()),
            )
        )
    return found


def fairness(
    y: Array, p: Array, column: str, values: Any, threshold: float, smallest: int
) -> Fairness | None:
    """Differences between the values of one column when `p` >= `threshold` is taken for a yes.

    Only values with at least `smallest` rows and both outcomes count: a rate of few rows is chance.
    None when fewer than two are left. The worst group has the lowest balanced accuracy.
    """
    from fairlearn.metrics import (
        MetricFrame,
        demographic_parity_difference,
        equalized_odds_difference,
        false_positive_rate,
        true_positive_rate,
    )

    names, codes = np.unique(np.asarray(values, dtype=str), return_inverse=True)
    sizes, positives = np.bincount(codes), np.bincount(codes, y)
    fit = (sizes >= smallest) & (positives > 0) & (positives < sizes)
    if fit.sum() < 2:
        return None
    keep = fit[codes]
    rows = np.column_stack([codes[keep], y[keep] == 1, p[keep] >= threshold])
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
        demographic_parity=float(demographic_parity_difference(happened, decided, **sides)),
        equalized_odds=float(equalized_odds_difference(happened, decided, **sides)),
        worst_group=str((rates["true"] - rates["false"]).idxmin()),
    )


_CATEGORIES = 20


def psi(reference: pd.Series, current: pd.Series) -> float:
    """Population stability index of one column, over bins that `reference` fixes.

    Numbers: its deciles. Text: its 20 most frequent values, and all others as one. Missing values
    are a bin of their own. Half a row is added to each bin, so that an empty one is finite.
    """
    import pandas as pd
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    def numeric(column: pd.Series) -> bool:
        return is_numeric_dtype(column) and not is_bool_dtype(column)

    if numeric(reference) and numeric(current):
        edges = np.unique(np.asarray(reference.dropna().quantile(np.arange(1, BINS) / BINS)))
        bins = len(edges) + 2

        def code(column: pd.Series) -> Codes:
            values = np.asarray(column, dtype=float)
            return np.where(np.isnan(values), bins - 1, np.searchsorted(edges, values, "right"))
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
