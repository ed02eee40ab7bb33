"""A forge's REST API: what is tried again, how pages are turned, and what its errors mean."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import httpx

from slipway import authority
from slipway.credentials import Credentials
from slipway.errors import BadInput
from slipway.forge.base import ForgeError, NotFound

# Answers that a second try may change; the forge restarts, or its database does.
TRANSIENT = {429, 500, 502, 503, 504}
_LONGEST_WAIT_S = 60.0


class Rest:
    """One repository's part of a forge's API. Paths are relative to it."""

    def __init__(
        self,
        url: str,
        base_url: str,
        *,
        credentials: Credentials,
        headers: Mapping[str, str] | None = None,
        page_size: tuple[str, int],
        ca: str = "",
        transport: httpx.BaseTransport | None = None,
        retries: int = 5,
        backoff_s: float = 0.5,
    ) -> None:
        """`url` is the forge as a person knows it; for `ca` see `slipway.authority`.

        `page_size` is the query parameter of it, and the most that the forge gives. A request that
        meets a transient error is sent up to `retries` times more, first after `backoff_s` seconds,
        then after twice as long each time, or after as long as the forge asks for.
        """
        self.url, self.backoff_s = url, backoff_s
        self._page_size, self._credentials, self._retries = page_size, credentials, retries
        self._ca = ca
        self._client = httpx.Client(
            base_url=base_url,
            auth=credentials,
            headers=headers,
            timeout=httpx.Timeout(30, connect=5),
            verify=authority.trusting(ca),
            transport=transport,
        )

    def close(self) -> None:
        self._client.close()

    def send(self, method: str, path: str, *, what: str = "", **options: Any) -> httpx.Response:
        """One API request. Only GET is sent again after an answer that may have had an effect."""
        delay = self.backoff_s
        for left in range(self._retries, -1, -1):
            wait = delay
            try:
                response = self._client.request(method, path, **options)
            except httpx.TransportError as error:
                if refused := authority.refused(error, self.url, self._ca):
                    raise refused from error
                unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if not left or not (unsent or method == "GET"):
                    raise ForgeError(
                        f"no answer from the forge at {self.url}: {error or type(error).__name__}",
                        fix="see whether it is reached from here; the platform's own is a pod: "
                        "kubectl -n forge get pods",
                    ) from error
            else:
                again = response.status_code in TRANSIENT and (
                    method == "GET" or response.status_code in (429, 503)
                )
                asked = _retry_after(response)
                if not again or not left or asked > _LONGEST_WAIT_S:
                    if response.is_error:
                        raise self._error(response, what or f"{method} {path}")
                    return response
                wait = max(delay, asked)
            time.sleep(wait)
            delay *= 2
        raise AssertionError("unreachable")

    def get(self, path: str, /, *, what: str = "", **params: str) -> Any:
        """The JSON at a path."""
        return self.send("GET", path, params=params, what=what).json()

    def pages(self, path: str, /, *, what: str = "", **params: str) -> Iterator[dict[str, Any]]:
        """The items of a list, page after page."""
        name, size = self._page_size
        page = 1
        while True:
            batch = (
                self.get(path, what=what, **params, **{"page": str(page), name: str(size)}) or []
            )
            yield from cast("list[dict[str, Any]]", batch)
            if len(batch) < size:
                return
            page += 1

    @contextmanager
    def stream(self, path: str, *, what: str) -> Generator[Iterator[bytes]]:
        """A body in chunks, wherever the forge keeps it."""
        with self._client.stream("GET", path, follow_redirects=True) as response:
            if response.is_error:
                response.read()
                raise self._error(response, what)
            yield response.iter_bytes()

    def _error(self, response: httpx.Response, what: str) -> ForgeError:
        status = response.status_code
        said = _said(response)
        if status == 404:
            return NotFound(f"the forge has no {what}", status=status)
        if status in (403, 429) and response.headers.get("x-ratelimit-remaining") == "0":
            reset = int(response.headers.get("x-ratelimit-reset", 0))
            until = datetime.fromtimestamp(reset, UTC)
            return ForgeError(
                f"{what}: the forge takes no more requests until {until:%Y-%m-%d %H:%M:%SZ}",
                status=status,
                fix="run it again then, or with credentials of a higher limit",
            )
        if status == 401:
            return ForgeError(
                f"{what}: the forge refuses these credentials: {said}",
                status=status,
                fix=f"see {self._credentials.told}",
            )
        if status == 403:
            # Of an app, and of a token that is told what it may do, GitHub says what it would take.
            takes = response.headers.get("x-accepted-github-permissions", "")
            return ForgeError(
                f"{what}: the forge forbids it: {said}",
                status=status,
                fix=f"see that {self._credentials.told} may do this in the repository"
                + (f", which takes {takes}" if takes else "")
                + "; a protected branch takes pull requests only",
            )
        return ForgeError(f"{what}: the forge answered {status}: {said}", status=status)


def _said(response: httpx.Response) -> str:
    """What the forge says of its error; GitHub has the particulars in a list beside."""
    try:
        answer = response.json()
        errors = cast("list[Any]", answer.get("errors") or [])
        texts = [e.get("message") or f"{e.get('field')} {e.get('code')}" for e in errors]
        return ": ".join(str(t) for t in (answer.get("message"), *texts) if t)
    except (ValueError, AttributeError):
        return response.text[:200]


def _retry_after(response: httpx.Response) -> float:
    asked = response.headers.get("retry-after", "")
    return float(asked) if asked.isdigit() else 0.0


def split(repository: str, field: str) -> tuple[str, str]:
    """OWNER and NAME; `BadInput` for anything else."""
    owner, slash, name = repository.partition("/")
    if not slash or not owner or not name or "/" in name:
        raise BadInput(f"{repository!r} is not OWNER/NAME", field=field)
    return owner, name


def moment(text: str) -> datetime:
    """A forge's time stamp, in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)
