"""Train: data and code to a model, logged in MLflow; what is proven is not trained twice."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from slipway import attestation, contract, digests
from slipway.bento import LOCK, Folder, ModelConfig, Training
from slipway.digests import Digest
from slipway.steps import dataset, tracking
from slipway.store import Store
from slipway.tasks import TaskName

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run
    from mlflow.models import ModelSignature

    from slipway.bento import Array
    from slipway.sources import Keys


def run(folder: Folder, data: Digest, commit: str) -> dict[str, str]:
    """Outputs `model-digest`, `run` (MLflow) and `version` (MLflow registered model).

    What was trained before counts if signed evidence says that this very commit's code did: no
    other run in MLflow is proof of what came of it.
    """
    config, store, mlflow = folder.config, Store(), tracking.client()
    inputs = digests.of_json({"data": data, "code": folder.code()})
    keys = attestation.keys_from_environment()
    runs = tracking.trained(mlflow, config.name, inputs)
    found = next((run for run in runs if proven(store, keys, run, data, commit)), None)
    if found is not None:
        print(f"trained before on the same data, code and libraries: run {found.info.run_id}")
        model, run_id = found.data.tags[tracking.MODEL], str(found.info.run_id)
        logged = found.data.tags[tracking.LOGGED]
    else:
        model, run_id, logged = _train(folder, store, mlflow, data, commit, inputs)
    version = tracking.register(mlflow, config.name, model, logged, run_id)
    return {"model-digest": model, "run": run_id, "version": str(version)}


def proven(store: Store, keys: Keys, run: Run, data: Digest, commit: str) -> bool:
    """Whether there is evidence that the commit's code has trained the run's model on the data, and
    the model is there."""
    model, name = run.data.tags[tracking.MODEL], str(run.info.run_id)
    named = tracking.evidence(run.data.tags)
    evaluations = (found.evaluation for found in attestation.proven(store, named, keys))
    about = ((e.run, e.model_digest, e.data.digest, e.code) for e in evaluations)
    return (name, model, data, commit) in about and store.has("bentos", model)


def known(
    training: Training, rows: pd.DataFrame, task: TaskName | None = None
) -> tuple[pd.DataFrame, Array, Array]:
    """Features and target of the rows whose outcome is known, and which rows they are."""
    target = contract.known_target(training, rows, task)
    mask = np.logical_not(np.isnan(target))
    return contract.features(training, rows).loc[mask], target[mask], mask


def examples(
    training: Training, config: ModelConfig, store: Store, manifest: dataset.Manifest
) -> tuple[pd.DataFrame, Array]:
    """What the model learns from: features and outcomes of the split's partitions."""
    rows = dataset.read(store, manifest, config.split.train)
    x, y, _ = known(training, rows, config.task)
    return x, y


def fitted(
    training: Training, config: ModelConfig, x: pd.DataFrame, y: Array
) -> tuple[Any, dict[str, bytes]]:
    """The model that has learned from these, and its exported files."""
    estimator = contract.fit(training, config.task, x, y, config.parameters)
    return estimator, contract.export(training, estimator)


def _train(
    folder: Folder, store: Store, mlflow: Any, data: Digest, commit: str, inputs: Digest
) -> tuple[Digest, str, str]:
    config, training, manifest = folder.config, folder.training(), dataset.manifest(store, data)
    x, y = examples(training, config, store, manifest)
    estimator, files = fitted(training, config, x, y)
    model = store.put_files("bentos", files)

    from mlflow.entities import Dataset, DatasetInput, InputTag

    experiment = tracking.experiment(mlflow, config.name)
    tags = {
        tracking.INPUTS: inputs,
        "slipway.data_digest": data,
        "slipway.code_digest": folder.code(),
        tracking.IMAGE: os.environ.get("TRAINING_IMAGE", ""),
        "mlflow.source.git.commit": commit,
    }
    run = mlflow.create_run(experiment, run_name=model.removeprefix("sha256:")[:12], tags=tags)
    run_id = str(run.info.run_id)
    try:
        for key, value in {**config.parameters, "training_rows": len(x)}.items():
            mlflow.log_param(run_id, key, value)
        source = {"uri": f"s3://data/{data.replace(':', '/', 1)}"}
        mlflow.log_inputs(
            run_id,
            [
                DatasetInput(
                    Dataset(
                        name=config.name,
                        # The whole digest is a tag: MLflow's column has room for 36 characters.
                        digest=data.removeprefix("sha256:")[:36],
                        source_type="s3",
                        source=digests.canonical_json(source).decode(),
                        profile=digests.canonical_json({"num_rows": manifest.rows}).decode(),
                    ),
                    [InputTag("mlflow.data.context", "training")],
                )
            ],
        )
        logged = _log_model(run_id, config.task, estimator, x)
        mlflow.set_tag(run_id, tracking.LOGGED, logged)
        mlflow.set_tag(run_id, tracking.MODEL, model)
        mlflow.set_terminated(run_id, "FINISHED")
    except BaseException:
        mlflow.set_terminated(run_id, "FAILED")
        raise
    return model, run_id, logged


def _log_model(run_id: str, task: TaskName, estimator: Any, x: pd.DataFrame) -> str:
    """Logs the scikit-learn model, with its signature, to the run; returns its id.

    It answers there as it is asked here.
    """
    import mlflow
    from mlflow import sklearn as flavor

    wanted = ("scikit-learn", "pandas", "numpy", "cloudpickle")
    pins = [
        line.removesuffix("\\").strip()
        for line in LOCK.read_text().splitlines()
        if line.split("==")[0] in wanted
    ]
    with mlflow.start_run(run_id=run_id):
        info = flavor.log_model(
            estimator,
            name="model",
            signature=signature(task, estimator, x),
            pyfunc_predict_fn=contract.answering(task),
            pip_requirements=pins,  # or MLflow loads the model in a subprocess to find out
            serialization_format="cloudpickle",
        )
    return str(info.model_id)


def signature(task: TaskName, estimator: Any, x: pd.DataFrame) -> ModelSignature:
    """What the model takes and gives. An input is optional that is missing in some row of `x`."""
    from mlflow.models import infer_signature

    return infer_signature(x, getattr(estimator, contract.answering(task))(x.head(5)))
