"""Evaluate: the files that will be served, on the holdout, with intervals, baselines and slices."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from slipway import comparison, contract, digests, evidence, statistics
from slipway.bento import Folder
from slipway.digests import Digest
from slipway.errors import BadInput, SlipwayError
from slipway.evidence import Column, Data, Evaluation, Holdout, Signature, Slice, Validation
from slipway.steps import dataset, predictions, tracking
from slipway.steps.train import examples, known
from slipway.store import Store, uri
from slipway.tasks import TaskName

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

    from slipway.bento import Array
    from slipway.statistics import Scores

RESAMPLES = 1000
CONFIDENCE = 0.95
# A slice smaller than this says more about chance than about the model.
SMALLEST_SLICE = 100


def run(
    folder: Folder, data: Digest, commit: str, model_digest: Digest, run: str, validation: Digest
) -> dict[str, str]:
    """Outputs `evaluation`, a digest in bucket evidence; metrics also go to the MLflow run."""
    store = Store()
    checked = store.get("evidence", validation)
    report = evidence.loads(Validation, checked, uri("evidence", validation))
    evaluation = evaluated(
        folder,
        store,
        data=data,
        commit=commit,
        model_digest=model_digest,
        run=run,
        validation=report,
        signature=signature(run),
    )
    _report(evaluation)
    _log(run, evaluation)
    return {"evaluation": store.put("evidence", evidence.dumps(evaluation))}


def evaluated(
    folder: Folder,
    store: Store,
    *,
    data: Digest,
    commit: str,
    model_digest: Digest,
    run: str,
    validation: Validation,
    signature: Signature,
) -> Evaluation:
    """What the model's files answer on the holdout, which goes to the store, and what it is worth.

    Raises:
        BadInput: nothing can be told from such a holdout.
    """
    config, training = folder.config, folder.training()
    manifest = dataset.manifest(store, data)
    x, y = examples(training, config, store, manifest)
    names = config.split.holdout
    rows = dataset.read(store, manifest, names)
    sizes = {part.name: part.rows for part in manifest.partitions}
    outcome = contract.target(training, rows)
    holdout_x, holdout_y, _ = known(training, rows, config.task)
    if not np.ptp(holdout_y):
        raise BadInput(
            "the holdout's known outcomes are all the same",
            file=folder.path / "model.yaml",
            field="split.holdout",
            fix="hold out partitions whose outcomes differ",
        )
    files = store.get_files("bentos", model_digest)
    predicted = contract.predict(training, config.task, files, holdout_x)
    periods = np.repeat(names, [sizes[name] for name in names])
    table = predictions.table(folder, training, rows, periods, outcome, predicted)
    baselines = contract.baselines(training, config.task, x, y, holdout_x)
    found = predictions.scores(table, config.task)
    metrics, gain = statistics.estimates(
        found,
        baselines=baselines,
        count=RESAMPLES,
        confidence=CONFIDENCE,
    )
    return Evaluation(
        model=config.name,
        task=config.task,
        model_digest=model_digest,
        data=Data(digest=data, rows=manifest.rows, train=config.split.train),
        code=commit,
        run=run,
        evaluated=evidence.instant(datetime.now(UTC)),
        parameters=dict(config.parameters),
        holdout=Holdout(
            digest=holdout_digest(config.task, manifest, names, outcome),
            partitions=names,
            outcomes={
                name: digests.of(_came_of(config.task, outcome[periods == name])) for name in names
            },
            group=config.group,
            rows=len(holdout_y),
            unknown=len(rows) - len(holdout_y),
            mean_outcome=float(holdout_y.mean()),
            deviation=found.deviation,
        ),
        predictions=predictions.put(store, table),
        confidence=CONFIDENCE,
        metrics=metrics,
        baselines={
            name: statistics.metrics(config.task, holdout_y, p) for name, p in baselines.items()
        },
        gain=gain,
        calibration_chance=found.chance(),
        validation=validation,
        signature=signature,
        slice_columns=config.slices,
        decision_threshold=config.decision_threshold if config.task == "classification" else None,
        **by_part(found, table, config.decision_threshold),
    )


def holdout_digest(
    task: TaskName, manifest: dataset.Manifest, names: list[str], outcome: Array
) -> Digest:
    """Names the rows and what came of them: code with another target is judged on other rows."""
    found = {part.name: part.digest for part in manifest.partitions}
    came = digests.of(_came_of(task, outcome))
    return digests.of_json({"partitions": [found[name] for name in names], "outcome": came})


def _came_of(task: TaskName, outcome: Array) -> bytes:
    """Outcomes as bytes, every NaN as the same."""
    if task == "classification":
        # 0, 1, or 2 for unknown.
        return np.nan_to_num(outcome, nan=2).astype(np.uint8).tobytes()
    return np.where(np.isnan(outcome), np.nan, outcome).astype("<f8").tobytes()


def by_part(found: Scores, table: pd.DataFrame, threshold: float) -> dict[str, Any]:
    """The evaluation's fields that look at parts of a predictions table, each on its own."""
    columns = predictions.slices(table)
    differences = (
        statistics.fairness(found, column, values, threshold, SMALLEST_SLICE)
        for column, values in columns.items()
    )
    return {
        **comparison.curves(found, table["period"].to_numpy()),
        "slices": list(slices(columns, found)),
        "fairness": [between for between in differences if between],
    }


def slices(columns: dict[str, Any], found: Scores) -> Iterator[Slice]:
    """Metrics for every value of each column, where there are rows enough."""
    y, p = found.y, found.p
    for column, values in columns.items():
        for value in sorted(set(values)):
            mask = values == value
            if mask.sum() < SMALLEST_SLICE:
                continue
            yield Slice(
                column=column,
                value=str(value),
                rows=int(mask.sum()),
                groups=len(np.unique(found.groups[mask])),
                mean_outcome=float(y[mask].mean()),
                mean_prediction=float(p[mask].mean()),
                metrics=statistics.metrics(found.task.name, y[mask], p[mask], found.deviation),
            )


def signature(run: str) -> Signature:
    """The MLflow signature of the run's logged model.

    Raises:
        SlipwayError: the run has logged no model, or one without a signature.
    """
    from mlflow.models import get_model_info

    logged = tracking.client().get_run(run).data.tags.get(tracking.LOGGED)
    found = get_model_info(f"models:/{logged}").signature if logged else None
    if found is None:
        raise SlipwayError(
            f"MLflow's run {run} has no model with a signature",
            fix="run the train step again, which logs one",
        )
    return described(found)


def described(found: ModelSignature) -> Signature:
    """MLflow's signature as evidence has it."""
    inputs, outputs = _columns(found.inputs), _columns(found.outputs)
    listed = [[c.model_dump() for c in side] for side in (inputs, outputs)]
    return Signature(digest=digests.of_json(listed), inputs=inputs, outputs=outputs)


def _columns(schema: Any) -> list[Column]:
    """A column may be a tensor, which may have no name: then its position is its name."""
    return [
        Column(
            name=str(index if spec.name is None else spec.name),
            type=f"{spec.type}{spec.shape}" if hasattr(spec, "shape") else spec.type.name,
            required=getattr(spec, "required", True),
        )
        for index, spec in enumerate(schema or [])
    ]


def _report(evaluation: Evaluation) -> None:
    print(f"holdout: {evaluation.holdout.rows:,} rows, {evaluation.holdout.unknown:,} unknown")
    for name, e in evaluation.metrics.items():
        others = ", ".join(f"{b} {m[name]:.4f}" for b, m in evaluation.baselines.items())
        print(f"{name:18} {e.value:.4f}  [{e.low:.4f}, {e.high:.4f}]  baselines: {others}")
    for name, e in evaluation.gain.items():
        print(f"skill over {name}: {e.value:+.1%}  [{e.low:+.1%}, {e.high:+.1%}]")
    for found in evaluation.fairness:
        differences = ", ".join(f"{n} {value:.3f}" for n, value in found.differences.items())
        print(f"fairness by {found.column}: {differences}")


def _log(run: str, evaluation: Evaluation) -> None:
    import time

    from mlflow.entities import Metric as Logged

    now = int(time.time() * 1000)
    values = {f"holdout_{name}": e.value for name, e in evaluation.metrics.items()}
    for baseline, metrics in evaluation.baselines.items():
        values |= {f"{baseline}_{name}": value for name, value in metrics.items()}
    values |= {f"gain_over_{name}": e.value for name, e in evaluation.gain.items()}
    tracking.client().log_batch(run, [Logged(key, v, now, 0) for key, v in values.items()])
