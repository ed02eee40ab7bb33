"""Whose a release is: this platform's, or another's that came in a clone."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from slipway import attestation, release, sources
from slipway.endpoints import Cluster
from tests import samples

PATH = str(release.path("dev", "toy"))


@pytest.fixture
def cluster(connected: Any) -> Cluster:
    return Cluster.connect()


def content(platform: Any) -> bytes:
    return release.dumps(platform.release).encode()


def test_a_release_is_this_platforms_by_its_evidence(connected: Any, cluster: Cluster) -> None:
    assert not sources.is_foreign(cluster, PATH, content(connected))
    # Somebody's change of it is no other platform's.
    changed = connected.release.model_copy(update={"version": 9})
    assert not sources.is_foreign(cluster, PATH, release.dumps(changed).encode())
    assert not sources.is_foreign(cluster, PATH, b"version: 9\n")


def test_evidence_that_is_in_another_store_or_by_another_key_is_another_platforms(
    connected: Any, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = samples.Objects()
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "store", lambda: nullcontext(elsewhere))
        assert sources.is_foreign(cluster, PATH, content(connected))
    # What was read before of a platform that is gone counts for nothing.
    source = sources.Platform(lambda: cluster)
    source.get(connected.release.evidence.digest)
    document = attestation.fetch(connected.store, connected.release.evidence.digest, connected.keys)
    theirs = connected.store.put(
        "evidence", attestation.sign(document, Ed25519PrivateKey.generate())
    )
    pins = connected.release.model_copy(
        update={"evidence": connected.release.evidence.model_copy(update={"digest": theirs})}
    )
    assert sources.is_foreign(cluster, PATH, release.dumps(pins).encode())
