"""Champion: what an environment serves by main's release file, if its evidence can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slipway import attestation, paths, release
from slipway.attestation import Unverified
from slipway.evidence import Evidence
from slipway.release import Release
from slipway.store import Corrupt, Missing, Store

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


@dataclass(frozen=True)
class Champion:
    """A release on main and its verified evidence."""

    release: Release
    evidence: Evidence


def find(
    objects: Store,
    keys: Mapping[str, Ed25519PublicKey],
    model: str,
    environment: str,
) -> Champion | None:
    """The champion by the release file in this checkout, which is main's; None without one.

    Raises:
        Unverified: its evidence is gone, altered, not signed by a known key or about another
            release: nothing can be compared with it.
    """
    path = release.path(release.check_environment(environment), model)
    file = paths.REPOSITORY / path
    if not file.exists():
        return None
    pins = release.parse(file.read_bytes(), path)
    try:
        document = attestation.fetch(objects, pins.evidence.digest, keys)
        attestation.check_about(document, pins, environment)
    except (Missing, Corrupt, Unverified) as error:
        why = str(error).partition("\n  fix: ")[0]
        raise Unverified(
            f"{path}: the evidence of version {pins.version} cannot be trusted: {why}",
            fix=f"put the object or the public key back, or go back to a release whose evidence "
            f"can be trusted: slipway rollback {model} --env {environment}",
        ) from None
    return Champion(pins, document)
