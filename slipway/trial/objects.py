"""The object store as a folder of this machine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

from slipway import digests, paths
from slipway.digests import Digest
from slipway.store import Bucket, Corrupt, Missing, Store, StoreError, uri


class Local(Store):
    """Objects in files called by their digest. One that is not there comes from the platform's
    store, where `upstream` opens that, and stays."""

    def __init__(
        self, folder: Path, upstream: Callable[[], AbstractContextManager[Store]] | None = None
    ) -> None:
        self._folder, self._upstream = folder, upstream

    @cached_property
    def _s3(self) -> Any:
        raise StoreError("what no digest names is not kept on this machine")

    def put(self, bucket: Bucket, data: bytes) -> Digest:
        digest = digests.of(data)
        file = self._file(bucket, digest)
        if not file.is_file() or digests.of_file(file) != digest:
            paths.write(file, data)
        return digest

    def has(self, bucket: Bucket, digest: Digest) -> bool:
        if self._file(bucket, digest).is_file():
            return True
        if self._upstream is None:
            return False
        with self._upstream() as store:
            return store.has(bucket, digest)

    def get(self, bucket: Bucket, digest: Digest) -> bytes:
        file = self._file(bucket, digest)
        if file.is_file():
            data = file.read_bytes()
            if digests.of(data) != digest:
                raise Corrupt(f"{file}: altered: its content has another digest", fix="remove it")
            return data
        if self._upstream is None:
            raise Missing(f"{uri(bucket, digest)}: not on this machine", fix="try with --fresh")
        with self._upstream() as store:
            data = store.get(bucket, digest)
        paths.write(file, data)
        return data

    def verify(self, bucket: Bucket, digest: Digest) -> None:
        self.get(bucket, digest)

    def _file(self, bucket: Bucket, digest: Digest) -> Path:
        return self._folder / bucket / digest.replace(":", "/", 1)
