"""Where Slipway keeps things: what can be rebuilt, what must survive, what describes this run."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def _xdg(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default) / "slipway"


def cache() -> Path:
    """Rebuildable at the price of time: toolchain binaries, image archives. Shared by clones."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def uv_cache() -> Path:
    """uv's cache, ours unless UV_CACHE_DIR names another, as toolchain/bootstrap has it. The Python
    environment shares its files and needs none of them."""
    return Path(os.environ.get("UV_CACHE_DIR") or cache() / "uv")


def data() -> Path:
    """The platform's data: etcd, persistent volumes, registry, Pulumi state and its passphrase."""
    return _xdg("XDG_DATA_HOME", ".local/share")


def state() -> Path:
    """This run: sockets, process ids, logs, kubeconfig."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def stack_file(stack: str) -> Path:
    """A stack's configuration; in a folder of one's own where SLIPWAY_STACKS names one."""
    folder = os.environ.get("SLIPWAY_STACKS")
    return (Path(folder).resolve() if folder else REPOSITORY / "environments") / (
        f"Pulumi.{stack}.yaml"
    )


def told(file: Path) -> str:
    """A file as a message names it: from the repository on, where it is in there."""
    inside = file.is_relative_to(REPOSITORY)
    return str(file.relative_to(REPOSITORY) if inside else file)


def images_file() -> Path:
    """JSON: image name to reference by digest, as the image builder left it."""
    return state() / "images.json"


def kubeconfig() -> Path:
    """Kubeconfig of the embedded cluster."""
    return state() / "kubeconfig"


def write(file: Path, data: bytes) -> None:
    """Writes a file, all of it or nothing, and the folders that it is to be in."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(file)


def secret(file: Path, value: str = "") -> str:
    """A secret of this machine's: made at first use, all of it or nothing, for its owner only.

    Args:
        value: what it is made of; by default, random.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.partial")
        partial.touch(mode=0o600)
        partial.write_text(value or secrets.token_hex(32))
        partial.rename(file)
    return file.read_text()
