"""Small valid documents, for tests that change one thing about them."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from slipway import attestation, digests, evidence, release, store
from slipway.evidence import Estimate, Evaluation, Evidence
from slipway.release import Release

AGAIN = "run again the step that writes it"
COMMIT, RUN = "d4" * 20, "e5" * 16
IMAGE = f"localhost:5000/slipway/serving@sha256:{'b2' * 32}"


def digest(seed: str) -> str:
    """A digest of two repeated hex digits."""
    return f"sha256:{seed * 32}"


def bento(seed: str = "be", *, size: int = 1000) -> release.Bento:
    return release.Bento(digest=digest(seed), uri=store.uri("bentos", digest(seed)), size=size)


def evaluation(**changes: Any) -> Evaluation:
    """Of the model `toy`."""
    estimate = Estimate(value=0.7, low=0.6, high=0.8)
    values: dict[str, Any] = {
        "model": "toy",
        "task": "classification",
        "model_digest": digest("0d"),
        "data": evidence.Data(digest=digest("da"), rows=10),
        "code": COMMIT,
        "run": RUN,
        "evaluated": "2026-01-01T00:00:00Z",
        "parameters": {"max_iter": 300},
        "holdout": evidence.Holdout(
            digest=digest("a0"),
            partitions=["part-1"],
            outcomes={"part-1": digest("0a")},
            rows=10,
            unknown=0,
            mean_outcome=0.5,
            deviation=0.5,
        ),
        "predictions": digest("a1"),
        "metrics": {
            "roc_auc": estimate,
            "brier": Estimate(value=0.15, low=0.14, high=0.16),
        },
        "baselines": {"base_rate": {"brier": 0.2}},
        "gain": {"base_rate": estimate},
        "reliability": [],
        "calibration_chance": 0.0,
        "by_period": {},
        "slice_columns": [],
        "slices": [],
        "decision_threshold": 0.5,
        "fairness": [],
        "validation": evidence.Validation(rows=10, columns=2, checks=["no column is missing"]),
        "signature": evidence.Signature(digest=digest("51"), inputs=[], outputs=[]),
    }
    return Evaluation(**values | changes)


def serving(**changes: Any) -> evidence.Serving:
    values: dict[str, Any] = {
        "requests": 10,
        "latency_p50_ms": 5.0,
        "latency_p99_ms": 9.0,
        "memory_mib": 200.0,
        "start_seconds": 3.0,
        "bento_bytes": 1000,
    }
    return evidence.Serving(**values | changes)


def dependencies(**changes: Any) -> evidence.Dependencies:
    values: dict[str, Any] = {
        "lock": digest("10"),
        "packages": [evidence.Package(name="numpy", version="2.3.0", licence="BSD-3-Clause")],
    }
    return evidence.Dependencies(**values | changes)


def document(**changes: Any) -> Evidence:
    """Evidence for dev, which has no champion."""
    values: dict[str, Any] = {
        "created": "2026-01-01T00:00:00Z",
        "environment": "dev",
        "policy": evidence.PolicyPin(environment="dev", digest=digest("90")),
        "version": 3,
        "bento": bento(),
        "runtime": release.Runtime(image=IMAGE),
        "evaluation": evaluation(),
        "serving": serving(),
        "dependencies": dependencies(),
        "champion": None,
        "comparison": None,
    }
    return Evidence(**values | changes)


def released(of: Evidence | None = None, proof: str = digest("ef"), **changes: Any) -> Release:
    """The release file that this evidence is about."""
    about = of or document()
    values: dict[str, Any] = {
        "model": about.evaluation.model,
        "version": about.version,
        "bento": about.bento,
        "runtime": about.runtime,
        "data": release.Data(digest=about.evaluation.data.digest),
        "code": release.Code(commit=about.evaluation.code),
        "mlflow": release.MLflow(run=about.evaluation.run),
        "signature": release.Signature(digest=about.evaluation.signature.digest),
        "evidence": release.Evidence(digest=proof, summary=about.summary()),
    }
    return Release(**values | changes)


class Objects(store.Store):
    """A store in memory; `content` may be altered behind its back."""

    def __init__(self) -> None:
        self.content: dict[tuple[str, str], bytes] = {}

    def put(self, bucket: store.Bucket, data: bytes) -> str:
        found = digests.of(data)
        self.content[bucket, found] = data
        return found

    def has(self, bucket: store.Bucket, digest: str) -> bool:
        return (bucket, digest) in self.content

    def get(self, bucket: store.Bucket, digest: str) -> bytes:
        if not self.has(bucket, digest):
            raise store.Missing(f"{store.uri(bucket, digest)}: no such object", fix=AGAIN)
        data = self.content[bucket, digest]
        if digests.of(data) != digest:
            raise store.Corrupt(f"{store.uri(bucket, digest)}: corrupt", fix=AGAIN)
        return data

    def verify(self, bucket: store.Bucket, digest: str) -> None:
        self.get(bucket, digest)


KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
KEYS = {attestation.key_id(KEY.public_key()): KEY.public_key()}


def public_pem(key: Ed25519PrivateKey = KEY) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: Ed25519PrivateKey = KEY) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
