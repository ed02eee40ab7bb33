"""Where signed evidence, the keys that tell whose it is, and what was served are read from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from slipway import digests, paths
from slipway.digests import Digest
from slipway.errors import BadInput, SlipwayError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from slipway.endpoints import Cluster
    from slipway.evidence import Evidence
    from slipway.gates import Soak
    from slipway.release import Release
    from slipway.store import Store

KEYS = "SLIPWAY_EVIDENCE_KEYS"

Keys = Mapping[str, "Ed25519PublicKey"]


class Source(Protocol):
    """Gives envelopes by digest, public keys that may have signed them, and what was served; and
    tells whether bentos are whole.

    Each raises `SlipwayError` where it has none; `Unreachable` or `ClusterError` where it cannot
    tell.
    """

    def get(self, digest: Digest) -> bytes:
        """The envelope, its digest verified."""
        ...

    def keys(self, environment: str, *, fresh: bool = False) -> Keys:
        """Public keys by their ids, of whoever attests for an environment; `fresh`: not those
        remembered from an earlier time."""
        ...

    def bento(self, digest: Digest) -> None:
        """Raises unless the bento is there and whole."""
        ...

    def soak(self, environment: str, model: str, bento: Digest) -> Soak:
        """What a bento really served in an environment."""
        ...


class Mounted:
    """In a workflow: the store of its environment variables, and the keys' file that they name."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, digest: Digest) -> bytes:
        return self._store.get("evidence", digest)

    def keys(self, environment: str, *, fresh: bool = False) -> Keys:
        from slipway import attestation

        return attestation.keys_from_environment(environment)

    def bento(self, digest: Digest) -> None:
        self._store.verify("bentos", digest)

    def soak(self, environment: str, model: str, bento: Digest) -> Soak:
        from slipway import soak

        return soak.measure(self._store, environment, model, bento)


class Platform:
    """On a person's machine: the platform's, and what was read of it before.

    Evidence never changes. Keys may: those remembered serve until a signature is not theirs. A
    bento that was whole once is not looked at again: the forge's gates do, each time. The cluster
    is connected to when something is asked of it, so that what is remembered needs none.
    """

    def __init__(
        self,
        connect: Callable[[], Cluster],
        *,
        folder: Path | None = None,
        keys: Path | None = None,
    ) -> None:
        """`folder` holds all the evidence there is, in files called by their digest's hex, and no
        bento is looked for; `keys` is a PEM file, else what SLIPWAY_EVIDENCE_KEYS names, else the
        platform's."""
        if folder and not folder.is_dir():
            raise BadInput(f"no folder {folder}", field="--evidence")
        given = os.environ.get(KEYS)
        self._connect, self._folder = connect, folder
        self._keys = keys or (Path(given) if given else None)
        self._cache = paths.cache() / "evidence"
        self._cluster: Cluster | None = None

    def get(self, digest: Digest) -> bytes:
        found = _file(self._folder or self._cache, digest)
        if found is None and self._folder:
            where = self._folder / digest.removeprefix("sha256:")
            raise SlipwayError(f"no evidence {digest} in {self._folder}", fix=f"save it as {where}")
        if found is None:
            with self._connected().store() as store:
                found = store.get("evidence", digest)
            paths.write(self._cache / digest.removeprefix("sha256:"), found)
        return found

    def keys(self, environment: str, *, fresh: bool = False) -> Keys:
        from slipway import attestation

        if self._keys:
            return read_keys(self._keys)
        name = attestation.keys_of(environment)
        file = self._cache / "keys" / name
        if file.is_file() and not fresh:
            return read_keys(file)
        held = self._connected().config("pipelines", "evidence-keys")
        pem = held.get(name) or held.get("public.pem", "")
        found = attestation.load_keys(pem, "ConfigMap pipelines/evidence-keys")
        paths.write(file, pem.encode())
        return found

    def bento(self, digest: Digest) -> None:
        seen = self._cache / "bentos" / digest.removeprefix("sha256:")
        if self._folder or seen.is_file():
            return
        with self._connected().store() as store:
            store.verify("bentos", digest)
        paths.write(seen, b"")

    def soak(self, environment: str, model: str, bento: Digest) -> Soak:
        from slipway import soak

        with self._connected().store() as store:
            return soak.measure(store, environment, model, bento)

    def _connected(self) -> Cluster:
        if self._cluster is None:
            self._cluster = self._connect()
        return self._cluster


def verified(source: Source, pins: Release, environment: str) -> Evidence:
    """The verified evidence about a release there.

    Raises:
        SlipwayError: it is not to be had, not signed by a known key, or about another release.
    """
    from slipway import attestation

    digest = pins.evidence.digest
    envelope = source.get(digest)
    try:
        found = attestation.verify(envelope, source.keys(environment), digest)
    except attestation.Unverified:
        # Keys are rotated; the ones remembered may be older than the signature.
        found = attestation.verify(envelope, source.keys(environment, fresh=True), digest)
    attestation.check_about(found, pins, environment)
    return found


def is_foreign(cluster: Cluster, path: str, content: bytes) -> bool:
    """Whether a release file is of another platform than this cluster's: the store here has not its
    evidence, or the keys here did not sign it.

    Raises:
        SlipwayError: the store or the API server does not answer.
    """
    from slipway import attestation, release
    from slipway.store import Missing

    try:
        pins = release.parse(content, path)
    except BadInput:
        return False  # no platform writes such a file
    environment = path.split("/")[1]
    keys = Platform(lambda: cluster).keys(environment, fresh=True)
    try:
        with cluster.store() as store:
            attestation.fetch(store, pins.evidence.digest, keys)
    except (Missing, attestation.Unverified):
        return True
    return False


def read_keys(file: Path) -> Keys:
    """Public keys from a PEM file; `BadInput` where there is none."""
    from slipway import attestation

    try:
        return attestation.load_keys(file.read_text(), str(file))
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", file=file) from None


def _file(folder: Path, digest: Digest) -> bytes | None:
    """A digest's file in a folder, laid out flat or as the store is; None where there is none."""
    digits = digest.removeprefix("sha256:")
    for file in (folder / digits, folder / "sha256" / digits):
        if file.is_file():
            data = file.read_bytes()
            if digests.of(data) != digest:
                raise SlipwayError(
                    f"{file}: altered: its content has another digest", fix="remove it"
                )
            return data
    return None
