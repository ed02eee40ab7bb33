"""Folders and buckets in which backups lie; a bucket is one of a real MinIO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slipway.backup import place
from slipway.backup.place import Place
from slipway.errors import BadInput, SlipwayError

pytestmark = pytest.mark.apiserver


@pytest.fixture(params=["folder", "bucket", "prefix"])
def target(request: pytest.FixtureRequest, tmp_path: Path, client: Any) -> Place:
    named = {
        "folder": str(tmp_path / "on" / "a disk"),
        "bucket": "s3://backups",
        "prefix": "s3://backups/of/slipway/",
    }
    return place.at(named[request.param], new=True)


def put(target: Place, name: str, content: bytes, folder: Path) -> None:
    file = folder / "source"
    file.write_bytes(content)
    target.put(name, file)


def test_files_are_put_found_read_and_removed(target: Place, tmp_path: Path) -> None:
    assert target.sizes("") == {}
    put(target, "2026/backup.json", b"{}", tmp_path)
    put(target, "objects/ab/abc", b"content", tmp_path)
    put(target, "objects/ab/abd", b"", tmp_path)
    assert target.sizes("objects/") == {"objects/ab/abc": 7, "objects/ab/abd": 0}
    assert target.sizes("2") == {"2026/backup.json": 2}
    with target.open("objects/ab/abc") as file:
        assert file.read(3) == b"con"
        assert file.read() == b"tent"
    put(target, "objects/ab/abc", b"other", tmp_path)
    with target.open("objects/ab/abc") as file:
        assert place.pass_on(file)[1] == 5
    target.remove(["objects/ab/abc", "objects/ab/abd", "objects/ab/none"])
    assert target.sizes("") == {"2026/backup.json": 2}


def test_what_is_missing_is_named(target: Place) -> None:
    with pytest.raises(SlipwayError, match=r"2026/gitea\.dump"):
        target.open("2026/gitea.dump")


def test_a_folder_is_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    target = place.at("backups", new=True)
    put(target, "objects/ab/abc", b"content", tmp_path)
    assert (tmp_path / "backups").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "backups" / "objects" / "ab" / "abc").read_bytes() == b"content"


def test_half_a_file_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = place.at(str(tmp_path / "backups"), new=True)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        put(target, "objects/ab/abc", b"content", tmp_path)
    assert target.sizes("objects/") == {}


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("gs://bucket/prefix", "is no place for backups"),
        ("s3://", "is no place for backups"),
        ("s3://Upper/prefix", "is no place for backups"),
        ("s3://no-such-bucket/prefix", "no such bucket: no-such-bucket"),
        ("/no/such/folder", "no such folder: /no/such/folder"),
    ],
)
def test_what_is_no_place_is_refused(named: str, said: str, client: Any) -> None:
    with pytest.raises(BadInput, match=said):
        place.at(named)
