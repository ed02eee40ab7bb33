"""`slipway train`"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from slipway import bento, release, training
from slipway.commands import Model, err, out, say
from slipway.endpoints import Cluster
from slipway.errors import SlipwayError
from slipway.forge import Forge, PullRequest
from slipway.training import RUNNING, SUCCEEDED, Step, Workflow


def command(
    model: Model,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow it to its end and show what it proposes.")
    ] = False,
    commit: Annotated[
        str | None,
        typer.Option(
            metavar="REV",
            help="Code to train; default: the forge's main. Other code is released once merged.",
        ),
    ] = None,
    environment: Annotated[str, typer.Option(help="Environment to propose it for.")] = "dev",
) -> None:
    """Train a model on the platform; it ends in a pull request that proposes the new bento."""
    release.check_model_name(model)
    release.check_environment(environment)
    cluster = Cluster.connect()
    with cluster.forge() as forge:
        revision = training.commit_of(forge, commit)
        training.check_model(forge, model, revision)
        settings = f"bentos/{model}/model.yaml"
        if bento.says_pretrained(forge.read(settings, revision), settings):
            say(f"{model} is pretrained: nothing is trained, its weights are pinned in {settings}")
            say(f"fetch them: slipway fetch {model} --to FOLDER")
            return
        workflow = begin(cluster, forge, model, revision, environment, say)
        if not wait:
            out.print(workflow.name)
            say(f"follow it: slipway train {model} --commit {revision} --wait")
            return
        try:
            workflow = watch(cluster, workflow)
        except KeyboardInterrupt:
            say(f"\n{workflow.name} goes on without you")
            say(f"follow it again: slipway train {model} --commit {revision} --wait")
            raise typer.Exit(130) from None
        _check(cluster, workflow)
        if number := workflow.outputs.get("pull-request"):
            out.print(forge.pull(int(number)).url, soft_wrap=True)
        else:
            say(f"nothing to propose: {workflow.outputs.get('note', '')}")


def begin(
    cluster: Cluster,
    forge: Forge,
    model: str,
    commit: str,
    environment: str,
    say: Callable[[str], None],
) -> Workflow:
    """The workflow for these inputs: the one that runs, or a new one."""
    found = training.find(cluster, model, commit, environment)
    if found and not found.ended:
        say(f"{found.name} trains {commit[:12]} already")
        return found
    started = training.start(cluster, model, commit, environment)
    say(f"{started.name} trains {commit[:12]} for {environment}")
    return started


def train(
    cluster: Cluster,
    forge: Forge,
    model: str,
    *,
    commit: str,
    environment: str,
    say: Callable[[str], None],
) -> PullRequest | None:
    """Trains and waits; goes on with a workflow that runs or has succeeded. For `slipway up`.

    Returns the pull request; None when the environment has this bento already.

    Raises:
        SlipwayError: a step failed; the message has the end of its log.
    """
    training.check_model(forge, model, commit)
    found = training.find(cluster, model, commit, environment)
    workflow = found or begin(cluster, forge, model, commit, environment, say)
    _check(cluster, _each(cluster, workflow, say))
    return training.proposal(forge, model, environment, commit)


def watch(cluster: Cluster, workflow: Workflow) -> Workflow:
    """Shows the steps as they go: a table that changes on a terminal, lines elsewhere.

    Returns the workflow as it ended, well or not.
    """
    if not err.is_terminal:
        return _each(cluster, workflow, say)
    now = workflow
    with Live(table(now), console=err, refresh_per_second=4) as live:
        for now in training.follow(cluster, workflow.name):
            live.update(table(now))
    return now


def _each(cluster: Cluster, workflow: Workflow, say: Callable[[str], None]) -> Workflow:
    seen: dict[str, str] = {}
    now = workflow
    for now in training.follow(cluster, workflow.name):
        for step in now.steps:
            if step.phase and seen.get(step.name) != step.phase:
                seen[step.name] = step.phase
                took = f" after {step.seconds:.0f} s" if step.phase not in RUNNING else ""
                say(f"{step.name}: {step.phase.lower()}{took}")
    return now


def _check(cluster: Cluster, workflow: Workflow) -> None:
    if workflow.phase != SUCCEEDED:
        raise SlipwayError(
            training.failure(cluster, workflow),
            fix=f"kubectl -n {training.NAMESPACE} get workflow {workflow.name} -o yaml, or try "
            "again: what succeeded is not repeated",
        )


_MARKS = {"Succeeded": "[green]✓[/]", "Failed": "[red]✗[/]", "Error": "[red]✗[/]"}


def table(workflow: Workflow) -> Table:
    """The steps for a terminal."""
    made = Table(box=None, show_header=False, pad_edge=False, title=workflow.name)
    made.title_justify = "left"
    for step in workflow.steps:
        took = f"{step.seconds:5.0f} s" if step.seconds else ""
        made.add_row(_mark(step), step.name, took, escape(step.message))
    return made


def _mark(step: Step) -> str:
    return _MARKS.get(step.phase, "[yellow]…[/]" if step.phase else "[dim]·[/]")
