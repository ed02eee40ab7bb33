"""`slipway clean`"""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from slipway import images, paths, toolchain
from slipway.commands import err


def command(
    everything: Annotated[
        bool, typer.Option("--all", help="Also present images: the next `make up` rebuilds them.")
    ] = False,
) -> None:
    """Free what is not in use: compilers' caches, programs and images of former pins."""
    paths.cache().mkdir(parents=True, exist_ok=True)
    before = shutil.disk_usage(paths.cache()).free
    toolchain.drop_build_caches()
    toolchain.drop_former()
    images.clean(everything=everything)
    freed = shutil.disk_usage(paths.cache()).free - before
    err.print(f"freed {freed / 2**30:.1f} GiB")
