"""Sweep: what a merge asks for is done, or what a lost webhook or a failed step left undone."""

from __future__ import annotations

import traceback

from slipway.errors import SlipwayError


def run(wait: str = "0") -> dict[str, str]:
    """Dispatch, gates and follow, which waits up to `wait` seconds for pods that have just changed.

    One that fails does not keep the others from running. No outputs.
    """
    steps = (["dispatch"], ["gates"], ["follow", f"--wait={wait}"])
    if failed := [name for name, *flags in steps if not _done([name, *flags])]:
        raise SlipwayError(f"failed: {', '.join(failed)}", fix="see above; the next sweep tries it")
    return {}


def _done(arguments: list[str]) -> bool:
    from slipway.steps.__main__ import main

    try:
        return main(arguments) == 0
    except Exception:
        traceback.print_exc()
        return False
