"""A backup is taken while the platform works. What is restored of it test_z_destroy.py says."""

from __future__ import annotations

from .conftest import ENV, MODEL, document
from .kept import Kept


def test_a_backup_counts_what_is_there(kept: Kept) -> None:
    assert kept.seen["status"][MODEL, ENV]
    assert all(ok for _, _, ok in kept.seen["trace"])
    assert kept.taken["counts"]["releases"] == len(kept.seen["status"])
    assert document("backups", str(kept.place))[0]["name"] == kept.taken["name"]


def test_a_second_one_takes_the_place_of_the_first(kept: Kept) -> None:
    """And copies next to nothing: an object is there once, whoever names it."""
    objects = {file for file in (kept.place / "objects").rglob("*") if file.is_file()}
    taken = document("backup", str(kept.place), "--keep", "1")
    assert taken["removed"] == [kept.taken["name"]]
    kept.taken = taken
    assert {name["name"] for name in document("backups", str(kept.place))} == {taken["name"]}
    after = {file for file in (kept.place / "objects").rglob("*") if file.is_file()}
    assert len(after - objects) <= len(objects) // 10
