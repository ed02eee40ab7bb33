"""Digests, `sha256:` and 64 hex digits: the names of everything that must not change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slipway.release import Digest

__all__ = ["Digest", "canonical_json", "of", "of_file", "of_files", "of_json"]


def of(data: bytes) -> Digest:
    """The digest of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def of_file(path: Path) -> Digest:
    """The digest of a file's content, whatever its size."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def canonical_json(document: Any) -> bytes:
    """JSON in its one spelling: sorted keys, no spaces, UTF-8, no NaN (`ValueError`)."""
    text = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def of_json(document: Any) -> Digest:
    """The digest of a document's canonical JSON."""
    return of(canonical_json(document))


def of_files(files: Mapping[str, bytes]) -> Digest:
    """The digest of named files: equal names with equal content, in any order, give the same."""
    return of_json({name: of(content) for name, content in files.items()})
