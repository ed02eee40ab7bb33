"""`slipway clean`"""

from __future__ import annotations

import shutil

from slipway import images, paths, toolchain
from slipway.commands import err


def command() -> None:
    """Free what can be rebuilt: compilers' caches, image layouts, programs of former pins."""
    paths.cache().mkdir(parents=True, exist_ok=True)
    before = shutil.disk_usage(paths.cache()).free
    toolchain.drop_build_caches()
    toolchain.drop_former()
    images.clean()
    freed = shutil.disk_usage(paths.cache()).free - before
    err.print(f"freed {freed / 2**30:.1f} GiB")
