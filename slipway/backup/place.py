"""Where backups lie: a folder, or a prefix in a bucket of S3. A file there is whole."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO, Protocol, cast

from slipway.errors import BadInput
from slipway.store import Missing, answering

CHUNK = 2**20


class Place(Protocol):
    """Names are paths with slashes, relative to the place."""

    def __str__(self) -> str: ...

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes by name of every file whose name begins with `prefix`."""
        ...

    def put(self, name: str, file: Path) -> None:
        """Stores a copy of `file`: all of it, or nothing."""
        ...

    def open(self, name: str) -> BinaryIO:
        """A file's content; `BadInput` where there is none."""
        ...

    def remove(self, names: Collection[str]) -> None: ...


def at(named: str, *, new: bool = False) -> Place:
    """The place that an argument names.

    Args:
        new: whether a folder that is not there may be made.

    Raises:
        BadInput: there is none, or it cannot be one.
    """
    if "://" not in named:
        return Folder(Path(named).resolve(), new=new)
    found = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]+[a-z0-9])((?:/[\w!.*'() -]+)*)/?", named)
    if not found:
        raise BadInput(
            f"{named!r} is no place for backups",
            field="PLACE",
            fix="a folder, or s3://BUCKET/PREFIX",
        )
    return S3(found[1], found[2].strip("/"))


class Folder:
    """For its owner only: what is not encrypted there are models, data and predictions."""

    def __init__(self, root: Path, *, new: bool = False) -> None:
        self._root = root
        if new and not root.exists():
            root.mkdir(mode=0o700, parents=True)
        if not root.is_dir():
            raise BadInput(f"no such folder: {root}", field="PLACE")

    def __str__(self) -> str:
        return str(self._root)

    def sizes(self, prefix: str) -> dict[str, int]:
        # Only from where the prefix leads: a place may hold a million objects.
        start = self._root / prefix.rpartition("/")[0]
        files = (Path(top, name) for top, _, names in os.walk(start) for name in names)
        named = {file.relative_to(self._root).as_posix(): file for file in files}
        return {n: f.stat().st_size for n, f in named.items() if n.startswith(prefix)}

    def put(self, name: str, file: Path) -> None:
        target = self._root / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Two may put the same at once.
        partial = target.with_name(f"{target.name}.{token_hex(4)}")
        try:
            with file.open("rb") as source, partial.open("wb") as copy:
                shutil.copyfileobj(source, copy, CHUNK)
                copy.flush()
                os.fsync(copy.fileno())
            partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)

    def open(self, name: str) -> BinaryIO:
        try:
            return (self._root / name).open("rb")
        except FileNotFoundError:
            raise _missing(f"{self}/{name}") from None

    def remove(self, names: Collection[str]) -> None:
        for name in names:
            file = self._root / name
            file.unlink(missing_ok=True)
            with suppress(OSError):  # others are still in it
                file.parent.rmdir()


class S3:
    """With the endpoint and the credentials that the AWS variables say."""

    def __init__(self, bucket: str, prefix: str) -> None:
        import boto3  # half a second
        from botocore.config import Config

        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        config = Config(
            s3={"addressing_style": "path"},
            retries={"mode": "standard", "max_attempts": 6},
            connect_timeout=5,
        )
        self._s3: Any = cast(Any, boto3).Session().client("s3", config=config)
        try:
            with answering(str(self)):
                self._s3.head_bucket(Bucket=bucket)
        except Missing:
            raise BadInput(
                f"no such bucket: {bucket}", field="PLACE", fix="make it first"
            ) from None

    def __str__(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def sizes(self, prefix: str) -> dict[str, int]:
        with answering(f"{self}/{prefix}"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            found = [item for page in pages for item in page.get("Contents", [])]
        return {item["Key"].removeprefix(self._prefix): item["Size"] for item in found}

    def put(self, name: str, file: Path) -> None:
        checked = {"ChecksumAlgorithm": "SHA256"}
        with answering(f"{self}/{name}"):
            self._s3.upload_file(str(file), self._bucket, self._prefix + name, ExtraArgs=checked)

    def open(self, name: str) -> BinaryIO:
        with answering(f"{self}/{name}"):
            found = self._s3.get_object(Bucket=self._bucket, Key=self._prefix + name)
        return cast(BinaryIO, found["Body"])

    def remove(self, names: Collection[str]) -> None:
        for name in names:
            with answering(f"{self}/{name}"):
                self._s3.delete_object(Bucket=self._bucket, Key=self._prefix + name)


def _missing(what: str) -> BadInput:
    return BadInput("is missing", file=what, fix="take another backup, or restore another one")


def pass_on(source: Any, target: Any = None) -> tuple[str, int]:
    """Reads to the end; the content's sha256 as hex, and its bytes."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK):
        digest.update(chunk)
        size += len(chunk)
        if target is not None:
            target.write(chunk)
    return digest.hexdigest(), size
