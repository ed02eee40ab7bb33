"""The store's objects, out to a place of backups and back: each content once, named by digest."""

from __future__ import annotations

import base64
import re
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from slipway.backup.manifest import Entry, object_name
from slipway.backup.place import Place, pass_on
from slipway.endpoints import Cluster
from slipway.errors import SlipwayError
from slipway.store import Missing, answering

# As many at once: most objects are small, and wait for the disk's or the network's answer.
WORKERS = 8
# What the S3 API takes in one request.
LARGEST = 5 * 2**30
Say = Callable[[str], None]
Known = Mapping[tuple[str, str, str, int], Entry]


@contextmanager
def store(cluster: Cluster) -> Generator[Any]:
    """A client of the platform's MinIO, as its administrator: every bucket is his to read."""
    import boto3  # half a second

    keys = cluster.secret("storage", "minio")
    with cluster.service("storage", "minio") as url:
        yield boto3.client(  # pyright: ignore[reportUnknownMemberType]
            "s3",
            endpoint_url=url,
            aws_access_key_id=keys["username"],
            aws_secret_access_key=keys["password"],
            region_name="us-east-1",
        )


def listed(client: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """What the store says of each object, by bucket and key."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    with answering("the platform's store"):
        for bucket in sorted(b["Name"] for b in client.list_buckets()["Buckets"]):
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                found |= {(bucket, item["Key"]): item for item in page.get("Contents", [])}
    return found


@dataclass
class Progress:
    """Tells how far something is, at most once a second."""

    say: Say
    total: int
    done: int = 0
    bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _told: float = field(default_factory=time.monotonic)

    def add(self, size: int) -> None:
        with self._lock:
            self.done, self.bytes = self.done + 1, self.bytes + size
            if time.monotonic() - self._told >= 1:
                self._told = time.monotonic()
                self.say(f"{self.done:,} of {self.total:,} objects, {self.bytes / 1e6:,.1f} MB")


def copy_out(client: Any, place: Place, known: Known, say: Say) -> tuple[list[Entry], int]:
    """Copies what the place has not yet; what goes while this runs is left out.

    Args:
        known: what an earlier backup found, by bucket, key, etag and size.

    Returns:
        Every object, and how many bytes had to be copied.
    """
    there, found = place.sizes("objects/"), listed(client)
    entries: list[Entry] = []
    todo: list[tuple[str, str]] = []
    for (bucket, key), item in found.items():
        entry = _known(bucket, key, item, known)
        if entry and there.get(entry.place) == entry.bytes:
            entries.append(entry)
        else:
            todo.append((bucket, key))
    progress = Progress(say, len(todo))

    def copy(name: tuple[str, str]) -> Entry | None:
        entry = _copy(client, place, *name)
        progress.add(entry.bytes if entry else 0)
        return entry

    with ThreadPoolExecutor(WORKERS) as pool:
        entries += [entry for entry in pool.map(copy, todo) if entry]
    return sorted(entries, key=lambda e: (e.bucket, e.key)), progress.bytes


def _named(key: str) -> str:
    """The digest that an object's name is; "" where it is none."""
    found = re.fullmatch(r"sha256/([0-9a-f]{64})", key)
    return found[1] if found else ""


def corrupt(entries: Iterable[Entry]) -> list[str]:
    """Objects that are named by a digest, and whose content has another."""
    return [f"s3://{e.bucket}/{e.key}" for e in entries if _named(e.key) not in ("", e.sha256)]


def _known(bucket: str, key: str, item: Mapping[str, Any], known: Known) -> Entry | None:
    etag, size = item["ETag"], item["Size"]
    if found := known.get((bucket, key, etag, size)):
        return found
    digest = _named(key)
    return Entry(bucket=bucket, key=key, sha256=digest, bytes=size, etag=etag) if digest else None


def _copy(client: Any, place: Place, bucket: str, key: str) -> Entry | None:
    where = f"s3://{bucket}/{key}"
    with tempfile.NamedTemporaryFile() as file:
        try:
            with answering(where):
                found = client.get_object(Bucket=bucket, Key=key)
                digest, size = pass_on(found["Body"], file)
        except Missing:
            return None
        file.flush()
        place.put(object_name(digest), Path(file.name))
    return Entry(bucket=bucket, key=key, sha256=digest, bytes=size, etag=found["ETag"])


def damaged(place: Place, entries: Iterable[Entry], say: Say) -> list[str]:
    """Names of the contents that are not there, or not whole. Reads each."""
    wanted = {entry.place: entry for entry in entries}
    there, progress = place.sizes("objects/"), Progress(say, len(wanted))

    def is_whole(entry: Entry) -> bool:
        if there.get(entry.place) != entry.bytes:
            return False
        with place.open(entry.place) as file:
            digest, size = pass_on(file)
        progress.add(size)
        return digest == entry.sha256

    with ThreadPoolExecutor(WORKERS) as pool:
        whole = pool.map(is_whole, wanted.values())
        return sorted(name for name, good in zip(wanted, whole, strict=True) if not good)


def copy_in(client: Any, place: Place, entries: list[Entry], say: Say) -> None:
    """Puts objects into the store, but for those that are there as they should be.

    Raises:
        SlipwayError: one is not what the backup says, or the store refuses it.
    """
    there, progress = listed(client), Progress(say, len(entries))

    def copy(entry: Entry) -> None:
        if (entry.bucket, entry.key) not in there or not _is_in(client, entry):
            with tempfile.NamedTemporaryFile() as file:
                with place.open(entry.place) as source:
                    digest, _ = pass_on(source, file)
                if digest != entry.sha256:
                    raise SlipwayError(f"{place}/{entry.place} is damaged")
                file.seek(0)
                _put(client, entry, file)
        progress.add(entry.bytes)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(copy, entries))


def _checksum(entry: Entry) -> str:
    return base64.b64encode(bytes.fromhex(entry.sha256)).decode()


def _is_in(client: Any, entry: Entry) -> bool:
    with answering(f"s3://{entry.bucket}/{entry.key}"):
        head = client.head_object(Bucket=entry.bucket, Key=entry.key, ChecksumMode="ENABLED")
    return head["ContentLength"] == entry.bytes and head.get("ChecksumSHA256") == _checksum(entry)


def _put(client: Any, entry: Entry, content: BinaryIO | Any) -> None:
    """With the checksum that the store keeps, by which `slipway trace` knows it without reading."""
    with answering(f"s3://{entry.bucket}/{entry.key}"):
        if entry.bytes > LARGEST:
            checked = {"ChecksumAlgorithm": "SHA256"}
            client.upload_fileobj(content, entry.bucket, entry.key, ExtraArgs=checked)
            return
        client.put_object(
            Bucket=entry.bucket, Key=entry.key, Body=content, ChecksumSHA256=_checksum(entry)
        )
