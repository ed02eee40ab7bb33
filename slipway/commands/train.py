"""`slipway train`"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from slipway import bento, promotion, release, training
from slipway.commands import Model, Output, err, out, say, show_json
from slipway.endpoints import Cluster
from slipway.errors import SlipwayError
from slipway.forge import Forge, PullRequest
from slipway.training import RUNNING, SUCCEEDED, Step, Workflow


def command(
    model: Model,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow it to its end and show what came of it.")
    ] = False,
    commit: Annotated[
        str | None,
        typer.Option(
            metavar="REV",
            help="Branch or commit to train; default: the forge's main. What main does not have "
            "is only tried: it ends with evidence and the gates' verdict, and proposes nothing.",
        ),
    ] = None,
    environment: Annotated[str, typer.Option(help="Environment to propose it for.")] = "dev",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show diff, evidence and verdict; propose nothing.")
    ] = False,
    output: Output = "text",
) -> None:
    """Train a model on the platform; it ends in a pull request that proposes the new bento.

    What is merged is trained and proposed by itself. To try a branch before: --commit BRANCH
    --wait. Exit code 1: it failed, or the gates would refuse what was tried.
    """
    release.check_model_name(model)
    release.check_environment(environment)
    cluster = Cluster.connect()
    with cluster.forge() as forge:
        revision = training.commit_of(forge, commit)
        training.check_model(forge, model, revision, named=commit or "main")
        settings = f"bentos/{model}/model.yaml"
        if bento.says_pretrained(forge.read(settings, revision), settings):
            say(f"{model} is pretrained: nothing is trained, its weights are pinned in {settings}")
            say(f"fetch them: slipway fetch {model} --to FOLDER")
            if output == "json":
                show_json({"workflow": None, "note": "pretrained"})
            return
        merged = training.is_merged(forge, revision)
        why = "" if merged else training.unmerged(revision)
        if merged and dry_run:
            why = "--dry-run"
        workflow = begin(cluster, model, revision, environment, say, dry_run=bool(why))
        same = f"slipway train {model} --commit {revision}{' --dry-run' * dry_run} --wait"
        if not wait:
            if output == "json":
                show_json({"workflow": workflow.name, "note": f"only tried: {why}" if why else ""})
            else:
                out.print(workflow.name)
            if why:
                say(f"it is only tried: {why}")
            say(f"follow it: {same}")
            return
        try:
            workflow = watch(cluster, workflow)
        except KeyboardInterrupt:
            say(f"\n{workflow.name} goes on without you")
            say(f"follow it again: {same}")
            raise typer.Exit(130) from None
        _check(cluster, workflow)
        if why:
            from slipway.commands.promote import tried

            # As it would be merged: that it is not says the last line.
            code = tried(
                cluster,
                forge,
                promotion.Promotion(model, environment, source="", dry_run=True),
                promotion.outcome(cluster, workflow),
                output,
                why=f"not proposed: {why}",
                as_merged=True,
            )
            raise typer.Exit(code)
        number, note = (workflow.outputs.get(key, "") for key in ("pull-request", "note"))
        url = forge.pull(int(number)).url if number else None
        if output == "json":
            show_json({"workflow": workflow.name, "pull_request": url, "note": note})
        elif url:
            out.print(url, soft_wrap=True)
        else:
            say(f"nothing to propose: {note}")


def begin(
    cluster: Cluster,
    model: str,
    commit: str,
    environment: str,
    say: Callable[[str], None],
    *,
    dry_run: bool = False,
) -> Workflow:
    """The workflow for these inputs: the one that runs, or a new one."""
    found = training.find(cluster, model, commit, environment, dry_run=dry_run)
    if found and not found.ended:
        say(f"{found.name} trains {commit[:12]} already")
        return found
    started = training.start(cluster, model, commit, environment, dry_run=dry_run)
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
    """Trains and waits; goes on with a workflow that runs, or has succeeded where what it came to
    is still on the forge. For `slipway up`.

    Returns the pull request; None when the environment has this bento already.

    Raises:
        SlipwayError: a step failed; the message has the end of its log.
    """
    training.check_model(forge, model, commit)
    workflow = training.find(cluster, model, commit, environment)
    if workflow and workflow.ended and not training.stands(forge, model, environment, commit):
        say(f"the forge has nothing of what {workflow.name} proposed")
        workflow = None
    workflow = workflow or begin(cluster, model, commit, environment, say)
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
        for now in training.follow(cluster, workflow.name, say):
            live.update(table(now))
    return now


def _each(cluster: Cluster, workflow: Workflow, say: Callable[[str], None]) -> Workflow:
    seen: dict[str, str] = {}
    now = workflow
    for now in training.follow(cluster, workflow.name, say):
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
            "again",
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
