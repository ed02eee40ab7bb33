"""As whom one is on a forge: what each request to its API bears, and what git says there."""

from __future__ import annotations

from collections.abc import Generator

import httpx

# What GitHub calls whoever a token is of.
BEARER = "x-access-token"


class Credentials(httpx.Auth):
    """A login that httpx takes as `auth`. What of it is secret may change as time goes by, so it
    is asked for each time that it is needed."""

    username: str
    """As git says it."""

    @property
    def told(self) -> str:
        """What to look at where the forge refuses it."""
        return "FORGE_USERNAME"

    @property
    def password(self) -> str:
        """As git says it now: a password, or a token. Not to be printed."""
        raise NotImplementedError

    @property
    def login(self) -> str:
        """What the forge calls it; "" where that is the forge's to say."""
        return ""


class Password(Credentials):
    """A login and its password, or a token in the place of that."""

    def __init__(self, username: str, password: str) -> None:
        self.username, self._password = username, password

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        yield from httpx.BasicAuth(self.username, self._password).auth_flow(request)

    @property
    def password(self) -> str:
        return self._password

    @property
    def login(self) -> str:
        return self.username


class Token(Credentials):
    """A token that says by itself whose it is."""

    username = BEARER

    def __init__(self, token: str, login: str = "") -> None:
        self._token, self._login = token, login

    @property
    def told(self) -> str:
        return "the token in FORGE_TOKEN (in Actions GITHUB_TOKEN, and `permissions`)"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self.password}"
        yield request

    @property
    def password(self) -> str:
        return self._token

    @property
    def login(self) -> str:
        return self._login
