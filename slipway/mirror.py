"""The forge's branches as a bare repository in the cache: git answers what the API cannot."""

from __future__ import annotations

import fcntl
from collections.abc import Generator
from contextlib import contextmanager

from slipway import paths
from slipway.forge import Forge
from slipway.publish import git
from slipway.repository import Repository


@contextmanager
def mirror(forge: Forge, branch: str = "main") -> Generator[tuple[Repository, str]]:
    """The repository with every branch as it is now, and the commit of `branch`.

    Only what the forge has gained is fetched.

    Raises:
        SlipwayError: the forge's git does not answer.
    """
    folder = paths.cache() / "mirrors" / f"{forge.repository.replace('/', '+')}.git"
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Another command may look at another cluster's forge: each takes its commit before it lets go.
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            git("init", "--quiet", "--bare", str(folder))
        refs = "+refs/heads/*:refs/heads/*"
        options = ("--quiet", "--prune", "--no-tags", "--no-write-fetch-head")
        git("fetch", *options, forge.remote.url, refs, remote=forge.remote, cwd=folder)
        repository = Repository(folder)
        commit = repository.commit(branch)
    with repository:
        yield repository, commit
