"""`slipway label`"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from slipway import bento, predictions, release
from slipway.commands import Environment, Model, Output, say, show_json
from slipway.endpoints import Cluster
from slipway.errors import BadInput


def command(
    model: Model,
    env: Environment,
    file: Annotated[
        Path,
        typer.Option(
            "--file", metavar="FILE", help="CSV with the columns id and outcome, or JSON lines."
        ),
    ],
    output: Output = "text",
) -> None:
    """Tell how predictions turned out: 0 or 1 for each id, as `slipway predict` shows it.

    Of a model that answers numbers: what the number really was.
    """
    release.check_environment(env)
    release.check_model_name(model)
    task = bento.find(model).config.task
    labels = predictions.parse_labels(file, datetime.now(UTC), task)
    cluster = Cluster.connect()
    with cluster.store() as store:
        log = predictions.segments(store, env, model)
        known = predictions.known(store, log, [label.id for label in labels])
    if not known:
        raise BadInput(
            f"none of its {len(labels)} ids is of a prediction of {model} in {env}",
            file=file,
            fix="see --env; what was predicted just now is in the log within half a minute",
        )
    with cluster.store("labels") as store:
        stored = predictions.write_labels(store, env, model, labels)
    unknown = sorted(label.id for label in labels if label.id not in known)
    if output == "json":
        show_json({"labels": len(labels), "unknown": unknown, "object": stored})
        return
    say(f"{len(labels)} labels of {model} in {env} stored as {stored}")
    if unknown:
        shown = ", ".join(unknown[:3]) + (", …" if len(unknown) > 3 else "")
        say(f"{len(unknown)} of them are of no prediction in the log so far: {shown}")
