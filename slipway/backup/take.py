"""Takes a backup of a platform that runs, and stops nothing for it.

Each part is taken after those that name what is in it: the forge's database before its
repositories, these (whose release files name runs and digests) before MLflow's database, and that
before the store's objects. So whatever a backup names, it has.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx

from slipway import board, digests, paths, publish, pulumi
from slipway.backup import manifest, objects, shelf
from slipway.backup.manifest import Counts, Entry, Manifest, Part, Versions
from slipway.backup.place import Place, pass_on
from slipway.backup.pods import Pod
from slipway.backup.seal import Seal
from slipway.endpoints import Cluster
from slipway.errors import BadInput, SlipwayError
from slipway.forge import Forge, NotFound
from slipway.up import Report

# What Gitea makes anew by itself.
LEFT_OUT = ("queues", "tmp", "indexers", "log", "sessions", "repo-archive")
# Repositories in which nothing moved for so long have nothing under way in the database.
SETTLED_S, ATTEMPTS = 2.0, 10
FILES = "tar -C /data -cf - {} .".format(" ".join(f"--exclude ./{name}" for name in LEFT_OUT))
REFS = (
    "for one in /data/repositories/*/*.git; do [ -d $one ] || continue; "
    'echo $one; git -C $one symbolic-ref HEAD; git -C $one for-each-ref --format="'
    '%(objectname) %(refname)"; done'
)
COUNTED = {
    "pull_request": "SELECT count(*) FROM pull_request",
    "runs": "SELECT count(*) FROM runs",
    "model_versions": "SELECT count(*) FROM model_versions",
}
Say = Callable[[str], None]


def take(place: Place, stack: str, report: Report) -> Manifest:
    """Puts a backup of a stack's platform into a place, its manifest last.

    Raises:
        BadInput: the stack has no platform.
        SlipwayError: a part cannot be had; what is in the place by then is no backup.
    """
    if pulumi.is_simulated(stack):
        raise BadInput("nodes beside a platform, and no platform", field=f"--stack {stack}")
    cluster = Cluster.connect(stack)
    passphrase = machine_passphrase()
    return _Backup(place, stack, cluster, report, passphrase).take()


def machine_passphrase() -> str:
    """This machine's, by which its states are encrypted."""
    return paths.secret(pulumi.passphrase_file()).strip()


def running(cluster: Cluster, component: str) -> bool:
    """Whether a store runs in the cluster; on AWS something else may be in its place."""
    where = f"/apis/apps/v1/namespaces/storage/statefulsets/{component}"
    return cluster.find(where) is not None


def versions(cluster: Cluster, stack: str) -> Versions:
    """Of what runs.

    Raises:
        SlipwayError: it does not answer.
    """
    gitea = None
    if not cluster.outside_forge():
        with cluster.service("forge", "gitea") as url:
            login = cluster.forge_login(administrator=True)
            gitea = ask(f"{url}/api/v1/version", auth=login).json()["version"]
    with cluster.mlflow() as url:
        mlflow = ask(f"{url}/version").text
    postgres = None
    if running(cluster, "postgres"):
        postgres = sql(
            Pod.of(cluster, stack, "storage", "postgres"), "postgres", "SHOW server_version"
        )
    return Versions(
        gitea=gitea and _numbers(gitea),
        mlflow=_numbers(mlflow),
        postgres=postgres and _numbers(postgres),
    )


def ask(url: str, **options: Any) -> httpx.Response:
    """What a part of the platform answers.

    Raises:
        SlipwayError: nothing, or an error.
    """
    try:
        return httpx.get(url, trust_env=False, timeout=30, **options).raise_for_status()
    except httpx.HTTPError as error:
        raise SlipwayError(
            f"{url}: {error or type(error).__name__}",
            fix="see `slipway status`; `make up` mends it",
        ) from error


def releases(forge: Forge) -> board.Files:
    """Every release file on the forge's main; none where there is no main yet."""
    try:
        forge.commit()
    except NotFound:
        return {}
    return board.files_from_forge(forge)


def _numbers(version: str) -> str:
    """What an order is in, of all that a program says."""
    found = re.search(r"\d+\.\d+(\.\d+)?", version)
    if not found:
        raise SlipwayError(f"no version: {version!r}")
    return found[0]


def sql(postgres: Pod, database: str, query: str) -> str:
    """What PostgreSQL answers, a line a row."""
    return postgres.say(
        f"psql -XAtq -v ON_ERROR_STOP=1 -U postgres -d {database} -c '{query}'"
    ).strip()


class _Backup:
    """One backup while it is taken."""

    def __init__(
        self, place: Place, stack: str, cluster: Cluster, report: Report, passphrase: str
    ) -> None:
        self._place, self._stack, self._cluster, self._report = place, stack, cluster, report
        self._taken = datetime.now(UTC).replace(microsecond=0)
        self._name = manifest.name_of(self._taken)
        self._salt = token_hex(16)
        self._seal = Seal(passphrase, self._salt)
        self._parts: list[Part] = []
        self._counts: dict[str, int | None] = {
            **dict.fromkeys(("pull_requests", "runs", "model_versions")),
            **dict.fromkeys(("releases", "objects", "object_bytes"), 0),
        }

    def take(self) -> Manifest:
        known = {(e.bucket, e.key, e.etag, e.bytes): e for e in self._former()}
        elsewhere = {
            "postgres": "PostgreSQL's databases (RDS keeps backups)",
            "minio": "the store's objects (S3 keeps versions)",
        }
        if self._place.sizes(self._name):
            raise SlipwayError(f"{self._place} has a backup of this second", fix="run it again")
        here = {component for component in elsewhere if running(self._cluster, component)}
        found = versions(self._cluster, self._stack)
        if outside := self._cluster.outside_forge():
            elsewhere["gitea"] = f"the forge ({outside.url} is another's to keep)"
        else:
            here.add("gitea")
        with tempfile.TemporaryDirectory() as folder:
            self._folder = Path(folder)
            if pulumi.keeps_state_here(self._stack):
                with self._report.step("secrets") as say:
                    self._keep(manifest.STATE, self._written(pulumi.exported(self._stack)), say)
            with self._report.step("forge") as say:
                self._count_releases()
                if "gitea" in here:
                    self._forge("postgres" in here, say)
            if "postgres" in here:
                with self._report.step("databases") as say:
                    self._databases(say)
            entries: list[Entry] = []
            if "minio" in here:
                with self._report.step("objects") as say:
                    entries = self._objects(known, say)
        self._whole(entries)
        left = [elsewhere[component] for component in sorted(elsewhere.keys() - here)]
        return self._finished(found, left)

    def _finished(self, found: Versions, elsewhere: list[str]) -> Manifest:
        """Writes the manifest, by which all that is there becomes a backup."""
        if not self._parts:
            raise BadInput(
                f"stack {self._stack} has nothing to back up in its cluster",
                fix=f"see to the backups of {', '.join(elsewhere)}",
            )
        read = Manifest(
            taken=self._taken.strftime("%Y-%m-%dT%H:%M:%SZ"),
            stack=self._stack,
            commit=publish.head(),
            versions=found,
            parts=self._parts,
            counts=Counts.model_validate(self._counts),
            elsewhere=elsewhere,
            salt=self._salt,
            seal="0" * 64,
        )
        sealed = read.model_copy(update={"seal": self._seal.of(read.sealed())})
        document = digests.canonical_json(sealed.model_dump(mode="json"))
        shelf.put(self._place, f"{self._name}/{manifest.FILE}", document)
        return sealed

    def _former(self) -> list[Entry]:
        """What the stack's newest backup names; where that is damaged, all is read once more."""
        found = [b for b in shelf.backups(self._place).values() if isinstance(b, Manifest)]
        own = [backup for backup in found if backup.stack == self._stack]
        try:
            return [entry for backup in own[-1:] for entry in shelf.entries(self._place, backup)]
        except BadInput as error:
            self._report.warn(str(error))
            return []

    # --- parts --------------------------------------------------------------------------------

    def _written(self, content: bytes) -> Path:
        file = self._folder / "part"
        file.write_bytes(content)
        return file

    def _keep(self, name: str, file: Path, say: Say, *, sealed: bool = True) -> None:
        """Stores a part, and forgets the file."""
        stored = file
        if sealed:
            stored = file.with_suffix(".sealed")
            with file.open("rb") as source, stored.open("wb") as target:
                self._seal.encrypt(source, target)
        with stored.open("rb") as content:
            digest, size = pass_on(content)
        self._place.put(f"{self._name}/{name}", stored)
        self._parts.append(Part(name=name, sha256=digest, bytes=size))  # pyright: ignore[reportArgumentType]
        for done in {file, stored}:
            done.unlink()
        say(f"{name}: {size / 1e6:.1f} MB")

    def _forge(self, with_database: bool, say: Say) -> None:
        """Its database and its files, of one moment: no repository moved while they were read."""
        gitea = Pod.of(self._cluster, self._stack, "forge", "gitea")
        dump, files = self._folder / "dump", self._folder / "files"
        trouble = ""
        for _ in range(ATTEMPTS):
            if trouble:
                say(f"once more: {trouble}")
            trouble = "a repository has changed meanwhile"
            before = gitea.say(REFS)
            time.sleep(SETTLED_S)
            self._count_releases()
            if with_database:
                self._counts["pull_requests"] = self._count("gitea", "pull_request")
                self._dump("gitea", dump)
            try:
                gitea.read(FILES, files)
            except SlipwayError as error:  # tar, too, notices what changes while it reads
                trouble = str(error)
                continue
            if gitea.say(REFS) == before:
                break
        else:
            fix = "run it again while nobody pushes"
            raise SlipwayError(f"the forge does not stand still: {trouble}", fix=fix)
        _check_repositories(files)
        if with_database:
            self._keep(manifest.FORGE_DATABASE, dump, say)
        self._keep(manifest.FORGE_FILES, files, say)

    def _count_releases(self) -> None:
        with self._cluster.forge(administrator=True) as forge:
            self._counts["releases"] = len(releases(forge))

    def _databases(self, say: Say) -> None:
        """MLflow's and Argo Workflows'."""
        file = self._folder / "dump"
        for table in ("runs", "model_versions"):
            self._counts[table] = self._count("mlflow", table)
        for database, part in {
            "mlflow": manifest.MLFLOW_DATABASE,
            "argo": manifest.ARGO_DATABASE,
        }.items():
            self._dump(database, file)
            self._keep(part, file, say)

    def _dump(self, database: str, file: Path) -> None:
        """A database as of one moment."""
        postgres = Pod.of(self._cluster, self._stack, "storage", "postgres")
        postgres.read(f"pg_dump -U postgres -Fc -d {database}", file)

    def _count(self, database: str, table: str) -> int:
        postgres = Pod.of(self._cluster, self._stack, "storage", "postgres")
        return int(sql(postgres, database, COUNTED[table]))

    def _objects(self, known: objects.Known, say: Say) -> list[Entry]:
        with objects.store(self._cluster) as client:
            entries, copied = objects.copy_out(client, self._place, known, say)
        self._counts |= {"objects": len(entries), "object_bytes": sum(_sizes(entries).values())}
        for name in objects.corrupt(entries):
            self._report.warn(f"{name}: its content is not what its name says; kept as it is")
        self._keep(
            manifest.OBJECTS, self._written(manifest.dump_entries(entries)), say, sealed=False
        )
        say(f"{len(entries):,} objects, {copied / 1e6:,.1f} MB of them new")
        return entries

    def _whole(self, entries: list[Entry]) -> None:
        """Looks once more, as another backup may have cleared away what this one found there."""
        parts = {f"{self._name}/{part.name}": part.bytes for part in self._parts}
        there = {**self._place.sizes(self._name), **self._place.sizes("objects/")}
        wanted = {**parts, **_sizes(entries)}
        if gone := sorted(name for name, size in wanted.items() if there.get(name) != size):
            raise SlipwayError(
                f"{self._place}/{gone[0]} has gone while the backup was taken",
                fix="one backup at a time in one place: run it again",
            )


def _sizes(entries: list[Entry]) -> dict[str, int]:
    """Bytes of each content, by its name in the place."""
    return {entry.place: entry.bytes for entry in entries}


def _check_repositories(archive: Path) -> None:
    """Unpacks them, and has git follow every reference to its last object.

    Raises:
        SlipwayError: something is missing.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpack = ["tar", "-xf", archive, "-C", folder, "--no-same-owner", "./repositories"]
        subprocess.run(unpack, check=True)
        for repository in sorted(Path(folder, "repositories").glob("*/*.git")):
            publish.git("fsck", "--connectivity-only", "--no-dangling", cwd=repository)
