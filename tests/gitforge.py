"""A forge whose repository is real, and all else in memory: pull requests, statuses, comments."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

from slipway.forge import ForgeError, NotFound, PullRequest, State
from slipway.publish import Remote


class GitForge:
    """`Forge` over a bare repository in `folder`, as far as tests have needed it."""

    url, repository = "http://forge", "o/r"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[PullRequest] = []
        self.reported: dict[str, dict[str, State]] = {}
        # What each new pull request is judged, as if gates ran at once.
        self.verdict: State | None = "success"
        self._git("init", "--quiet", "--bare", "--initial-branch=main", str(folder), cwd=None)
        empty = self._git("hash-object", "-t", "tree", "-w", "/dev/null")
        self._git("update-ref", "refs/heads/main", self._committed(empty, [], "Start"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    @property
    def remote(self) -> Remote:
        return Remote(str(self.folder), "bot", "secret")

    def _git(self, *arguments: str, cwd: Path | None = Path(), **options: str) -> str:
        who = {f"GIT_{w}_{k}": v for w in ("AUTHOR", "COMMITTER") for k, v in _WHO.items()}
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.folder if cwd else None,
            env={**os.environ, **who, **{k: v for k, v in options.items() if k != "input"}},
            input=options.get("input"),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ForgeError(done.stderr or done.stdout, status=409)
        return done.stdout.strip()

    def _committed(self, tree: str, parents: list[str], message: str) -> str:
        named = [word for parent in parents for word in ("-p", parent)]
        return self._git("commit-tree", tree, *named, "-m", message)

    def commit(self, ref: str = "main") -> str:
        try:
            return self._git("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        except ForgeError:
            raise NotFound(f"the forge has no commit {ref}", status=404) from None

    def read(self, path: str, ref: str = "main") -> bytes:
        try:
            blob = self._git("rev-parse", "--verify", "--quiet", f"{self.commit(ref)}:{path}")
        except ForgeError:
            raise NotFound(f"the forge has no file {path} at {ref}", status=404) from None
        command = ["git", "cat-file", "blob", blob]
        return subprocess.run(command, cwd=self.folder, capture_output=True, check=True).stdout

    def files(self, folder: str, ref: str = "main") -> list[str]:
        return self._git("ls-tree", "--name-only", self.commit(ref), f"{folder}/").splitlines()

    def write(
        self, branch: str, files: Mapping[str, bytes | None], message: str, *, base: str = "main"
    ) -> str:
        try:
            head = self.commit(f"refs/heads/{branch}")
        except NotFound:
            head = self.commit(base)
        index = {"GIT_INDEX_FILE": str(self.folder / "index.tmp")}
        self._git("read-tree", head, **index)
        for path, content in files.items():
            if content is None:
                gone = f"0 {'0' * 40}\t{path}\n"
                self._git("update-index", "--index-info", input=gone, **index)
                continue
            blob = self._git("hash-object", "-w", "--stdin", input=content.decode())
            cached = f"100644,{blob},{path}"
            self._git("update-index", "--add", "--cacheinfo", cached, **index)
        tree = self._git("write-tree", **index)
        if tree != self._git("rev-parse", f"{head}^{{tree}}"):
            head = self._committed(tree, [head], message)
        self._git("update-ref", f"refs/heads/{branch}", head)
        return head

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
        merged = self._committed(tree, [main, pull.sha], f"Merge pull request #{number}")
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


_WHO = {"NAME": "Ada", "EMAIL": "ada@example.org", "DATE": "2026-01-02T03:04:05Z"}
