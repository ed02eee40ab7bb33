"""Evaluate: the files that will be served, on the holdout, with intervals, baselines and slices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from slipway import evidence
from slipway.bento import Folder
from slipway.digests import Digest
from slipway.evidence import Data, Estimate, Evaluation, Holdout, Slice
from slipway.steps import dataset, tracking
from slipway.steps.train import known
from slipway.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from slipway.bento import Array

    # Of outcomes (0 or 1), predicted probabilities and row weights, all of shape (rows,).
    Metric = Callable[[Array, Array, Array], float]

RESAMPLES = 500
CONFIDENCE = 0.95
# A slice smaller than this says more about chance than about the model.
SMALLEST_SLICE = 100


def run(
    folder: Folder, data: Digest, commit: str, model_digest: Digest, run: str
) -> dict[str, str]:
    """Outputs `evaluation`, a digest in bucket evidence; metrics also go to the MLflow run."""
    config, training, store = folder.config, folder.training(), Store()
    manifest = dataset.manifest(store, data)
    x, y, _ = known(training, dataset.read(store, manifest, config.split.train))
    rows = dataset.read(store, manifest, config.split.holdout)
    holdout_x, holdout_y, mask = known(training, rows)
    predicted = training.predict(store.get_files("bentos", model_digest), holdout_x)
    baselines = training.baselines(x, y, holdout_x)
    metrics, gain = bootstrap(holdout_y, predicted, baselines)
    ones = np.ones_like(holdout_y)
    evaluation = Evaluation(
        model=config.name,
        model_digest=model_digest,
        data=Data(digest=data, rows=manifest.rows),
        code=commit,
        run=run,
        holdout=Holdout(
            partitions=config.split.holdout,
            rows=len(holdout_y),
            unknown=len(rows) - len(holdout_y),
            positive_rate=float(holdout_y.mean()),
        ),
        metrics=metrics,
        baselines={
            name: {metric: f(holdout_y, p, ones) for metric, f in METRICS.items()}
            for name, p in baselines.items()
        },
        gain=gain,
        slices=list(slices(config.slices, rows.loc[mask], holdout_y, predicted)),
    )
    _report(evaluation)
    _log(run, evaluation)
    return {"evaluation": store.put("evidence", evidence.dumps(evaluation))}


def roc_auc(y: Array, p: Array, weight: Array) -> float:
    """Area under the ROC curve; ties count half."""
    return _roc_auc_sorted(*_by_score(y, p), weight)


def brier(y: Array, p: Array, weight: Array) -> float:
    """Mean squared error of the probability."""
    return float(np.average((p - y) ** 2, weights=weight))


def log_loss(y: Array, p: Array, weight: Array) -> float:
    """Mean negative log-likelihood, in nats."""
    p = np.clip(p, 1e-15, 1 - 1e-15)
    return float(np.average(-np.log(np.where(y == 1, p, 1 - p)), weights=weight))


def calibration_error(y: Array, p: Array, weight: Array) -> float:
    """Expected calibration error over ten bins of equal width."""
    bins = np.minimum((p * 10).astype(int), 9)
    off = np.bincount(bins, weights=weight * (p - y), minlength=10)
    return float(np.abs(off).sum() / weight.sum())


METRICS: dict[str, Metric] = {
    "roc_auc": roc_auc,
    "brier": brier,
    "log_loss": log_loss,
    "calibration_error": calibration_error,
}


def _by_score(y: Array, p: Array) -> tuple[Any, Any, Array]:
    """Order of the scores, where each group of equal ones begins, and outcomes in that order."""
    order = np.argsort(p, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(p[order]) > 0])
    return order, starts, y[order]


def _roc_auc_sorted(order: Any, starts: Any, y: Array, weight: Array) -> float:
    w = weight[order]
    positive = np.add.reduceat(w * y, starts)
    negative = np.add.reduceat(w * (1 - y), starts)
    below = np.cumsum(negative) - negative / 2
    total = positive.sum() * negative.sum()
    return float((positive * below).sum() / total) if total else float("nan")


def bootstrap(
    y: Array, p: Array, baselines: dict[str, Array]
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Every metric, and the Brier skill over each baseline, with percentile intervals.

    Resamples rows with a fixed seed; model and baseline see the same rows, so the skill is paired.
    """
    random, rows = np.random.default_rng(0), len(y)
    sort = _by_score(y, p)
    rest = {name: metric for name, metric in METRICS.items() if name != "roc_auc"}

    def all_of(weight: Array) -> dict[str, float]:
        found = {"roc_auc": _roc_auc_sorted(*sort, weight)}
        found |= {name: metric(y, p, weight) for name, metric in rest.items()}
        for name, baseline in baselines.items():
            found[f"gain {name}"] = 1 - found["brier"] / brier(y, baseline, weight)
        return found

    point = all_of(np.ones(rows))
    drawn = [
        all_of(np.bincount(random.integers(0, rows, rows), minlength=rows).astype(float))
        for _ in range(RESAMPLES)
    ]
    tail = (1 - CONFIDENCE) / 2
    estimates: dict[str, Estimate] = {}
    for name, value in point.items():
        low, high = np.quantile([draw[name] for draw in drawn], [tail, 1 - tail])
        estimates[name] = Estimate(value=value, low=float(low), high=float(high))
    return (
        {name: estimates[name] for name in METRICS},
        {name: estimates[f"gain {name}"] for name in baselines},
    )


def slices(columns: list[str], rows: pd.DataFrame, y: Array, p: Array) -> Iterator[Slice]:
    """Metrics for every value of each column, where there are rows enough."""
    for column in columns:
        values = rows[column].astype(str).to_numpy()
        for value in sorted(set(values)):
            mask = values == value
            if mask.sum() < SMALLEST_SLICE:
                continue
            here, predicted, ones = y[mask], p[mask], np.ones(int(mask.sum()))
            found = {name: metric(here, predicted, ones) for name, metric in METRICS.items()}
            yield Slice(
                column=column,
                value=str(value),
                rows=int(mask.sum()),
                positive_rate=float(here.mean()),
                mean_prediction=float(np.clip(predicted.mean(), 0, 1)),
                metrics={name: v for name, v in found.items() if np.isfinite(v)},
            )


def _report(evaluation: Evaluation) -> None:
    print(f"holdout: {evaluation.holdout.rows:,} rows, {evaluation.holdout.unknown:,} unknown")
    for name, e in evaluation.metrics.items():
        others = ", ".join(f"{b} {m[name]:.4f}" for b, m in evaluation.baselines.items())
        print(f"{name:18} {e.value:.4f}  [{e.low:.4f}, {e.high:.4f}]  baselines: {others}")
    for name, e in evaluation.gain.items():
        print(f"Brier skill over {name}: {e.value:+.1%}  [{e.low:+.1%}, {e.high:+.1%}]")


def _log(run: str, evaluation: Evaluation) -> None:
    import time

    from mlflow.entities import Metric as Logged

    now = int(time.time() * 1000)
    values = {f"holdout_{name}": e.value for name, e in evaluation.metrics.items()}
    for baseline, metrics in evaluation.baselines.items():
        values |= {f"{baseline}_{name}": value for name, value in metrics.items()}
    values |= {f"gain_over_{name}": e.value for name, e in evaluation.gain.items()}
    tracking.client().log_batch(run, [Logged(key, v, now, 0) for key, v in values.items()])
