"""`slipway experiments`"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from slipway import experiments, release, training
from slipway.commands import Model, Output, err, out, say, show, show_json
from slipway.endpoints import Cluster
from slipway.errors import BadInput, SlipwayError
from slipway.experiments import MOST, Progress, Tally
from slipway.training import SUCCEEDED

# Team and pool of a search whose experiments are all on CPU: none of its pods asks for either, but
# the workflow wants them named, and a label has no other way to say so.
NOBODY = "none"


def command(
    model: Model,
    team: Annotated[
        str | None, typer.Option(metavar="TEAM", help="In whose queue the pods on GPUs stand.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=MOST, help="How many.")] = 200,
    real: Annotated[
        int,
        typer.Option(
            min=0,
            help="How many of them run on CPU. The rest ask for a GPU each, which on simulated "
            "nodes nothing computes on.",
        ),
    ] = 4,
    pool: Annotated[
        str | None,
        typer.Option(help="GPU pool; default: the one where the team has most."),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(min=1, help="Pods of each experiment on GPUs: all of them begin, or none."),
    ] = 1,
    priority: Annotated[str, typer.Option(help="A priority class of the queues.")] = "experiment",
    commit: Annotated[
        str | None,
        typer.Option(metavar="REV", help="Code to run; default: the forge's main."),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(metavar="WORKFLOW", help="Show one that was started before."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow it to its end and show what it found.")
    ] = False,
    output: Output = "text",
) -> None:
    """Try many hyper-parameters at once: points of bentos/MODEL/search.yaml, the best first."""
    release.check_model_name(model)
    cluster = Cluster.connect()
    if search is None:
        if real > count:
            raise BadInput(f"{real} of {count}", field="--real", fix="at most --count")
        if team is None and real < count:
            raise BadInput(
                "missing",
                field="--team",
                fix=f"name one of slipway:teams, or run all on CPU: --real {count}",
            )
        search = _start(
            cluster,
            model,
            team,
            pool,
            commit,
            count=count,
            real=real,
            workers=workers,
            priority=priority,
        )
    found = _watch(cluster, search) if wait else experiments.look(cluster, search)
    if output == "json":
        show_json(document(found))
    elif found.workflow.ended:
        show(table(found.results))
    else:
        out.print(found.workflow.name)
        say(f"follow it: slipway experiments {model} --search {search} --wait")
    if found.workflow.ended:
        if not wait:
            say(summary(found))
        if found.workflow.phase != SUCCEEDED:
            raise SlipwayError(training.failure(cluster, found.workflow))


def _start(
    cluster: Cluster,
    model: str,
    team: str | None,
    pool: str | None,
    commit: str | None,
    *,
    count: int,
    real: int,
    workers: int,
    priority: str,
) -> str:
    chosen = NOBODY
    if team is not None and real < count:
        chosen = experiments.queue(cluster, team).pool(pool)
        experiments.check_priority(cluster, priority)
    with cluster.forge() as forge:
        revision = training.commit_of(forge, commit)
        training.check_model(forge, model, revision, named=commit or "main")
    started = experiments.start(
        cluster,
        model,
        revision,
        team or NOBODY,
        chosen,
        count=count,
        real=real,
        workers=workers,
        priority=priority,
    )
    on_gpus = f", {count - real} on GPUs of pool {chosen} for team {team}" if real < count else ""
    say(f"{started.name}: {real} on CPU{on_gpus}")
    return started.name


def _watch(cluster: Cluster, name: str) -> Progress:
    """Follows it: one line that changes on a terminal, a line for each change elsewhere."""
    now: Progress | None = None
    try:
        if err.is_terminal:
            with Live(console=err, refresh_per_second=4) as live:
                for now in experiments.follow(cluster, name, say):
                    live.update(summary(now))
        else:
            said = ""
            for now in experiments.follow(cluster, name, say):
                if (line := summary(now)) != said:
                    say(said := line)
    except KeyboardInterrupt:
        say(f"\n{name} goes on without you")
        raise typer.Exit(130) from None
    assert now is not None  # noqa: S101 -- it is looked at once at least
    return now


def summary(found: Progress) -> str:
    """How far it is, in a line."""
    kinds = {"on CPU": found.cpu, "on GPUs": found.gpu}
    said = [f"{where}: {_counts(tally)}" for where, tally in kinds.items() if tally.total]
    return "; ".join([f"{found.workflow.name} {found.workflow.phase.lower() or 'begins'}", *said])


def _counts(tally: Tally) -> str:
    counts = {k: v for k, v in vars(tally).items() if v}
    return ", ".join(f"{number} {name}" for name, number in counts.items())


def table(results: list[dict[str, Any]]) -> Table:
    """What the experiments found, for a terminal."""
    made = Table(box=None, pad_edge=False)
    names = list(results[0]["parameters"]) if results else []
    metrics = list(results[0]["metrics"]) if results else []
    for column in ("EXPERIMENT", *metrics, *names):
        made.add_column(column, justify="right")
    for result in results:
        values = [f"{result['metrics'][m]:.4f}" for m in metrics]
        made.add_row(str(result["number"]), *values, *(result["parameters"][n] for n in names))
    return made


def document(found: Progress) -> dict[str, Any]:
    """It as JSON."""
    workflow = found.workflow
    return {
        "workflow": workflow.name,
        "phase": workflow.phase,
        "message": workflow.message,
        "cpu": vars(found.cpu),
        "gpu": vars(found.gpu),
        "run": workflow.outputs.get("parent") or None,
        "results": found.results,
    }
