"""The board: each model in each environment, as git says, as Argo CD says, as it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from slipway import release, serving
from slipway.endpoints import Cluster, ClusterError, part
from slipway.errors import SlipwayError
from slipway.forge import Forge, ForgeError
from slipway.paths import REPOSITORY
from slipway.release import Release


@dataclass(frozen=True)
class Row:
    """One model in one environment.

    `sync` and `health` are Argo CD's words, `answers` the digest of the bento that answers now;
    None where nothing is known. `problem` says why a release file could not be read.
    """

    model: str
    environment: str
    version: int | None
    bento: str | None
    sync: str | None
    health: str | None
    answers: str | None
    problem: str = ""

    @property
    def serving(self) -> bool:
        """Whether what answers is what git says."""
        return self.bento is not None and self.answers == self.bento


Files = dict[PurePosixPath, bytes]


def files_from_forge(forge: Forge) -> Files:
    """Every release file on the forge's main."""
    found: Files = {}
    for env in release.ENVIRONMENTS:
        folder = str(release.path(env, "x").parent)
        for path in forge.files(folder):
            if path.endswith(".yaml"):
                found[PurePosixPath(path)] = forge.read(path)
    return found


def files_from_checkout() -> Files:
    """Every release file in this checkout."""
    paths = sorted(REPOSITORY.glob("environments/*/models/*.yaml"))
    return {PurePosixPath(p.relative_to(REPOSITORY).as_posix()): p.read_bytes() for p in paths}


def files(cluster: Cluster, note: Callable[[str], None]) -> Files:
    """Release files from the forge, or from the checkout where it does not answer: `note` is told.

    Raises:
        ClusterError: the cluster itself does not answer.
    """
    try:
        with cluster.forge() as forge:
            return files_from_forge(forge)
    except (ForgeError, ClusterError) as error:
        if isinstance(error, ClusterError) and not error.status:
            raise
        note(f"release files are this checkout's, not the forge's: {error}")
        return files_from_checkout()


def rows(cluster: Cluster, files: Mapping[PurePosixPath, bytes]) -> list[Row]:
    """The board, by model and then by environment in the order of promotion."""
    applications = {
        str(item["metadata"]["name"]): item
        for item in cluster.items("/apis/argoproj.io/v1alpha1/namespaces/argocd/applications")
    }
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = pool.map(partial(_row, cluster, applications), files.keys(), files.values())
        return sorted(found, key=_order)


def _row(
    cluster: Cluster, applications: Mapping[str, Any], path: PurePosixPath, content: bytes
) -> Row:
    env, model = path.parts[1], path.stem
    read: Release | None = None
    problem = ""
    try:
        read = release.parse(content, path)
    except SlipwayError as error:
        problem = str(error)
    application = applications.get(f"{env}-{release.service(model)}")
    return Row(
        model=model,
        environment=env,
        version=read.version if read else None,
        bento=read.bento.digest if read else None,
        sync=part(application, "status", "sync", "status"),
        health=part(application, "status", "health", "status"),
        answers=serving.answering(cluster, env, model),
        problem=problem,
    )


def _order(row: Row) -> tuple[str, int]:
    known = release.ENVIRONMENTS
    return row.model, known.index(row.environment) if row.environment in known else len(known)


def documents(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The board as data."""
    return [{**vars(row), "serving": row.serving} for row in rows]
