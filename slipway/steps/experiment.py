"""Experiment: one point of the model's search space, trained and measured; a run in MLflow."""

from __future__ import annotations

import time

from slipway import contract, statistics
from slipway import search as spaces
from slipway.bento import Folder
from slipway.digests import Digest
from slipway.steps import dataset, tracking
from slipway.steps.train import known
from slipway.store import Store


def run(folder: Folder, data: Digest, commit: str, search: str, number: str) -> dict[str, str]:
    """Outputs `run` (MLflow). One that was stopped leaves nothing behind, and is begun again.

    Args:
        search: what the experiments of one search have in common; the workflow's name.
        number: of the point in the search space.
    """
    mlflow, space = tracking.client(), spaces.load(folder)
    found = tracking.experiments(mlflow, folder.config.name, search, number)
    if found:
        print(f"experiment {number} has been made: run {found[0].info.run_id}")
        return {"run": str(found[0].info.run_id)}
    parameters = folder.config.parameters | space.point(int(number))
    training, store, task = folder.training(), Store(), folder.config.task
    manifest = dataset.manifest(store, data)
    earlier = dataset.read(store, manifest, spaces.trained_on(folder, space))
    x, y, _ = known(training, earlier, task)
    later_x, later_y, _ = known(training, dataset.read(store, manifest, space.validation), task)
    began = time.time()
    estimator = contract.fit(training, task, x, y, parameters)
    seconds = time.time() - began
    answers = getattr(estimator, contract.answering(task))(later_x)
    metrics = statistics.metrics(task, later_y, answers[:, 1] if answers.ndim > 1 else answers)
    for name, value in metrics.items():
        print(f"{name:18} {value:.4f}")
    tags = {
        tracking.SEARCH: search,
        tracking.NUMBER: number,
        "slipway.data_digest": data,
        "mlflow.source.git.commit": commit,
    }
    values = metrics | {"training_seconds": seconds}
    made = tracking.log_experiment(
        mlflow, folder.config.name, f"experiment {number}", tags, parameters, values, began
    )
    return {"run": made}
