"""`slipway up`"""

from __future__ import annotations

from slipway import up
from slipway.commands import err


def command() -> None:
    """Bring the whole platform up, from nothing, until a model answers. Goes on where it was."""
    up.up(err)
