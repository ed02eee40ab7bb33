"""The weights of a pretrained model: fetched as `model.yaml` pins them, or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx

from slipway import digests
from slipway.bento import Pretrained
from slipway.digests import Digest
from slipway.errors import BadInput, SlipwayError

# As Hugging Face's own tools read it: a mirror inside the network, for instance.
HUB = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
CHUNK = 1 << 20


def fetch(
    folder: Pretrained,
    into: Path,
    client: httpx.Client,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Makes `into` a folder that `bentoml serve` runs: the service, and the weights in `model/`.

    What is there already and is what was pinned is kept, so a fetch that broke off goes on.

    Args:
        client: asks the hub; its base address is the hub's.
        say: gets a line for each file.

    Raises:
        BadInput: the hub has no such file at that revision, or does not let us read it.
        SlipwayError: the hub does not answer, or gives other bytes than those pinned.
    """
    weights = into / "model"
    weights.mkdir(parents=True, exist_ok=True)
    for file in folder.files:
        shutil.copy(file, into)
    pinned = folder.config.weights
    for name, digest in pinned.files.items():
        target = weights / name
        if target.is_file() and digests.of_file(target) == digest:
            say(f"{name}: there already")
            continue
        path = f"/{pinned.repository}/resolve/{pinned.revision}/{name}"
        _download(client, path, target, digest, folder.path / "model.yaml")
        say(f"{name}: {target.stat().st_size:,} bytes, as pinned")
    return into


def _download(
    client: httpx.Client, path: str, target: Path, digest: Digest, pinned_in: Path
) -> None:
    partial = target.with_name(f".{target.name}.partial")
    found = hashlib.sha256()
    try:
        with client.stream("GET", path, follow_redirects=True) as answer, partial.open("wb") as out:
            if answer.status_code in (401, 403, 404):
                raise BadInput(
                    f"{client.base_url} answers {answer.status_code} for {path}",
                    file=pinned_in,
                    field="weights",
                    fix="see repository and revision; a gated one needs HF_TOKEN",
                )
            answer.raise_for_status()
            for chunk in answer.iter_bytes(CHUNK):
                out.write(chunk)
                found.update(chunk)
        if (got := f"sha256:{found.hexdigest()}") != digest:
            raise SlipwayError(
                f"{target.name}: the hub's file has the digest {got}, {pinned_in} pins {digest}",
                fix="do not use it: find out who changed it, the file or the pin",
            )
        partial.rename(target)
    except httpx.HTTPError as error:
        raise SlipwayError(f"{target.name}: {error}", fix="run it again: it goes on") from None
    finally:
        partial.unlink(missing_ok=True)
