"""Gitea, by its API."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal, Self, cast
from urllib.parse import quote

import httpx

from slipway.errors import BadInput
from slipway.forge.base import ForgeError, NotFound, PullRequest, State

# Answers that a second try may change; the forge restarts, or its database does.
_TRANSIENT = {429, 500, 502, 503, 504}
_MERGE_PATIENCE_S = 30.0


class Gitea:
    """`Forge` on Gitea's API (v1)."""

    def __init__(
        self,
        url: str,
        repository: str,
        username: str,
        password: str,
        *,
        transport: httpx.BaseTransport | None = None,
        retries: int = 5,
        backoff_s: float = 0.5,
    ) -> None:
        """`url` is the forge's root, `repository` is OWNER/NAME.

        A request that meets a transient error is sent up to `retries` times more, first after
        `backoff_s` seconds, then after twice as long each time.
        """
        owner, slash, name = repository.partition("/")
        if not slash or not owner or not name or "/" in name:
            raise BadInput(f"{repository!r} is not OWNER/NAME", field="FORGE_REPOSITORY")
        self.url = url.rstrip("/")
        self.repository = repository
        self._retries, self._backoff_s = retries, backoff_s
        self._client = httpx.Client(
            base_url=f"{self.url}/api/v1/repos/{owner}/{name}/",
            auth=(username, password),
            timeout=httpx.Timeout(30, connect=5),
            transport=transport,
        )

    @classmethod
    def from_environment(cls) -> Self:
        """From FORGE_URL, FORGE_REPOSITORY, FORGE_USERNAME, FORGE_PASSWORD; `BadInput` if unset."""
        names = ("FORGE_URL", "FORGE_REPOSITORY", "FORGE_USERNAME", "FORGE_PASSWORD")
        if missing := [name for name in names if not os.environ.get(name)]:
            raise BadInput(f"not set: {', '.join(missing)}", fix="set them in the environment")
        return cls(*(os.environ[name] for name in names))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    # Requests

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: Mapping[str, Any] | None = None,
        what: str = "",
    ) -> httpx.Response:
        """One API request. Only GET is sent again after an answer that may have had an effect."""
        delay = self._backoff_s
        for left in range(self._retries, -1, -1):
            try:
                response = self._client.request(method, path, params=params, json=json)
            except httpx.TransportError as error:
                unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if not left or not (unsent or method == "GET"):
                    raise ForgeError(
                        f"no answer from the forge at {self.url}: {error or type(error).__name__}",
                        fix="see whether it runs: slipway status, or kubectl -n forge get pods",
                    ) from error
            else:
                again = response.status_code in _TRANSIENT and (
                    method == "GET" or response.status_code in (429, 503)
                )
                if not again or not left:
                    if response.is_error:
                        raise _error(response, what or f"{method} {path}")
                    return response
            time.sleep(delay)
            delay *= 2
        raise AssertionError("unreachable")

    def _pages(self, path: str, params: Mapping[str, str | int]) -> Iterator[dict[str, Any]]:
        page = 1
        while True:
            batch = cast(
                "list[dict[str, Any]]",
                self._send("GET", path, params={**params, "page": page, "limit": 50}).json() or [],
            )
            yield from batch
            if len(batch) < 50:
                return
            page += 1

    # Commits and files

    def commit(self, ref: str = "main") -> str:
        answer = self._send("GET", f"git/commits/{quote(ref, safe='')}", what=f"commit {ref}")
        return str(answer.json()["sha"])

    def read(self, path: str, ref: str = "main") -> bytes:
        answer = self._send(
            "GET", f"raw/{quote(path)}", params={"ref": ref}, what=f"file {path} at {ref}"
        )
        return answer.content

    def files(self, folder: str, ref: str = "main") -> list[str]:
        return sorted(self._entries(folder, ref))

    def _entries(self, folder: str, ref: str) -> dict[str, str]:
        """Files directly in `folder`: path to blob sha."""
        self.commit(ref)  # or a missing branch would look like an empty folder
        try:
            answer = self._send("GET", f"contents/{quote(folder)}", params={"ref": ref}).json()
        except NotFound:
            return {}
        if not isinstance(answer, list):
            return {}
        entries = cast("list[dict[str, Any]]", answer)
        return {str(e["path"]): str(e["sha"]) for e in entries if e["type"] == "file"}

    def _blob(self, path: str, ref: str) -> tuple[bytes, str] | None:
        """A file's content and blob sha; None when it is not there."""
        try:
            answer = self._send("GET", f"contents/{quote(path)}", params={"ref": ref}).json()
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
        answer = self._send(
            "POST",
            "contents",
            json={**target, "message": message, "files": changes},
            what=f"commit to {branch}",
        )
        return str(answer.json()["commit"]["sha"])

    def _branch(self, branch: str, base: str) -> str:
        body = {"new_branch_name": branch, "old_ref_name": base}
        answer = self._send("POST", "branches", json=body, what=f"branch {branch}")
        return str(answer.json()["commit"]["id"])

    def delete_branch(self, branch: str) -> None:
        with suppress(NotFound):
            self._send("DELETE", f"branches/{quote(branch)}", what=f"branch {branch}")

    def archive(self, ref: str = "main") -> Iterator[bytes]:
        sha = self.commit(ref)
        with self._client.stream("GET", f"archive/{sha}.tar.gz") as response:
            if response.is_error:
                response.read()
                raise _error(response, f"archive of {ref}")
            yield from response.iter_bytes()

    # Pull requests

    def pull(self, number: int) -> PullRequest:
        return self._pull(
            self._send("GET", f"pulls/{number}", what=f"pull request {number}").json()
        )

    def find(self, head: str, *, base: str = "main") -> PullRequest | None:
        try:
            answer = self._send("GET", f"pulls/{quote(base, safe='')}/{quote(head)}").json()
            return self._pull(answer)
        except NotFound:
            pass
        closed = self.pulls("closed")
        return next((pull for pull in closed if (pull.head, pull.base) == (head, base)), None)

    def pulls(self, state: Literal["open", "closed", "all"] = "open") -> Iterator[PullRequest]:
        # Without a sort Gitea gives the newest first.
        return map(self._pull, self._pages("pulls", {"state": state}))

    def open(self, head: str, title: str, body: str, *, base: str = "main") -> PullRequest:
        found = self.find(head, base=base)
        if found is None or found.state != "open":
            request = {"head": head, "base": base, "title": title, "body": body}
            what = f"pull request for {head}"
            return self._pull(self._send("POST", "pulls", json=request, what=what).json())
        if (found.title, found.body) == (title, body):
            return found
        return self.update(found.number, title=title, body=body)

    def update(self, number: int, **fields: str) -> PullRequest:
        """Changes `title`, `body` or `state` of a pull request."""
        what = f"pull request {number}"
        return self._pull(self._send("PATCH", f"pulls/{number}", json=fields, what=what).json())

    def merge(self, number: int, *, sha: str | None = None) -> PullRequest:
        deadline = time.monotonic() + _MERGE_PATIENCE_S
        while True:
            pull = self.pull(number)
            if pull.merged:
                return pull
            if pull.state == "closed":
                raise ForgeError(f"pull request {number} was closed without merging: {pull.url}")
            if sha and pull.sha != sha:
                raise ForgeError(
                    f"pull request {number} has another head commit now: {pull.sha}, not {sha}",
                    fix=f"look at it again: {pull.url}",
                )
            request = {"Do": "merge", "head_commit_id": pull.sha, "delete_branch_after_merge": True}
            try:
                self._send("POST", f"pulls/{number}/merge", json=request, what=f"merge {pull.url}")
            except ForgeError as error:
                # 405 "try again later": the forge computes mergeability after each push. No
                # answer or 5xx: it may have merged all the same, which the next look tells.
                unsettled = error.status in (0, 405, *_TRANSIENT)
                if not unsettled or time.monotonic() > deadline:
                    if self.pull(number).merged:
                        continue
                    if error.status == 405:
                        raise ForgeError(
                            f"pull request {number} cannot be merged: {pull.url}",
                            status=405,
                            fix=f"see there: a conflict with {pull.base}, or a missing check or "
                            f"approval ({error})",
                        ) from None
                    raise
                time.sleep(self._backoff_s)

    def _pull(self, item: Any) -> PullRequest:
        return PullRequest(
            number=item["number"],
            # Not the forge's own name for it, which need not mean anything where the reader is.
            url=f"{self.url}/{self.repository}/pulls/{item['number']}",
            title=item["title"],
            body=item["body"] or "",
            head=item["head"]["label"],
            base=item["base"]["label"],
            sha=item["head"]["sha"],
            state=item["state"],
            merged=bool(item["merged"]),
            merge_sha=item["merge_commit_sha"] if item["merged"] else None,
        )

    # Reports

    def set_status(
        self, sha: str, context: str, state: State, description: str = "", url: str = ""
    ) -> None:
        status = {"context": context, "state": state, "description": description, "target_url": url}
        self._send("POST", f"statuses/{sha}", json=status, what=f"status of {sha}")

    def statuses(self, sha: str) -> dict[str, State]:
        answer = self._send("GET", f"commits/{sha}/status", what=f"commit {sha}").json()
        reported = cast("list[dict[str, Any]]", answer.get("statuses") or [])
        return {str(s["context"]): cast("State", s["status"]) for s in reported}

    def comment(self, number: int, marker: str, body: str) -> None:
        hidden = f"<!-- {marker} -->"
        text = {"body": f"{hidden}\n{body}"}
        # Gitea gives all comments of an issue in one answer.
        path = f"issues/{number}/comments"
        for item in cast("list[dict[str, Any]]", self._send("GET", path).json() or []):
            if str(item["body"]).startswith(hidden):
                if item["body"] != text["body"]:
                    self._send("PATCH", f"issues/comments/{item['id']}", json=text)
                return
        self._send("POST", path, json=text, what=f"comment on pull request {number}")


def _error(response: httpx.Response, what: str) -> ForgeError:
    status = response.status_code
    try:
        said = str(response.json().get("message") or "")
    except (ValueError, AttributeError):
        said = response.text[:200]
    if status == 404:
        return NotFound(f"the forge has no {what}", status=status)
    if status in (401, 403):
        return ForgeError(
            f"{what}: the forge refuses these credentials: {said}",
            status=status,
            fix="see that FORGE_USERNAME may do this in the repository",
        )
    return ForgeError(f"{what}: the forge answered {status}: {said}", status=status)
