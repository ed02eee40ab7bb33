"""What a backup says of itself. A folder without `backup.json`, which is written last, is none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from slipway import digests
from slipway.errors import BadInput, from_validation
from slipway.evidence import Instant
from slipway.release import Commit, Strict

FILE = "backup.json"
SCHEMA = 1
# Parts, in the order in which they are taken and put back.
STATE, FORGE_DATABASE, FORGE_FILES = "pulumi.json", "gitea.dump", "forge.tar"
MLFLOW_DATABASE, ARGO_DATABASE, OBJECTS = "mlflow.dump", "argo.dump", "objects.jsonl"
PARTS = (STATE, FORGE_DATABASE, FORGE_FILES, MLFLOW_DATABASE, ARGO_DATABASE, OBJECTS)

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="sha256, 64 hex digits")]
Salt = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="32 hex digits")]
Size = Annotated[int, Field(ge=0)]
PartName = Literal[
    "pulumi.json", "gitea.dump", "forge.tar", "mlflow.dump", "argo.dump", "objects.jsonl"
]
Version = Annotated[str, Field(pattern=r"^\d+\.\d+(\.\d+)?$", description="numbers and dots")]
_NAME = "%Y%m%dT%H%M%SZ"


class Part(Strict):
    """One file of a backup: its bytes as they lie there, which but for objects.jsonl are sealed."""

    name: PartName
    sha256: Hex
    bytes: Size


class Versions(Strict):
    """What ran when the backup was taken; null where none ran in the cluster."""

    gitea: Version | None
    mlflow: Version
    postgres: Version | None


class Counts(Strict):
    """What the parts hold, for a person to compare; null where that is elsewhere."""

    releases: Size
    pull_requests: Size | None
    runs: Size | None
    model_versions: Size | None
    objects: Size
    object_bytes: Size


class Manifest(Strict):
    """`seal` is a keyed digest of all the rest: of whoever knows the passphrase, and unchanged."""

    schema_version: Literal[1] = SCHEMA
    taken: Instant = Field(description="in UTC, as 2026-11-28T03:15:00Z")
    stack: Annotated[str, Field(min_length=1)]
    commit: Commit
    versions: Versions
    parts: Annotated[list[Part], Field(min_length=1)]
    counts: Counts
    elsewhere: list[str] = Field(description="what others keep, and this backup has not")
    salt: Salt
    seal: Hex

    @property
    def name(self) -> str:
        """Its folder's name."""
        return name_of(datetime.fromisoformat(self.taken))

    @property
    def bytes(self) -> int:
        """Of all that it names, whether or not another backup names it, too."""
        return sum(part.bytes for part in self.parts) + self.counts.object_bytes

    def part(self, name: str) -> Part | None:
        return next((part for part in self.parts if part.name == name), None)

    def sealed(self) -> bytes:
        """What the seal is of."""
        return digests.canonical_json(self.model_dump(mode="json", exclude={"seal"}))


class Entry(Strict):
    """One object of the store: a line of objects.jsonl. `etag` is the store's word for a content
    of so many bytes, by which the next backup knows it without reading it."""

    bucket: Annotated[str, Field(min_length=1)]
    key: Annotated[str, Field(min_length=1)]
    sha256: Hex
    bytes: Size
    etag: str

    @property
    def place(self) -> str:
        """Where a place of backups keeps the content: once, whoever names it."""
        return object_name(self.sha256)


def object_name(sha256: str) -> str:
    return f"objects/{sha256[:2]}/{sha256}"


def name_of(taken: datetime) -> str:
    """A backup's folder: when it was taken, to the second."""
    return taken.astimezone(UTC).strftime(_NAME)


def parse(text: bytes, file: str) -> Manifest:
    """A manifest.

    Raises:
        BadInput: it is damaged, or a newer Slipway has written it.
    """
    try:
        document: Any = json.loads(text)
    except ValueError as error:
        raise BadInput(f"not JSON: {error}", file=file, fix="take another backup") from None
    written = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(written, int) and written > SCHEMA:
        raise BadInput(
            f"written by a newer Slipway, which knows schema {written}",
            file=file,
            field="schema_version",
            fix=f"git checkout {document.get('commit', 'what took it')}, and restore from there",
        )
    try:
        read = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise from_validation(error, Manifest, file) from None
    _check(read, file)
    return read


def _check(read: Manifest, file: str) -> None:
    try:
        datetime.fromisoformat(read.taken)
    except ValueError as error:
        raise BadInput(str(error), file=file, field="taken") from None
    names = [part.name for part in read.parts]
    if names != [name for name in PARTS if name in names]:
        raise BadInput("each part once, in their order", file=file, field="parts")
    forge, databases = read.versions.gitea, read.versions.postgres
    needed = {
        FORGE_FILES: forge,
        FORGE_DATABASE: forge and databases,
        MLFLOW_DATABASE: databases,
        ARGO_DATABASE: databases,
        **({} if read.elsewhere else dict.fromkeys(PARTS, True)),
    }
    for missing in [name for name, is_needed in needed.items() if is_needed and name not in names]:
        raise BadInput(f"{missing} is missing", file=file, field="parts", fix="take another backup")
    if not read.elsewhere and not read.versions.postgres:
        raise BadInput("is missing", file=file, field="versions.postgres")


def dump_entries(entries: Iterable[Entry]) -> bytes:
    return b"".join(digests.canonical_json(e.model_dump()) + b"\n" for e in entries)


def parse_entries(lines: Iterable[bytes], file: str) -> Iterator[Entry]:
    """The objects that a backup has.

    Raises:
        BadInput: a line is none.
    """
    for number, line in enumerate(lines, 1):
        try:
            yield Entry.model_validate_json(line)
        except ValidationError as error:
            raise from_validation(error, Entry, f"{file}:{number}") from None
