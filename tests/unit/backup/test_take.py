"""Taking backups of a platform in small: what is in them, what is copied, what is cleared away."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from slipway import pulumi
from slipway.backup import manifest, place, restore, shelf, take
from slipway.backup.manifest import Manifest, Part
from slipway.backup.place import Place
from slipway.backup.seal import Seal
from slipway.cli import app
from slipway.errors import BadInput, SlipwayError
from slipway.up import Report

from .conftest import ELSEWHERE, Platform, git, push

pytestmark = [pytest.mark.apiserver, pytest.mark.usefixtures("objects")]
Objects = dict[tuple[str, str], bytes]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """Each backup is a minute younger than the one before."""
    now = [datetime(2026, 11, 28, 3, 15, tzinfo=UTC)]

    class Clock:
        @staticmethod
        def now(_: Any) -> datetime:
            now[0] += timedelta(minutes=1)
            return now[0]

    monkeypatch.setattr(take, "datetime", Clock)
    return now


@pytest.fixture
def target(tmp_path: Path, clock: list[datetime]) -> Place:
    return place.at(str(tmp_path / "backups"), new=True)


def taken(target: Place) -> tuple[Manifest, str]:
    """A backup, and what was said meanwhile."""
    console = Console(file=io.StringIO(), width=200)
    made = take.take(target, "local", Report(console))
    return made, console.file.getvalue()  # type: ignore[attr-defined]


def content(target: Place, backup: Manifest, name: str) -> bytes:
    seal = Seal(take.machine_passphrase(), backup.salt)
    with restore.opened(target, backup, seal, name) as file:
        return file.read_bytes()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_all_that_a_platform_has_is_in_it(
    platform: Platform, target: Place, objects: Objects
) -> None:
    made, _ = taken(target)
    assert shelf.find(target, None) == made
    assert [part.name for part in made.parts] == list(manifest.PARTS)
    assert made.versions.model_dump() == {
        "gitea": "1.25.2",
        "mlflow": "3.17.2",
        "postgres": "15.14",
    }
    assert made.counts.model_dump() == {
        **{"releases": 1, "pull_requests": 2, "runs": 3, "model_versions": 3},
        **{
            "objects": len(objects),
            "object_bytes": sum({c: len(c) for c in objects.values()}.values()),
        },
    }
    assert content(target, made, "gitea.dump") == (platform.folder / "gitea").read_bytes()
    assert content(target, made, "pulumi.json") == pulumi.exported("local")
    with tarfile.open(fileobj=io.BytesIO(content(target, made, "forge.tar"))) as archive:
        names = archive.getnames()
    assert "./attachments/plot.png" in names
    assert not any("queues" in name for name in names)
    found = {(e.bucket, e.key): e for e in shelf.entries(target, made)}
    assert found.keys() == objects.keys()
    for name, entry in found.items():
        with target.open(entry.place) as file:
            assert file.read() == objects[name]
    assert len({entry.place for entry in found.values()}) == len(objects) - 1


def test_nobody_reads_keys_in_it(platform: Platform, target: Place, tmp_path: Path) -> None:
    (platform.folder / "gitea").write_text("webhook-secret\n")
    taken(target)
    files = [f.read_bytes() for f in (tmp_path / "backups").rglob("*") if f.is_file()]
    assert not any(b"webhook-secret" in c or take.machine_passphrase().encode() in c for c in files)


def test_what_is_there_is_not_copied_again(
    platform: Platform, target: Place, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = taken(target)
    client.put_object(Bucket="predictions", Key="dev/toy/2.jsonl", Body=b'{"id": 2}\n')
    client.put_object(Bucket="labels", Key="dev/toy/1.jsonl", Body=b"[]\n")
    put: list[str] = []
    real = type(target).put
    monkeypatch.setattr(
        type(target), "put", lambda self, name, file: put.append(name) or real(self, name, file)
    )
    second, said = taken(target)
    assert len([name for name in put if name.startswith("objects/")]) == 2
    assert "6 objects, 0.0 MB of them new" in said
    assert second.counts.objects == first.counts.objects + 1
    labels = {e.sha256 for e in shelf.entries(target, second) if e.bucket == "labels"}
    assert labels.isdisjoint(e.sha256 for e in shelf.entries(target, first))


def test_what_an_interrupted_one_has_copied_is_not_copied_again(
    platform: Platform, target: Place, tmp_path: Path
) -> None:
    first, _ = taken(target)
    (tmp_path / "backups" / first.name / manifest.FILE).unlink()
    assert shelf.backups(target) == {}
    bento = next(e for e in shelf.entries(target, first) if e.bucket == "bentos")
    before = (tmp_path / "backups" / bento.place).stat()
    taken(target)
    assert (tmp_path / "backups" / bento.place).stat().st_ino == before.st_ino


def test_the_forge_is_read_again_when_it_has_moved(
    platform: Platform, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = iter(["second"])
    real = take._Backup._dump

    def dump(self: Any, database: str, *arguments: Any) -> Any:
        if database == "gitea" and (message := next(moves, "")):
            push(platform, message)
        return real(self, database, *arguments)

    monkeypatch.setattr(take._Backup, "_dump", dump)
    made, said = taken(target)
    assert "once more: a repository has changed meanwhile" in said
    assert made == shelf.find(target, None)


def test_a_forge_that_never_stands_still_has_no_backup(
    platform: Platform, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = take._Backup._dump, itertools.count()

    def dump(self: Any, database: str, *arguments: Any) -> Any:
        push(platform, f"commit {next(count)}")
        return real(self, database, *arguments)

    monkeypatch.setattr(take._Backup, "_dump", dump)
    with pytest.raises(SlipwayError, match="the forge does not stand still"):
        taken(target)
    assert shelf.backups(target) == {}


def test_a_repository_that_is_not_whole_is_noticed(platform: Platform, target: Place) -> None:
    repository = platform.data / "repositories" / "slipway" / "slipway.git"
    commit = git(repository, "rev-parse", "main")
    (repository / "objects" / commit[:2] / commit[2:]).unlink()
    with pytest.raises(SlipwayError, match="git fsck failed"):
        taken(target)


def test_a_dump_that_fails_is_no_part(platform: Platform, target: Place) -> None:
    (platform.folder / "broken").touch()
    with pytest.raises(SlipwayError, match="in pod storage/postgres-0"):
        taken(target)
    assert shelf.backups(target) == {}


def test_content_that_is_not_what_its_name_says_is_told(
    platform: Platform, target: Place, client: Any
) -> None:
    client.put_object(Bucket="data", Key=f"sha256/{'ab' * 32}", Body=b"rotten")
    _, said = taken(target)
    assert f"s3://data/sha256/{'ab' * 32}: its content is not what its name says" in said
    client.delete_object(Bucket="data", Key=f"sha256/{'ab' * 32}")


def test_on_aws_only_what_is_in_the_cluster(platform: Platform, target: Place) -> None:
    platform.stores = ()
    made, _ = taken(target)
    assert [part.name for part in made.parts] == ["pulumi.json", "forge.tar"]
    assert len(made.elsewhere) == 2
    assert made.counts.runs is None
    assert shelf.find(target, None) == made


def test_of_a_forge_that_is_anothers_there_is_no_copy(platform: Platform, target: Place) -> None:
    platform.steps = ELSEWHERE
    made, _ = taken(target)
    assert not {"forge.tar", "gitea.dump"} & {part.name for part in made.parts}
    assert made.versions.gitea is None
    assert made.counts.releases == 1
    assert made.elsewhere == ["the forge (https://git.example.com is another's to keep)"]


def test_what_has_nothing_in_its_cluster_has_no_backup(
    platform: Platform, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.stores, platform.steps = (), ELSEWHERE
    monkeypatch.setattr(pulumi, "keeps_state_here", lambda _: False)
    with pytest.raises(BadInput, match="nothing to back up in its cluster"):
        taken(target)
    assert target.sizes("") == {}


def test_while_pulumi_changes_the_stack_there_is_none(
    platform: Platform, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(_: str) -> bytes:
        raise SlipwayError("pulumi is changing stack local")

    monkeypatch.setattr(pulumi, "exported", busy)
    with pytest.raises(SlipwayError, match="pulumi is changing"):
        taken(target)


@pytest.mark.parametrize(
    ("stack", "said"), [("simulated", "no platform"), ("locla", "did you mean 'local'")]
)
def test_a_stack_that_has_no_platform(
    stack: str, said: str, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    refused = run("backup", str(target), "--stack", stack)
    assert refused.exit_code == 2
    assert said in refused.output


def test_a_platform_that_does_not_answer(platform: Platform, target: Place) -> None:
    platform.answers["http://mlflow/version"] = ""
    with pytest.raises(SlipwayError, match=r"http://mlflow/version: .*503"):
        taken(target)
    assert target.sizes("") == {}


def test_two_in_the_same_second(platform: Platform, target: Place, clock: list[datetime]) -> None:
    taken(target)
    clock[0] -= timedelta(minutes=1)
    with pytest.raises(SlipwayError, match="has a backup of this second"):
        taken(target)


# --- several in one place ---------------------------------------------------------------------


def test_older_ones_go_with_what_only_they_name(
    platform: Platform, target: Place, client: Any
) -> None:
    first, _ = taken(target)
    client.put_object(Bucket="labels", Key="dev/toy/1.jsonl", Body=b"[]\n")
    client.delete_object(Bucket="mlflow", Key="1/models/MLmodel")
    shelf.put(target, "20261127T031530Z/gitea.dump", b"of one that was interrupted")
    second, _ = taken(target)
    gone = {e.place for e in shelf.entries(target, first)} - {
        e.place for e in shelf.entries(target, second)
    }
    assert len(gone) == 1
    assert shelf.keep(target, 2, "local") == []
    assert gone <= target.sizes("objects/").keys()
    assert shelf.keep(target, 1, "local") == [first.name]
    assert {name.partition("/")[0] for name in target.sizes("2")} == {second.name}
    assert target.sizes("objects/").keys() == {e.place for e in shelf.entries(target, second)}


def measured(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def of_another(target: Place, backup: Manifest, stack: str, hours: int) -> Manifest:
    """A copy of a backup, as if another stack had taken it so much earlier, with an object that
    none but it names."""
    taken = datetime.fromisoformat(backup.taken) - timedelta(hours=hours)
    entry = next(shelf.entries(target, backup))
    content = f"of {stack}, {hours} hours ago".encode()
    own = entry.model_copy(update=measured(content))
    listed = manifest.dump_entries([entry, own])
    part = Part(name="objects.jsonl", **measured(listed))
    made = backup.model_copy(
        update={
            "stack": stack,
            "taken": taken.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "parts": [*(p for p in backup.parts if p.name != part.name), part],
        }
    )
    shelf.put(target, own.place, content)
    shelf.put(target, f"{made.name}/{part.name}", listed)
    shelf.put(target, f"{made.name}/{manifest.FILE}", made.model_dump_json().encode())
    return made


def test_those_of_another_stack_stay_with_what_they_name(platform: Platform, target: Place) -> None:
    first, _ = taken(target)
    theirs = [of_another(target, first, "prod", hours) for hours in (48, 24)]
    second, _ = taken(target)
    named = {e.place for one in theirs for e in shelf.entries(target, one)}
    assert shelf.keep(target, 1, "local") == [first.name]
    assert list(shelf.backups(target)) == [*(one.name for one in theirs), second.name]
    assert named <= target.sizes("objects/").keys()
    assert shelf.keep(target, 1, "prod") == [theirs[0].name]
    left = {e.place for one in (theirs[1], second) for e in shelf.entries(target, one)}
    assert target.sizes("objects/").keys() == left


def test_one_that_another_stack_takes_meanwhile_loses_nothing(
    platform: Platform, target: Place
) -> None:
    shelf.put(target, "20261128T030000Z/gitea.dump", b"of one that is under way")
    shelf.put(target, "objects/ab/abc", b"of which it has this already")
    made, _ = taken(target)
    before = target.sizes("")
    assert shelf.keep(target, 1, "local") == []
    assert target.sizes("") == before
    of_another(target, made, "prod", -25)
    shelf.keep(target, 1, "local")
    assert not {"20261128T030000Z/gitea.dump", "objects/ab/abc"} & target.sizes("").keys()


def test_the_newest_is_the_stacks_own(platform: Platform, target: Place) -> None:
    mine, _ = taken(target)
    theirs = of_another(target, mine, "prod", -1)
    assert shelf.find(target, None, "local") == mine
    assert shelf.find(target, None, "prod") == theirs
    assert shelf.find(target, theirs.name) == theirs
    with pytest.raises(BadInput, match="has backups of local, prod"):
        shelf.find(target, None)
    with pytest.raises(BadInput, match="no backup of prdo") as refused:
        shelf.find(target, None, "prdo")
    assert "'prod'" in str(refused.value)
    with pytest.raises(BadInput, match=f"{theirs.name} is of stack prod"):
        shelf.find(target, theirs.name, "local")
    refused_restore = run("restore", str(target), "--verify")
    assert refused_restore.exit_code == 2
    assert "--stack" in refused_restore.output
    verified = run("restore", str(target), "--verify", "--stack", "local")
    assert verified.exit_code == 0, verified.output


def test_nothing_goes_while_one_is_damaged(
    platform: Platform, target: Place, tmp_path: Path
) -> None:
    first, _ = taken(target)
    taken(target)
    (tmp_path / "backups" / first.name / manifest.FILE).write_text("{")
    before = target.sizes("")
    with pytest.raises(BadInput, match=f"{first.name}/backup.json: not JSON"):
        shelf.keep(target, 1, "local")
    assert target.sizes("") == before


def test_one_that_lost_what_it_had_found_there_is_none(
    platform: Platform, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(target)
    real = take._Backup._objects

    def objects(self: Any, *arguments: Any) -> Any:
        entries = real(self, *arguments)
        target.remove([entries[0].place])
        return entries

    monkeypatch.setattr(take._Backup, "_objects", objects)
    with pytest.raises(SlipwayError, match="has gone while the backup was taken"):
        taken(target)
    assert len(shelf.backups(target)) == 1


# --- the commands -----------------------------------------------------------------------------


def test_taken_listed_and_verified_in_a_bucket(platform: Platform, clock: list[datetime]) -> None:
    where = "s3://backups/slipway"
    first = run("backup", where)
    assert first.exit_code == 0, first.output
    assert "keep that elsewhere" in first.output
    second = run("backup", where, "--keep", "1", "-o", "json")
    assert second.exit_code == 0, second.output
    document = json.loads(second.stdout)
    assert document["removed"] == ["20261128T031600Z"]
    assert document["name"] == "20261128T031700Z"
    listed = json.loads(run("backups", where, "-o", "json").stdout)
    assert [(one["name"], one["problem"]) for one in listed] == [("20261128T031700Z", None)]
    assert "20261128T031700Z  local" in run("backups", where).output
    verified = run("restore", where, "--verify")
    assert verified.exit_code == 0, verified.output
    assert "backup 20261128T031700Z is whole: 1 releases, 2 pull requests" in verified.output


def test_a_damaged_one_is_listed_as_that(platform: Platform, target: Place, tmp_path: Path) -> None:
    made, _ = taken(target)
    (tmp_path / "backups" / made.name / manifest.FILE).write_text("{")
    shown = run("backups", str(target))
    assert shown.exit_code == 0
    assert "damaged" in shown.output
    [one] = json.loads(run("backups", str(target), "-o", "json").stdout)
    assert "not JSON" in one["problem"]


def test_an_empty_place_is_no_error_to_list(tmp_path: Path) -> None:
    assert f"no backup in {tmp_path}" in run("backups", str(tmp_path)).output
    refused = run("restore", str(tmp_path))
    assert refused.exit_code == 2
    assert "no backup in" in refused.output
