"""The object store: content named by its digest; a read gives what was written, or an error."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from slipway import digests
from slipway.digests import Digest
from slipway.errors import SlipwayError

Bucket = Literal["data", "bentos", "evidence", "predictions", "labels", "workflows"]
# What buckets' names begin with on S3, where they are all of AWS's. Whatever is written down
# (release files, evidence) names buckets without it.
PREFIX = "SLIPWAY_BUCKET_PREFIX"
# Environments that come before this stack's and are other stacks', each with what its buckets'
# names begin with: "dev=slipway-dev-111111111111- staging=…". They are read, and never written.
UPSTREAM = "SLIPWAY_UPSTREAM"


class StoreError(SlipwayError):
    """The store refused, or holds something other than the name says."""


class Missing(StoreError):
    """No object of this digest."""


class Corrupt(StoreError):
    """The object's content is not what its name says."""


class Unreachable(StoreError):
    """No answer from the store; the same call may succeed later."""


def uri(bucket: Bucket, digest: Digest) -> str:
    """`s3://<bucket>/sha256/<hex>`."""
    return f"s3://{bucket}/{_key(digest)}"


def upstream(text: str) -> dict[str, str]:
    """Environment to prefix, of what `UPSTREAM` says."""
    return dict(word.split("=", 1) for word in text.split())


def _key(digest: Digest) -> str:
    return digest.replace(":", "/", 1)


class Store:
    """S3 at AWS_ENDPOINT_URL with the credentials of the environment; AWS itself without them.

    What has a digest and is not here is got from the stores upstream, and then kept here: by its
    digest it is the same wherever it comes from.
    """

    @cached_property
    def _prefix(self) -> str:
        return os.environ.get(PREFIX, "")

    @cached_property
    def _before(self) -> Mapping[str, str]:
        return upstream(os.environ.get(UPSTREAM, ""))

    @property
    def comes_after(self) -> bool:
        """Whether other stacks host environments before this one's, and trained what is here."""
        return bool(self._before)

    def hosting(self, environment: str) -> Store:
        """The store of the stack that hosts an environment: for what no digest names."""
        if environment not in self._before:
            return self
        return self._beginning(self._before[environment])

    def _beginning(self, prefix: str) -> Store:
        return Given(self._s3, prefix)

    def _bucket(self, name: Bucket) -> str:
        """What the store calls it."""
        return f"{self._prefix}{name}"

    @cached_property
    def _s3(self) -> Any:
        import boto3  # half a second, which steps that store nothing need not wait
        from botocore.config import Config

        config = Config(
            s3={"addressing_style": "path"},
            retries={"mode": "standard", "max_attempts": 6},
            connect_timeout=5,
        )
        return boto3.Session().client("s3", config=config)  # pyright: ignore[reportUnknownMemberType]

    def put(self, bucket: Bucket, data: bytes) -> Digest:
        """Stores `data` under its digest, unless it is there; returns the digest.

        An object whose size or recorded checksum is wrong is written anew: here the right content
        is at hand.
        """
        digest = digests.of(data)
        with answering(uri(bucket, digest)):
            if not self._intact(bucket, digest, len(data)):
                self._s3.put_object(
                    Bucket=self._bucket(bucket),
                    Key=_key(digest),
                    Body=data,
                    ChecksumAlgorithm="SHA256",
                )
        return digest

    def put_json(self, bucket: Bucket, document: Any) -> Digest:
        """Stores a document as canonical JSON."""
        return self.put(bucket, digests.canonical_json(document))

    def put_files(self, bucket: Bucket, files: Mapping[str, bytes]) -> Digest:
        """Stores named files as one deterministic tar."""
        return self.put(bucket, tar(files))

    def has(self, bucket: Bucket, digest: Digest) -> bool:
        """Whether there is an object of this digest. Its content is not read."""
        with answering(uri(bucket, digest)):
            found = self._head(bucket, digest) is not None
        return found or any(store.has(bucket, digest) for store in self._stores_upstream())

    def get(self, bucket: Bucket, digest: Digest) -> bytes:
        """The object's content, verified. Raises `Missing`, `Corrupt` or `Unreachable`."""
        try:
            return self._get(bucket, digest)
        except Missing:
            for store in self._stores_upstream():
                with suppress(Missing):
                    data = store.get(bucket, digest)
                    self._keep(bucket, data)
                    return data
            raise

    def _stores_upstream(self) -> Iterator[Store]:
        return map(self._beginning, dict.fromkeys(self._before.values()))

    def _keep(self, bucket: Bucket, data: bytes) -> None:
        self.put(bucket, data)

    def _get(self, bucket: Bucket, digest: Digest) -> bytes:
        with answering(uri(bucket, digest)):
            data: bytes = self._object(bucket, _key(digest))
        if (found := digests.of(data)) != digest:
            raise Corrupt(
                f"{uri(bucket, digest)}: corrupt: its content has the digest {found}",
                fix="delete this object, then run again the step that writes it "
                "(ingest for a partition); it is written anew with the same digest",
            )
        return data

    def verify(self, bucket: Bucket, digest: Digest) -> None:
        """As `get`, but content is read only where the checksum that the store took is another."""
        with answering(uri(bucket, digest)):
            head = self._head(bucket, digest)
        if _recorded(head) != digest:
            self.get(bucket, digest)

    def get_files(self, bucket: Bucket, digest: Digest) -> dict[str, bytes]:
        """The files that `put_files` stored."""
        return untar(self.get(bucket, digest))

    def names(self, bucket: Bucket, prefix: str) -> list[str]:
        """Keys that begin with `prefix`, in their order: of objects that no digest names."""
        with answering(f"s3://{bucket}/{prefix}"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket(bucket), Prefix=prefix
            )
            return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def read(self, bucket: Bucket, key: str) -> bytes:
        """The content of such an object."""
        with answering(f"s3://{bucket}/{key}"):
            return self._object(bucket, key)

    def write(self, bucket: Bucket, key: str, data: bytes) -> None:
        """Stores such an object, in place of one that was there."""
        with answering(f"s3://{bucket}/{key}"):
            self._s3.put_object(Bucket=self._bucket(bucket), Key=key, Body=data)

    def _object(self, bucket: Bucket, key: str) -> bytes:
        return self._s3.get_object(Bucket=self._bucket(bucket), Key=key)["Body"].read()

    def _head(self, bucket: Bucket, digest: Digest) -> Any:
        from botocore.exceptions import ClientError

        try:
            return self._s3.head_object(
                Bucket=self._bucket(bucket), Key=_key(digest), ChecksumMode="ENABLED"
            )
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                return None
            raise

    def _intact(self, bucket: Bucket, digest: Digest, size: int) -> bool:
        head = self._head(bucket, digest)
        return _recorded(head) == digest and head["ContentLength"] == size


class Given(Store):
    """A store whose client does not come from the environment. What is upstream is only read."""

    def __init__(self, client: Any, prefix: str, upstream: Mapping[str, str] | None = None) -> None:
        self.__dict__.update(_s3=client, _prefix=prefix, _before=upstream or {})

    def _keep(self, bucket: Bucket, data: bytes) -> None:
        """Nowhere: people change nothing there."""


def _recorded(head: Any) -> Digest:
    """The digest of what was sent, as the store found it then; that of nothing where it did not."""
    import base64

    recorded = head.get("ChecksumSHA256", "") if head else ""
    return f"sha256:{base64.b64decode(recorded).hex()}"


@contextmanager
def answering(where: str) -> Generator[None]:
    """Turns boto's errors into ours."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in ("NoSuchKey", "404"):
            raise Missing(
                f"{where}: no such object",
                fix="see that the digest is whole and of this bucket, or run again the step that "
                "writes it",
            ) from None
        if code == "NoSuchBucket":
            raise Missing(f"{where}: no such bucket", fix="run pulumi up, which makes it") from None
        if code == "RequestTimeTooSkewed":
            raise StoreError(
                f"{where}: the store's clock and this machine's differ by too much",
                fix="set the clocks of both right (NTP)",
            ) from None
        if status >= 500 or status == 429:
            raise Unreachable(f"{where}: the store answered {status} ({code})") from None
        raise StoreError(
            f"{where}: the store refused: {code}",
            fix="see the credentials in AWS_ACCESS_KEY_ID, on AWS the pod's role, and what they "
            "may do",
        ) from None
    except BotoCoreError as error:
        raise Unreachable(
            f"{where}: no answer from the store: {error}",
            fix="see AWS_ENDPOINT_URL and whether the store runs",
        ) from None


def tar(files: Mapping[str, bytes]) -> bytes:
    """A tar in which only names and contents count: sorted, no times, no owners, mode 644."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(files[name]), 0o644
            archive.addfile(info, io.BytesIO(files[name]))
    return buffer.getvalue()


def untar(data: bytes) -> dict[str, bytes]:
    """The regular files of a tar, by name."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = ((m.name, archive.extractfile(m)) for m in archive.getmembers() if m.isreg())
        return {name: file.read() for name, file in members if file}


def tar_folder(folder: Path) -> bytes:
    """`tar` of every file under `folder`, by its path relative to it."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return tar({p.relative_to(folder).as_posix(): p.read_bytes() for p in paths})
