"""What Gitea's API and GitHub's have in common, which is most of it: one took after the other."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, ClassVar, Literal, Self

from slipway import protection
from slipway.forge.base import (
    Comment,
    ForgeError,
    NotFound,
    PullRequest,
    Report,
    Review,
    Revision,
    State,
)
from slipway.forge.rest import TRANSIENT, Rest, moment


class Shared:
    """The part of `Forge` that is the same; a forge adds what it says otherwise."""

    # How long a merge may wait for the forge to find out whether it is possible.
    merge_patience_s = 30.0
    # In which field a combined status gives the state of a context.
    _state_field = "state"
    # How an approval is asked for.
    _approve = "APPROVE"
    _history_query: ClassVar[dict[str, str]] = {}

    def __init__(self, url: str, repository: str, api: Rest) -> None:
        self.url, self.repository, self._api = url, repository, api

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._api.close()

    # What differs

    def commit(self, ref: str = "main") -> str:
        raise NotImplementedError

    def _opened(self, head: str, base: str) -> PullRequest | None:
        """The open pull request of a branch."""
        raise NotImplementedError

    def _closed(self, head: str, base: str) -> PullRequest | None:
        """The newest of a branch that was merged or closed."""
        raise NotImplementedError

    def _pull(self, item: Any) -> PullRequest:
        raise NotImplementedError

    def _merge(self, pull: PullRequest) -> None:
        raise NotImplementedError

    def _is_unsettled(self, error: ForgeError, number: int) -> bool:
        """Whether a refused merge may go through a moment later."""
        raise NotImplementedError

    def _comments(self, number: int) -> Iterable[dict[str, Any]]:
        raise NotImplementedError

    @property
    def login(self) -> str:
        raise NotImplementedError

    def _is_mine(self, user: Any) -> bool:
        """Whether a comment's user is this one."""
        raise NotImplementedError

    def _is_stale(self, review: Any, pull: PullRequest) -> bool:
        """Whether a review is of an earlier state of the branch."""
        raise NotImplementedError

    # Commits

    def history(self, path: str, ref: str = "main", limit: int = 50) -> list[Revision]:
        start = self.commit(ref)  # or a missing branch would look like an empty history
        pages = self._api.pages("commits", sha=start, path=path, **self._history_query)
        try:
            found = list(islice(pages, limit))
        except NotFound:
            return []
        return [
            Revision(
                sha=item["sha"],
                author=item["commit"]["author"]["name"],
                subject=item["commit"]["message"].partition("\n")[0],
                when=moment(item["commit"]["committer"]["date"]),
            )
            for item in found
        ]

    # Pull requests

    def pull(self, number: int) -> PullRequest:
        return self._pull(self._api.get(f"pulls/{number}", what=f"pull request {number}"))

    def pulls(self, state: Literal["open", "closed", "all"] = "open") -> Iterator[PullRequest]:
        # Without a sort both give the newest first.
        return map(self._pull, self._api.pages("pulls", state=state))

    def changed(self, number: int) -> list[str]:
        found = self._api.pages(f"pulls/{number}/files", what=f"pull request {number}")
        names = [(f["filename"], f.get("previous_filename")) for f in found]
        return sorted({name for pair in names for name in pair if name})

    def find(self, head: str, *, base: str = "main") -> PullRequest | None:
        return self._opened(head, base) or self._closed(head, base)

    def open(self, head: str, title: str, body: str, *, base: str = "main") -> PullRequest:
        found = self._opened(head, base)
        if found is None:
            request = {"head": head, "base": base, "title": title, "body": body}
            what = f"pull request for {head}"
            try:
                return self._pull(self._api.send("POST", "pulls", json=request, what=what).json())
            except ForgeError:
                found = self._opened(head, base)  # somebody else may have been faster
                if found is None:
                    raise
        if (found.title, found.body) == (title, body):
            return found
        return self.update(found.number, title=title, body=body)

    def update(self, number: int, **fields: str) -> PullRequest:
        """Changes `title`, `body` or `state` of a pull request."""
        what = f"pull request {number}"
        return self._pull(self._api.send("PATCH", f"pulls/{number}", json=fields, what=what).json())

    def close(self, number: int) -> PullRequest:
        found = self.pull(number)
        return found if found.state == "closed" else self.update(number, state="closed")

    def merge(self, number: int, *, sha: str | None = None) -> PullRequest:
        deadline = time.monotonic() + self.merge_patience_s
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
            try:
                self._merge(pull)
            except ForgeError as error:
                # No answer or 5xx: it may have merged all the same, which the next look tells.
                lost = error.status in (0, *TRANSIENT)
                again = lost or self._is_unsettled(error, number)
                if not again or time.monotonic() > deadline:
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
                time.sleep(self._api.backoff_s)

    def reviews(self, number: int) -> list[Review]:
        pull = self.pull(number)
        standing: dict[str, dict[str, Any]] = {}
        for item in self._api.pages(f"pulls/{number}/reviews"):
            decides = item["state"] in ("APPROVED", "REQUEST_CHANGES", "CHANGES_REQUESTED")
            if decides and item["user"] and not item.get("dismissed"):
                login = str(item["user"]["login"])
                standing.pop(
                    login.lower(), None
                )  # or the newer one would stand in the older's place
                standing[login.lower()] = item
        return [
            Review(
                login=item["user"]["login"],
                state="approved",
                sha=item["commit_id"] or "",
                when=moment(item["submitted_at"]),
            )
            for item in standing.values()
            if item["state"] == "APPROVED" and not self._is_stale(item, pull)
        ]

    def approve(self, number: int, body: str = "", *, sha: str | None = None) -> None:
        review = {"event": self._approve, "body": body}
        review |= {"commit_id": sha} if sha else {}
        what = f"review of pull request {number}"
        self._api.send("POST", f"pulls/{number}/reviews", json=review, what=what)

    # Protection

    def _protect_merges(
        self, repository: str, wanted: Mapping[str, bool], *, dry_run: bool
    ) -> dict[str, tuple[Any, Any]]:
        """`repository` is the address of the repository's own settings."""
        what = "ways to merge"
        changes = protection.merges(wanted, self._api.get(repository, what=what))
        if changes and not dry_run:
            self._api.send("PATCH", repository, json=dict(wanted), what=what)
        return changes

    # Reports

    def set_status(
        self, sha: str, context: str, state: State, description: str = "", url: str = ""
    ) -> None:
        # GitHub refuses an empty address and more than 140 characters.
        status = {"context": context, "state": state, "description": description[:140]}
        status |= {"target_url": url} if url else {}
        self._api.send("POST", f"statuses/{sha}", json=status, what=f"status of {sha}")

    def statuses(self, sha: str) -> dict[str, State]:
        answer = self._api.get(f"commits/{sha}/status", what=f"commit {sha}")
        return {s["context"]: s[self._state_field] for s in answer.get("statuses") or []}

    def report(self, sha: str, context: str) -> Report | None:
        # In whatever order: Gitea's `sort` means the opposite of its words.
        found = self._api.pages(f"commits/{sha}/statuses", what=f"commit {sha}")
        of = [status for status in found if status["context"] == context]
        if not of:
            return None
        newest = max(of, key=lambda status: int(status["id"]))
        login = str((newest["creator"] or {}).get("login", ""))
        return Report(newest[self._state_field], login, newest["description"] or "")

    def comments(self, number: int) -> list[Comment]:
        return [
            Comment(
                id=item["id"],
                author=(item["user"] or {}).get("login", ""),
                body=item["body"],
                when=moment(item["created_at"]),
            )
            for item in self._comments(number)
        ]

    def said(self, number: int, marker: str, *, by: Collection[str] = ()) -> str:
        return next((str(item["body"]) for item in self._marked(number, marker, by)), "")

    def _marked(
        self, number: int, marker: str, by: Collection[str] = ()
    ) -> Iterator[dict[str, Any]]:
        """Comments with the marker: this user's, or of those named. Anybody else may write it."""
        for item in self._comments(number):
            user = item["user"]
            if str(item["body"]).startswith(f"<!-- {marker} -->") and (
                (user or {}).get("login") in by if by else self._is_mine(user)
            ):
                yield item

    def comment(self, number: int, marker: str, body: str) -> None:
        text = {"body": f"<!-- {marker} -->\n{body}"}
        found = list(self._marked(number, marker))
        if not found:
            what = f"comment on pull request {number}"
            self._api.send("POST", f"issues/{number}/comments", json=text, what=what)
            # Who looked at the same moment has made one, too: of the two the first stays.
            found = list(self._marked(number, marker))
        for later in found[1:]:
            with suppress(NotFound):
                self._api.send("DELETE", f"issues/comments/{later['id']}")
        if found and found[0]["body"] != text["body"]:
            self._api.send("PATCH", f"issues/comments/{found[0]['id']}", json=text)
