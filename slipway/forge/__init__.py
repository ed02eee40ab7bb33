"""The git forge: branches, files, pull requests, commit statuses and comments over its API."""

from __future__ import annotations

import os

from slipway.errors import BadInput, did_you_mean
from slipway.forge.base import (
    Comment,
    Forge,
    ForgeError,
    NotFound,
    PullRequest,
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
    "Review",
    "Revision",
    "State",
    "connect",
    "from_environment",
    "own_login",
]

_KINDS: dict[str, type[Gitea] | type[GitHub]] = {"gitea": Gitea, "github": GitHub}


def connect(kind: str, url: str, repository: str, username: str, password: str) -> Gitea | GitHub:
    """A forge by its address, as whoever these credentials are of."""
    if kind == "github":
        return GitHub(repository, password, api=api_of(url), server=url)
    return Gitea(url, repository, username, password)


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
