"""Who released what, when, on what evidence: told by git alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from slipway import endpoints, history, release
from slipway.cli import app
from slipway.endpoints import ClusterError
from slipway.history import Entry, pull_number
from slipway.release import Rollout
from slipway.repository import Repository
from tests.unit.check.place import Place, files

TOY = "environments/dev/models/toy.yaml"


def entries(place: Place, limit: int = 0) -> list[Entry]:
    with Repository(place.folder) as repository:
        return history.entries(repository, "main", "dev", "toy", limit)


def test_every_kind_of_change_is_told(place: Place) -> None:
    glass = b"""who: grace
why: the champion fails every request
until: 2026-01-01T18:00:00Z
rules: [fresh]
"""
    first, second = place.next("be", 3), place.next("bf", 4)
    place.write("head", files(first), "Release toy 3 to dev")
    pull = place.open("head", "three")
    place.merge(pull.number)
    place.write("main", {"environments/staging/models/toy.yaml": b"elsewhere\n"}, "Elsewhere")
    place.write(
        "main", files(second) | {"environments/dev/break-glass/toy.yaml": glass}, "Four (#7)"
    )
    bigger = second.model_copy(update={"rollout": Rollout(replicas=3)})
    place.write("main", files(bigger), "Three replicas")
    place.write("main", files(second), "Back to one")
    place.write("main", {TOY: release.dumps(second).encode() + b"# a word\n"}, "A word")
    place.write("main", files(first), "Roll back toy in dev to 3")
    place.write("main", {TOY: b"model: toy\n"}, "Break it")
    place.write("main", {TOY: None}, "Remove it")
    found = entries(place)
    assert [(e.kind, e.release and e.release.version) for e in found] == [
        ("removed", None),
        ("unreadable", None),
        ("rolled back", 3),
        ("settings changed", 4),
        ("rolled back", 4),
        ("settings changed", 4),
        ("released", 4),
        ("released", 3),
    ]
    assert [e.pull for e in found] == [None, None, None, None, None, None, 7, 1]
    assert found[-1].subject == "Merge pull request #1"
    assert found[-2].break_glass == "grace: the champion fails every request"
    assert found[-3].break_glass == ""
    assert found[-1].document["evidence"] == first.evidence.digest
    assert found[-1].document["summary"] == first.evidence.summary
    assert entries(place, limit=2) == found[:2]


def test_who_asked_for_it_is_told_where_the_commit_says_so(place: Place) -> None:
    made = place.next("be", 3)
    said = "Release toy 3 to dev\n\nRequested-by: Grace Hopper <grace@example.org>"
    place.write("head", files(made), said)
    place.merge(place.open("head", "three").number)
    place.landed("bf", 4)
    later, first = entries(place)
    assert (first.author, first.requested_by) == ("Ada", "Grace Hopper <grace@example.org>")
    assert (later.author, later.requested_by) == ("Ada", "")
    said = run("toy", "--env", "dev", "--repo", str(place.folder))[1]
    assert "Grace Hopper  Ada" in said
    assert "grace@" not in said


def test_who_asked_for_it_is_told_after_others_have_brought_it_up_to_date(place: Place) -> None:
    """By a button of the forge's, or by a commit that mends something."""
    grace = "Requested-by: Grace Hopper <grace@example.org>"
    place.write("head", files(place.next("be", 3)), f"Release toy 3 to dev\n\n{grace}")
    pull = place.open("head", "three")
    another = "Another\n\nRequested-by: Bob <bob@example.org>"
    place.write("main", {"README.md": b"later\n"}, another)
    place.update("head", "Carol <carol@example.org>")
    place.write("head", {"bentos/toy/README.md": b"fix\n"}, "Mend the text")
    place.amend("head", "Carol <carol@example.org>", author="Carol <carol@example.org>")
    place.update("head", "Dora <dora@example.org>")
    place.merge(pull.number)
    (entry,) = entries(place)
    assert (entry.author, entry.requested_by) == ("Carol", "Grace Hopper <grace@example.org>")


@pytest.mark.parametrize(
    ("subject", "number"),
    [
        ("Merge pull request 'Release toy 3 to dev' (#12) from release/toy-3 into main", 12),
        ("Merge pull request 'as in (#3)' (#12) from x", 12),
        ("Merge pull request #12 from someone/branch", 12),
        ("Release toy 3 to dev (#12)", 12),
        ("Release toy 3, see #12", None),
        ("Release toy 3 to dev", None),
    ],
)
def test_the_pull_request_is_in_the_subject(subject: str, number: int | None) -> None:
    assert pull_number(subject) == number


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["history", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_reads_a_clone_without_a_platform(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing() -> None:
        raise ClusterError("no cluster")

    monkeypatch.setattr(endpoints.Cluster, "connect", nothing)
    made = place.landed("be", 3)
    where = ("--repo", str(place.folder))
    status, said, _ = run("toy", "--env", "dev", *where, "-o", "json")
    (found,) = json.loads(said)
    assert (status, found["version"], found["bento"]) == (0, 3, made.bento.digest)
    assert (found["author"], found["merger"], found["kind"]) == ("Ada", "Ada", "released")
    assert "released" in run("toy", "--env", "dev", *where)[1]
    assert "never released to prod" in run("toy", "--env", "prod", *where)[2]
    assert run("toy", "--env", "nowhere", *where)[0] == 2
    assert run("Toy!", "--env", "dev", *where)[0] == 2
    # Without the forge, what this clone has.
    monkeypatch.setattr("slipway.paths.REPOSITORY", Path(place.folder))
    status, said, noted = run("toy", "--env", "dev", "-o", "json")
    assert (status, len(json.loads(said))) == (0, 1)
    assert "not the forge: no cluster" in noted
