"""The git forge: branches, files, pull requests, commit statuses and comments over its API."""

from __future__ import annotations

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

__all__ = [
    "Comment",
    "Forge",
    "ForgeError",
    "Gitea",
    "NotFound",
    "PullRequest",
    "Review",
    "Revision",
    "State",
]
