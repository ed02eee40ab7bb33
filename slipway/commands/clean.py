"""`slipway clean`"""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from slipway import images, paths, toolchain
from slipway.commands import err
from slipway.trial import history


def command(
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Also present images, which the next `make up` rebuilds, and all that "
            "`slipway try` remembers.",
        ),
    ] = False,
) -> None:
    """Free what is not in use: compilers' and uv's caches, programs and images of former pins."""
    paths.cache().mkdir(parents=True, exist_ok=True)
    before = shutil.disk_usage(paths.cache()).free
    toolchain.drop_build_caches()
    toolchain.drop_former()
    shutil.rmtree(paths.cache() / "uv", ignore_errors=True)
    images.clean(everything=everything)
    if everything:
        shutil.rmtree(history.folder(), ignore_errors=True)
    freed = shutil.disk_usage(paths.cache()).free - before
    err.print(f"freed {freed / 2**30:.1f} GiB")
