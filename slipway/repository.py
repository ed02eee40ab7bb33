"""Reads a git repository, bare or not, by git's own command line. Nothing here writes to one."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal, NamedTuple, Self, cast

from slipway.errors import BadInput, SlipwayError

Status = Literal["added", "modified", "deleted", "renamed", "retyped"]

_STATUS: dict[str, Status] = {
    "A": "added",
    "M": "modified",
    "D": "deleted",
    "R": "renamed",
    "T": "retyped",
}
# A user's own way to look at history is not what this reads.
_PLAIN = ("-c", "log.follow=false", "-c", "log.showSignature=false", "-c", "log.mailmap=false")
# Of a commit, a field each: no message can hold a NUL, which also ends each commit.
_FIELDS = ("%H", "%P", "%an", "%ae", "%cn", "%ce", "%ct", "%s", "%b")


# The trailer of a commit that somebody had made: who, as NAME <EMAIL> or a login.
REQUESTED_BY = "Requested-by"
_REQUESTED_BY = re.compile(rf"^{REQUESTED_BY}: (.+)$", re.MULTILINE)


class GitError(SlipwayError):
    """Git failed."""


@dataclass(frozen=True)
class Changed:
    """A file that differs between two commits; `old_path` is where a renamed one was, else "".

    `mode` is git's for the newer side: 100644, 100755, 120000 (a link), 160000 (a submodule), or
    000000 where it is gone.
    """

    path: str
    status: Status
    old_path: str = ""
    mode: str = "100644"

    @property
    def is_file(self) -> bool:
        """A plain file on the newer side, whose content is what reads see."""
        return self.mode in ("100644", "100755")


@dataclass(frozen=True)
class Commit:
    """A commit. `author` wrote it, `committer` put it there; `when` is the committer's, in UTC."""

    sha: str
    author: str
    email: str
    committer: str
    committer_email: str
    when: datetime
    subject: str
    body: str
    parents: tuple[str, ...]

    @property
    def requested_by(self) -> str:
        """Who asked for it, by their own word; "" where it does not say."""
        found = _REQUESTED_BY.findall(self.body)
        return str(found[-1]).strip() if found else ""


class Version(NamedTuple):
    """What a path had on a branch from `when` (UTC) on, when `commit` put it there.

    It is a blob, "" where the path was gone.
    """

    blob: str
    when: datetime
    commit: str


class Repository:
    """A git repository on this machine, by its top folder or, bare, its own.

    One process answers every read; `close` ends it.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._batch: subprocess.Popen[bytes] | None = None
        self._commits: dict[str, str] = {}
        # A hook's GIT_DIR is another repository than the one asked for, and a replaced object
        # another than the one that will be merged.
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        self._environment = {
            **kept,
            # Git's path filters, where a clone has them, serve no path with other magic.
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process that reads. A later read starts another."""
        if self._batch:
            self._batch.communicate()
            self._batch = None

    def git(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> str:
        """What one git command says; `GitError` where its exit status is not in `ok`."""
        return self._run(arguments, ok).decode(errors="replace")

    def _run(self, arguments: Sequence[str], ok: tuple[int, ...] = (0,)) -> bytes:
        try:
            done = subprocess.run(
                ["git", *_PLAIN, *arguments],
                cwd=self.path,
                env=self._environment,
                capture_output=True,
            )
        except FileNotFoundError:
            missing = "git is not installed" if self.path.is_dir() else f"no folder {self.path}"
            raise GitError(missing) from None
        if done.returncode not in ok:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise GitError(f"git {arguments[0]} failed in {self.path}: {said}")
        return done.stdout

    # Commits

    def commit(self, rev: str) -> str:
        """The commit, 40 hex digits, that a branch, tag or abbreviation names; else `BadInput`."""
        if rev not in self._commits:
            found = self._find(rev)
            if found is None:
                raise BadInput(
                    f"no commit {rev!r} in {self.path}",
                    fix="name a branch, a tag or a commit that this clone has (git fetch?)",
                )
            if found != rev:  # a name may come to mean another commit; a commit stays
                return found
            self._commits[rev] = found
        return self._commits[rev]

    def has(self, rev: str) -> bool:
        """Whether there is such a commit."""
        return self._find(rev) is not None

    def _find(self, rev: str) -> str | None:
        found = self.git(
            *("rev-parse", "--verify", "--quiet", "--end-of-options", f"{rev}^{{commit}}"),
            ok=(0, 1, 128),
        )
        if not found:
            self.git("rev-parse", "--git-dir")  # or it would look like a mere unknown name
        return found.strip() or None

    def merge_base(self, a: str, b: str) -> str:
        """The newest commit that both contain; `BadInput` when their histories never met."""
        return self.merge_bases(a, b)[0]

    def merge_bases(self, a: str, b: str) -> list[str]:
        """All newest commits that both contain: histories that crossed have several."""
        command = ("merge-base", "--all", self.commit(a), self.commit(b))
        found = self.git(*command, ok=(0, 1)).split()
        if not found:
            raise BadInput(
                f"{a} and {b} have no commit in common",
                fix="a shallow clone lacks it: git fetch --unshallow; else branch off again",
            )
        return found

    def contains(self, tip: str, commit: str) -> bool | None:
        """Whether a commit is part of a tip's history; None where a shallow clone cannot tell."""
        if self.has(commit) and not self.git("rev-list", "--max-count=1", commit, f"^{tip}"):
            return True
        shallow = self.git("rev-parse", "--is-shallow-repository").strip() == "true"
        return None if shallow else False

    def changed(self, a: str, b: str) -> list[Changed]:
        """The files that differ between two commits, by path. Cost: linear in these files."""
        raw = self._run(
            [
                "diff-tree",
                "-r",
                "-z",
                "--raw",
                "-M",
                "--no-ext-diff",
                self.commit(a),
                self.commit(b),
            ]
        )
        parts = iter(raw.decode(errors="surrogateescape").split("\0")[:-1])
        found: list[Changed] = []
        for head in parts:
            _, mode, _, _, letter = head.split()
            status = _STATUS.get(letter[0])
            if status is None:
                raise GitError(f"git diff-tree: a status that is not known here: {letter}")
            old = next(parts) if status == "renamed" else ""
            found.append(Changed(next(parts), status, old, mode))
        return sorted(found, key=lambda change: change.path)

    def log(
        self, rev: str, path: str = "", limit: int = 0, *, first_parent: bool = True
    ) -> list[Commit]:
        """The commits up to `rev` that changed `path`, newest first, at most `limit` (0: all).

        With `first_parent` only what landed on the branch itself counts, each merge as one change:
        a content that stood only between the commits of a pull request never was the branch's.
        """
        options = ["--first-parent"] if first_parent else []
        options += [f"--max-count={limit}"] if limit else []
        return self._log([*options, self.commit(rev), "--", *([path] if path else [])])

    def ahead(self, base: str, head: str) -> list[Commit]:
        """The commits that `head` has and `base` has not, newest first."""
        return self._log([self.commit(head), f"^{self.commit(base)}", "--"])

    def landed(self, commit: str) -> Commit:
        """A commit, by its 40 digits."""
        return self._log(["--no-walk", self.commit(commit), "--"])[0]

    def brought(self, merge: Commit) -> list[Commit]:
        """The commits that a merge brought to its branch, newest first; none of any other."""
        if len(merge.parents) < 2:
            return []
        first, *others = merge.parents
        return self._log([*others, f"^{first}", "--"])

    def _log(self, arguments: Sequence[str]) -> list[Commit]:
        wanted = f"--format=tformat:{'%x00'.join(_FIELDS)}"
        fields = self.git("log", "-z", wanted, *arguments).split("\0")
        return [_commit(*row) for row in zip(*[iter(fields)] * len(_FIELDS), strict=False)]

    def versions(self, rev: str, paths: Sequence[str]) -> dict[str, list[Version]]:
        """What each path had on the branch up to `rev`, newest first.

        As in `log` each merge is one change. One walk of the history, whatever the paths' number.
        """
        found: dict[str, list[Version]] = {path: [] for path in paths}
        if not paths:
            return found
        options = (
            "-z",
            "--format=%H %ct",
            "--raw",
            "--no-abbrev",
            "--no-renames",
            "-m",
            "--first-parent",
        )
        raw = self._run(["log", *options, self.commit(rev), "--", *paths])
        parts = iter(raw.decode(errors="surrogateescape").split("\0"))
        commit, when = "", ""
        for part in parts:
            head = part.lstrip("\n")
            if head.startswith(":"):
                blob, path = head.split()[3], next(parts)
                since = datetime.fromtimestamp(int(when), UTC)
                if path in found:
                    found[path].append(Version(blob if blob.strip("0") else "", since, commit))
            elif head:  # a commit: what follows is what it changed
                commit, when = head.split()
        return found

    def is_dirty(self, folder: str) -> bool:
        """Whether the work tree has changes under `folder` that no commit has."""
        if self.git("rev-parse", "--is-bare-repository").strip() == "true":
            return False
        return bool(self.git("status", "--porcelain", "--untracked-files=all", "--", folder))

    # Files

    def read(self, rev: str, path: str) -> bytes | None:
        """A file's content at a commit; None when there is no such file."""
        name = f"{self.commit(rev)}:{path}"
        if "\n" in path:  # the one thing that the protocol of the batch cannot say
            kind = self.git("cat-file", "-t", name, ok=(0, 128)).strip()
            return self._run(["cat-file", "blob", name]) if kind == "blob" else None
        return self._object(name)

    def blob(self, blob: str) -> bytes:
        """A content by the name that it has in a `Version`."""
        content = self._object(blob)
        if content is None:
            raise GitError(f"no blob {blob} in {self.path}")
        return content

    def files(self, rev: str, folder: str) -> list[str]:
        """Paths of all files under `folder` (not ending in /), sorted; empty without a folder."""
        return sorted(self._tree(rev, folder))

    def contents(self, rev: str, folder: str) -> dict[str, bytes]:
        """Every file under `folder`, by path: one process, whatever their number."""
        found = {path: self._object(blob) for path, blob in self._tree(rev, folder).items()}
        return {path: content for path, content in sorted(found.items()) if content is not None}

    def _tree(self, rev: str, folder: str) -> dict[str, str]:
        raw = self._run(
            ["ls-tree", "-r", "-z", "--full-tree", self.commit(rev), "--", f"{folder}/"]
        )
        entries = raw.decode(errors="surrogateescape").split("\0")[:-1]
        split = (entry.split("\t", 1) for entry in entries)
        return {path: head.split()[2] for head, path in split if head.split()[1] == "blob"}

    def _object(self, name: str) -> bytes | None:
        if self._batch is None:
            self._batch = subprocess.Popen(
                ["git", "cat-file", "--batch"],
                cwd=self.path,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        asked, answers = (cast("IO[bytes]", f) for f in (self._batch.stdin, self._batch.stdout))
        try:
            asked.write(name.encode(errors="surrogateescape") + b"\n")
            asked.flush()
        except BrokenPipeError:
            pass  # the empty answer below tells
        head = answers.readline()
        if head.endswith((b" missing\n", b" ambiguous\n")):
            return None
        if not head:
            raise GitError(f"git cat-file ended in {self.path}")
        _, kind, size = head.split()
        content = answers.read(int(size))
        answers.read(1)
        return content if kind == b"blob" else None


@contextmanager
def empty() -> Generator[Repository]:
    """A bare repository to fetch into, gone afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="slipway-git-") as folder,
        Repository(folder) as repository,
    ):
        repository.git("init", "--quiet", "--bare", "--initial-branch=main")
        yield repository


def _commit(
    sha: str,
    parents: str,
    author: str,
    email: str,
    committer: str,
    committer_email: str,
    when: str,
    subject: str,
    body: str,
) -> Commit:
    return Commit(
        sha=sha,
        author=author,
        email=email,
        committer=committer,
        committer_email=committer_email,
        when=datetime.fromtimestamp(int(when), UTC),
        subject=subject,
        body=body.strip(),
        parents=tuple(parents.split()),
    )
