"""Restoring a platform in small: what is asked first, what is refused, what is put back."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from slipway import cluster, paths, pulumi, serving, up
from slipway.backup import check, manifest, place, pods, restore, shelf, take
from slipway.backup.manifest import Manifest, Versions
from slipway.backup.place import Place
from slipway.cli import app
from slipway.endpoints import Cluster
from slipway.errors import BadInput, SlipwayError
from slipway.up import Report

from .conftest import BUCKETS, ELSEWHERE, Platform, empty, git

pytestmark = [pytest.mark.apiserver, pytest.mark.usefixtures("objects")]
Objects = dict[tuple[str, str], bytes]


def report() -> Report:
    return Report(Console(file=io.StringIO(), width=200))


@pytest.fixture
def target(tmp_path: Path) -> Place:
    return place.at(str(tmp_path / "backups"), new=True)


@pytest.fixture
def backup(platform: Platform, objects: Objects, target: Place) -> Manifest:
    return take.take(target, "local", report())


@pytest.fixture
def kept(backup: Manifest, tmp_path: Path) -> Path:
    """What the operator has kept of the machine's passphrase."""
    return Path(shutil.copy(pulumi.passphrase_file(), tmp_path / "kept"))


@pytest.fixture
def way(platform: Platform, backup: Manifest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, on a machine that has nothing but a platform, which is empty."""
    gone: list[str] = []

    def does(what: str) -> Callable[..., None]:
        return lambda *_, **__: gone.append(what)

    for name in ("examine", "prepare", "start_cluster", "apply", "destroy", "await_consoles"):
        monkeypatch.setattr(up, name, does(name))
    for name in ("look_again", "wait_synced"):
        monkeypatch.setattr(up, name, lambda *_, **__: None)
    monkeypatch.setattr(up, "forget", does("forget"))
    monkeypatch.setattr(pulumi, "is_embedded", lambda _: True)
    monkeypatch.setattr(pulumi, "adopt", does("adopt"))
    monkeypatch.setattr(pulumi, "take_nothing_over", lambda *_, **__: None)
    monkeypatch.setattr(cluster, "is_up", lambda: False)
    monkeypatch.setattr(serving, "wait_until_answering", does("answers"))
    monkeypatch.setattr(restore, "_answering", lambda *_: ["toy in dev answers as sha256:ab"])

    class StandIn:
        def __init__(self, _: Cluster, stack: str, namespace: str, deployment: str) -> None:
            self._pod = pods.Pod(stack, namespace, f"{deployment}-restore", deployment)

        def __enter__(self) -> pods.Pod:
            return self._pod

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(pods, "stand_in", StandIn)
    return gone


NEW = ["forget", "prepare", "start_cluster", "adopt", "apply", "await_consoles", "await_consoles"]


def lose(platform: Platform, client: Any) -> None:
    """The data, as it is after a platform was made anew."""
    for bucket in BUCKETS:
        empty(client, bucket)
    shutil.rmtree(platform.data)
    (platform.data / "queues").mkdir(parents=True)
    (platform.data / "avatars").mkdir()
    for database in ("gitea", "mlflow", "argo"):
        (platform.folder / database).write_text("")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["restore", *arguments])


def touched(way: list[str]) -> list[str]:
    return [step for step in way if step not in ("examine",)]


# --- what is put back -------------------------------------------------------------------------


def test_all_comes_back(
    platform: Platform, target: Place, client: Any, objects: Objects, way: list[str], kept: Path
) -> None:
    commit = git(platform.data / "repositories" / "slipway" / "slipway.git", "rev-parse", "main")
    databases = {n: (platform.folder / n).read_text() for n in ("gitea", "mlflow", "argo")}
    lose(platform, client)
    done = run(str(target), "--passphrase-file", str(kept))
    assert done.exit_code == 0, done.output
    assert touched(way) == NEW
    for (bucket, key), content in objects.items():
        found = client.get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        assert found["Body"].read() == content
        assert found["ChecksumSHA256"]
    assert {n: (platform.folder / n).read_text() for n in databases} == databases
    repository = platform.data / "repositories" / "slipway" / "slipway.git"
    assert git(repository, "rev-parse", "main") == commit
    assert (platform.data / "attachments" / "plot.png").read_bytes() == b"a plot"
    assert sorted(p.name for p in platform.data.iterdir()) == [
        *("attachments", "queues", "repositories"),
    ], "neither what was there before nor what is half there"
    assert (platform.folder / "hooks").read_text().split()[-2:] == ["regenerate", "hooks"]
    assert {name for _, name in restore.USERS} == platform.scaled.keys()
    for change in platform.scaled.values():
        assert change["spec"]["replicas"] == 1
        assert change["metadata"]["annotations"] == {restore.REPLICAS: None}
    assert "toy in dev answers" in done.output
    assert "restored" in done.output
    assert not pulumi.restoring("local").exists()


def test_each_step_is_repeated_after_an_interruption(
    platform: Platform,
    target: Place,
    backup: Manifest,
    client: Any,
    objects: Objects,
    way: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passphrase = take.machine_passphrase()
    lose(platform, client)

    def interrupted(at: Any, name: str) -> None:
        """Once, where `name` would begin."""
        with monkeypatch.context() as patch:
            patch.setattr(at, name, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                restore.restore(target, backup, passphrase, report())

    interrupted(pulumi, "adopt")
    # What there is by now is the restore's own.
    monkeypatch.setattr(restore, "_look", lambda _, replace: replace)
    interrupted(up, "apply")
    assert way.count("destroy") == way.count("adopt") == 1
    interrupted(restore._Restore, "_database")
    interrupted(restore._Restore, "_files")
    assert {c["spec"]["replicas"] for c in platform.scaled.values()} == {0}
    restore.restore(target, backup, passphrase, report())
    assert way.count("destroy") == way.count("adopt") == 1
    assert {c["spec"]["replicas"] for c in platform.scaled.values()} == {1}
    # Who is stopped answers nothing: not asked before the data is there.
    assert way[-2:] == ["apply", "await_consoles"]
    assert len(list(client.list_objects_v2(Bucket="bentos")["Contents"])) == 1


def test_make_up_does_not_go_on_with_half_a_restore(way: list[str]) -> None:
    pulumi.restoring("local").write_text("seal begun")
    with pytest.raises(BadInput, match="a restore was begun"):
        up.up(report().console)


def test_on_aws_the_forges_files_alone(
    platform: Platform, way: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.stores = ()
    target = place.at(str(tmp_path / "of-aws"), new=True)
    made = take.take(target, "local", report())
    shutil.rmtree(platform.data / "attachments")
    monkeypatch.setattr(pulumi, "is_on_aws", lambda _: True)
    held = ["1 releases"]
    monkeypatch.setattr(restore, "holds", lambda _: held)
    passphrase = take.machine_passphrase()
    with pytest.raises(BadInput, match="has data of its own: 1 releases"):
        restore.restore(target, made, passphrase, report())
    assert platform.scaled == {}
    with monkeypatch.context() as patch:
        patch.setattr(pods, "stand_in", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            restore.restore(target, made, passphrase, report(), replace=True)
    restore.restore(target, made, passphrase, report())
    assert way == []
    assert platform.scaled.keys() == {"gitea"}
    assert (platform.data / "attachments" / "plot.png").exists()


def test_of_a_forge_that_is_anothers_nothing_is_touched(
    platform: Platform,
    client: Any,
    objects: Objects,
    way: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    platform.steps = ELSEWHERE
    monkeypatch.setattr(pulumi, "names_a_forge", lambda _: True)
    target = place.at(str(tmp_path / "another"), new=True)
    made = take.take(target, "local", report())
    platform.forge.releases = {}
    assert restore.holds(platform.cluster) == ["1 models", "3 objects"]
    for bucket in BUCKETS:
        empty(client, bucket)
    for database in ("mlflow", "argo"):
        (platform.folder / database).write_text("")
    restore.restore(target, made, take.machine_passphrase(), report())
    assert touched(way) == NEW
    assert "gitea" not in platform.scaled
    assert not (platform.folder / "hooks").exists()
    assert (platform.folder / "mlflow").read_text() == "row\n" * 3
    assert len(list(client.list_objects_v2(Bucket="bentos")["Contents"])) == 1


# --- what is refused, before anything is touched ----------------------------------------------


def damage(file: Path) -> None:
    """One byte of it."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("part", manifest.PARTS)
def test_one_byte_of_a_part(
    part: str, target: Place, backup: Manifest, tmp_path: Path, way: list[str]
) -> None:
    damage(tmp_path / "backups" / backup.name / part)
    refused = run(str(target))
    assert refused.exit_code == 2
    assert f"missing or damaged: {backup.name}/{part}" in refused.output
    assert way == []


def test_a_part_that_is_missing(
    target: Place, backup: Manifest, tmp_path: Path, way: list[str]
) -> None:
    (tmp_path / "backups" / backup.name / "mlflow.dump").unlink()
    refused = run(str(target))
    assert refused.exit_code == 2
    assert "mlflow.dump: is missing" in refused.output
    assert way == []


@pytest.mark.parametrize("how", [damage, Path.unlink])
def test_an_object_that_is_damaged_or_missing(
    how: Callable[[Path], None], target: Place, backup: Manifest, tmp_path: Path, way: list[str]
) -> None:
    entry = next(e for e in shelf.entries(target, backup) if e.bytes)
    how(tmp_path / "backups" / entry.place)
    refused = run(str(target))
    assert refused.exit_code == 2
    assert f"missing or damaged: {entry.place}" in refused.output
    assert way == []


def test_a_manifest_that_somebody_has_changed(
    target: Place, backup: Manifest, tmp_path: Path, way: list[str]
) -> None:
    file = tmp_path / "backups" / backup.name / manifest.FILE
    file.write_text(file.read_text().replace('"releases":1', '"releases":2'))
    refused = run(str(target))
    assert refused.exit_code == 2
    assert "sealed by another passphrase, or changed since" in refused.output
    assert way == []


def test_without_the_passphrase(target: Place, way: list[str], tmp_path: Path) -> None:
    pulumi.passphrase_file().unlink()
    refused = run(str(target))
    assert refused.exit_code == 2
    assert "--passphrase-file: no such file" in refused.output
    other = tmp_path / "other"
    other.write_text("another")
    refused = run(str(target), "--passphrase-file", str(other))
    assert refused.exit_code == 2
    assert "sealed by another passphrase" in refused.output
    assert way == []


def test_a_name_that_is_none(target: Place, backup: Manifest, way: list[str]) -> None:
    refused = run(str(target), "--from", f"{backup.name[:-2]}9Z")
    assert refused.exit_code == 2
    assert f"did you mean {backup.name!r}" in refused.output
    assert way == []


def test_a_platform_that_has_data(
    platform: Platform, target: Place, way: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "is_up", lambda: True)
    real = Cluster.find
    there = {"/api/v1/namespaces/storage"}
    monkeypatch.setattr(
        Cluster, "find", lambda self, path, **o: {} if path in there else real(self, path, **o)
    )
    monkeypatch.setattr(restore, "holds", lambda _: ["1 releases", "212 objects"])
    refused = run(str(target))
    assert refused.exit_code == 2
    assert "the platform has data of its own: 1 releases, 212 objects" in refused.output
    assert way == []
    done = run(str(target), "--replace")
    assert done.exit_code == 0, done.output
    assert touched(way)[:5] == ["forget", "prepare", "start_cluster", "destroy", "adopt"]


def test_a_platform_that_does_not_say_what_it_has(
    target: Place, way: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "is_up", lambda: True)
    monkeypatch.setattr(Cluster, "find", lambda *_, **__: {})

    def holds(_: Cluster) -> list[str]:
        raise SlipwayError("no answer from MLflow")

    monkeypatch.setattr(restore, "holds", holds)
    refused = run(str(target))
    assert refused.exit_code == 2
    assert "does not say what data it has: no answer from MLflow" in refused.output
    assert way == []


def test_a_platform_that_is_stopped(target: Place, way: list[str]) -> None:
    (paths.data() / "volumes" / "pvc-1").mkdir(parents=True)
    refused = run(str(target))
    assert refused.exit_code == 2
    assert "a platform is here, stopped" in refused.output
    assert way == []


def test_what_a_platform_holds(platform: Platform, objects: Objects) -> None:
    made: Any = platform.cluster
    assert restore.holds(made) == [], "a platform without volumes"
    made.items = lambda path, **_: [{}] if path.endswith("persistentvolumeclaims") else []
    assert restore.holds(made) == ["1 releases", "1 models", "3 objects"]
    platform.forge.releases.clear()
    assert restore.holds(made) == ["1 models", "3 objects"]


# --- versions ---------------------------------------------------------------------------------

TAKEN = Versions(gitea="1.25.2", mlflow="3.17.2", postgres="15.14")


@pytest.mark.parametrize(
    "present",
    [
        TAKEN,
        TAKEN.model_copy(update={"postgres": "15.3"}),
        TAKEN.model_copy(update={"gitea": "1.26.0", "mlflow": "4.0.0"}),
    ],
)
def test_the_same_versions_or_newer_ones_will_do(backup: Manifest, present: Versions) -> None:
    check.fits(backup.model_copy(update={"versions": TAKEN}), present)


@pytest.mark.parametrize(
    ("program", "version", "said"),
    [
        ("postgres", "16.1", "versions.postgres: the backup is of PostgreSQL 15.14, this is 16.1"),
        ("postgres", "14.9", "versions.postgres: the backup is of PostgreSQL 15.14, this is 14.9"),
        (
            "gitea",
            "1.9.9",
            "versions.gitea: the backup is of gitea 1.25.2, which 1.9.9 cannot read",
        ),
        ("mlflow", "3.17.1", "versions.mlflow: the backup is of mlflow 3.17.2"),
    ],
)
def test_other_versions_are_refused(
    backup: Manifest, program: str, version: str, said: str
) -> None:
    taken = backup.model_copy(update={"versions": TAKEN})
    with pytest.raises(BadInput) as error:
        check.fits(taken, TAKEN.model_copy(update={program: version}))
    assert said in str(error.value)
    assert f"git checkout {backup.commit}" in str(error.value)


@pytest.mark.parametrize(
    ("taken", "present", "said"),
    [
        ("1.25.2", None, "the backup has the platform's own forge, and the stack names another"),
        (None, "1.25.2", "the backup is of a platform whose forge was another's"),
    ],
)
def test_the_forge_was_and_is_the_platforms_or_neither(
    backup: Manifest, taken: str | None, present: str | None, said: str
) -> None:
    was = backup.model_copy(update={"versions": TAKEN.model_copy(update={"gitea": taken})})
    with pytest.raises(BadInput) as error:
        check.fits(was, TAKEN.model_copy(update={"gitea": present}))
    assert said in str(error.value)
    assert "slipway:forge" in str(error.value)


def test_what_this_checkout_brings_up_is_known() -> None:
    pinned = check.pinned("local")
    assert pinned.gitea
    assert pinned.postgres
    containerfile = paths.REPOSITORY / "toolchain" / "images" / "postgres" / "Containerfile"
    assert f"postgresql-{pinned.postgres.partition('.')[0]}" in containerfile.read_text()
    assert pinned.mlflow != "0.0"


# --- the pod that the forge's files are put back in -------------------------------------------


def test_the_stand_in_is_the_forges_pod_that_only_waits() -> None:
    template = {
        "metadata": {"labels": {"app.kubernetes.io/name": "gitea"}},
        "spec": {
            "securityContext": {"runAsUser": 10001},
            "volumes": [{"name": "data"}],
            "containers": [
                {"name": "gitea", "image": "i", "command": ["gitea"], "livenessProbe": {}}
            ],
        },
    }
    made = pods.idle(template, "gitea-restore", "gitea")
    assert made["spec"]["volumes"] == template["spec"]["volumes"]
    assert made["spec"]["securityContext"] == {"runAsUser": 10001}
    [container] = made["spec"]["containers"]
    assert container == {"name": "gitea", "image": "i", "command": ["sleep", "86400"], "args": []}
    assert "app.kubernetes.io/name" not in made["metadata"]["labels"], "no service leads to it"
    assert template["spec"]["containers"][0]["command"] == ["gitea"]


def test_what_came_is_compared_with_what_was_sent(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = pods.Pod("local", "storage", "postgres-0", "postgres")
    file = tmp_path / "file"
    pod.read("printf abc", file)
    assert file.read_bytes() == b"abc"
    # A connection that ends early, and says nothing of it.
    cut = tmp_path / "kubectl"
    cut.write_text('#!/bin/bash\nbash -c "${*: -1}" | head -c 2\n')
    cut.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(pods, "kubectl", lambda _: [str(cut)])
        with pytest.raises(SlipwayError, match="what came is not what was sent"):
            pod.read("printf abc", file)
    with pytest.raises(SlipwayError, match="in pod storage/postgres-0"):
        pod.write("cat >/dev/null; exit 3", file)
