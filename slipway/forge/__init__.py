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
    "from_environment",
]

_KINDS: dict[str, type[Gitea] | type[GitHub]] = {"gitea": Gitea, "github": GitHub}


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
