"""A release to be judged: its evidence is made up, but signed, fresh and good in every respect."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from slipway import attestation, digests, evidence, gates, release
from slipway.bench import history
from slipway.evidence import Environment, Estimate, Evidence
from slipway.gates import Policy
from slipway.release import Release
from slipway.repository import Repository

ENV: Environment = "dev"
ROWS = 54_000
# As many as flight_delay has: the size of the document is part of what is measured.
SLICES = {"carrier": 16, "origin": 3, "hour": 19}
PACKAGES = 90


@dataclass(frozen=True)
class Challenger:
    """A proposed release: its branch, and what its evidence is verified with."""

    branch: str
    evidence: Path
    keys: Path


def propose(place: Path, folder: Path, model: str) -> Challenger:
    """Proposes the next version of a model in the repository at `place`.

    For dev: the other environments' gates ask the platform what was served. Evidence and keys come
    into `folder`.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = str(release.path(ENV, model))
    with Repository(place) as repository:

        def read(file: str) -> bytes | None:
            return repository.read("main", file)

        champion = release.parse(read(path) or b"", path)
        policy = gates.load_policy(read, ENV, model)
    proposed = history.pins(model, champion.version + 1, champion.code.commit)
    document = about(proposed, champion, policy)
    key = Ed25519PrivateKey.generate()
    envelope = attestation.sign(document, key)
    digest = digests.of(envelope)
    signed = release.Evidence(digest=digest, summary=document.summary())
    proposed = proposed.model_copy(update={"evidence": signed})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / digest.removeprefix("sha256:")).write_bytes(envelope)
    keys = folder / "keys.pem"
    encoding, kind = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    keys.write_bytes(key.public_key().public_bytes(encoding, kind))
    branch = release.branch(model, proposed.version)
    title = f"Release {model} {proposed.version} to {ENV}"
    history.propose(place, {path: release.dumps(proposed).encode()}, title, branch)
    return Challenger(branch, folder, keys)


def about(proposed: Release, champion: Release, policy: Policy) -> Evidence:
    """Evidence for `proposed`, a little better than the champion everywhere."""
    asked, now = policy.evidence, evidence.instant(datetime.now(UTC))
    metrics = {"roc_auc": 0.71, "brier": 0.17, "log_loss": 0.52, "calibration_error": 0.012}
    theirs = {name: m + (-0.004 if name == "roc_auc" else 0.004) for name, m in metrics.items()}
    estimates = {name: _around(value) for name, value in metrics.items()}
    parts = [(c, f"{c}-{n:02}") for c, count in SLICES.items() for n in range(count)]
    whole = [(metric, "", "", margin) for metric, margin in asked.whole("classification").items()]
    sliced = [
        (metric, column, value, margin)
        for metric, margin in asked.sliced("classification").items()
        for column, value in parts
    ]
    common = {"alpha": asked.alpha, "p_value": 0.0004, "p_adjusted": 0.004, "passed": True}
    gain = _around(0.004).model_dump()
    tests = [
        *(_test("superiority", m, "", "", 0.0) | common | {"difference": gain} for m in metrics),
        *(_test("non_inferiority", *t) | common | {"difference": gain} for t in (*whole, *sliced)),
    ]
    document = {
        "created": now,
        "environment": policy.environment,
        "policy": {"environment": policy.environment, "digest": policy.digest},
        "version": proposed.version,
        "bento": proposed.bento.model_dump(),
        "runtime": proposed.runtime.model_dump(),
        "evaluation": {
            "model": proposed.model,
            "task": "classification",
            "model_digest": _digest("model"),
            "data": {"digest": proposed.data.digest, "rows": 336_776, "train": _months(1, 11)},
            "code": proposed.code.commit,
            "run": proposed.mlflow.run,
            "evaluated": now,
            "parameters": {"max_iter": 310, "learning_rate": 0.05, "max_leaf_nodes": 15},
            "holdout": {
                "digest": _digest("holdout"),
                "partitions": _months(11, 13),
                "outcomes": {month: _digest(month) for month in _months(11, 13)},
                "rows": ROWS,
                "unknown": 1200,
                "mean_outcome": 0.24,
                "deviation": 0.427,
            },
            "predictions": _digest("predictions"),
            "metrics": {name: estimate.model_dump() for name, estimate in estimates.items()},
            "baselines": {"base_rate": {"brier": 0.19, "roc_auc": 0.5}},
            "gain": {"base_rate": _around(0.1).model_dump()},
            "reliability": [
                {
                    "low": n / 10,
                    "high": (n + 1) / 10,
                    "rows": ROWS // 10,
                    "predicted": n / 10 + 0.05,
                    "observed": n / 10 + 0.04,
                }
                for n in range(10)
            ],
            "calibration_chance": 0.008,
            "by_period": dict.fromkeys(_months(11, 13), metrics),
            "slice_columns": list(SLICES),
            "decision_threshold": 0.5,
            "slices": [
                {
                    "column": column,
                    "value": value,
                    "rows": 1000,
                    "groups": 61,
                    "mean_outcome": 0.24,
                    "mean_prediction": 0.23,
                    "metrics": metrics,
                }
                for column, value in parts
            ],
            "fairness": [
                {
                    "column": column,
                    "threshold": 0.5,
                    "differences": {"demographic_parity": 0.1, "equalized_odds": 0.1},
                    "worst_group": f"{column}-00",
                }
                for column in SLICES
            ],
            "validation": {"rows": 336_776, "columns": 19, "checks": ["schema", "missing"]},
            "signature": {
                "digest": proposed.signature.digest,
                "inputs": [{"name": f"column_{n:02}", "type": "double"} for n in range(20)],
                "outputs": [{"name": "probability", "type": "double"}],
            },
        },
        "serving": {
            "requests": 500,
            "latency_p50_ms": 3.0,
            "latency_p99_ms": 9.0,
            "memory_mib": 210.0,
            "start_seconds": 4.0,
            "bento_bytes": proposed.bento.size,
        },
        "dependencies": {
            "lock": _digest("lock"),
            "packages": [
                {"name": f"package-{n:02}", "version": "1.2.3", "licence": "BSD-3-Clause"}
                for n in range(PACKAGES)
            ],
        },
        "champion": {
            "version": champion.version,
            "bento": champion.bento.digest,
            "evidence": champion.evidence.digest,
            "commit": champion.code.commit,
            "data": champion.data.digest,
            "predictions": _digest("champion"),
            "metrics": {name: _around(m).model_dump() for name, m in theirs.items()},
            "parameters": {"max_iter": 300, "learning_rate": 0.05, "max_leaf_nodes": 15},
        },
        "comparison": {
            "tests": tests,
            "yardstick": [],
            "signature": [],
            "drift": [{"column": f"column_{n:02}", "psi": 0.01} for n in range(20)],
            "dependencies": ["package-07 1.2.2 -> 1.2.3"],
        },
    }
    return evidence.loads(Evidence, digests.canonical_json(document), "the sample")


def _test(kind: str, metric: str, column: str, value: str, margin: float) -> dict[str, object]:
    rows = 1000 if column else ROWS
    about = {"kind": kind, "metric": metric, "column": column, "value": value}
    return {**about, "rows": rows, "margin": margin}


def _around(value: float) -> Estimate:
    return Estimate(value=value, low=value * 0.9, high=value * 1.1)


def _months(first: int, end: int) -> list[str]:
    return [f"2013-{month:02}" for month in range(first, end)]


def _digest(what: str) -> str:
    return digests.of(what.encode())
