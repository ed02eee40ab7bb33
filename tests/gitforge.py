"""A forge whose repository is real, and all else in memory: pull requests, statuses, comments."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

from slipway.forge import ForgeError, NotFound, PullRequest, Report, State
from slipway.publish import Remote


class GitForge:
    """`Forge` over a bare repository in `folder`, as far as tests have needed it."""

    url, repository = "http://forge", "o/r"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[PullRequest] = []
        self.reported: dict[str, dict[str, State]] = {}
        self.reporter = "bot"
        # What each new pull request is judged, as if gates ran at once.
        self.verdict: State | None = "success"
        self._git("init", "--quiet", "--bare", "--initial-branch=main", "--template=", str(folder))
        self._import("main", {}, "Start", parent="")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    @property
    def remote(self) -> Remote:
        return Remote(str(self.folder), "bot", "secret")

    def _git(self, *arguments: str, given: bytes = b"") -> str:
        return self._run(*arguments, given=given).decode().strip()

    def _run(self, *arguments: str, given: bytes = b"") -> bytes:
        who = {f"GIT_{w}_{k}": v for w in ("AUTHOR", "COMMITTER") for k, v in _WHO.items()}
        command = ["git", f"--git-dir={self.folder}", *arguments]
        done = subprocess.run(command, env=os.environ | who, input=given, capture_output=True)
        if done.returncode:
            raise ForgeError((done.stderr or done.stdout).decode(), status=409)
        return done.stdout

    def _import(
        self, branch: str, files: Mapping[str, bytes | None], message: str, *, parent: str
    ) -> None:
        """A commit in one process, where git's commands for each file and tree are many."""
        who = f"{_WHO['NAME']} <{_WHO['EMAIL']}> {_WHO['DATE']}"
        stream = [
            f"commit refs/heads/{branch}\ncommitter {who}\n".encode(),
            _data(message.encode()),
        ]
        if parent:
            stream.append(f"from {parent}\n".encode())
        for path, content in files.items():
            if content is None:
                stream.append(f"D {path}\n".encode())
            else:
                stream += [f"M 100644 inline {path}\n".encode(), _data(content)]
        # Objects stay as they came: another process would unpack them.
        settings = ("-c", "fastimport.unpackLimit=1")
        self._git(*settings, "fast-import", "--quiet", "--date-format=raw", given=b"".join(stream))

    def commit(self, ref: str = "main") -> str:
        try:
            return self._git("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        except ForgeError:
            raise NotFound(f"the forge has no commit {ref}", status=404) from None

    def read(self, path: str, ref: str = "main") -> bytes:
        try:
            return self._run("cat-file", "blob", f"{ref}:{path}")
        except ForgeError:
            self.commit(ref)
            raise NotFound(f"the forge has no file {path} at {ref}", status=404) from None

    def files(self, folder: str, ref: str = "main") -> list[str]:
        try:
            return self._git("ls-tree", "--name-only", ref, f"{folder}/").splitlines()
        except ForgeError:
            self.commit(ref)
            raise

    def write(
        self, branch: str, files: Mapping[str, bytes | None], message: str, *, base: str = "main"
    ) -> str:
        try:
            head = self.commit(f"refs/heads/{branch}")
        except NotFound:
            head = self.commit(base)
        self._import(branch, files, message, parent=head)
        made = f"refs/heads/{branch}"
        commit, *trees = self._git(
            "rev-parse", made, f"{made}^{{tree}}", f"{head}^{{tree}}"
        ).split()
        if trees[0] == trees[1]:
            self._git("update-ref", made, head)
            return head
        return commit

    def delete_branch(self, branch: str) -> None:
        self._git("update-ref", "-d", f"refs/heads/{branch}")

    def pull(self, number: int) -> PullRequest:
        found = self.asked[number - 1]
        if found.state == "open":
            found = replace(found, sha=self.commit(found.head))
            self.asked[number - 1] = found
        return found

    def pulls(self, state: Literal["open", "closed", "all"] = "open") -> Iterator[PullRequest]:
        found = [self.pull(n) for n in range(len(self.asked), 0, -1)]
        return iter([pull for pull in found if state in ("all", pull.state)])

    def find(self, head: str, *, base: str = "main") -> PullRequest | None:
        found = [pull for pull in self.pulls("all") if pull.head == head]
        return next((p for p in found if p.state == "open"), found[0] if found else None)

    def open(self, head: str, title: str, body: str, *, base: str = "main") -> PullRequest:
        found = self.find(head)
        if found and found.state == "open":
            return found
        number = len(self.asked) + 1
        url = f"{self.url}/{self.repository}/pulls/{number}"
        sha = self.commit(head)
        made = PullRequest(
            number, url, title, body, head, base, sha, "open", False, None, author="ada"
        )
        self.asked.append(made)
        if self.verdict:
            self.set_status(sha, "slipway/check", self.verdict)
        return made

    def changed(self, number: int) -> list[str]:
        return self._git("diff", "--name-only", f"main...{self.pull(number).sha}").splitlines()

    def close(self, number: int) -> PullRequest:
        self.asked[number - 1] = replace(self.pull(number), state="closed")
        return self.asked[number - 1]

    def merge(self, number: int, *, sha: str | None = None) -> PullRequest:
        pull = self.pull(number)
        assert sha in (None, pull.sha)
        main = self.commit()
        tree = self._git("merge-tree", "--write-tree", main, pull.sha)
        parents = ("-p", main, "-p", pull.sha)
        message = f"Merge pull request #{number}"
        merged = self._git("commit-tree", tree, *parents, "-m", message)
        self._git("update-ref", "refs/heads/main", merged)
        self.asked[number - 1] = replace(pull, state="closed", merged=True, merge_sha=merged)
        self.delete_branch(pull.head)
        return self.asked[number - 1]

    def set_status(
        self, sha: str, context: str, state: State, description: str = "", url: str = ""
    ) -> None:
        self.reported.setdefault(sha, {})[context] = state

    def statuses(self, sha: str) -> dict[str, State]:
        return self.reported.get(sha, {})

    def report(self, sha: str, context: str) -> Report | None:
        state = self.statuses(sha).get(context)
        return Report(state, self.reporter) if state else None


def _data(content: bytes) -> bytes:
    return b"data %d\n%b\n" % (len(content), content)


_WHO = {"NAME": "Ada", "EMAIL": "ada@example.org", "DATE": "1767323045 +0000"}
