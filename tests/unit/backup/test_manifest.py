"""What a backup says of itself: what is accepted, and what is said of what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.backup import manifest
from slipway.backup.manifest import Entry
from slipway.errors import BadInput

FIXTURES = Path(__file__).parent
ENTRY = Entry(bucket="data", key="sha256/ab", sha256="ab" * 32, bytes=3, etag='"1"')


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("valid/*.json")), ids=lambda f: f.stem)
def test_accepts(file: Path) -> None:
    read = manifest.parse(file.read_bytes(), file.name)
    assert read.name == "20261128T031500Z"
    assert read.bytes == sum(part.bytes for part in read.parts) + read.counts.object_bytes


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("invalid/*.json")), ids=lambda f: f.stem)
def test_refuses_and_says_why(file: Path) -> None:
    with pytest.raises(BadInput) as error:
        manifest.parse(file.read_bytes(), file.name)
    assert file.with_suffix(".expected").read_text().strip() in str(error.value)


def test_objects_are_read_as_they_were_written() -> None:
    other = ENTRY.model_copy(update={"key": "dev/größe 1.jsonl", "bytes": 0})
    lines = manifest.dump_entries([ENTRY, other]).splitlines(keepends=True)
    assert list(manifest.parse_entries(lines, "objects.jsonl")) == [ENTRY, other]
    assert ENTRY.place == f"objects/ab/{'ab' * 32}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "objects.jsonl:1: Invalid JSON"),
        (b'{"bucket":"data"}', "objects.jsonl:1: key: Field required"),
        (ENTRY.model_dump_json().replace("ab" * 32, "../../etc").encode(), "sha256: malformed"),
    ],
)
def test_a_line_that_is_no_object_is_refused(line: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        list(manifest.parse_entries([line], "objects.jsonl"))
