"""What Slipway asks of a git forge, whichever it is, and in which words it is answered."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol, Self

from slipway.errors import SlipwayError
from slipway.publish import Remote

State = Literal["pending", "success", "error", "failure"]


class ForgeError(SlipwayError):
    """The forge refused, or cannot be reached. `status` is the HTTP status, 0 for no answer."""

    def __init__(self, message: str, *, status: int = 0, fix: str = "") -> None:
        super().__init__(message, fix=fix)
        self.status = status


class NotFound(ForgeError):
    """No such repository, branch, commit, file or pull request."""


@dataclass(frozen=True)
class PullRequest:
    """A pull request. `sha` is the head commit; `merge_sha` the commit on `base` once merged.

    `fork`: its branch is not this repository's, so that `head` may be the name of another branch.
    """

    number: int
    url: str
    title: str
    body: str
    head: str
    base: str
    sha: str
    state: Literal["open", "closed"]
    merged: bool
    merge_sha: str | None
    author: str = ""
    fork: bool = False
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Review:
    """Somebody's standing approval of a pull request, given for its commit `sha`.

    A forge may notice only later that a push has made it stale: compare `sha` with the head.
    """

    login: str
    state: Literal["approved"]
    sha: str
    when: datetime


@dataclass(frozen=True)
class Comment:
    """A comment on a pull request, as its author wrote it."""

    id: int
    author: str
    body: str
    when: datetime


class Report(NamedTuple):
    """The newest report of a context on a commit, and whose it is."""

    state: State
    login: str
    description: str = ""


@dataclass(frozen=True)
class Revision:
    """A commit that changed a path, as the forge's history tells it; `when` in UTC."""

    sha: str
    author: str
    subject: str
    when: datetime


class Forge(Protocol):
    """What Slipway asks of a forge. All of it is idempotent: a step run again repeats nothing."""

    url: str
    repository: str

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def login(self) -> str:
        """Who one is there."""
        ...

    @property
    def remote(self) -> Remote:
        """The repository as git reaches it, credentials included: not to be printed."""
        ...

    # Commits and files

    def commit(self, ref: str = "main") -> str:
        """The commit (40 hex) that a branch, tag or abbreviated commit names; else `NotFound`."""
        ...

    def read(self, path: str, ref: str = "main") -> bytes:
        """A file's content at `ref`; `NotFound` when it is not there."""
        ...

    def files(self, folder: str, ref: str = "main") -> list[str]:
        """Paths of the files directly in `folder`, sorted; empty when there is no such folder."""
        ...

    def write(
        self, branch: str, files: Mapping[str, bytes | None], message: str, *, base: str = "main"
    ) -> str:
        """Makes `files` (None deletes) the branch's content in one commit; returns its head commit.

        A branch that does not exist begins at `base`. Nothing to change makes no commit.
        """
        ...

    def delete_branch(self, branch: str) -> None:
        """Removes a branch; one that is not there is no error."""
        ...

    def archive(self, ref: str = "main") -> Iterator[bytes]:
        """The tree at `ref` as a .tar.gz, in chunks."""
        ...

    def history(self, path: str, ref: str = "main", limit: int = 50) -> list[Revision]:
        """At most `limit` commits up to `ref` that changed `path`, newest first.

        Commits of merged branches are among them: not each was ever the branch's own content.
        """
        ...

    def compare_url(self, base: str, head: str) -> str:
        """The page that shows the difference of two commits, as a comment here may link to it."""
        ...

    # Pull requests

    def open(self, head: str, title: str, body: str, *, base: str = "main") -> PullRequest:
        """The open pull request of branch `head`, brought to this title and body, or a new one."""
        ...

    def find(self, head: str, *, base: str = "main") -> PullRequest | None:
        """The newest pull request of branch `head`: an open one first, else merged or closed.

        A fork's branch of the same name is another branch.
        """
        ...

    def pull(self, number: int) -> PullRequest:
        """A pull request by its number."""
        ...

    def pulls(self, state: Literal["open", "closed", "all"] = "open") -> Iterator[PullRequest]:
        """Pull requests, the newest first."""
        ...

    def changed(self, number: int) -> list[str]:
        """Paths that a pull request adds, changes or removes, both names of a renamed file."""
        ...

    def merge(self, number: int, *, sha: str | None = None) -> PullRequest:
        """Merges; given `sha`, only if that still is the head. A merged one is returned as is."""
        ...

    def close(self, number: int) -> PullRequest:
        """Closes without merging; one that is closed or merged is returned as is."""
        ...

    def reviews(self, number: int) -> list[Review]:
        """The approvals that stand, one a person, oldest first.

        Dismissed ones and those for an earlier state of the branch are left out, and so are those
        of a person who has since asked for changes.
        """
        ...

    def approve(self, number: int, body: str = "", *, sha: str | None = None) -> None:
        """Approves; given `sha`, that commit. Most forges let nobody approve their own."""
        ...

    # Reports

    def set_status(
        self, sha: str, context: str, state: State, description: str = "", url: str = ""
    ) -> None:
        """Reports on a commit; the newest report of a `context` counts."""
        ...

    def statuses(self, sha: str) -> dict[str, State]:
        """The newest state of each context on a commit."""
        ...

    def report(self, sha: str, context: str) -> Report | None:
        """The newest report of a context on a commit; None where there is none."""
        ...

    def comment(self, number: int, marker: str, body: str) -> None:
        """This user's one comment that carries `marker`, made or updated in place."""
        ...

    def said(self, number: int, marker: str, *, by: Collection[str] = ()) -> str:
        """The comment that carries `marker`, of this user or of one of those; "" for none."""
        ...

    def comments(self, number: int) -> list[Comment]:
        """The comments on a pull request, oldest first."""
        ...

    def attach(self, number: int, name: str, content: bytes) -> str:
        """Puts a file beside a pull request; returns its address as a comment here may link to it.

        It takes the place of an earlier one of that `name`. Empty where the forge's API has no
        attachments.
        """
        ...

    # Protection

    def protect(
        self, status: str, *, by: str = "", dry_run: bool = False
    ) -> dict[str, tuple[Any, Any]]:
        """Brings main's protection and the ways to merge to what `slipway.protection` says, and
        forbids a tag `main`.

        Args:
            status: context of the commit status without which nobody merges.
            by: the only app whose report counts, its name or number, where the forge can tell; ""
                for whosoever.

        Returns:
            Setting to what it was and what it is now, or is to be; empty where all was so.
        """
        ...
