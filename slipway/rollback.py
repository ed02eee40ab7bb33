"""Going back: an earlier release file of an environment, byte for byte, by pull request.

Nothing is rebuilt and nothing that runs is asked: the file, its bento and its evidence are all
there is to it. What was rolled back from is abandoned; going back again goes further back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any

from slipway import attestation, digests, merging, release
from slipway.errors import BadInput, SlipwayError
from slipway.forge import Forge, ForgeError, PullRequest
from slipway.release import Release
from slipway.repository import Commit, Repository
from slipway.sources import Keys
from slipway.store import Store, StoreError


@dataclass(frozen=True)
class Former:
    """A release file as it once stood on main, and the commit that put it there.

    `release` is None where this program cannot read it; `problem` says why.
    """

    content: bytes
    commit: Commit
    release: Release | None
    problem: str = ""


@dataclass(frozen=True)
class Rollback:
    """What is to stand in an environment again. `present` is None where the model was removed."""

    environment: str
    model: str
    present: Release | None
    former: Former
    target: Release

    @property
    def path(self) -> str:
        return str(release.path(self.environment, self.model))

    def branch(self, main: str) -> str:
        """From this commit of main on. A name is not used twice, see `propose.Proposal.branch`."""
        return f"rollback/{self.environment}-{self.model}-{self.target.version}-{main[:8]}"

    @property
    def settings_alone(self) -> bool:
        """Whether the present release stays, with settings that it had before."""
        return self.present is not None and _pinned(self.present) == _pinned(self.target)

    @property
    def title(self) -> str:
        settings = "the settings that it had of " if self.settings_alone else ""
        return f"Roll back {self.model} in {self.environment} to {settings}{self.target.version}"

    @property
    def body(self) -> str:
        """The pull request's text."""
        now = f"version {self.present.version}" if self.present else "nothing"
        now += " with other settings" if self.settings_alone else ""
        since: datetime = self.former.commit.when
        return "\n".join(
            [
                f"Instead of {now}: the release file as it stood on main since "
                f"{since:%Y-%m-%d %H:%M:%SZ}, byte for byte.",
                "",
                f"- from commit {self.former.commit.sha}",
                f"- bento `{self.target.bento.digest}`",
                f"- evidence `{self.target.evidence.digest}`",
                "",
                "Both were found in the store, whole, before this was opened.",
            ]
        )


def history(repository: Repository, tip: str, env: str, model: str) -> list[Former | None]:
    """What stood at the release file's path on the branch, newest first; None while it was gone."""
    path = str(release.path(env, model))
    found: list[Former | None] = []
    for commit in repository.log(tip, path):
        content = repository.read(commit.sha, path)
        if content is None:
            found.append(None)
            continue
        try:
            found.append(Former(content, commit, release.parse(content, path)))
        except SlipwayError as error:
            found.append(Former(content, commit, None, str(error)))
    return found


def _is(one: Former | None, other: Former) -> bool:
    """Whether two files pin the same."""
    if one is None or one.release is None or other.release is None:
        return False
    return _pinned(one.release) == _pinned(other.release)


def _pinned(found: Release) -> tuple[object, ...]:
    return found.version, found.bento, found.runtime


def _run_alike(one: Release | None, other: Release | None) -> bool:
    """Whether two releases have the same settings, whatever they pin."""
    if one is None or other is None:
        return False
    return (one.rollout, one.approvals) == (other.rollout, other.approvals)


def _before(stood: Sequence[Former | None], same: Callable[[Former], bool]) -> list[Former]:
    """What stood before anything that is the `same` as the present first did.

    What is newer was abandoned by going back to it.
    """
    bottom = max((i for i, f in enumerate(stood) if f and same(f)), default=0)
    return [f for f in stood[bottom + 1 :] if f and not same(f)]


def plan(
    repository: Repository,
    tip: str,
    env: str,
    model: str,
    version: int | None = None,
    *,
    settings: bool = False,
) -> Rollback:
    """Which file goes back: that of `version`, else the one before the present release.

    Args:
        settings: the present release's own, with the settings (`rollout`, `approvals`) before the
            present ones.

    Raises:
        BadInput: there is no such release in the environment's history, or it is the present one.
    """
    stood = history(repository, tip, env, model)
    path = str(release.path(env, model))
    if not stood:
        raise BadInput(
            f"{model} was never released to {env}", file=path, fix="see what is: slipway status"
        )
    present = stood[0].release if stood[0] else None
    known = ", ".join(dict.fromkeys(str(f.release.version) for f in stood if f and f.release))
    if version is not None:
        choices = [f for f in stood if f and f.release and f.release.version == version]
        if not choices:
            raise BadInput(
                f"version {version} of {model} never stood in {env}",
                field="--to",
                fix=f"one of {known}; another version gets there by slipway promote",
            )
    elif settings:
        before = _before(stood, lambda f: _is(stood[0], f) and _run_alike(present, f.release))
        choices = [f for f in before if _is(stood[0], f)]
        if not choices:
            raise BadInput(
                f"{model} in {env} has had no other settings before the present ones of version "
                f"{present.version if present else '?'}",
                field="--settings",
                fix="another version comes back by --to VERSION, or without either option",
            )
    else:
        choices = _before(stood, lambda f: _is(stood[0], f))
        if not choices:
            raise BadInput(
                f"{env} has had no other release of {model} before version "
                f"{present.version if present else '?'}",
                field="--to",
                fix=f"its history has {known}; to remove the model: git rm {path}",
            )
    former = choices[0]
    target = former.release
    if target is None:
        raise BadInput(
            f"the release before this one, of commit {former.commit.sha[:12]}, cannot be read: "
            f"{former.problem}",
            file=path,
            field="--to",
            fix=f"name a version that can be: {known}",
        )
    return Rollback(env, model, present, former, target)


def verify(plan: Rollback, store: Store, keys: Callable[[], Keys]) -> None:
    """Reads the old bento and its evidence from the store, to the last byte.

    Raises:
        SlipwayError: one of them is gone, altered, or not what the release file says.
    """
    bento = plan.target.bento
    back = "another version may be whole: slipway rollback --to VERSION"
    try:
        size = len(store.get("bentos", bento.digest))
        document = attestation.fetch(store, plan.target.evidence.digest, keys())
    except (StoreError, attestation.Unverified) as error:
        raise SlipwayError(
            f"version {plan.target.version} of {plan.model} cannot come back: {error}", fix=back
        ) from error
    if size != bento.size:
        raise SlipwayError(
            f"{bento.uri} has {size:,} bytes, the release file says {bento.size:,}", fix=back
        )
    attestation.check_about(document, plan.target, plan.environment)


def propose(forge: Forge, repository: Repository, tip: str, plan: Rollback) -> PullRequest:
    """The open pull request that puts the file back, made unless it is there and would merge."""
    wanted = (plan.environment, plan.model, plan.target.version)
    opened = [p for p in forge.pulls("open") if not p.fork]
    for found in [p for p in opened if release.rolls_back(p.head) == wanted]:
        if _is_good(repository, tip, plan, found):
            return found
        forge.close(found.number)
        forge.delete_branch(found.head)
    branch = plan.branch(tip)
    forge.write(branch, {plan.path: plan.former.content}, plan.title)
    return forge.open(branch, plan.title, plan.body)


def _is_good(repository: Repository, tip: str, plan: Rollback, pull: PullRequest) -> bool:
    """Whether a pull request does just this, and to the file as it stands on main."""
    if not repository.has(pull.sha):
        return False
    start = repository.merge_base(tip, pull.sha)
    changed = {change.path for change in repository.changed(start, pull.sha)}
    return (
        changed == {plan.path}
        and repository.read(pull.sha, plan.path) == plan.former.content
        and repository.read(start, plan.path) == repository.read(tip, plan.path)
    )


class Clock:
    """How long each part took, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = monotonic()

    def lap(self, name: str) -> float:
        """Ends a part; its length."""
        now = monotonic()
        self.seconds[name] = round(now - self._last, 2)
        self._last = now
        return self.seconds[name]


def merged(
    forge: Forge, pull: PullRequest, clock: Clock, say: Callable[[str], None]
) -> PullRequest:
    """The pull request, merged once the gates have passed."""
    judged = merging.wait_for_gates(forge, pull.number, say=say)
    say(f"gates passed after {clock.lap('gates'):.1f} s")
    try:
        done = judged if judged.merged else forge.merge(pull.number, sha=judged.sha)
    except ForgeError as error:
        raise SlipwayError(
            f"not merged: {error}", fix="run it again: it begins anew at main as it is now"
        ) from error
    say(f"merged as {(done.merge_sha or '?')[:12]} after {clock.lap('merge'):.1f} s")
    return done


def document(plan: Rollback) -> dict[str, Any]:
    """The plan as data."""

    def pins(found: Release | None) -> dict[str, Any] | None:
        return {"version": found.version, "bento": found.bento.digest} if found else None

    return {
        "model": plan.model,
        "environment": plan.environment,
        "from": pins(plan.present),
        "to": pins(plan.target),
        "commit": plan.former.commit.sha,
        "file": digests.of(plan.former.content),
    }
