"""The git forge: branches, files, pull requests, commit statuses and comments over its API."""

from __future__ import annotations

import os

from slipway import github_app
from slipway.credentials import Credentials, Password, Token
from slipway.errors import BadInput, did_you_mean
from slipway.forge.base import (
    Comment,
    Forge,
    ForgeError,
    NotFound,
    PullRequest,
    Report,
    Review,
    Revision,
    State,
)
from slipway.forge.gitea import Gitea
from slipway.forge.github import ACTIONS, GitHub
from slipway.github import api_of

__all__ = [
    "ACTIONS",
    "Comment",
    "Forge",
    "ForgeError",
    "GitHub",
    "Gitea",
    "NotFound",
    "PullRequest",
    "Report",
    "Review",
    "Revision",
    "State",
    "connect",
    "from_environment",
    "login",
    "own_credentials",
    "own_login",
]

_KINDS: dict[str, type[Gitea] | type[GitHub]] = {"gitea": Gitea, "github": GitHub}


def connect(
    kind: str, url: str, repository: str, who: Credentials, *, ca: str = ""
) -> Gitea | GitHub:
    """A forge by its address, as whoever these credentials are of; for `ca`, see
    `slipway.authority`."""
    if kind == "github":
        return GitHub(repository, who, api=api_of(url), server=url, ca=ca)
    return Gitea(url, repository, who.login, who.password, ca=ca)


def login(kind: str, username: str, secret: str) -> Credentials:
    """A login and its password or token, as such a forge takes it."""
    return Token(secret) if kind == "github" else Password(username, secret)


def own_credentials(kind: str, url: str, repository: str, *, ca: str = "") -> Credentials | None:
    """Who one is on a forge: an app of one's own (see `github_app.own`), or `own_login`; None
    where nothing says so.

    Raises:
        BadInput: half of it is set, or both are, or this forge has no apps.
    """
    if app := github_app.own():
        if kind != "github":
            raise BadInput(f"no app of {url}: only GitHub has apps", field=github_app.OWN[0])
        return github_app.Installation(app, api_of(url), repository, ca=ca)
    own = own_login()
    return login(kind, *own) if own else None


def own_login() -> tuple[str, str] | None:
    """FORGE_USERNAME and FORGE_PASSWORD, or FORGE_TOKEN in the place of either or both; None where
    nothing is set.

    Raises:
        BadInput: half of it is set.
    """
    username, password, token = (
        os.environ.get(f"FORGE_{name}", "") for name in ("USERNAME", "PASSWORD", "TOKEN")
    )
    if token:
        return username, token
    if not username and not password:
        return None
    for name, value in (("FORGE_USERNAME", username), ("FORGE_PASSWORD", password)):
        if not value:
            raise BadInput("not set", field=name, fix="set both of them, or neither")
    return username, password


def from_environment() -> Gitea | GitHub:
    """The forge that FORGE_KIND says, gitea where it is not set, with that one's own variables.

    Raises:
        BadInput: there is no such kind, or a variable of it is not set.
    """
    kind = os.environ.get("FORGE_KIND") or "gitea"
    if kind not in _KINDS:
        known = did_you_mean(kind, _KINDS)
        raise BadInput(f"unknown kind of forge {kind!r}", field="FORGE_KIND", fix=known)
    return _KINDS[kind].from_environment()
