"""Gitea, by its API (v1)."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal, Self, cast
from urllib.parse import quote

import httpx

from slipway import digests, protection
from slipway.credentials import Password
from slipway.errors import BadInput
from slipway.forge.base import ForgeError, NotFound, PullRequest
from slipway.forge.rest import Rest, split
from slipway.forge.shared import Shared
from slipway.publish import Remote

# Who is asked by a token alone: it says by itself whose it is.
_ANYBODY = "token"


class Gitea(Shared):
    """`Forge` on Gitea."""

    _state_field = "status"
    _approve = "APPROVED"
    # Signatures, sizes and file lists of commits cost time, and nobody here reads them.
    _history_query: ClassVar = {"stat": "false", "verification": "false", "files": "false"}

    def __init__(
        self,
        url: str,
        repository: str,
        username: str,
        password: str,
        *,
        ca: str = "",
        transport: httpx.BaseTransport | None = None,
        retries: int = 5,
        backoff_s: float = 0.5,
    ) -> None:
        """`url` is the forge's root, `repository` is OWNER/NAME; for the rest see `Rest`.

        `password` may be a token. Its `username` is asked for where it is not given.
        """
        owner, name = split(repository, "FORGE_REPOSITORY")
        root = url.rstrip("/")
        api = Rest(
            root,
            f"{root}/api/v1/repos/{owner}/{name}/",
            credentials=Password(username or _ANYBODY, password),
            page_size=("limit", 50),
            ca=ca,
            transport=transport,
            retries=retries,
            backoff_s=backoff_s,
        )
        super().__init__(root, repository, api)
        self._login, self._password, self._ca = username, password, ca

    @classmethod
    def from_environment(cls) -> Self:
        """From FORGE_URL, FORGE_REPOSITORY, FORGE_USERNAME, FORGE_PASSWORD; `BadInput` if unset.
        FORGE_CA is the authority that its certificate is by, where that is one's own.

        Steps do so: a person's credentials are `Cluster.forge`'s to find.
        """
        names = ("FORGE_URL", "FORGE_REPOSITORY", "FORGE_USERNAME", "FORGE_PASSWORD")
        if missing := [name for name in names if not os.environ.get(name)]:
            raise BadInput(f"not set: {', '.join(missing)}", fix="set them in the environment")
        return cls(*(os.environ[name] for name in names), ca=os.environ.get("FORGE_CA", ""))

    @property
    def remote(self) -> Remote:
        url = f"{self.url}/{self.repository}.git"
        return Remote(url, self._login or _ANYBODY, self._password, self._ca)

    # Commits and files

    def commit(self, ref: str = "main") -> str:
        return str(self._api.get(f"git/commits/{quote(ref, safe='')}", what=f"commit {ref}")["sha"])

    def read(self, path: str, ref: str = "main") -> bytes:
        what = f"file {path} at {ref}"
        return self._api.send("GET", f"raw/{quote(path)}", params={"ref": ref}, what=what).content

    def files(self, folder: str, ref: str = "main") -> list[str]:
        self.commit(ref)  # or a missing branch would look like an empty folder
        try:
            answer = self._api.get(f"contents/{quote(folder)}", ref=ref)
        except NotFound:
            return []
        if not isinstance(answer, list):
            return []
        entries = cast("list[dict[str, Any]]", answer)
        return sorted(str(e["path"]) for e in entries if e["type"] == "file")

    def _blob(self, path: str, ref: str) -> tuple[bytes, str] | None:
        """A file's content and blob sha; None when it is not there."""
        try:
            answer = self._api.get(f"contents/{quote(path)}", ref=ref)
        except NotFound:
            return None
        if not isinstance(answer, dict):
            raise ForgeError(f"{path} at {ref} is a folder, not a file")
        entry = cast("dict[str, Any]", answer)
        return base64.b64decode(entry["content"] or ""), str(entry["sha"])

    def write(
        self, branch: str, files: Mapping[str, bytes | None], message: str, *, base: str = "main"
    ) -> str:
        try:
            head, start = self.commit(f"refs/heads/{branch}"), branch
        except NotFound:
            head, start = None, base
        changes: list[dict[str, str]] = []
        for path, content in files.items():
            present = self._blob(path, head or start)
            if content is None:
                if present:
                    changes.append({"operation": "delete", "path": path, "sha": present[1]})
            elif present is None or present[0] != content:
                change = {"path": path, "content": base64.b64encode(content).decode()}
                # With the sha, a file that changed in between is a conflict and not overwritten.
                change |= (
                    {"operation": "update", "sha": present[1]}
                    if present
                    else {"operation": "create"}
                )
                changes.append(change)
        if not changes:
            return head or self._branch(branch, base)
        target = {"branch": branch} if head else {"branch": base, "new_branch": branch}
        request = {**target, "message": message, "files": changes}
        answer = self._api.send("POST", "contents", json=request, what=f"commit to {branch}")
        return str(answer.json()["commit"]["sha"])

    def _branch(self, branch: str, base: str) -> str:
        body = {"new_branch_name": branch, "old_ref_name": base}
        answer = self._api.send("POST", "branches", json=body, what=f"branch {branch}")
        return str(answer.json()["commit"]["id"])

    def delete_branch(self, branch: str) -> None:
        with suppress(NotFound):
            self._api.send("DELETE", f"branches/{quote(branch)}", what=f"branch {branch}")

    def archive(self, ref: str = "main") -> Iterator[bytes]:
        sha = self.commit(ref)
        with self._api.stream(f"archive/{sha}.tar.gz", what=f"archive of {ref}") as chunks:
            yield from chunks

    def compare_url(self, base: str, head: str) -> str:
        # Relative to the repository, as comments resolve it: the forge's own name for itself need
        # not mean anything where the reader is.
        return f"compare/{base}...{head}"

    # Pull requests

    def _opened(self, head: str, base: str) -> PullRequest | None:
        return self._newest("open", head, base)

    def _closed(self, head: str, base: str) -> PullRequest | None:
        try:
            # Of several it gives any one, open or not: good for knowing that there is none.
            self._api.get(f"pulls/{quote(base, safe='')}/{quote(head)}")
        except NotFound:
            return None
        return self._newest("closed", head, base)

    def _newest(self, state: Literal["open", "closed"], head: str, base: str) -> PullRequest | None:
        wanted = (head, base, False)
        return next((p for p in self.pulls(state) if (p.head, p.base, p.fork) == wanted), None)

    def _pull(self, item: Any) -> PullRequest:
        return PullRequest(
            number=item["number"],
            url=f"{self.url}/{self.repository}/pulls/{item['number']}",
            title=item["title"],
            body=item["body"] or "",
            head=item["head"]["label"],
            base=item["base"]["label"],
            sha=item["head"]["sha"],
            state=item["state"],
            merged=bool(item["merged"]),
            merge_sha=item["merge_commit_sha"] if item["merged"] else None,
            author=(item["user"] or {}).get("login", ""),
            fork=item["head"]["repo_id"] != item["base"]["repo_id"],
            labels=tuple(label["name"] for label in item["labels"] or ()),
        )

    def _merge(self, pull: PullRequest) -> None:
        request = {"Do": "merge", "head_commit_id": pull.sha, "delete_branch_after_merge": True}
        path = f"pulls/{pull.number}/merge"
        self._api.send("POST", path, json=request, what=f"merge {pull.url}")

    def _is_unsettled(self, error: ForgeError, number: int) -> bool:
        # Gitea computes mergeability after each push, and answers the same to a conflict.
        return error.status == 405 and "try again later" in str(error)

    def _is_stale(self, review: Any, pull: PullRequest) -> bool:
        return bool(review["stale"])

    # Reports

    def _comments(self, number: int) -> list[dict[str, Any]]:
        # Gitea gives all comments of an issue in one answer.
        return self._api.get(f"issues/{number}/comments", what=f"pull request {number}") or []

    @property
    def login(self) -> str:
        if not self._login:
            answer = self._api.get(f"{self.url}/api/v1/user", what="user of this token")
            self._login = str(answer["login"])
        return self._login

    def _is_mine(self, user: Any) -> bool:
        return bool(user) and str(user["login"]).lower() == self.login.lower()

    def attach(self, number: int, name: str, content: bytes) -> str:
        # Attachments cannot change, so a name gets its content's digest: what is there already is
        # not sent again, and a comment never shows half of an update.
        path = PurePosixPath(name)
        full = f"{path.stem}-{digests.of(content)[7:19]}{path.suffix}"
        assets = f"issues/{number}/assets"
        found = self._api.get(assets, what=f"pull request {number}") or []
        present = {str(a["name"]): a for a in cast("list[dict[str, Any]]", found)}
        made = present.pop(full, None)
        if made is None:
            files, query = {"attachment": (full, content)}, {"name": full}
            answer = self._api.send("POST", assets, params=query, files=files, what=full)
            made = cast("dict[str, Any]", answer.json())
        for old in present.values():
            if _is_version(str(old["name"]), path):
                with suppress(NotFound):
                    self._api.send("DELETE", f"{assets}/{old['id']}", what=str(old["name"]))
        return f"attachments/{made['uuid']}"

    # Protection

    def protect(
        self, status: str, *, by: str = "", dry_run: bool = False
    ) -> dict[str, tuple[Any, Any]]:
        if by:
            raise ForgeError(f"Gitea cannot say that {status} counts from {by} alone")
        rule = f"branch_protections/{protection.BRANCH}"
        try:
            present: dict[str, Any] | None = self._api.get(rule)
        except NotFound:
            present = None
        wanted = protection.gitea(status, present=present)
        changes = protection.differences(wanted, present)
        if changes and not dry_run:
            what = f"protection of {protection.BRANCH}"
            if present is None:
                new = {"rule_name": protection.BRANCH, **wanted}
                self._api.send("POST", "branch_protections", json=new, what=what)
            else:
                self._api.send("PATCH", rule, json=wanted, what=what)
        here = f"{self.url}/api/v1/repos/{self.repository}"
        changes |= self._protect_merges(here, protection.GITEA_MERGES, dry_run=dry_run)
        return changes | self._protect_tag(dry_run=dry_run)

    def _protect_tag(self, *, dry_run: bool) -> dict[str, tuple[Any, Any]]:
        """Only the repository's owner, who could take the rule away, may make such a tag."""
        found = self._api.get("tag_protections", what="protected tags") or []
        if any(tag["name_pattern"] == protection.TAG for tag in found):
            return {}
        wanted = {"name_pattern": protection.TAG, "whitelist_usernames": [self.login]}
        if not dry_run:
            self._api.send("POST", "tag_protections", json=wanted, what="protected tags")
        return {f"tag {protection.TAG}": (None, wanted["whitelist_usernames"])}


def _is_version(name: str, of: PurePosixPath) -> bool:
    found = PurePosixPath(name)
    stem, _, digest = found.stem.rpartition("-")
    return (stem, found.suffix, len(digest)) == (of.stem, of.suffix, 12)
