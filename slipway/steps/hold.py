"""Hold: what the gates let pass by an older main is not merged before they have looked again.

Thresholds may be others by now, or what the environment before serves. Whoever holds judges next,
and so does every sweep: what is pending then gets its verdict, even one that was given meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

# Nothing that judges: this is to be done before a verdict's libraries have been read.
from slipway.forge import Forge, from_environment
from slipway.merging import CONTEXT

FOLDER = "environments/"


def run() -> dict[str, str]:
    """Outputs `held`, the numbers of pull requests. Where the forge's Actions judge, they hold."""
    if os.environ.get("FORGE_GATES") == "actions":
        return {"held": ""}
    with from_environment() as forge:
        return {"held": " ".join(map(str, hold(forge)))}


def hold(forge: Forge) -> Iterator[int]:
    """The open pull requests whose verdict may be another one by now, each pending from here on."""
    for pull in forge.pulls():
        if pull.base != "main" or forge.statuses(pull.sha).get(CONTEXT) != "success":
            continue
        changed = forge.changed(pull.number)
        if not any(path.startswith(FOLDER) for path in changed):
            continue
        # What was merged meanwhile keeps what was said of it.
        if forge.pull(pull.number).state == "open":
            forge.set_status(pull.sha, CONTEXT, "pending", "main has moved: judged once more")
            yield pull.number
