"""`slipway rollback`"""

from __future__ import annotations

import difflib
from typing import Annotated, Any

import typer
from rich.syntax import Syntax

from slipway import release, rollback, serving, sources
from slipway.commands import Environment, Model, Output, out, say, short, show_json
from slipway.endpoints import Cluster
from slipway.errors import BadInput
from slipway.mirror import mirror
from slipway.repository import Repository
from slipway.rollback import Clock, Rollback


def command(
    model: Model,
    env: Environment,
    to: Annotated[
        int | None,
        typer.Option(metavar="VERSION", help="Default: the release before the present one."),
    ] = None,
    settings: Annotated[
        bool,
        typer.Option(
            "--settings",
            help="Keep the present release, and undo the last change of how it runs (rollout).",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Verify and judge; push nothing.")
    ] = False,
    wait: Annotated[
        bool, typer.Option(help="After the merge, wait until the old bento answers.")
    ] = True,
    output: Output = "text",
) -> None:
    """Put an earlier release of a model back, by a pull request that the gates let through."""
    release.check_environment(env)
    release.check_model_name(model)
    if settings and to is not None:
        raise BadInput(
            "goes back to a version as it last stood", field="--to", fix="leave out --settings"
        )
    cluster, clock = Cluster.connect(), Clock()
    source = sources.Platform(lambda: cluster)
    with cluster.forge() as forge, mirror(forge) as (repository, tip):
        plan = rollback.plan(repository, tip, env, model, to, settings=settings)
        found: dict[str, Any] = {**rollback.document(plan), "pull_request": None, "merge": None}
        say(_headline(plan))
        with cluster.store() as store:
            rollback.verify(plan, store, lambda: source.keys(env, fresh=True))
        say(f"bento and evidence are whole ({clock.lap('verify'):.1f} s)")
        if dry_run:
            code = _tried(repository, tip, plan, source, output, found)
            raise typer.Exit(code)
        if plan.present != plan.target:
            pull = rollback.propose(forge, repository, tip, plan)
            say(f"{pull.url} ({clock.lap('propose'):.1f} s)")
            done = rollback.merged(forge, pull, clock, say)
            found |= {"pull_request": pull.url, "merge": done.merge_sha}
    if plan.settings_alone and plan.present != plan.target:
        say("the same bento answers before and after: slipway status says when it runs so")
    elif wait:
        try:
            serving.wait_until_answering(cluster, env, model, plan.target.bento.digest, say=say)
        except KeyboardInterrupt:
            say("\nit is merged and takes its course: see slipway status")
            raise typer.Exit(130) from None
        say(f"version {plan.target.version} answers after {clock.lap('answer'):.1f} s")
    found["seconds"] = clock.seconds
    if output == "json":
        show_json(found)
    elif found["pull_request"]:
        out.print(found["pull_request"], soft_wrap=True)


def _headline(plan: Rollback) -> str:
    before = f"from version {plan.present.version} " if plan.present else ""
    what = f"{before}to version {plan.target.version}"
    if plan.present == plan.target:
        what = f"version {plan.target.version} is on main already"
    elif plan.settings_alone:
        what = f"to former settings of version {plan.target.version}"
    return (
        f"{plan.model} in {plan.environment}: {what} (bento {short(plan.target.bento.digest)}), as "
        f"commit {plan.former.commit.sha[:12]} of {plan.former.commit.when:%Y-%m-%d %H:%MZ} had it"
    )


def _tried(
    repository: Repository,
    tip: str,
    plan: Rollback,
    source: sources.Source,
    output: str,
    found: dict[str, Any],
) -> int:
    """Shows the diff and the verdict; the exit code that the verdict has."""
    from slipway import check, report

    verdict = check.judge(repository, tip, plan.environment, plan.target, source=source)
    if output == "json":
        show_json({**found, "verdict": report.document(verdict)})
        return verdict.exit_code
    before = (repository.read(tip, plan.path) or b"").decode(errors="replace").splitlines()
    after = plan.former.content.decode(errors="replace").splitlines()
    diff = difflib.unified_diff(before, after, plan.path, plan.path, n=1, lineterm="")
    out.print(Syntax("\n".join(diff), "diff", background_color="default"))
    out.print(report.text(verdict))
    return verdict.exit_code
