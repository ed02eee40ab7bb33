"""GitHub, by its public REST API (2022-11-28).

Written and tested from the API's public description: it has never run against GitHub itself.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Self
from urllib.parse import quote

import httpx

from slipway import github_app, protection
from slipway.credentials import Credentials, Token
from slipway.errors import BadInput
from slipway.forge.base import ForgeError, NotFound, PullRequest
from slipway.forge.rest import Rest, split
from slipway.forge.shared import Shared
from slipway.github import ACTIONS, API, SERVER, api_of
from slipway.publish import Remote


class GitHub(Shared):
    """`Forge` on GitHub. Commits of several files are made of blobs, a tree and a moved branch."""

    def __init__(
        self,
        repository: str,
        credentials: Credentials,
        *,
        api: str = API,
        server: str = SERVER,
        ca: str = "",
        transport: httpx.BaseTransport | None = None,
        retries: int = 5,
        backoff_s: float = 0.5,
    ) -> None:
        """`repository` is OWNER/NAME; an Enterprise has its own `api` and `server`, and maybe its
        own `ca`; see `Rest`."""
        self._owner, name = split(repository, "GITHUB_REPOSITORY")
        self._api_url, self._credentials = api.rstrip("/"), credentials
        self._ca, self._login = ca, ""
        root = server.rstrip("/")
        client = Rest(
            root,
            f"{self._api_url}/repos/{self._owner}/{name}/",
            credentials=credentials,
            headers=github_app.HEADERS,
            page_size=("per_page", 100),
            ca=ca,
            transport=transport,
            retries=retries,
            backoff_s=backoff_s,
        )
        super().__init__(root, repository, client)

    @classmethod
    def from_environment(cls) -> Self:
        """From FORGE_REPOSITORY, who one is there (an app of one's own, or FORGE_TOKEN, or
        FORGE_PASSWORD and FORGE_LOGIN) and, of an Enterprise, FORGE_SERVER, FORGE_URL, its API,
        and FORGE_CA; what is not set, as Actions calls it: GITHUB_REPOSITORY, GITHUB_TOKEN,
        GITHUB_SERVER_URL, GITHUB_API_URL. `BadInput` if there is no repository or no token."""
        repository = _first("FORGE_REPOSITORY", "GITHUB_REPOSITORY")
        token = _first("FORGE_TOKEN", "FORGE_PASSWORD", "GITHUB_TOKEN")
        app = github_app.own()
        for name, value in (("REPOSITORY", repository), ("TOKEN", token or app)):
            if not value:
                fix = "set one of them in the environment"
                raise BadInput(f"not set: FORGE_{name}, GITHUB_{name}", fix=fix)
        server = _first("FORGE_SERVER", "GITHUB_SERVER_URL") or SERVER
        api = _first("FORGE_URL", "GITHUB_API_URL") or api_of(server)
        ca = os.environ.get("FORGE_CA", "")
        who: Credentials = Token(token, os.environ.get("FORGE_LOGIN", ""))
        if app:
            who = github_app.Installation(app, api, repository, ca=ca)
        return cls(repository, who, api=api, server=server, ca=ca)

    @property
    def remote(self) -> Remote:
        who = self._credentials
        return Remote(f"{self.url}/{self.repository}.git", who.username, who.password, self._ca)

    # Commits and files

    def commit(self, ref: str = "main") -> str:
        what = f"commit {ref}"
        try:
            answer = self._api.get(f"commits/{quote(ref.removeprefix('refs/'))}", what=what)
        except ForgeError as error:
            if error.status == 422:  # its answer to a commit that is not there
                raise NotFound(f"the forge has no {what}", status=422) from None
            raise
        return str(answer["sha"])

    def read(self, path: str, ref: str = "main") -> bytes:
        return self._api.send(
            "GET",
            f"contents/{quote(path)}",
            params={"ref": ref},
            headers={"Accept": "application/vnd.github.raw+json"},
            what=f"file {path} at {ref}",
        ).content

    def files(self, folder: str, ref: str = "main") -> list[str]:
        trees = _Trees(self._api, self._tree_of(self.commit(ref)))
        prefix = f"{folder}/" if folder else ""
        return sorted(f"{prefix}{name}" for name in trees.blobs(folder))

    def _tree_of(self, commit: str) -> str:
        answer = self._api.get(f"git/commits/{commit}", what=f"commit {commit}")
        return str(answer["tree"]["sha"])

    def write(
        self, branch: str, files: Mapping[str, bytes | None], message: str, *, base: str = "main"
    ) -> str:
        try:
            head, exists = self.commit(f"heads/{branch}"), True
        except NotFound:
            head, exists = self.commit(base), False
        trees = _Trees(self._api, self._tree_of(head))
        changes: list[dict[str, Any]] = []
        for path, content in files.items():
            folder, _, name = path.rpartition("/")
            present = trees.blobs(folder).get(name)
            # A mode and a type are asked for even where the file goes.
            change = {"path": path, "mode": "100644", "type": "blob"}
            if content is None:
                changes += [{**change, "sha": None}] if present else []
            elif present != _blob_sha(content):
                changes.append({**change, "sha": self._new("blobs", _base64(content), path)})
        if changes:
            tree = {"base_tree": trees.root, "tree": changes}
            commit = {
                "message": message,
                "tree": self._new("trees", tree, f"tree of {branch}"),
                "parents": [head],
            }
            head = self._new("commits", commit, f"commit to {branch}")
        if not exists:
            ref = {"ref": f"refs/heads/{branch}", "sha": head}
            self._api.send("POST", "git/refs", json=ref, what=f"branch {branch}")
        elif changes:
            # Without force a branch that moved meanwhile is a conflict and not overwritten.
            move = {"sha": head, "force": False}
            path = f"git/refs/heads/{quote(branch)}"
            self._api.send("PATCH", path, json=move, what=f"branch {branch}")
        return head

    def _new(self, kind: str, body: Mapping[str, Any], what: str) -> str:
        return str(self._api.send("POST", f"git/{kind}", json=body, what=what).json()["sha"])

    def delete_branch(self, branch: str) -> None:
        try:
            self._api.send("DELETE", f"git/refs/heads/{quote(branch)}", what=f"branch {branch}")
        except ForgeError as error:
            if error.status not in (404, 422):  # 422: its answer to a branch that is not there
                raise

    def archive(self, ref: str = "main") -> Iterator[bytes]:
        sha = self.commit(ref)
        with self._api.stream(f"tarball/{sha}", what=f"archive of {ref}") as chunks:
            yield from chunks

    def compare_url(self, base: str, head: str) -> str:
        return f"{self.url}/{self.repository}/compare/{base}...{head}"

    # Pull requests

    def _opened(self, head: str, base: str) -> PullRequest | None:
        return self._newest("open", head, base)

    def _closed(self, head: str, base: str) -> PullRequest | None:
        return self._newest("closed", head, base)

    def _newest(self, state: str, head: str, base: str) -> PullRequest | None:
        query = {"state": state, "head": f"{self._owner}:{head}", "base": base}
        return next(map(self._pull, self._api.pages("pulls", **query)), None)

    def _pull(self, item: Any) -> PullRequest:
        merged = item["merged_at"] is not None  # lists have no `merged`
        # The repository of a fork that was deleted is null.
        there, here = item["head"]["repo"] or {}, item["base"]["repo"]
        return PullRequest(
            number=item["number"],
            url=item["html_url"],
            title=item["title"],
            body=item["body"] or "",
            head=item["head"]["ref"],
            base=item["base"]["ref"],
            sha=item["head"]["sha"],
            state=item["state"],
            merged=merged,
            # Of an open one it is the commit of a trial merge.
            merge_sha=item["merge_commit_sha"] if merged else None,
            author=(item["user"] or {}).get("login", ""),
            fork=there.get("id") != here["id"],
            labels=tuple(label["name"] for label in item["labels"]),
        )

    def _merge(self, pull: PullRequest) -> None:
        request = {"sha": pull.sha, "merge_method": "merge"}
        path = f"pulls/{pull.number}/merge"
        self._api.send("PUT", path, json=request, what=f"merge {pull.url}")
        if not pull.fork:
            with suppress(ForgeError):  # it is merged; a branch left over is no reason to fail
                self.delete_branch(pull.head)

    def _is_unsettled(self, error: ForgeError, number: int) -> bool:
        if error.status not in (405, 409):
            return False
        if "try the merge again" in str(error):  # the base or the head moved in this moment
            return True
        return self._api.get(f"pulls/{number}")["mergeable"] is None  # it is being found out

    def _is_stale(self, review: Any, pull: PullRequest) -> bool:
        return bool(review["commit_id"] != pull.sha)

    # Reports

    def _comments(self, number: int) -> Iterator[dict[str, Any]]:
        return self._api.pages(f"issues/{number}/comments", what=f"pull request {number}")

    @property
    def login(self) -> str:
        if not self._login:
            self._login = self._credentials.login
        if not self._login:
            try:
                self._login = str(self._api.get(f"{self._api_url}/user")["login"])
            except ForgeError as error:
                if error.status not in (401, 403):
                    raise
                self._login = ACTIONS  # an Actions token may not ask who it is
        return self._login

    def _is_mine(self, user: Any) -> bool:
        return bool(user) and user["login"] == self.login

    def attach(self, number: int, name: str, content: bytes) -> str:
        return ""  # the API has no attachments

    # Protection

    def protect(
        self, status: str, *, by: str = "", dry_run: bool = False
    ) -> dict[str, tuple[Any, Any]]:
        app = int(by) if by.isdecimal() else self._app(by) if by else -1
        where = f"branches/{protection.BRANCH}/protection"
        try:
            present = _as_told(self._api.get(where))
        except NotFound:
            present = {}
        wanted = protection.github(status, app, present=present)
        changes = protection.differences(wanted, present)
        if changes and not dry_run:
            self._api.send("PUT", where, json=wanted, what=f"protection of {protection.BRANCH}")
        here = f"{self._api_url}/repos/{self.repository}"
        changes |= self._protect_merges(here, protection.GITHUB_MERGES, dry_run=dry_run)
        return changes | self._protect_tag(dry_run=dry_run)

    def _app(self, name: str) -> int:
        return int(self._api.get(f"{self._api_url}/apps/{name}", what=f"app {name}")["id"])

    def _protect_tag(self, *, dry_run: bool) -> dict[str, tuple[Any, Any]]:
        wanted = protection.GITHUB_TAG
        listed = self._api.pages("rulesets", includes_parents="false", targets="tag")
        number = next((found["id"] for found in listed if found["name"] == wanted["name"]), None)
        path = f"rulesets/{number}" if number else "rulesets"
        present = self._api.get(path) if number else {}
        changes = protection.differences(wanted, present, f"tag {protection.TAG}")
        if changes and not dry_run:
            method = "PUT" if number else "POST"
            self._api.send(method, path, json=wanted, what=f"ruleset of tag {protection.TAG}")
        return changes


def _first(*names: str) -> str:
    """The first of these variables that is set."""
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _as_told(answer: dict[str, Any]) -> dict[str, Any]:
    """A protection in the words in which GitHub is told of one; it answers in others."""
    told: dict[str, Any] = {
        key: value["enabled"] if isinstance(value, dict) and "enabled" in value else value
        for key, value in answer.items()
    }
    if checks := told.get("required_status_checks"):
        found = [{**check, "app_id": check["app_id"] or -1} for check in checks["checks"]]
        told["required_status_checks"] = {**checks, "checks": found}
    if reviews := told.get("required_pull_request_reviews"):
        who = _names(reviews.get(protection.BYPASS))
        told["required_pull_request_reviews"] = {
            **reviews,
            protection.BYPASS: who if any(who.values()) else None,
        }
    if told.get("restrictions"):
        told["restrictions"] = _names(told["restrictions"])
    return told


def _names(people: dict[str, Any] | None) -> dict[str, list[str]]:
    """Who is named in a protection: logins of users, and what teams and apps are called."""
    return {
        kind: [str(one.get("login") or one["slug"]) for one in (people or {}).get(kind) or ()]
        for kind in ("users", "teams", "apps")
    }


class _Trees:
    """The folders of one commit, each fetched once."""

    def __init__(self, api: Rest, root: str) -> None:
        self.root, self._api = root, api
        self._known: dict[str, list[dict[str, str]]] = {}

    def blobs(self, folder: str) -> dict[str, str]:
        """The files directly in `folder`, name to blob sha."""
        return {e["path"]: e["sha"] for e in self._entries(folder) if e["type"] == "blob"}

    def _entries(self, folder: str) -> list[dict[str, str]]:
        if folder not in self._known:
            sha = self._sha(folder)
            answer = self._api.get(f"git/trees/{sha}", what=folder) if sha else {"tree": []}
            if answer.get("truncated"):
                raise ForgeError(f"{folder} has more files than the forge lists")
            self._known[folder] = answer["tree"]
        return self._known[folder]

    def _sha(self, folder: str) -> str | None:
        if not folder:
            return self.root
        parent, _, name = folder.rpartition("/")
        found = (e for e in self._entries(parent) if (e["path"], e["type"]) == (name, "tree"))
        return next((e["sha"] for e in found), None)


def _blob_sha(content: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _base64(content: bytes) -> dict[str, str]:
    return {"content": base64.b64encode(content).decode(), "encoding": "base64"}
