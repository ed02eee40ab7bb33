"""Which environments this stack hosts, and which come before them on other stacks."""

from __future__ import annotations

import os

from slipway import release, store
from slipway.errors import BadInput


def here() -> list[str]:
    """Those that this stack hosts."""
    return os.environ.get("ENVIRONMENTS", "").split()


def upstream() -> list[str]:
    """Those that other stacks host, whose stores and evidence are trusted here."""
    return list(store.upstream(os.environ.get(store.UPSTREAM, "")))


def check_here(environment: str) -> None:
    """`BadInput` unless this stack hosts it: only who hosts an environment attests for it."""
    if release.check_environment(environment) not in here():
        raise BadInput(
            f"this stack hosts {' and '.join(here()) or 'no environment'}, not {environment}",
            field="--environment",
            fix=f"run it on the stack that hosts {environment}: KUBECONFIG says which",
        )


def judges(changed: set[str]) -> bool:
    """Whether this stack judges what changes these environments.

    The one does that hosts the last of them, which can read what comes before; the one that hosts
    the first judges also what changes none.
    """
    last = max(changed, key=release.ENVIRONMENTS.index, default=release.ENVIRONMENTS[0])
    return last in here()
