"""Sweep: what a lost webhook, a failed step or a slow pod left undone is done."""

from __future__ import annotations

import traceback

from slipway.errors import SlipwayError

STEPS = ("dispatch", "follow", "gates")


def run() -> dict[str, str]:
    """Runs each; one that fails does not keep the others from running. No outputs."""
    if failed := [step for step in STEPS if not _done(step)]:
        raise SlipwayError(f"failed: {', '.join(failed)}", fix="see above; the next sweep tries it")
    return {}


def _done(step: str) -> bool:
    from slipway.steps.__main__ import main

    try:
        return main([step]) == 0
    except Exception:
        traceback.print_exc()
        return False
