"""`slipway promote`"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from slipway import merging, promotion, release, report, sources
from slipway.commands import Model, Output, err, out, say, show_json
from slipway.commands.train import watch
from slipway.endpoints import Cluster, ClusterError
from slipway.errors import BadInput, SlipwayError
from slipway.forge import Forge, ForgeError
from slipway.merging import NotAllowed

if TYPE_CHECKING:
    from slipway.check import Verdict
    from slipway.promotion import Outcome, Promotion
    from slipway.sources import Source


def command(
    model: Model,
    to: Annotated[
        str, typer.Option("--to", metavar="ENV", help="Where it is to run.", show_default=False)
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="ENV", help="Whose release. [default: the environment before]"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show diff, evidence and verdict; push nothing.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the gates' verdict.")
    ] = True,
    break_glass: Annotated[
        str | None,
        typer.Option("--break-glass", metavar="WHY", help="Waive rules, for this reason."),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="INSTANT", help="With --break-glass: 2026-01-31T18:00:00Z, or 6h."),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(metavar="RULE", help="With --break-glass: a rule to waive. May be repeated."),
    ] = None,
    who: Annotated[
        str | None,
        typer.Option(metavar="LOGIN", help="With --break-glass: who answers. [default: you]"),
    ] = None,
    requested_by: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="NAME",
            help="Who asks for it, beside your login. [default: as git has you]",
        ),
    ] = None,
    output: Output = "text",
) -> None:
    """Propose what one environment runs to the next, on evidence made for that one.

    It ends in a pull request; nothing runs before that is merged. Exit code 1: a gate refuses it.
    """
    wanted = replace(promotion.plan(model, to, source), dry_run=dry_run)
    with _nothing_promoted():
        cluster = Cluster.connect()
        if break_glass is not None:
            with cluster.forge() as forge:
                me = who or forge.login
            wanted = replace(
                wanted, break_glass=_glass(me, break_glass, until, rule or [], wanted.path)
            )
        elif until or rule or who:
            raise BadInput("say why", field="--break-glass", fix="--break-glass 'WHY'")
    with _nothing_promoted(), cluster.forge() as forge:
        if not dry_run and (why := promotion.nothing_to_do(forge, wanted)):
            say(f"nothing to promote: {why}")
            if output == "json":
                show_json({"pull_request": None, "note": why})
            return
        if not dry_run and (there := promotion.proposed(forge, _source(cluster), wanted)):
            say("proposed already, on evidence that still holds")
            raise typer.Exit(_proposed(forge, there, output, wait=wait))
        asks = promotion.requester(forge, requested_by)
        workflow, new = promotion.begin(cluster, replace(wanted, requested_by=asks))
    verb = "goes on with" if not new else "makes evidence for"
    say(f"{workflow.name} {verb} {model} from {wanted.source} to {to}")
    try:
        workflow = watch(cluster, workflow)
    except KeyboardInterrupt:
        say(f"\n{workflow.name} goes on without you; the same command follows it again")
        raise typer.Exit(130) from None
    found = promotion.outcome(cluster, workflow)
    with cluster.forge() as forge:
        if dry_run:
            raise typer.Exit(tried(cluster, forge, wanted, found, output))
        raise typer.Exit(_proposed(forge, found, output, wait=wait))


def _source(cluster: Cluster) -> Source:
    return sources.Platform(lambda: cluster)


def _glass(who: str, why: str, until: str | None, rules: list[str], path: str) -> str:
    if not until or not rules:
        raise BadInput(
            "says until when, and which rules", field="--break-glass", fix="add --until and --rule"
        )
    return promotion.glass(who, why, until, rules, path)


@contextmanager
def _nothing_promoted() -> Generator[None]:
    """Whoever cannot reach the platform wants to know whether something was begun all the same."""
    try:
        yield
    except (ForgeError, ClusterError) as error:
        raise SlipwayError(f"{error}\nnothing was promoted: no workflow was started") from error


def tried(
    cluster: Cluster,
    forge: Forge,
    wanted: Promotion,
    found: Outcome,
    output: Output,
    *,
    why: str = "nothing was pushed (--dry-run)",
    as_merged: bool = False,
) -> int:
    """Shows what would be proposed, and why it is not; the exit code is the verdict's."""
    proposed = release.parse(found.release, PurePosixPath(wanted.path))
    change = promotion.diff(forge, wanted, found.release)
    verdict = promotion.judge(forge, _source(cluster), wanted, proposed, as_merged=as_merged)
    if output == "json":
        show_json(
            {
                "release": proposed.model_dump(mode="json"),
                "diff": change,
                "evidence": found.evidence,
                "verdict": report.document(verdict),
                "note": why,
            }
        )
    else:
        show(change, verdict)
        say(why)
    return verdict.exit_code


def show(change: str, verdict: Verdict) -> None:
    """The diff, then evidence and verdict as `slipway check` shows them."""
    colours = {"+": "green", "-": "red", "@": "cyan"}
    for line in change.splitlines():
        out.print(Text(line, style=colours.get(line[:1], "")), soft_wrap=True)
    out.print()
    out.print(report.text(verdict))


def _proposed(forge: Forge, found: Outcome, output: Output, *, wait: bool) -> int:
    """Shows the pull request and, having waited, what the gates say of it."""
    result: dict[str, Any] = {
        "pull_request": None,
        "note": found.note,
        "evidence": found.evidence,
        "status": None,
    }
    if found.number is None:
        say(f"nothing to propose: {found.note}")
        if output == "json":
            show_json(result)
        return 0
    pull = forge.pull(found.number)
    if output == "text":
        out.print(pull.url, soft_wrap=True)
    refused: NotAllowed | None = None
    if wait:
        try:
            merging.wait_for_gates(forge, pull.number, say=say)
        except NotAllowed as error:
            refused = error
        result["status"] = "refused" if refused else "passed"
        summary = promotion.said_by_gates(forge, pull)
        result["summary"] = summary
        if output == "text" and summary:
            err.print(summary, markup=False, soft_wrap=True)
    result["pull_request"] = pull.url
    if output == "json":
        show_json(result)
    elif refused:
        raise refused
    return 1 if refused else 0
