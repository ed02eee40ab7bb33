"""The board: each model in each environment, as git says, as Argo CD says, as it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import PurePosixPath
from typing import Any, TypeVar

from slipway import gates, history, lineage, merging, passage, release, serving, sources
from slipway.endpoints import Cluster, ClusterError, part, parts
from slipway.errors import BadInput, SlipwayError
from slipway.forge import Forge, ForgeError, NotFound
from slipway.gates import Stay
from slipway.lineage import Broken, MLflow
from slipway.mirror import mirror
from slipway.paths import REPOSITORY
from slipway.release import ENVIRONMENTS, Release
from slipway.repository import Repository, Version

Say = Callable[[str], None]
T = TypeVar("T")
FILES = "environments/*/models/*.yaml"


@dataclass(frozen=True)
class Proposal:
    """An open pull request; `gates` is the state of their commit status, "" where none is there."""

    number: int
    url: str
    title: str
    gates: str


@dataclass(frozen=True)
class Remaining:
    """What the present bento has yet to serve here before `before` takes it; zeros: no more."""

    before: str
    seconds: int
    predictions: int
    labelled: int

    @property
    def over(self) -> bool:
        return not (self.seconds or self.predictions or self.labelled)


@dataclass(frozen=True)
class Row:
    """One model in one environment.

    `sync` and `health` are Argo CD's words, `answers` the digest of the bento that answers now;
    None where nothing is known. `problem` says why a release file could not be read. Where nothing
    is released yet but proposed, the row has no version. `soak` is None where the next environment
    has this bento, or asks for none. `alias` is the version that MLflow's alias of the environment
    names; `drift` says whether that is another than git's though the environment answers with that
    one, which MLflow then follows; None where MLflow was not asked. `doubt` says why no verdict of
    the gates stands behind the release file; None where that was not looked at.
    """

    model: str
    environment: str
    version: int | None
    bento: str | None
    sync: str | None = None
    health: str | None = None
    answers: str | None = None
    problem: str = ""
    pull_requests: tuple[Proposal, ...] = ()
    soak: Remaining | None = None
    alias: int | None = None
    drift: bool | None = None
    doubt: str | None = None

    @property
    def path(self) -> str:
        """The release file's."""
        return str(release.path(self.environment, self.model))

    @property
    def serving(self) -> bool:
        """Whether what answers is what git says."""
        return self.bento is not None and self.answers == self.bento


Files = dict[PurePosixPath, bytes]


def files_from_forge(forge: Forge) -> Files:
    """Every release file on the forge's main."""
    folders = [str(release.path(env, "x").parent) for env in ENVIRONMENTS]
    with ThreadPoolExecutor(max_workers=8) as pool:
        listed = [p for found in pool.map(forge.files, folders) for p in found]
        paths = [path for path in listed if path.endswith(".yaml")]
        return dict(zip(map(PurePosixPath, paths), pool.map(forge.read, paths), strict=True))


def files_from_checkout() -> Files:
    """Every release file in this checkout."""
    paths = sorted(REPOSITORY.glob(FILES))
    return {PurePosixPath(p.relative_to(REPOSITORY).as_posix()): p.read_bytes() for p in paths}


def files_from_git(repository: Repository, rev: str) -> Files:
    """Every release file at a commit."""
    found = {PurePosixPath(p): c for p, c in repository.contents(rev, "environments").items()}
    return {p: c for p, c in found.items() if p.match(FILES)}


def look(cluster: Cluster, say: Say) -> list[Row]:
    """The whole board, by model and then by environment in the order of promotion.

    Release files are this checkout's where the forge does not answer. What else cannot be had is
    left out. `say` is told of both.

    Raises:
        ClusterError: the cluster itself does not answer.
    """
    said: dict[str, None] = {}

    def once(text: str) -> None:
        if text not in said:
            said[text] = None
            say(text)

    with ExitStack() as stack:
        forge: Forge | None = None
        try:
            forge = stack.enter_context(cluster.forge())
            files = files_from_forge(forge)
        except (ForgeError, ClusterError, BadInput) as error:
            if isinstance(error, ClusterError) and not error.status:
                raise
            say(f"release files are this checkout's, not the forge's: {error}")
            forge, files = None, files_from_checkout()
        found = rows(cluster, files)
        if forge:
            found = _or_else(once, "pull requests", found, partial(_with_proposals, forge, found))
            found = _or_else(
                once, "history", found, partial(_with_past, cluster, forge, once, found)
            )
        found = _or_else(once, "MLflow's aliases", found, partial(_with_aliases, cluster, found))
        return found


def _or_else(say: Say, what: str, otherwise: T, find: Callable[[], T]) -> T:
    try:
        return find()
    except SlipwayError as error:
        say(f"{what}: not known: {error}")
        return otherwise


def rows(cluster: Cluster, files: Mapping[PurePosixPath, bytes]) -> list[Row]:
    """What is released, and what becomes of it in the cluster."""
    applications = {
        str(item["metadata"]["name"]): item
        for item in cluster.items("/apis/argoproj.io/v1alpha1/namespaces/argocd/applications")
    }
    with ThreadPoolExecutor(max_workers=8) as pool:
        released = list(map(_released, files.keys(), files.values()))
        return sorted(pool.map(partial(_running, cluster, applications), released), key=_order)


def rows_from_git(repository: Repository, rev: str) -> list[Row]:
    """What is released at a commit. Cost: linear in the release files there."""
    files = files_from_git(repository, rev)
    return sorted(map(_released, files.keys(), files.values()), key=_order)


def _released(path: PurePosixPath, content: bytes) -> Row:
    env, model = path.parts[1], path.stem
    read: Release | None = None
    problem = ""
    try:
        read = release.parse(content, path)
    except SlipwayError as error:
        problem = str(error)
    version, bento = (read.version, read.bento.digest) if read else (None, None)
    return Row(model, env, version, bento, problem=problem)


def _running(cluster: Cluster, applications: Mapping[str, Any], row: Row) -> Row:
    application = applications.get(f"{row.environment}-{release.service(row.model)}")
    return replace(
        row,
        sync=part(application, "status", "sync", "status"),
        health=part(application, "status", "health", "status"),
        answers=serving.answering(cluster, row.environment, row.model),
    )


def _with_proposals(forge: Forge, found: list[Row]) -> list[Row]:
    """By what they change, whoever opened them: a branch may have any name, and a fork's too."""
    known = {(row.environment, row.model): row for row in found}
    opened = [pull for pull in forge.pulls("open") if pull.base == "main"]
    with ThreadPoolExecutor(max_workers=8) as pool:
        changed = list(pool.map(forge.changed, [pull.number for pull in opened]))
    for pull, paths in reversed(list(zip(opened, changed, strict=True))):
        places = _places(paths)
        state = forge.statuses(pull.sha).get(merging.CONTEXT, "") if places else ""
        proposal = Proposal(pull.number, pull.url, pull.title, state)
        for env, model in places:
            row = known.get((env, model)) or Row(model, env, None, None)
            known[env, model] = replace(row, pull_requests=(*row.pull_requests, proposal))
    return sorted(known.values(), key=_order)


def _places(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Environment and model of each release file among them."""
    parts = [path.parts for path in map(PurePosixPath, paths) if path.match(FILES)]
    known = [part for part in parts if len(part) == 4 and part[1] in ENVIRONMENTS]
    return [(part[1], PurePosixPath(part[3]).stem) for part in known]


def _with_past(cluster: Cluster, forge: Forge, say: Say, found: list[Row]) -> list[Row]:
    """With what main's history tells: what let each release in, and how long it has served."""
    with mirror(forge) as (repository, tip):
        past = Past.of(repository, tip, [r for r in found if r.bento or r.problem])
        found = _or_else(say, "verdicts", found, partial(_with_doubts, cluster, forge, past, found))
        return _or_else(say, "soak", found, partial(_with_soak, cluster, forge, past, say, found))


@dataclass(frozen=True)
class Past:
    """What main had at each row's release file, newest first, by its path."""

    repository: Repository
    versions: Mapping[str, list[Version]]

    @classmethod
    def of(cls, repository: Repository, tip: str, rows: Iterable[Row]) -> Past:
        return cls(repository, repository.versions(tip, [row.path for row in rows]))

    def stays(self, row: Row) -> tuple[Stay, ...]:
        """When the environment's release file named the bento that it names now."""
        return history.stays(self.repository, self.versions[row.path], row.path, row.bento or "")


def _with_doubts(cluster: Cluster, forge: Forge, past: Past, found: list[Row]) -> list[Row]:
    judge = cluster.config("pipelines", "platform").get("FORGE_JUDGE", "")

    def doubted(row: Row) -> Row:
        versions = past.versions.get(row.path)
        if not versions:
            return row
        commit = versions[0].commit
        return replace(row, doubt=passage.doubt(forge, past.repository, commit, row.path, judge))

    return list(map(doubted, found))


def _with_soak(cluster: Cluster, forge: Forge, past: Past, say: Say, found: list[Row]) -> list[Row]:
    released = {(row.environment, row.model): row.bento for row in found}
    source = sources.Platform(lambda: cluster)

    def read(path: str) -> bytes | None:
        try:
            return forge.read(path)
        except NotFound:
            return None

    def asking(row: Row) -> tuple[str, Any] | None:
        """The environment that asks this row's bento to serve, and its limits."""
        place = ENVIRONMENTS.index(row.environment) if row.environment in ENVIRONMENTS else -1
        if row.bento is None or not 0 <= place < len(ENVIRONMENTS) - 1:
            return None
        after = ENVIRONMENTS[place + 1]
        if released.get((after, row.model)) == row.bento:
            return None
        limits: Any = gates.load_policy(read, after, row.model).limits.get("soak")
        asked = limits and (gates.duration(limits.lasting) or limits.predictions or limits.labelled)
        return (after, limits) if asked else None

    def remaining(row: Row, after: str, limits: Any) -> Row:
        served = source.soak(row.environment, row.model, row.bento or "")
        left = _remaining(after, limits, served, past.stays(row), datetime.now(UTC))
        return replace(row, soak=left)

    def looked(row: Row) -> Row:
        of = asking(row)
        return remaining(row, *of) if of else row

    return [_or_else(say, "soak", row, partial(looked, row)) for row in found]


def _remaining(
    after: str, limits: Any, served: gates.Soak, since: tuple[Stay, ...], now: datetime
) -> Remaining:
    left = gates.duration(limits.lasting) - served.lasted(since, now)
    return Remaining(
        before=after,
        seconds=max(0, round(left.total_seconds())),
        predictions=max(0, limits.predictions - served.predictions),
        labelled=max(0, limits.labelled - served.labelled),
    )


def _with_aliases(cluster: Cluster, found: list[Row]) -> list[Row]:
    mlflow = lineage.mlflow(cluster)
    models = {row.model for row in found if row.version}
    with ThreadPoolExecutor(max_workers=8) as pool:
        named = dict(zip(models, pool.map(partial(_aliases, mlflow), models), strict=True))

    def compared(row: Row) -> Row:
        alias = named.get(row.model, {}).get(row.environment)
        return replace(row, alias=alias, drift=row.serving and alias != row.version)

    return [compared(row) for row in found]


def _aliases(mlflow: MLflow, model: str) -> dict[str, int]:
    """The version that each alias of a registered model names; empty for one that is not there."""
    try:
        answer = mlflow.get("registered-models/get", name=model)
    except Broken:
        return {}
    return {a["alias"]: int(a["version"]) for a in parts(answer, "registered_model", "aliases")}


def _order(row: Row) -> tuple[str, int]:
    known = ENVIRONMENTS
    return row.model, known.index(row.environment) if row.environment in known else len(known)


def documents(rows: Iterable[Row], *, running: bool = True) -> list[dict[str, Any]]:
    """The board as data; `serving` is null where it was not `running` that was looked at."""
    return [{**asdict(row), "serving": row.serving if running else None} for row in rows]
