"""Promotion: what one environment runs is proposed to another, on evidence made for that one.

The workflow `promote` does it: evidence is signed where the key is. From here it is started,
followed, and its outcome read.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import yaml

from slipway import gates, merging, paths, publish, release, training
from slipway.errors import BadInput, SlipwayError
from slipway.forge import ACTIONS, NotFound
from slipway.release import Release
from slipway.repository import Repository, empty

if TYPE_CHECKING:
    from slipway.check import Verdict
    from slipway.endpoints import Cluster
    from slipway.forge import Forge, PullRequest
    from slipway.sources import Source
    from slipway.training import Workflow

TEMPLATE = "promote"
# What newer evidence would mend: it is not to be had or too old, or champion or thresholds changed.
EXPIRY = ("evidence", "fresh")
# What a release is, wherever it is.
PINS = {"evidence", "rollout", "approvals"}


@dataclass(frozen=True)
class Promotion:
    """From where to where a model goes. `break_glass`: content of the file to come with it.

    `requested_by`: who asks for it, see `requester`.
    """

    model: str
    environment: str
    source: str
    break_glass: str = ""
    dry_run: bool = False
    requested_by: str = ""

    @property
    def path(self) -> str:
        """The target environment's release file."""
        return str(release.path(self.environment, self.model))


@dataclass(frozen=True)
class Outcome:
    """What the workflow left: one pull request, or none and why; and the release file."""

    number: int | None
    note: str
    evidence: str
    release: str


def plan(model: str, to: str, source: str | None) -> Promotion:
    """From `source`, or from the environment before `to`.

    Raises:
        BadInput: no such model or environment; there is none before `to`; or it is the same one.
    """
    release.check_model_name(model)
    release.check_environment(to)
    if source is None:
        source = release.before(to)
        if source is None:
            raise BadInput(
                f"nothing comes before {to}",
                field="--to",
                fix=f"slipway train {model} proposes to {to}; or name an environment with --from",
            )
    if release.check_environment(source) == to:
        raise BadInput(f"{source} is where it is to go", field="--from")
    return Promotion(model, to, source)


def requester(forge: Forge, name: str | None = None) -> str:
    """Who runs this: as whom one is on the forge, and beside it `name`, or else as one's git would
    sign a commit.

    Several may share a login, and one may have several: neither approves what they asked for.
    """
    return ", ".join(filter(None, (forge.login, _signature() if name is None else name)))


def _signature() -> str:
    """As one's git would sign a commit; "" where it knows nobody."""
    with Repository(paths.REPOSITORY) as repository:
        keys = ("user.name", "user.email")
        name, email = (repository.git("config", key, ok=(0, 1)).strip() for key in keys)
    return f"{name} <{email}>" if name and email else name or email


def glass(who: str, why: str, until: str, rules: Sequence[str], path: str) -> str:
    """The content of a break-glass file, checked. `until` is an instant, or hours from now (6h)."""
    if until.endswith("h") and until[:-1].isdecimal():
        moment = datetime.now(UTC) + timedelta(hours=int(until[:-1]))
        until = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    content = yaml.safe_dump(
        {"who": who, "why": why, "until": until, "rules": list(rules)},
        sort_keys=False,
        width=100,
    )
    gates.parse_break_glass(content, path)
    return content


def begin(cluster: Cluster, wanted: Promotion) -> tuple[Workflow, bool]:
    """Its workflow, and whether that is a new one: the same promotion is not started twice.

    One that breaks the glass always is: another may say something else.
    """
    labels = {
        "model": wanted.model,
        "to": wanted.environment,
        "from": wanted.source,
        "dry-run": str(wanted.dry_run).lower(),
    }
    if not wanted.break_glass:
        running = next((w for w in training.newest(cluster, labels) if not w.ended), None)
        if running:
            return running, False
    values = {
        "model": wanted.model,
        "environment": wanted.environment,
        "from-environment": wanted.source,
        "break-glass": wanted.break_glass,
        "dry-run": labels["dry-run"],
        "requested-by": wanted.requested_by,
    }
    return training.submit(cluster, TEMPLATE, values, labels), True


def outcome(cluster: Cluster, workflow: Workflow) -> Outcome:
    """What it came to.

    Raises:
        SlipwayError: a step failed; the message says which, how, and what is on the forge now.
    """
    if workflow.phase != training.SUCCEEDED:
        state = (
            "main is as it was. What was begun on the forge, the next run finishes or takes away"
            if workflow.began("propose")
            else "nothing was pushed: no branch, no pull request, and main is as it was"
        )
        raise SlipwayError(
            f"{training.failure(cluster, workflow)}\n{state}",
            fix="promote again: what was made already is found by its digest",
        )
    found = workflow.outputs
    number = found.get("pull-request", "")
    return Outcome(
        number=int(number) if number else None,
        note=found.get("note", ""),
        evidence=found["evidence"],
        release=found["release"],
    )


def diff(forge: Forge, wanted: Promotion, proposed: str) -> str:
    """How the release file on main would change, as a unified diff; "" for not at all."""
    try:
        present = forge.read(wanted.path).decode()
    except NotFound:
        present = ""
    lines = difflib.unified_diff(
        # A workflow's output comes without its last end of a line, which is no difference.
        present.splitlines(),
        proposed.splitlines(),
        f"a/{wanted.path}" if present else "/dev/null",
        f"b/{wanted.path}",
        lineterm="",
    )
    return "".join(f"{line}\n" for line in lines)


def judge(
    forge: Forge,
    source: Source,
    wanted: Promotion,
    proposed: Release,
    *,
    as_merged: bool = False,
) -> Verdict:
    """What the gates of the forge's main say, before anything is pushed.

    `as_merged`: once main has the commit that trained it.
    """
    from slipway import check

    content = wanted.break_glass
    with empty() as repository:
        publish.fetch(forge.remote, repository.path, "+refs/heads/main:refs/heads/main")
        return check.judge(
            repository,
            "main",
            wanted.environment,
            proposed,
            source=source,
            glass=gates.parse_break_glass(content, "--break-glass") if content else None,
            as_merged=as_merged,
        )


def nothing_to_do(forge: Forge, wanted: Promotion) -> str:
    """Why nothing has to be promoted; "" where something has.

    Raises:
        BadInput: the source environment has no such release.
    """
    from slipway import lineage

    theirs = lineage.released(forge, wanted.source, wanted.model)
    try:
        mine = release.parse(forge.read(wanted.path), wanted.path)
    except NotFound:
        return ""
    if (mine.bento, mine.runtime) == (theirs.bento, theirs.runtime):
        return f"{wanted.environment} has version {mine.version} of {wanted.source} already"
    return ""


def proposed(forge: Forge, source: Source, wanted: Promotion) -> Outcome | None:
    """What has been proposed already and would only be repeated: an open pull request with the same
    pins, on evidence that has not expired. Another would take its place, and lose its approvals."""
    from slipway import lineage

    theirs = lineage.released(forge, wanted.source, wanted.model)
    mine = wanted.environment, wanted.model, theirs.version
    for pull in forge.pulls():
        if pull.fork or pull.base != "main" or release.proposes(pull.head) != mine:
            continue
        if wanted.break_glass or forge.changed(pull.number) != [wanted.path]:
            continue
        try:
            content = forge.read(wanted.path, pull.sha)
            found = release.parse(content, wanted.path)
        except (BadInput, NotFound):  # somebody has changed the branch
            continue
        if found.model_dump(exclude=PINS) == theirs.model_dump(exclude=PINS) and not _expired(
            judge(forge, source, wanted, found)
        ):
            return Outcome(pull.number, "", found.evidence.digest, content.decode())
    return None


def _expired(verdict: Verdict) -> bool:
    """Whether newer evidence would say something else. Where the store does not answer: no."""
    failed = {found.rule for _, found in verdict.of("fail")}
    return not verdict.unreachable and not failed.isdisjoint(EXPIRY)


def said_by_gates(forge: Forge, pull: PullRequest) -> str:
    """The first line of the gates' comment; "" where there is none yet.

    They speak as the bot that also proposes; on GitHub, where Actions runs them, as that.
    """
    said = forge.said(pull.number, merging.MARKER, by=(pull.author, ACTIONS))
    lines = said.splitlines()[1:]
    return next((line.lstrip("# ") for line in lines if line.strip()), "")
