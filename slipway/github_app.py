"""A GitHub App: its private key makes tokens that last for an hour, each in its time.

Of Slipway it imports no more than it must: infra/platform/forge_token.py hands it to a pod.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from slipway import authority
from slipway.credentials import BEARER, Credentials
from slipway.errors import BadInput, SlipwayError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

# Where the id, the installation and the key are said: for a command, and for a stack.
OWN = ("FORGE_APP_ID", "FORGE_APP_INSTALLATION", "FORGE_APP_KEY_FILE")
STACK = ("slipway:forge.app.id", "slipway:forge.app.installation", "slipway:forgeAppKey")
# What every request to GitHub's API bears.
HEADERS = {
    "Accept": "application/vnd.github+json",
    "X-GitHub-Api-Version": "2022-11-28",
    "User-Agent": "slipway",
}
# What the platform does on a forge, in GitHub's words; it comments on pull requests.
PERMISSIONS = {"contents": "write", "metadata": "read", "pull_requests": "write"}
# And where it is the cluster that judges.
REPORTS = {"statuses": "write"}
# A request may take its time, and so may git.
MARGIN_S = 300.0
# A proof of one's identity counts for ten minutes. Both ends allow for clocks that differ.
_BACK_S, _AHEAD_S, _DRIFT_S = 60, 540, 30
_LEVELS = {"read": 1, "write": 2, "admin": 3}
_TRIES = 3


@dataclass(frozen=True)
class App:
    """An app as it is installed on somebody's repositories. `fields`: where that was said."""

    id: int
    installation: int
    key: RSAPrivateKey = field(repr=False)
    fields: tuple[str, str, str] = OWN

    def proof(self) -> str:
        """A JSON web token that says which app this is."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

        now = int(time.time())
        claims = {"iat": now - _BACK_S, "exp": now + _AHEAD_S, "iss": str(self.id)}
        parts = [_base64(json.dumps(p).encode()) for p in ({"alg": "RS256", "typ": "JWT"}, claims)]
        signed = ".".join(parts)
        return f"{signed}.{_base64(self.key.sign(signed.encode(), PKCS1v15(), hashes.SHA256()))}"


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def load_key(pem: str, name: str, file: str = "") -> RSAPrivateKey:
    """An app's private key. `BadInput` unless it is RSA; no message holds any of it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    fix = "the app's settings on GitHub, Private keys, make one: all of that .pem file"
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):
        problem = "no private key in PEM, without a passphrase"
        raise BadInput(problem, file=file, field=name, fix=fix) from None
    if not isinstance(key, RSAPrivateKey):
        raise BadInput("a private key, but no RSA one", file=file, field=name, fix=fix)
    return key


def own() -> App | None:
    """The app of FORGE_APP_ID, FORGE_APP_INSTALLATION and FORGE_APP_KEY_FILE; None where none of
    them is set.

    Raises:
        BadInput: half of it is set, it cannot be one, or a token is set as well.
    """
    given = {name: os.environ.get(name, "") for name in OWN}
    if not any(given.values()):
        return None
    for name in ("FORGE_TOKEN", "FORGE_USERNAME", "FORGE_PASSWORD"):
        if os.environ.get(name):
            raise BadInput(f"set beside {name}", field=OWN[0], fix="unset one of the two")
    for name, value in given.items():
        if not value:
            raise BadInput("not set", field=name, fix=f"set all of {', '.join(OWN)}, or none")
    number, installation, file = given.values()
    for name, value in ((OWN[0], number), (OWN[1], installation)):
        if not value.isdecimal():
            raise BadInput(f"{value!r} is no number", field=name, fix="the app's settings tell it")
    try:
        pem = Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", "") or "no text"
        raise BadInput(f"cannot be read: {problem}", file=file, field=OWN[2]) from None
    return App(int(number), int(installation), load_key(pem, OWN[2], file))


class Installation(Credentials):
    """An app on one repository. Its token is kept here, and made anew shortly before it ends."""

    username = BEARER

    def __init__(
        self,
        app: App,
        api: str,
        repository: str,
        *,
        permissions: Mapping[str, str] | None = None,
        ca: str = "",
        transport: httpx.BaseTransport | None = None,
        backoff_s: float = 1,
    ) -> None:
        """`api` is GitHub's, `repository` is OWNER/NAME.

        Args:
            permissions: all that its tokens may do; None: what the app may there.
            ca: see `slipway.authority`.
        """
        self.app, self._repository, self._permissions = app, repository, permissions
        self._api, self._ca, self._backoff_s = api.rstrip("/"), ca, backoff_s
        self._client = httpx.Client(
            headers=HEADERS,
            timeout=httpx.Timeout(30, connect=5),
            verify=authority.trusting(ca),
            transport=transport,
        )
        self._token, self._ends, self._slug = "", 0.0, ""
        self._lock = threading.Lock()

    @property
    def told(self) -> str:
        return f"app {self.app.id} ({self.app.fields[0]}) and the permissions of its installation"

    @property
    def password(self) -> str:
        try:
            return self.token()
        except httpx.TransportError as error:
            raise self._no_answer(error) from error

    @property
    def login(self) -> str:
        """As GitHub calls what an app does."""
        if not self._slug:
            try:
                answer = self._ask("GET", "app")
            except httpx.TransportError as error:
                raise self._no_answer(error) from error
            if answer.is_error:
                raise self._refusal(answer)
            self._slug = str(answer.json()["slug"])
        return f"{self._slug}[bot]"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        token = self.token()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:
            # It ended before its time: somebody has changed what the app may do.
            self._drop(token)
            request.headers["Authorization"] = f"Bearer {self.token()}"
            yield request

    def token(self, margin_s: float = MARGIN_S) -> str:
        """One that counts for so much longer, in seconds; an hour at most.

        Raises:
            BadInput: the forge gives this app none; which field is wrong, and what to do.
            httpx.TransportError: it does not answer.
        """
        with self._lock:
            if time.monotonic() > self._ends - margin_s:
                self._token, self._ends = self._made()
            return self._token

    @property
    def seconds(self) -> float:
        """For how long the token still counts."""
        return self._ends - time.monotonic()

    def _drop(self, token: str) -> None:
        with self._lock:
            if self._token == token:
                self._ends = 0.0

    def _made(self) -> tuple[str, float]:
        """A new token, and when it ends by this process' clock."""
        body: dict[str, Any] = {"repositories": [self._repository.partition("/")[2]]}
        if self._permissions is not None:
            body["permissions"] = dict(self._permissions)
        path = f"app/installations/{self.app.installation}/access_tokens"
        answer = self._ask("POST", path, body)
        if answer.is_error:
            raise self._refusal(answer)
        given = answer.json()
        # By the forge's own clock: this machine's may be another.
        lasts = datetime.fromisoformat(given["expires_at"]) - _date(answer)
        return str(given["token"]), time.monotonic() + lasts.total_seconds()

    def _ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """As the app itself."""
        for left in range(_TRIES - 1, -1, -1):
            headers = {"Authorization": f"Bearer {self.app.proof()}"}
            answer = self._client.request(
                method, f"{self._api}/{path}", json=body, headers=headers, follow_redirects=True
            )
            if not left or not (answer.status_code == 429 or answer.status_code >= 500):
                return answer
            time.sleep(self._backoff_s)
        raise AssertionError("unreachable")

    def _no_answer(self, error: httpx.TransportError) -> SlipwayError:
        refused = authority.refused(error, self._api, self._ca)
        return refused or SlipwayError(f"no answer from {self._api}: {error or type(error)}")

    def _refusal(self, answer: httpx.Response) -> SlipwayError:
        """What to do about an app that is given no token."""
        number, installation, key = self.app.fields
        status, said = answer.status_code, _said(answer)
        if status == 401:
            off = round((datetime.now(UTC) - _date(answer)).total_seconds() / 10) * 10
            if abs(off) > _DRIFT_S or "claim" in said:
                which = f"about {abs(off)} s {'ahead of' if off > 0 else 'behind'} the forge's"
                return BadInput(
                    f"the forge does not take app {self.app.id} at its word: {said}",
                    field=key,
                    fix=f"set this machine's clock, which is {which}: timedatectl set-ntp true",
                )
            return BadInput(
                f"the forge does not take this key for app {self.app.id}: {said}",
                field=key,
                fix=f"a key that this app's settings list, under Private keys; or another {number}",
            )
        if status == 404:
            return BadInput(
                f"app {self.app.id} has no installation {self.app.installation}: {said}",
                field=installation,
                fix=self._where(),
            )
        if status == 403:
            fix = "the owner's settings, GitHub Apps, say what has become of it"
            return BadInput(f"the forge forbids it: {said}", field=installation, fix=fix)
        if status == 422:
            return self._too_little(said)
        return SlipwayError(f"no token for app {self.app.id}: the forge answered {status}: {said}")

    def _where(self) -> str:
        """How to come by the installation's number."""
        found = self._ask("GET", f"repos/{self._repository}/installation")
        if found.is_success:
            return f"on {self._repository} it is {found.json()['id']}: write that"
        owner = self._repository.partition("/")[0]
        return (
            f"install it: the app's settings, Install App, {owner}; the address of what is "
            "installed ends in the number"
        )

    def _too_little(self, said: str) -> BadInput:
        """It asked for a repository, or for permissions, that the installation has not got."""
        installation = self.app.fields[1]
        answer = self._ask("GET", f"app/installations/{self.app.installation}")
        has: dict[str, str] = answer.json()["permissions"] if answer.is_success else {}
        lacks = [
            f"{name}: {level}"
            for name, level in (self._permissions or {}).items()
            if _LEVELS.get(has.get(name, ""), 0) < _LEVELS[level]
        ]
        if answer.is_success and lacks:
            return BadInput(
                f"app {self.app.id} has too few permissions: it lacks {', '.join(lacks)}",
                field=installation,
                fix="the app's settings, Permissions & events, Repository permissions; then the "
                "owner has to accept what is new",
            )
        return BadInput(
            f"app {self.app.id} is not installed on {self._repository}: {said}",
            field=installation,
            fix="the owner's settings, GitHub Apps, Configure, Repository access: add it",
        )


def _date(answer: httpx.Response) -> datetime:
    """When the forge said it, by its clock; where it does not say, by this one."""
    try:
        return parsedate_to_datetime(answer.headers["date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return datetime.now(UTC)


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
