"""From a backup to a platform that answers: every step can be repeated, the whole too.

The stack's state comes first, so that the platform is made with the secrets that it had; then the
store's objects, and only then what names them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from slipway import board, cluster, paths, pulumi, release, serving, up
from slipway.backup import check, manifest, objects, pods, take
from slipway.backup.manifest import Entry, Manifest
from slipway.backup.place import Place
from slipway.backup.pods import Pod
from slipway.backup.seal import Seal
from slipway.endpoints import Cluster, part, parts
from slipway.errors import BadInput, SlipwayError
from slipway.up import Report

FORGE = ("forge", "gitea")
# Who has a database or a volume open, and reads it anew when it starts.
USERS = (
    *(FORGE, ("mlflow", "mlflow")),
    *(("argo", "workflow-controller"), ("argo", "argo-server")),
)
# How many replicas one had that is stopped.
REPLICAS = "slipway.dev/replicas"
# Where in the forge's volume its files are until all of them are there.
NEW = ".restored"
DATABASES = {
    "gitea": manifest.FORGE_DATABASE,
    "mlflow": manifest.MLFLOW_DATABASE,
    "argo": manifest.ARGO_DATABASE,
}
# What a platform is for; what MLflow and workflows store besides comes with it.
OF_VALUE = ("bentos", "data", "evidence", "labels", "predictions")
# How far a restore is: its platform may be destroyed, has the secrets, is given the data.
BEGUN, ADOPTED, FILLING = "begun", "adopted", "filling"
REPLACE = "--replace destroys it, with all its data"


def restore(
    place: Place, backup: Manifest, passphrase: str, report: Report, *, replace: bool = False
) -> list[str]:
    """Brings a platform up with the data of a backup.

    Args:
        passphrase: that of the machine that took it.
        replace: whether a platform that has data may be destroyed for it.

    Returns:
        A line for each model that answers again.

    Raises:
        BadInput: the backup cannot be restored here; nothing has been touched.
        SlipwayError: a step failed; the same again goes on from there.
    """
    seal, entries = verify(place, backup, passphrase, report)
    on_aws = pulumi.is_on_aws(backup.stack)
    if not on_aws:
        _bring_up(place, backup, seal, passphrase, report, replace=replace)
    elif not _stage(backup):
        _refuse_data(backup.stack, replace)
    platform = Cluster.connect(backup.stack)
    # From when they may be stopped, nobody asks them anything before they are started again.
    if _stage(backup) != FILLING:
        if not on_aws:
            up.await_consoles(report, platform)
        # The stack may name images of its own.
        check.fits(backup, take.versions(platform, backup.stack))
        _mark(backup, FILLING)
    _Restore(place, backup, seal, platform, report).fill(entries)
    if not on_aws:
        up.await_consoles(report, platform)
    answering = _answering(platform, report)
    pulumi.restoring(backup.stack).unlink()
    return answering


def verify(
    place: Place, backup: Manifest, passphrase: str, report: Report
) -> tuple[Seal, list[Entry]]:
    """Whether a backup is whole and of use to this checkout; its keys and its objects.

    Raises:
        BadInput: it is not.
    """
    seal = check.unseal(place, backup, passphrase)
    check.fits(backup, check.pinned(backup.stack))
    with report.step("verify") as say:
        entries = check.whole(place, backup, say)
        say(f"{len(backup.parts)} parts and {len(entries):,} objects are whole")
    return seal, entries


# --- what is here -----------------------------------------------------------------------------


def _mark(backup: Manifest, stage: str) -> None:
    """Remembers how far the restore of a backup is."""
    file = pulumi.restoring(backup.stack)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{backup.seal} {stage}")


def _stage(backup: Manifest) -> str:
    """How far the restore of this backup is; "" where none, or another's, was begun."""
    file = pulumi.restoring(backup.stack)
    seal, _, stage = (file.read_text() if file.exists() else "").partition(" ")
    return stage if seal == backup.seal else ""


def _refuse_data(stack: str, replace: bool) -> None:
    """
    Raises:
        BadInput: the platform that runs has data.
    """
    if replace:
        return
    if found := holds(Cluster.connect(stack)):
        raise BadInput(f"the platform has data of its own: {', '.join(found)}", fix=REPLACE)


def holds(platform: Cluster) -> list[str]:
    """What a platform has that would be lost with it.

    Raises:
        SlipwayError: it cannot be asked.
    """
    found: list[str] = []
    # Those on another's forge are not lost.
    if not platform.outside_forge():
        if not platform.items("/api/v1/namespaces/forge/persistentvolumeclaims"):
            return []
        with platform.forge(administrator=True) as forge:
            if releases := len(take.releases(forge)):
                found.append(f"{releases} releases")
    with platform.mlflow() as url:
        answer = take.ask(f"{url}/api/2.0/mlflow/registered-models/search").json()
        if models := len(parts(answer, "registered_models")):
            found.append(f"{models} models")
    if take.running(platform, "minio"):
        with objects.store(platform) as client:
            if stored := sum(bucket in OF_VALUE for bucket, _ in objects.listed(client)):
                found.append(f"{stored:,} objects")
    return found


def _look(stack: str, replace: bool) -> bool:
    """Whether a platform is here, and may go.

    Raises:
        BadInput: it may not.
    """
    if pulumi.is_embedded(stack) and not cluster.is_up():
        if not list((paths.data() / "volumes").glob("*")):
            return False
        if not replace:
            raise BadInput(
                "a platform is here, stopped, and may have data of its own",
                file=paths.data() / "volumes",
                fix=f"`make up` shows what it has; `make down ERASE=1`, or {REPLACE}",
            )
        return True
    platform = Cluster.connect(stack)
    pulumi.take_nothing_over(stack, platform, whole=False)
    if platform.find("/api/v1/namespaces/storage") is None:
        return False
    try:
        _refuse_data(stack, replace)
    except BadInput:
        raise
    except SlipwayError as error:
        raise BadInput(
            f"a platform is here that does not say what data it has: {error}",
            fix=f"`make up` mends it; {REPLACE}",
        ) from error
    return True


# --- the platform -----------------------------------------------------------------------------


def _bring_up(
    place: Place,
    backup: Manifest,
    seal: Seal,
    passphrase: str,
    report: Report,
    *,
    replace: bool,
) -> None:
    """The platform, with the secrets that it had; its stores are as yet empty."""
    stack = backup.stack
    if stack != up.STACK:
        raise BadInput(f"a backup of stack {stack}, and only {up.STACK} can be restored")
    pulumi.check_passphrase(stack, passphrase)
    adopted = _stage(backup) in (ADOPTED, FILLING)
    # What an interrupted restore has brought is nobody's only copy.
    begun = pulumi.restoring(stack).exists()
    there = not adopted and _look(stack, replace or begun)
    embedded = pulumi.is_embedded(stack)
    up.examine(report.console, embedded=embedded)
    up.forget()
    up.prepare(report, embedded=embedded)
    if embedded:
        up.start_cluster(report)
    if not adopted:
        _mark(backup, BEGUN)
        if there:
            up.destroy(report)
        with report.step("secrets") as say, opened(place, backup, seal, manifest.STATE) as state:
            say("the state of the stack, with what was generated once")
            pulumi.adopt(stack, state, passphrase)
        _mark(backup, ADOPTED)
    up.apply(report)


@contextmanager
def opened(place: Place, backup: Manifest, seal: Seal, name: str) -> Generator[Path]:
    """A part of a backup, decrypted, for a while."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, name)
        with place.open(f"{backup.name}/{name}") as source, file.open("wb") as target:
            seal.decrypt(source, target)
        yield file


# --- its data ---------------------------------------------------------------------------------


class _Restore:
    """One backup while its data is put back."""

    def __init__(
        self, place: Place, backup: Manifest, seal: Seal, platform: Cluster, report: Report
    ) -> None:
        self._place, self._backup, self._seal = place, backup, seal
        self._platform, self._report = platform, report

    def fill(self, entries: list[Entry]) -> None:
        """Objects first, then what names them, while nobody reads it."""
        if self._backup.part(manifest.OBJECTS):
            with self._report.step("objects") as say, objects.store(self._platform) as client:
                objects.copy_in(client, self._place, entries, say)
                say(f"{len(entries):,} objects")
        with self._report.step("databases") as say:
            say("stopping who has them open")
            self._scale(stopped=True)
            for database, dump in DATABASES.items():
                if self._backup.part(dump):
                    say(database)
                    self._database(database, dump)
        with self._report.step("forge") as say:
            has_forge = self._backup.part(manifest.FORGE_FILES)
            if has_forge:
                say("repositories and attachments")
                self._files()
            say("starting who reads all this")
            self._scale(stopped=False)
            if has_forge:
                say("its hooks")
                self._hooks()

    def _scale(self, *, stopped: bool, seconds: float = 300) -> None:
        """Stops who has the data open, or starts them as they were; waits until that is so."""
        # On AWS nobody's database is in the backup; of another's forge nothing is.
        users = [
            user
            for user in USERS
            if self._backup.part(
                manifest.FORGE_FILES if user == FORGE else manifest.MLFLOW_DATABASE
            )
        ]
        wanted = {user: self._ask(*user, stopped=stopped) for user in users}
        deadline = time.monotonic() + seconds
        while waiting := [user for user in users if self._pods(*user) != wanted[user]]:
            if time.monotonic() > deadline:
                namespace, name = waiting[0]
                raise SlipwayError(
                    f"{name} has not {wanted[waiting[0]]} pods after {seconds:.0f} s",
                    fix=f"kubectl -n {namespace} get pods,events",
                )
            time.sleep(0.5)

    def _ask(self, namespace: str, name: str, *, stopped: bool) -> int:
        """How many pods a Deployment is to have: none, or as many as before it was stopped."""
        where = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
        found = self._platform.find(where)
        present = part(found, "spec", "replicas") or 0
        before = int(part(found, "metadata", "annotations", REPLICAS) or present or 1)
        replicas, kept = (0, str(before)) if stopped else (before, None)
        change = {"metadata": {"annotations": {REPLICAS: kept}}, "spec": {"replicas": replicas}}
        self._platform.patch(where, change)
        return replicas

    def _pods(self, namespace: str, name: str) -> int:
        """How many there are, once each of them is ready and none is going; -1 until then."""
        where = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
        found = self._platform.find(where)
        labels = part(found, "spec", "selector", "matchLabels") or {}
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        pods = self._platform.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)
        ready = part(found, "status", "readyReplicas") or 0
        return ready if ready == len(pods) else -1

    def _database(self, name: str, dump: str) -> None:
        postgres = Pod.of(self._platform, self._backup.stack, "storage", "postgres")
        for statement in (
            f"DROP DATABASE IF EXISTS {name} WITH (FORCE)",
            f"CREATE DATABASE {name} OWNER {name}",
            f"REVOKE ALL ON DATABASE {name} FROM PUBLIC",
        ):
            take.sql(postgres, "postgres", statement)
        options = "--exit-on-error --single-transaction --no-owner --no-privileges"
        script = f"pg_restore -U postgres {options} --role {name} -d {name}"
        with opened(self._place, self._backup, self._seal, dump) as file:
            postgres.write(script, file)

    def _files(self) -> None:
        """In place of what the forge has made for itself, which is stopped."""
        kept = " ".join(f"! -name {name}" for name in ("lost+found", NEW, *take.LEFT_OUT))
        script = (
            # First into a folder of their own: the volume's root is not the forge's to change.
            f"cd /data && rm -rf {NEW} && mkdir {NEW} && tar -C {NEW} -xf - && "
            f"find . -mindepth 1 -maxdepth 1 {kept} -exec rm -rf {{}} + && "
            f"find {NEW} -mindepth 1 -maxdepth 1 -exec mv {{}} . ';' && rmdir {NEW}"
        )
        with (
            opened(self._place, self._backup, self._seal, manifest.FORGE_FILES) as archive,
            pods.stand_in(self._platform, self._backup.stack, "forge", "gitea") as forge,
        ):
            forge.write(script, archive)

    def _hooks(self) -> None:
        """They name the program by its path, which another image may have elsewhere."""
        forge = Pod.of(self._platform, self._backup.stack, "forge", "gitea")
        forge.say("gitea --config /etc/gitea/app.ini admin regenerate hooks")


def _answering(platform: Cluster, report: Report) -> list[str]:
    """Waits until Argo CD has made what git says, and each model answers with its bento."""
    lines: list[str] = []
    with report.step("serve") as say:
        with platform.forge(administrator=True) as forge:
            files = take.releases(forge)
        if not files:
            return lines
        up.look_again(platform)
        up.wait_synced(platform, say, "workflows")
        for row in sorted(
            board.rows(platform, files), key=lambda row: (row.model, row.environment)
        ):
            if row.bento is None:
                report.warn(row.problem)
                continue
            application = f"{row.environment}-{release.service(row.model)}"
            up.wait_synced(platform, say, application)
            serving.wait_until_answering(platform, row.environment, row.model, row.bento, say=say)
            lines.append(f"{row.model} in {row.environment} answers as {row.bento}")
            say(f"{row.model} in {row.environment} answers")
    return lines
