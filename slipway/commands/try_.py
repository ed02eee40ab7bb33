"""`slipway try`"""

from __future__ import annotations

import functools
import os
import shlex
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from slipway import paths, release
from slipway.commands import Model, err, say, show, show_json
from slipway.endpoints import Cluster
from slipway.errors import BadInput
from slipway.repository import Repository
from slipway.sources import Platform
from slipway.trial import history, libraries

if TYPE_CHECKING:
    from slipway.trial.document import Step

# Before the libraries load. As many threads as a step has on the platform: others may come to
# another model. And nobody is told what is tried here.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
}


def command(
    model: Model,
    against: Annotated[
        str,
        typer.Option(metavar="ENV", help="Whose champion it is compared with, and whose gates."),
    ] = "dev",
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Instead of model.yaml's; may be repeated."),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(metavar="N", help="Learn from so many rows alone.")
    ] = None,
    sample: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Learn from such a share, e.g. 0.1.")
    ] = None,
    skip_serve: Annotated[
        bool, typer.Option("--skip-serve", help="Do not ask the bento; no latency, no memory.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do every step anew; data are fetched again.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Leave it serving afterwards, until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where --serve answers.")] = 3000,
    past: Annotated[
        bool, typer.Option("--history", help="Show the tries that were made here; try nothing.")
    ] = False,
    output: Annotated[
        Literal["text", "json", "markdown"],
        typer.Option("-o", "--output", help="How to show what was found."),
    ] = "text",
) -> None:
    """Train, evaluate, package and serve a model here, as the platform would. No cluster needed.

    It takes the working tree, changes that are not committed included; what has not changed since
    an earlier try is not done again. Exit code 1: a step fails, or a gate that can be judged here
    refuses.
    """
    release.check_environment(against)
    release.check_model_name(model)
    if past:
        _history(model, output)
        return
    libraries.check()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from slipway import bento
    from slipway.trial import run as runs
    from slipway.trial import show as shown
    from slipway.trial.document import dump
    from slipway.trial.wish import Part, Wish, overridden

    part = Part(rows, sample)
    folder, changed = overridden(bento.find(model), dict(map(_pair, param or [])))
    home = history.folder()
    connect = functools.cache(Cluster.connect)
    with Repository(paths.REPOSITORY) as repository:
        around = runs.Surroundings(repository, connect, Platform(connect), home, _working, _tell)
        environment = cast("Literal['dev', 'staging', 'prod']", against)
        wish = Wish(environment, part, serve=not skip_serve, fresh=fresh)
        earlier = history.newest(home, model)
        trial, bundle = runs.Run(folder, wish, around, changed)(next(iter(earlier), None))
    history.keep(home, trial)
    if output == "json":
        show_json(dump(trial))
    elif output == "markdown":
        typer.echo(shown.markdown(trial), nl=False)
    else:
        show(shown.text(trial))
    if serve:
        _serve(model, bundle, trial.bento.digest, port)
    raise typer.Exit(trial.exit_code)


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise BadInput(f"{text!r} is no KEY=VALUE", field="--param", fix="e.g. --param seed=2")
    return name, value


def _working(what: str) -> AbstractContextManager[Any]:
    """Says on a terminal what is being done; elsewhere the lines that follow do."""
    return err.status(what)


def _tell(step: Step) -> None:
    took = "as before" if step.again else f"{step.seconds:.1f} s"
    say(f"{step.name:10} {took:>9}  {step.said}".rstrip())


def _serve(model: str, bundle: bytes, digest: str, port: int) -> None:
    from slipway.trial import serve

    def ready(url: str) -> None:
        example = shlex.quote(f"@bentos/{model}/example.json")
        say(f"{model} answers at {url} until Ctrl-C:")
        say(f"curl --json {example} {url}/predict")

    serve.serve(bundle, digest, port, ready)


def _history(model: str, output: str) -> None:
    found = history.newest(history.folder(), model)
    if output == "json":
        from slipway.trial.document import dump

        show_json([dump(trial) for trial in found])
    elif not found:
        say(f"{model} was not tried here yet")
    else:
        from slipway.trial import show as shown

        show(shown.history(found))
