"""A promotion of `toy` to prod that every rule of the strict fixture lets pass."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import yaml

from slipway import evidence, gates, paths, release
from slipway.evidence import Estimate, Evidence, Fairness, Slice
from slipway.gates import Approval, Finding, Policy, PullFacts, Soak, Stay, Subject, load_policy
from tests.samples import bento, dependencies, digest, document, evaluation, released, serving

FIXTURES = paths.REPOSITORY / "tests" / "fixtures" / "policies"
NOW = datetime.fromisoformat("2026-11-23T12:00:00+00:00")  # a Monday
HEAD = "4ead" * 10


def at(**ago: float) -> str:
    return f"{NOW - timedelta(**ago):%Y-%m-%dT%H:%M:%SZ}"


def served(first: float, last: float) -> tuple[datetime, ...]:
    """Times of predictions every ten seconds, from so many seconds ago to so many."""
    times = [NOW - timedelta(seconds=first)]
    while times[-1] < NOW - timedelta(seconds=last):
        times.append(times[-1] + timedelta(seconds=10))
    return tuple(times)


def stay(since: float, until: float | None = None) -> Stay:
    """From so many seconds ago to so many, or still."""
    ended = None if until is None else NOW - timedelta(seconds=until)
    return Stay(NOW - timedelta(seconds=since), ended)


def policy(**changes: Any) -> Policy:
    """The strict fixture with some keys replaced; `None` removes one."""
    return _changed(**changes) if changes else _strict()


@cache
def _strict() -> Policy:
    return _changed()


def _changed(**changes: Any) -> Policy:
    strict = yaml.safe_load((FIXTURES / "valid" / "strict.yaml").read_bytes()) | changes
    kept = {key: value for key, value in strict.items() if value is not None}
    thresholds = yaml.safe_dump(kept, sort_keys=False).encode()
    approvals = (FIXTURES / "valid" / "approvals_two_groups.yaml").read_bytes()
    return load_policy(
        lambda path: approvals if path.endswith("approvals.yaml") else thresholds, "prod", "toy"
    )


def paired(
    kind: str, metric: str, gain: float, margin: float = 0.0, **changes: Any
) -> evidence.Test:
    values: dict[str, Any] = {
        "kind": kind,
        "metric": metric,
        "rows": 54000,
        "margin": margin,
        "alpha": 0.05,
        "difference": Estimate(value=gain, low=gain - 0.0005, high=gain + 0.0005),
        "p_value": 0.001,
        "p_adjusted": 0.002,
        "passed": True,
    }
    return evidence.Test(**values | changes)


def part(column: str, value: str, rows: int = 2000, **metrics: float) -> Slice:
    return Slice(
        column=column,
        value=value,
        rows=rows,
        groups=rows,
        mean_outcome=0.25,
        mean_prediction=0.24,
        metrics={"brier": 0.18, "roc_auc": 0.68, **metrics},
    )


SLICES = [
    part("carrier", "UA", 9600),
    part("carrier", "WN", 2100, brier=0.2073),
    part("carrier", "HA", 53, brier=0.4, roc_auc=0.4),
]
TESTS = [
    paired("superiority", "brier", 0.0031),
    paired("superiority", "roc_auc", 0.001, passed=False, p_adjusted=0.2),
    paired("non_inferiority", "brier", 0.0031, 0.002),
    paired("non_inferiority", "roc_auc", 0.001, 0.005),
    paired("non_inferiority", "brier", 0.001, 0.005, column="carrier", value="UA", rows=9600),
    paired("non_inferiority", "brier", 0.001, 0.005, column="carrier", value="WN", rows=2100),
]
CHAMPION = released(document(bento=bento("cc"))).model_copy(
    update={"version": 2, "evidence": release.Evidence(digest=digest("ec"))}
)


def found(**changes: Any) -> Evidence:
    """Evidence for prod. Keys of evaluation, serving, dependencies and comparison go there."""
    own = {
        "evaluated": at(hours=2),
        "data": evidence.Data(digest=digest("da"), rows=336_776),
        "metrics": {
            "roc_auc": Estimate(value=0.685, low=0.68, high=0.69),
            "brier": Estimate(value=0.1738, low=0.171, high=0.176),
            "calibration_error": Estimate(value=0.018, low=0.012, high=0.026),
        },
        "gain": {"base_rate": Estimate(value=0.094, low=0.08, high=0.11)},
        "slices": SLICES,
        "fairness": [
            Fairness(
                column="carrier",
                threshold=0.5,
                differences={"demographic_parity": 0.18, "equalized_odds": 0.28},
                worst_group="VX",
            )
        ],
    }
    compared = {
        "tests": TESTS,
        "yardstick": [],
        "signature": [],
        "drift": [evidence.Drift(column="origin", psi=0.02)],
        "dependencies": [],
    }
    checked = {"vulnerabilities": [], "database": "OSV of 2026-11-20"}

    def of(defaults: dict[str, Any], model: type[Any]) -> dict[str, Any]:
        return defaults | {k: changes.pop(k) for k in list(changes) if k in model.model_fields}

    whole = {k: changes.pop(k) for k in list(changes) if k in Evidence.model_fields}
    values: dict[str, Any] = {
        "created": at(hours=1),
        "environment": "prod",
        "policy": evidence.PolicyPin(environment="prod", digest=policy().digest),
        "champion": evidence.Champion(
            version=CHAMPION.version,
            bento=CHAMPION.bento.digest,
            evidence=CHAMPION.evidence.digest,
            commit=CHAMPION.code.commit,
            data=CHAMPION.data.digest,
            predictions=digest("a2"),
            metrics={"brier": Estimate(value=0.1769, low=0.174, high=0.179)},
            parameters={},
        ),
        # `signature` is of both: a list of changes, or the model's own.
        "comparison": evidence.Comparison(**of(compared, evidence.Comparison)),
        "evaluation": evaluation(**of(own, evidence.Evaluation)),
        "serving": serving(**of({}, evidence.Serving)),
        "dependencies": dependencies(**of(checked, evidence.Dependencies)),
    }
    assert not changes, changes
    return document(**values | whole)


def regression(**changes: Any) -> Subject:
    """The same promotion of a model that answers minutes; `asked` are thresholds to replace."""
    slices = [
        Slice(
            column="carrier",
            value=value,
            rows=rows,
            groups=rows,
            mean_outcome=150,
            mean_prediction=151,
            metrics={"r2": r2, "mae": 9.0},
        )
        for value, rows, r2 in (("UA", 9600, 0.9), ("WN", 2100, 0.4), ("HA", 53, -3.0))
    ]
    whole = [
        paired("superiority", "mae", 0.4),
        paired("non_inferiority", "r2", 0.004, 0.01),
    ]
    tests = whole + [
        paired("non_inferiority", "r2", 0.01, 0.005, column="carrier", value=v, rows=n)
        for v, n in (("UA", 9600), ("WN", 2100))
    ]
    own: dict[str, Any] = {
        "task": "regression",
        "holdout": evidence.Holdout(
            digest=digest("a0"),
            partitions=["part-1"],
            outcomes={"part-1": digest("0a")},
            rows=11_753,
            unknown=0,
            mean_outcome=150,
            deviation=90,
        ),
        "metrics": {
            "r2": Estimate(value=0.91, low=0.9, high=0.92),
            "mae": Estimate(value=9.2, low=9.0, high=9.4),
            "calibration_error": Estimate(value=0.02, low=0.01, high=0.03),
        },
        "gain": {"mean": Estimate(value=0.91, low=0.9, high=0.92)},
        "slices": slices,
        "fairness": [
            Fairness(
                column="carrier",
                differences={"bias_difference": 0.1, "error_difference": 0.2},
                worst_group="HA",
            )
        ],
        "tests": tests,
    }
    asked = {
        "evidence": {
            "margins": {"brier": 0.002, "r2": 0.01},
            "slice_margins": {"brier": 0.005, "r2": 0.005},
        },
        "superior": {"over_champion": ["brier", "mae"], "over_baseline": {"base_rate": 1e-2}},
        "slices": {
            "floors": {"brier": {"at_most": 0.25}, "r2": {"at_least": 0.3}},
            "refuse": "unproven",
        },
        "fairness": {"columns": {"*": {"bias_difference": 0.2, "error_difference": 0.3}}},
    }
    # 90² minutes² is the outcome's variance: 0.15 of it is not explained.
    served = replace(SOAK, squared_error=0.15 * 90**2)
    return subject(
        policy=policy(**asked | changes.pop("asked", {})),
        evidence=found(**own | changes.pop("found", {})),
        **{"soak": served} | changes,
    )


PULL = PullFacts(
    number=7,
    author="slipway-bot",
    sha=HEAD,
    approvals=(Approval("anna", HEAD, NOW), Approval("boris", HEAD, NOW)),
)
SOAK = Soak(
    times=(NOW - timedelta(minutes=10), NOW), predictions=120, labelled=60, squared_error=0.19
)


def subject(**changes: Any) -> Subject:
    """The passing promotion; where the evidence changes, its release file changes along."""
    proof = changes.pop("evidence", found())
    asked = changes.pop("policy", None) or policy()
    if proof is not None and asked.digest != policy().digest:
        pin = evidence.PolicyPin(environment="prod", digest=asked.digest)
        if proof.policy.digest == policy().digest:
            proof = proof.model_copy(update={"policy": pin})
    proposed = changes.pop("proposed", None) or released(proof or found())
    values: dict[str, Any] = {
        "environment": "prod",
        "model": "toy",
        "path": "environments/prod/models/toy.yaml",
        "proposed": proposed,
        "champion": CHAMPION,
        "policy": asked,
        "now": NOW,
        "previous": proposed.model_copy(
            update={
                "evidence": release.Evidence(digest=digest("e2")),
                "rollout": release.Rollout(replicas=2),
            }
        ),
        "former": (CHAMPION,),
        "evidence": proof,
        "merged": True,
        "pull": PULL,
        "stays": (stay(3600),),
        "soak": SOAK,
    }
    return Subject(**values | changes)


def findings(of: Subject, rule: str) -> list[Finding]:
    return [finding for finding in gates.evaluate(of) if finding.rule == rule]


def failures(of: Subject) -> dict[str, str]:
    """Rule to the failure's message and fix."""
    return {f.rule: f"{f.message}\n{f.fix}" for f in gates.evaluate(of) if f.state == "fail"}


def resized(replicas: int, cpu: str = "250m", memory: str = "512Mi") -> release.Release:
    rollout = release.Rollout(
        replicas=replicas, resources=release.Resources(cpu=cpu, memory=memory)
    )
    return released(found()).model_copy(update={"rollout": rollout})
