"""The libraries of this machine beside those that the platform's images are locked to."""

from __future__ import annotations

import importlib.metadata
import platform
from functools import cache

from slipway import dependencies
from slipway.digests import Digest, of_json
from slipway.errors import SlipwayError
from slipway.steps.serving_only import SERVING, TRAINING

# As the images have it, where models are trained, packaged and served.
PYTHON = "3.11"
INSTALL = (
    "uv pip sync --require-hashes requirements/all.txt",
    "uv pip install --no-deps --no-build-isolation --editable .",
)
SHOWN = 5


@cache
def _wanted() -> dict[str, str]:
    """What training and serving are locked to."""
    return {**dependencies.locked(TRAINING), **dependencies.locked(SERVING)}


@cache
def installed() -> dict[str, str]:
    """Versions here of what is locked; "" where one is missing."""
    return {name: _version(name) for name in _wanted()}


def check() -> None:
    """Raises, with the command that installs them, where a library is missing."""
    if missing := [name for name, version in installed().items() if not version]:
        raise SlipwayError(f"not installed: {_some(missing)}", fix=" && ".join(INSTALL))


def others() -> str:
    """What differs from the images, in words; "" where nothing does."""
    wanted = _wanted()
    found = [
        f"{name} {version} (locked: {wanted[name]})"
        for name, version in installed().items()
        if version != wanted[name]
    ]
    if not platform.python_version().startswith(f"{PYTHON}."):
        found.insert(0, f"Python {platform.python_version()} (there: {PYTHON})")
    return _some(found)


def digest() -> Digest:
    """Names the libraries and the Python of this machine."""
    return of_json({"python": platform.python_version(), **installed()})


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _some(names: list[str]) -> str:
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join([*names[:SHOWN], *more])
