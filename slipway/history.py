"""History: every release of a model in an environment, from git alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from slipway import gates, release
from slipway.digests import Digest
from slipway.errors import SlipwayError
from slipway.gates import Stay
from slipway.release import Release
from slipway.repository import Commit, Repository, Version

Kind = Literal["released", "rolled back", "settings changed", "removed", "unreadable"]

# Gitea's "Merge pull request 'Title' (#5) from …", GitHub's "Merge pull request #5 from …" and, of
# a squashed one, "Title (#5)".
_PULL = re.compile(r"^Merge pull request #(\d+)\b|\(#(\d+)\)(?! *')")


@dataclass(frozen=True)
class Entry:
    """One change of a release file on the branch itself.

    `author` wrote what was merged last, `merger` put it on the branch, and `requested_by` says that
    it asked for it: "" where nobody does. `release` is None where there is
    none any more, or none that can be read. `break_glass`: who waived gates with it, and why.
    """

    when: datetime
    kind: Kind
    author: str
    merger: str
    commit: str
    subject: str
    pull: int | None
    release: Release | None
    break_glass: str = ""
    requested_by: str = ""

    @property
    def document(self) -> dict[str, Any]:
        """The entry for a program."""
        found = self.release
        return {
            "when": self.when.isoformat(),
            "kind": self.kind,
            "author": self.author,
            "merger": self.merger,
            "requested_by": self.requested_by,
            "commit": self.commit,
            "subject": self.subject,
            "pull": self.pull,
            "version": found.version if found else None,
            "bento": found.bento.digest if found else None,
            "evidence": found.evidence.digest if found else None,
            "summary": found.evidence.summary if found else {},
            "break_glass": self.break_glass,
        }


def entries(
    repository: Repository, rev: str, environment: str, model: str, limit: int = 0
) -> list[Entry]:
    """The changes up to `rev`, newest first, at most `limit` (0: all).

    Only what landed on the branch counts, each merge as one change.

    Raises:
        BadInput: no such commit.
    """
    path = str(release.path(environment, model))
    commits = repository.log(rev, path)
    shown = {commit.sha for commit in commits[: limit or None]}
    found: list[Entry] = []
    earlier: list[Release] = []
    present: Release | None = None
    for commit in reversed(commits):
        content = repository.read(commit.sha, path)
        now = _parse(content, path)
        if content is None:
            kind: Kind = "removed"
        elif now is None:
            kind = "unreadable"
        elif now != present and now in earlier:
            kind = "rolled back"
        else:
            kind = "settings changed" if present and present.pins == now.pins else "released"
        present = now
        earlier += [now] if now else []
        if commit.sha not in shown:
            continue
        author, requested_by = _by(repository, commit)
        found.append(
            Entry(
                when=commit.when,
                kind=kind,
                author=author,
                requested_by=requested_by,
                merger=commit.author,
                commit=commit.sha,
                subject=commit.subject,
                pull=pull_number(commit.subject),
                release=now,
                break_glass=_broken(repository, commit, environment, model),
            )
        )
    return found[::-1]


def stays(
    repository: Repository, versions: Sequence[Version], path: str, bento: Digest
) -> tuple[Stay, ...]:
    """When a release file, of which these are the `versions`, named a bento; oldest first."""
    found: list[Stay] = []
    until: datetime | None = None
    for version in versions:
        content = repository.blob(version.blob) if version.blob else b""
        # Few do: the others need not be parsed.
        named = _parse(content, path) if bento.encode() in content else None
        if named and named.bento.digest == bento:
            if found and found[-1].since == until:  # other settings: it stays
                until = found.pop().until
            found.append(Stay(version.when, until))
        until = version.when
    return tuple(reversed(found))


def _parse(content: bytes | None, path: str) -> Release | None:
    if content is not None:
        with suppress(SlipwayError):
            return release.parse(content, path)
    return None


def _by(repository: Repository, landed: Commit) -> tuple[str, str]:
    """Who wrote what landed, and who asked for it: of a branch any commit may say that.

    Main, merged into the branch to bring it up to date, is nobody's work.
    """
    commits = repository.brought(landed) or [landed]
    written = [commit for commit in commits if len(commit.parents) < 2] or commits
    asked = (commit.requested_by for commit in commits if commit.requested_by)
    return written[0].author, next(asked, "")


def _broken(repository: Repository, commit: Commit, environment: str, model: str) -> str:
    """Who broke the glass for this change; "" unless the file came with it."""
    path = str(gates.break_glass_path(environment, model))
    content = repository.read(commit.sha, path)
    if content is None:
        return ""
    if commit.parents and repository.read(commit.parents[0], path) == content:
        return ""
    with suppress(SlipwayError):
        glass = gates.parse_break_glass(content, path)
        return f"{glass.who}: {glass.why}"
    return "unreadable"


def pull_number(subject: str) -> int | None:
    """The pull request that a merge commit's subject names; None where it names none."""
    found = _PULL.findall(subject)
    return int(found[-1][0] or found[-1][1]) if found else None
