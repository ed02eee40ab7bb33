"""A process that finds what pods find: the training image has more libraries than they do.

Bentos are built and measured in the training image. A service that imports what only training has
would pass every gate and fail in its pods, so here those modules are not found either: Python reads
`sitecustomize.py`, which lies beside this file, when it starts.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections.abc import Iterable
from pathlib import Path

from packaging.utils import canonicalize_name

from slipway import dependencies, paths
from slipway.errors import SlipwayError

TRAINING, SERVING = (
    paths.REPOSITORY / "requirements" / f"{name}.txt" for name in ("training", "serving")
)
HIDDEN = "SLIPWAY_HIDDEN_MODULES"


@functools.cache
def modules() -> frozenset[str]:
    """Top-level modules of what training.txt locks and serving.txt does not."""
    served = dependencies.locked(SERVING).keys()
    alone = dependencies.locked(TRAINING).keys() - served
    found: set[str] = set()
    for module, names in importlib.metadata.packages_distributions().items():
        # `google` and `opentelemetry` are many distributions'; what one of serving has is there.
        owners = {canonicalize_name(name) for name in names}
        if owners & alone and not owners & served:
            found.add(module)
    return frozenset(found)


def environment(files: Iterable[str]) -> dict[str, str]:
    """The variables of such a process whose own code is in `files`, which no library shadows."""
    hidden = modules() - {Path(name).stem for name in files}
    return {"PYTHONPATH": str(Path(__file__).parent), HIDDEN: " ".join(sorted(hidden))}


def missing(output: str) -> SlipwayError | None:
    """The reason, if `output` of such a process ends in an import of what it is not to find."""
    named: list[str] = re.findall(r"No module named '(\w+)", output)
    if not named or named[-1] not in modules():
        return None
    return SlipwayError(
        f"the service imports {named[-1]}, which requirements/serving.txt does not lock\n"
        f"{output[-3000:]}",
        fix=f"lock it there, or import {named[-1]} in training.py alone",
    )
