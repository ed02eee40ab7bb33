"""MLflow, as the steps use it: one experiment a model, runs and versions found by digest."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from slipway.digests import Digest
from slipway.errors import BadInput

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# Tags. On a run: what went in and what came out. On a model version: what it is. On both, with an
# environment after a dot: the evidence about it.
INPUTS = "slipway.inputs"
LOGGED = "slipway.logged_model"
MODEL = "slipway.model_digest"
BENTO = "slipway.bento_digest"
EVIDENCE = "slipway.evidence_digest"
IMAGE = "slipway.training_image"
# On the run of an experiment: of which search it is, and its number there. The run above all of
# them has `WHOLE` for a number.
SEARCH = "slipway.search"
NUMBER = "slipway.experiment"
WHOLE = "all"
PARENT = "mlflow.parentRunId"


def client() -> MlflowClient:
    """The server at MLFLOW_TRACKING_URI; never files beside the program."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise BadInput("not set", field="MLFLOW_TRACKING_URI", fix="set it to the server's URL")
    # MLflow's defaults ask for four minutes before they give up; the workflow retries the step.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # Its warnings are of choices made here (cloudpickle), at a length that hides the step's own.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    from mlflow import MlflowClient

    return MlflowClient()


def experiment(mlflow: MlflowClient, model: str) -> str:
    """The id of the model's experiment, made if it is not there."""
    from mlflow.exceptions import MlflowException

    found = mlflow.get_experiment_by_name(model)
    if found is None:
        try:
            return mlflow.create_experiment(model)
        except MlflowException as error:
            # Another workflow was faster.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return experiment(mlflow, model)
    return str(found.experiment_id)


def trained(mlflow: MlflowClient, model: str, inputs: Digest) -> Iterator[Run]:
    """The runs that say they have trained on these very inputs to their end, in order of time.

    MLflow asks nobody who they are: whatever a workflow runs may have written them.
    """
    return _search(
        mlflow, model, f"tags.`{INPUTS}` = '{inputs}' and tags.`{MODEL}` LIKE 'sha256:%'"
    )


def evidence(tags: Mapping[str, str]) -> list[Digest]:
    """The evidence that a run or a version names, whatever environments it is for."""
    return [digest for key, digest in tags.items() if key.startswith(f"{EVIDENCE}.")]


def experiments(
    mlflow: MlflowClient, model: str, search: str, number: str | None = None
) -> list[Run]:
    """The finished runs of a search, in order of time; those of one number where it is given."""
    only = f"= '{number}'" if number else f"!= '{WHOLE}'"
    wanted = f"tags.`{SEARCH}` = '{search}' and tags.`{NUMBER}` {only}"
    return list(_search(mlflow, model, wanted))


def _search(mlflow: MlflowClient, model: str, wanted: str) -> Iterator[Run]:
    """The model's finished runs that are wanted, in order of time."""
    page: str | None = None
    while page != "":
        some: Any = mlflow.search_runs(
            [experiment(mlflow, model)],
            f"{wanted} and attributes.status = 'FINISHED'",
            order_by=["attributes.start_time ASC"],
            page_token=page,
        )
        yield from some
        page = some.token or ""


def log_experiment(
    mlflow: MlflowClient,
    model: str,
    name: str,
    tags: Mapping[str, str],
    parameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    began: float,
) -> str:
    """A run that is finished as soon as it is seen; its id. `began` in seconds since 1970."""
    from mlflow.entities import Metric, Param

    start, now = int(began * 1000), int(time.time() * 1000)
    run = mlflow.create_run(
        experiment(mlflow, model), start_time=start, run_name=name, tags=dict(tags)
    )
    run_id = str(run.info.run_id)
    mlflow.log_batch(
        run_id,
        metrics=[Metric(key, value, now, 0) for key, value in metrics.items()],
        params=[Param(key, str(value)) for key, value in parameters.items()],
    )
    mlflow.set_terminated(run_id, "FINISHED")
    return run_id


def version(mlflow: MlflowClient, model: str, digest: Digest) -> int | None:
    """The oldest registered version with this model digest."""
    found: Any = mlflow.search_model_versions(f"name = '{model}' and tags.`{MODEL}` = '{digest}'")
    return min((int(v.version) for v in found), default=None)


def register(mlflow: MlflowClient, model: str, digest: Digest, logged: str, run: str) -> int:
    """The version of this model digest: the one there is, or a new one of model id `logged`."""
    from mlflow.exceptions import MlflowException

    if (found := version(mlflow, model, digest)) is not None:
        return found
    try:
        mlflow.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = str(mlflow.get_logged_model(logged).artifact_location)
    made = mlflow.create_model_version(model, source, run, tags={MODEL: digest}, model_id=logged)
    oldest = version(mlflow, model, digest)
    if oldest is not None and oldest < int(made.version):  # two workflows at once: the first counts
        mlflow.delete_model_version(model, str(made.version))
        return oldest
    return int(made.version)
