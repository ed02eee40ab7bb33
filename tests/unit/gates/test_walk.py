"""The thresholds as committed let flight_delay walk from dev to prod, by the numbers it has."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from slipway import evidence, gates, paths, release
from slipway.evidence import Estimate, Fairness, Holdout, Package
from slipway.gates import Approval, Soak, Subject, load_policy, reader
from slipway.release import ENVIRONMENTS
from tests.samples import bento, digest, released
from tests.unit.gates.subjects import NOW, PULL, at, found, paired, part, stay

# Holdout of November and December 2013, measured; slices are the worst of each column.
TASK = "classification"
SLICES = [
    part("carrier", "WN", 2100, brier=0.2073, roc_auc=0.7124),
    part("carrier", "VX", 902, brier=0.1767, roc_auc=0.6274),
    part("carrier", "HA", 53, brier=0.1338, roc_auc=0.4722),
    part("origin", "EWR", 19013, brier=0.1829, roc_auc=0.6769),
    part("hour", "20", 2572, brier=0.2152, roc_auc=0.6662),
    part("hour", "10", 2814, brier=0.1667, roc_auc=0.6054),
]
FAIRNESS = {"carrier": (0.180, 0.283), "origin": (0.046, 0.072), "hour": (0.182, 0.277)}


def subject(env: str, *, champion: bool) -> Subject:
    policy = load_policy(reader(paths.REPOSITORY), env, "flight_delay")
    asked = policy.evidence
    tests = [
        paired("superiority", "brier", -0.0001, passed=False, p_adjusted=0.64),
        *(paired("non_inferiority", m, -0.0001, margin) for m, margin in asked.whole(TASK).items()),
        *(
            paired(
                "non_inferiority",
                "brier",
                -0.001,
                asked.sliced(TASK)["brier"],
                column=s.column,
                value=s.value,
            )
            for s in SLICES
            if s.rows >= asked.minimum_slice_rows
        ),
    ]
    served = released(found(model="flight_delay", bento=bento("cc")))
    proof = found(
        model="flight_delay",
        created=at(minutes=3),
        evaluated=at(days=6),
        environment=env,
        policy=evidence.PolicyPin(environment=env, digest=policy.digest),
        holdout=Holdout(
            digest=digest("a0"),
            partitions=["2013-11", "2013-12"],
            outcomes={"2013-11": digest("0a"), "2013-12": digest("0b")},
            rows=53991,
            unknown=1413,
            mean_outcome=0.257,
            deviation=0.437,
        ),
        gain={"base_rate": Estimate(value=0.094, low=0.07, high=0.115)},
        slices=SLICES,
        fairness=[
            Fairness(
                column=column,
                threshold=0.5,
                differences={"demographic_parity": parity, "equalized_odds": odds},
                worst_group="VX",
            )
            for column, (parity, odds) in FAIRNESS.items()
        ],
        # Two cores that also run the platform.
        latency_p50_ms=12.0,
        latency_p99_ms=90.0,
        start_seconds=40.0,
        memory_mib=320.0,
        packages=[
            Package(name="numpy", version="2.3.0", licence="BSD-3-Clause"),
            Package(name="uvloop", version="0.21.0", licence=""),
        ],
        vulnerabilities=evidence.NOT_CHECKED,
        database="",
        tests=tests,
        **({} if champion else {"champion": None, "comparison": None}),
    )
    proposed = released(proof)
    return Subject(
        environment=env,
        model="flight_delay",
        path=str(release.path(env, "flight_delay")),
        proposed=proposed,
        champion=served if champion else None,
        policy=policy,
        now=NOW,
        previous=proposed,
        evidence=proof,
        merged=True,
        pull=PULL,
    )


@pytest.mark.parametrize("champion", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_walk(env: str, champion: bool) -> None:
    asked = subject(env, champion=champion)
    failed = {f.rule for f in gates.evaluate(asked) if f.state == "fail"}
    assert failed == ({"soak", "approvals"} if env == "prod" else set())
    ready = replace(
        asked,
        soak=Soak((NOW - timedelta(minutes=2),), 50, 20, 0.25),
        stays=(stay(120),),
        pull=replace(PULL, approvals=(Approval("slipway-admin", PULL.sha, NOW),)),
    )
    findings = gates.evaluate(ready)
    assert [f for f in findings if f.state == "fail"] == []
    # What was not looked at is never called a pass.
    assert {f.rule for f in findings if f.state == "waived"} == {"vulnerabilities", "licences"}
