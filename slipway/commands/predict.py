"""`slipway predict`"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from slipway import paths, release, serving
from slipway.commands import Environment, Model, Output, say, show_json
from slipway.endpoints import Cluster
from slipway.errors import BadInput


def command(
    model: Model,
    env: Environment,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="JSON|@FILE|-", help="The request's body; default: the bento's example.json."
        ),
    ] = None,
    output: Output = "text",
) -> None:
    """Ask a model for a prediction, and see which bento made it."""
    release.check_environment(env)
    release.check_model_name(model)
    answer = serving.predict(Cluster.connect(), env, model, body(model, data))
    if output == "json":
        show_json({"prediction": answer.prediction, "bento": answer.bento, "id": answer.id})
    else:
        typer.echo(json.dumps(answer.prediction, ensure_ascii=False))
        say(f"answered by {answer.bento or 'a service that does not say which bento it is'}")
        if answer.id:
            say(f"id {answer.id}, for `slipway label` when the outcome is known")


def body(model: str, data: str | None) -> bytes:
    """The request's body as the model is sent it: JSON, but the model judges its content.

    Raises:
        BadInput: no such file, or not JSON.
    """
    if data == "-":
        source, content = "standard input", sys.stdin.buffer.read()
    elif data is not None and not data.startswith("@"):
        source, content = "--data", data.encode()
    else:
        file = Path(data[1:]) if data else example(model)
        source = str(file)
        try:
            content = file.read_bytes()
        except OSError as error:
            fix = "" if data else "give the body: --data '{…}'"
            raise BadInput(f"cannot be read: {error.strerror}", file=file, fix=fix) from None
    try:
        json.loads(content)
    except ValueError as error:
        raise BadInput(f"not JSON: {error}", file=source) from None
    return content


def example(model: str) -> Path:
    """The request body that a bento brings along."""
    return paths.REPOSITORY / "bentos" / model / "example.json"
