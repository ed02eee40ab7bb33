"""Each rule both ways: what lets a promotion pass, what fails it, and what the message says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from slipway import evidence, gates, release
from slipway.evidence import (
    Change,
    Estimate,
    Fairness,
    Package,
    Vulnerability,
    YardstickChange,
)
from slipway.gates import Approval, BreakGlass, Subject
from tests.samples import COMMIT, IMAGE, digest, released
from tests.unit.gates.subjects import (
    CHAMPION,
    HEAD,
    NOW,
    PULL,
    SLICES,
    SOAK,
    TESTS,
    at,
    failures,
    findings,
    found,
    part,
    policy,
    regression,
    resized,
    served,
    stay,
    subject,
)

OTHER_IMAGE = IMAGE.replace("b2", "b3")


def with_test(replaced: int, **changes: Any) -> list[evidence.Test]:
    tests = [t.model_copy(update=changes) if i == replaced else t for i, t in enumerate(TESTS)]
    return tests


def known(severity: Any, identity: str = "CVE-2026-9") -> Vulnerability:
    return Vulnerability(package="numpy", version="2.3.0", id=identity, severity=severity)


def package(licence: str, name: str = "dual") -> list[Package]:
    mit = Package(name="numpy", version="2.3.0", licence="BSD-3-Clause")
    return [mit, Package(name=name, version="1.0", licence=licence)]


def measured(what: Any, before: list[str], after: list[str]) -> evidence.Evidence:
    return found(yardstick=[YardstickChange(what=what, before=before, after=after)])


def approved(*logins: str, sha: str = HEAD) -> Any:
    return replace(PULL, approvals=tuple(Approval(login, sha, NOW) for login in logins))


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def edited(**changes: Any) -> release.Release:
    return released(found()).model_copy(update=changes)


def test_a_sound_promotion_passes_every_rule() -> None:
    states = {f.rule: f.state for f in gates.evaluate(subject())}
    assert list(states) == list(policy().limits)
    assert set(states.values()) == {"pass"}


FAILS: dict[str, tuple[str, Callable[[], Subject], str]] = {
    # evidence
    "no evidence": (
        "evidence",
        lambda: subject(evidence=None, evidence_problem="s3://evidence/…: no such object"),
        "no such object",
    ),
    "edited metrics": (
        "evidence",
        lambda: subject(
            proposed=edited(
                evidence=release.Evidence(digest=digest("ef"), summary={"roc_auc": 0.99})
            )
        ),
        "its summary is",
    ),
    "another bento": (
        "evidence",
        lambda: subject(proposed=edited(bento=CHAMPION.bento)),
        "its bento is",
    ),
    "other data": (
        "evidence",
        lambda: subject(proposed=edited(data=release.Data(digest=digest("d0")))),
        "its data is sha256:dadadada",
    ),
    "another environment": (
        "evidence",
        lambda: subject(evidence=found(environment="staging")),
        "its environment is staging",
    ),
    "too old": (
        "evidence",
        lambda: subject(evidence=found(created=at(days=15))),
        "expired: created 15 days ago, at most 14",
    ),
    "made today of what was evaluated long ago": (
        "evidence",
        lambda: subject(evidence=found(evaluated=at(days=15))),
        "expired: evaluated 15 days ago, at most 14\n"
        f"slipway train toy --commit {COMMIT} evaluates it anew; "
        "then slipway promote toy --to prod",
    ),
    "to be evaluated": (
        "evidence",
        lambda: subject(evidence=found(evaluated=at(minutes=-6))),
        "6 min in the future\nset the clocks",
    ),
    "another image": (
        "evidence",
        lambda: subject(proposed=edited(runtime=release.Runtime(image=OTHER_IMAGE))),
        f"its runtime image is {IMAGE}, the release file says {OTHER_IMAGE}",
    ),
    "another version": (
        "evidence",
        lambda: subject(proposed=edited(version=1)),
        "its version is 3, the release file says 1",
    ),
    "from the future": (
        "evidence",
        lambda: subject(evidence=found(created=at(minutes=-6))),
        "6 min in the future\nset the clocks",
    ),
    "a bento that is gone": (
        "evidence",
        lambda: subject(bento_problem="s3://bentos/…: no such object\n  fix: see"),
        "is not to be had: s3://bentos/…: no such object\nput the object back from a copy",
    ),
    "trained from a branch": (
        "evidence",
        lambda: subject(merged=False),
        "trained from commit d4d4d4d4d4d4, which main does not have\nmerge it, then: slipway train",
    ),
    "trained who knows where": (
        "evidence",
        lambda: subject(merged=None),
        "not evaluated: whether main has commit d4d4d4d4d4d4, which trained it, cannot be told\n"
        "git fetch --unshallow",
    ),
    # fresh
    "another champion since": (
        "fresh",
        lambda: subject(champion=CHAMPION.model_copy(update={"bento": released().bento})),
        "and now prod serves version 2",
    ),
    "a champion since": (
        "fresh",
        lambda: subject(evidence=found(champion=None)),
        "what prod served then (nothing, -)",
    ),
    "the champion left": (
        "fresh",
        lambda: subject(champion=None),
        "now prod serves nothing",
    ),
    "other thresholds since": (
        "fresh",
        lambda: subject(
            evidence=found(policy=evidence.PolicyPin(environment="prod", digest=digest("00")))
        ),
        "other thresholds (prod 000000000000)",
    ),
    # yardstick
    "other observations": (
        "yardstick",
        lambda: subject(evidence=measured("group", ["day"], [])),
        "group: day -> -\nbentos/toy: change it back, or release it alone, with nothing else that "
        "differs, and let break-glass waive yardstick",
    ),
    "a slice less": (
        "yardstick",
        lambda: subject(evidence=measured("slices", ["carrier", "hour"], ["carrier", "origin"])),
        "slices: carrier, hour -> carrier, origin",
    ),
    "another threshold": (
        "yardstick",
        lambda: subject(evidence=measured("decision threshold", ["0.5"], ["0.3"])),
        "decision threshold: 0.5 -> 0.3",
    ),
    "an earlier holdout": (
        "yardstick",
        lambda: subject(evidence=measured("holdout", ["part-3"], ["part-1", "part-2"])),
        "holdout: part-3 -> part-1, part-2",
    ),
    "a smaller holdout": (
        "yardstick",
        lambda: subject(evidence=measured("holdout", ["part-2", "part-3"], ["part-3"])),
        "holdout: part-2, part-3 -> part-3",
    ),
    "another target": (
        "yardstick",
        lambda: subject(
            evidence=measured("outcomes", [f"part-1 {digest('0a')}"], [f"part-1 {digest('0b')}"])
        ),
        "outcomes: part-1 0a0a0a0a0a0a -> part-1 0b0b0b0b0b0b",
    ),
    "a champion that has seen the holdout": (
        "yardstick",
        lambda: subject(evidence=measured("champion's training", [], ["part-1", "part-2"])),
        "the champion learned from part-1, part-2, of this holdout\n"
        "bentos/toy/model.yaml: hold out what is later than that",
    ),
    # stages
    "never in staging": ("stages", lambda: subject(previous=None), "staging has no toy"),
    "another version in staging": (
        "stages",
        lambda: subject(previous=edited(version=2, code=release.Code(commit="0" * 40))),
        "staging has version 2, this is version 3; different: version, code",
    ),
    "another runtime": (
        "stages",
        lambda: subject(
            previous=edited(runtime=release.Runtime(image=f"r/serving@{digest('00')}"))
        ),
        "different: runtime",
    ),
    # non_inferior
    "inferior": (
        "non_inferior",
        lambda: subject(
            evidence=found(
                tests=with_test(
                    2,
                    difference=Estimate(value=-0.0031, low=-0.0042, high=-0.0019),
                    p_adjusted=0.41,
                    passed=False,
                )
            )
        ),
        "brier: gain -0.0031 [-0.0042, -0.0019], margin 0.002: not shown to be non-inferior "
        "(p 0.41 ≥ α 0.05)",
    ),
    "a kinder margin": (
        "non_inferior",
        lambda: subject(evidence=found(tests=with_test(3, margin=0.1))),
        "roc_auc: tested with margin 0.1 and α 0.05, policies/promotion/prod.yaml says 0.005",
    ),
    "a kinder level": (
        "non_inferior",
        lambda: subject(evidence=found(tests=with_test(3, alpha=0.2))),
        "roc_auc: tested with margin 0.005 and α 0.2",
    ),
    "a metric without a test": (
        "non_inferior",
        lambda: subject(evidence=found(tests=TESTS[:3])),
        "roc_auc: not evaluated: the evidence has no such test",
    ),
    "no comparison": (
        "non_inferior",
        lambda: subject(evidence=found(comparison=None)),
        "not evaluated: the evidence compares with nothing, and prod serves version 2",
    ),
    "no margins": (
        "non_inferior",
        lambda: subject(policy=policy(evidence={})),
        "not evaluated: no metric of classification has a margin",
    ),
    # superior
    "no better than the champion": (
        "superior",
        lambda: subject(evidence=found(tests=with_test(0, passed=False, p_adjusted=0.3))),
        "brier: gain +0.0031 [+0.0026, +0.0036]: not shown to be better (p 0.3 ≥ α 0.05)",
    ),
    "superiority not tested": (
        "superior",
        lambda: subject(evidence=found(tests=TESTS[1:])),
        "not evaluated: no test of superiority in brier",
    ),
    "hardly better than the base rate": (
        "superior",
        lambda: subject(
            evidence=found(gain={"base_rate": Estimate(value=0.03, low=0.019, high=0.04)})
        ),
        "+3.0% [+1.9%, +4.0%], above 2.0%: not shown",
    ),
    "no such baseline": (
        "superior",
        lambda: subject(evidence=found(gain={})),
        "not evaluated: the evidence has no baseline base_rate",
    ),
    # slices
    "a slice below its floor": (
        "slices",
        lambda: subject(evidence=found(slices=[part("carrier", "UA", brier=0.26)])),
        "carrier UA (2,000 rows): brier 0.2600, at most 0.25",
    ),
    "a slice that cannot be ranked": (
        "slices",
        lambda: subject(evidence=found(slices=[part("carrier", "UA", roc_auc=0.54)])),
        "roc_auc 0.5400, at least 0.55",
    ),
    "a slice worse than before": (
        "slices",
        lambda: subject(evidence=found(tests=with_test(5, passed=False, p_adjusted=0.07))),
        "brier (carrier WN, 2,100 rows): gain +0.0010 [+0.0005, +0.0015], margin 0.005: not shown",
    ),
    "a slice not tested": (
        "slices",
        lambda: subject(evidence=found(tests=TESTS[:5])),
        "carrier WN: not evaluated: brier not tested against the champion",
    ),
    "a slice with a kinder margin": (
        "slices",
        lambda: subject(evidence=found(tests=with_test(5, margin=0.05))),
        "carrier WN: tested with margin 0.05",
    ),
    "no slices": (
        "slices",
        lambda: subject(evidence=found(slices=SLICES[2:])),
        "not evaluated: no slice of 500 rows or more",
    ),
    "a floor for nothing": (
        "slices",
        lambda: subject(
            policy=policy(slices={"floors": {"log_loss": {"at_most": 0.1}}, "refuse": "worse"})
        ),
        "carrier UA: not evaluated: the evidence has no log_loss of it",
    ),
    # fairness
    "unfair": (
        "fairness",
        lambda: subject(
            evidence=found(
                fairness=[
                    Fairness(
                        column="carrier",
                        threshold=0.5,
                        differences={"demographic_parity": 0.19, "equalized_odds": 0.31},
                        worst_group="AS",
                    )
                ]
            )
        ),
        "equalized odds 0.310, at most 0.3 (at 0.5, worst group AS)",
    ),
    "nothing of a column": (
        "fairness",
        lambda: subject(evidence=found(fairness=[])),
        "not evaluated: the evidence says nothing of carrier",
    ),
    "a column without bounds": (
        "fairness",
        lambda: subject(policy=policy(fairness={"columns": {}})),
        "not evaluated: no bounds for carrier",
    ),
    # regression
    "values without a margin": (
        "non_inferior",
        lambda: regression(asked={"evidence": {"margins": {"brier": 0.1}}}),
        "not evaluated: no metric of regression has a margin",
    ),
    "values without a margin of slices": (
        "slices",
        lambda: regression(
            asked={"evidence": {"margins": {"r2": 0.01}, "slice_margins": {"brier": 0.1}}}
        ),
        "not evaluated: no metric of regression has a margin for slices",
    ),
    "values of a slice below the floor": (
        "slices",
        lambda: regression(
            asked={"slices": {"floors": {"r2": {"at_least": 0.5}}, "refuse": "worse"}}
        ),
        "carrier WN (2,100 rows): r2 0.4000, at least 0.5",
    ),
    "nothing asked of values": (
        "superior",
        lambda: regression(
            asked={"superior": {"over_champion": ["brier"], "over_baseline": {"base_rate": 0.1}}}
        ),
        "not evaluated: asks nothing of regression",
    ),
    "values no better than their mean": (
        "superior",
        lambda: regression(asked={"superior": {"over_baseline": {"mean": 0.95}}}),
        "skill over mean: +91.0% [+90.0%, +92.0%], above 95.0%: not shown",
    ),
    "values unfair": (
        "fairness",
        lambda: regression(
            asked={
                "fairness": {"columns": {"*": {"bias_difference": 0.2, "error_difference": 0.1}}}
            }
        ),
        "error difference 0.200, at most 0.1 (worst group HA)",
    ),
    "bounds of another task": (
        "fairness",
        lambda: regression(
            asked={"fairness": {"columns": {"*": {"demographic_parity": 1, "equalized_odds": 1}}}}
        ),
        "not evaluated: no bound for carrier: bias_difference, error_difference",
    ),
    "values served badly": (
        "soak",
        lambda: regression(soak=replace(SOAK, squared_error=0.2 * 90**2)),
        "r2 0.8000 served, 0.9100 on the holdout, margin 0.1",
    ),
    # calibration
    "badly calibrated": (
        "calibration",
        lambda: subject(policy=policy(calibration={"maximum_error": 0.017})),
        "beyond the 0.0000 of chance 0.0180, at most 0.017",
    ),
    "calibration unknown": (
        "calibration",
        lambda: subject(evidence=found(metrics={"brier": Estimate(value=0.1, low=0, high=1)})),
        "not evaluated: the evidence has no calibration_error",
    ),
    # signature
    "an input removed": (
        "signature",
        lambda: subject(
            evidence=found(signature=[Change(name="origin", kind="removed", before="string")])
        ),
        "origin: removed (string): breaks callers",
    ),
    "an input retyped": (
        "signature",
        lambda: subject(
            evidence=found(
                signature=[Change(name="seats", kind="retyped", before="long", after="string")]
            )
        ),
        "seats: retyped (long -> string): breaks callers",
    ),
    "an input with less room": (
        "signature",
        lambda: subject(
            evidence=found(
                signature=[
                    Change(
                        name="/predict flight.seats",
                        kind="narrowed",
                        before="maximum 900",
                        after="maximum 400",
                    )
                ]
            )
        ),
        "/predict flight.seats: narrowed (maximum 900 -> maximum 400): breaks callers",
    ),
    "another signature than evaluated": (
        "signature",
        lambda: subject(proposed=edited(signature=release.Signature(digest=digest("00")))),
        "the release says sha256:000000000000",
    ),
    # data
    "drifted": (
        "data",
        lambda: subject(evidence=found(drift=[evidence.Drift(column="origin", psi=0.3)])),
        "origin drifted: PSI 0.300, at most 0.25",
    ),
    "drift unknown": (
        "data",
        lambda: subject(evidence=found(drift=[])),
        "not evaluated: the evidence measures no drift",
    ),
    "few rows": (
        "data",
        lambda: subject(evidence=found(data=evidence.Data(digest=digest("da"), rows=9_999))),
        "9,999 rows, at least 10,000",
    ),
    "not validated": (
        "data",
        lambda: subject(
            evidence=found(validation=evidence.Validation(rows=10, columns=2, checks=[]))
        ),
        "not evaluated: the evidence names no check of the data",
    ),
    # latency, size, cost
    "slow": (
        "latency",
        lambda: subject(evidence=found(latency_p99_ms=151.0)),
        "p99 151.0 ms, at most 150",
    ),
    "slow to start": (
        "latency",
        lambda: subject(evidence=found(start_seconds=91.0)),
        "start 91.0 s, at most 90",
    ),
    "a big bento": (
        "size",
        lambda: subject(evidence=found(bento_bytes=101 * 2**20)),
        "bento 101.0 MiB, at most 100",
    ),
    "too little memory": (
        "size",
        lambda: subject(evidence=found(memory_mib=470.0)),
        "memory 470 MiB, 92% of 512Mi, at most 90%",
    ),
    "dear": (
        "cost",
        lambda: subject(proposed=resized(3, "500m", "1Gi")),
        "57.00 EUR a month (3 × 19.00: 500m CPU, 1Gi), at most 50.00",
    ),
    # vulnerabilities, licences
    "vulnerable": (
        "vulnerabilities",
        lambda: subject(evidence=found(vulnerabilities=[known("high")])),
        "CVE-2026-9 in numpy 2.3.0: high, at most medium",
    ),
    "of unknown severity": (
        "vulnerabilities",
        lambda: subject(evidence=found(vulnerabilities=[known("unknown")])),
        "CVE-2026-9 in numpy 2.3.0: unknown",
    ),
    "not checked": (
        "vulnerabilities",
        lambda: subject(evidence=found(vulnerabilities=evidence.NOT_CHECKED)),
        "not checked: no database (1 packages)\nname one in policies/promotion/prod.yaml: slipway "
        "vulnerabilities puts it into the store; then slipway promote toy",
    ),
    "not checked by the database of now": (
        "vulnerabilities",
        lambda: subject(
            policy=policy(
                vulnerabilities={
                    "database": digest("05"),
                    "maximum": "low",
                    "not_checked": "refuse",
                }
            ),
            evidence=found(vulnerabilities=evidence.NOT_CHECKED),
        ),
        "not checked: no database (1 packages)\nslipway promote toy",
    ),
    "denied licence": (
        "licences",
        lambda: subject(evidence=found(packages=package("AGPL-3.0-only", "ghost"))),
        "ghost 1.0: AGPL-3.0-only: denied",
    ),
    "silent licence": (
        "licences",
        lambda: subject(evidence=found(packages=package(" ", "ghost"))),
        "not evaluated: no licence known of ghost",
    ),
    "no packages": (
        "licences",
        lambda: subject(evidence=found(packages=[])),
        "not evaluated: the evidence lists no packages",
    ),
    # soak
    "no prediction log": (
        "soak",
        lambda: subject(soak=None, soak_problem="no answer from the store"),
        "not evaluated: no answer from the store",
    ),
    "soak unknown here": (
        "soak",
        lambda: subject(soak=None),
        "not evaluated: what staging served is not known here",
    ),
    "never served": (
        "soak",
        lambda: subject(soak=gates.Soak((), 0, 0, None)),
        "staging has served nothing yet by this bento",
    ),
    "too short": (
        "soak",
        lambda: subject(soak=replace(SOAK, times=(NOW - timedelta(seconds=119),))),
        "119 s in staging, at least 2m\nwait until 2026-11-23 12:00:01Z",
    ),
    "served in the future": (
        "soak",
        lambda: subject(soak=replace(SOAK, times=(NOW + timedelta(minutes=6),))),
        "its first prediction in staging is 6 min in the future\nset the clocks",
    ),
    "clocks differ a little, but it has to last": (
        "soak",
        lambda: subject(soak=replace(SOAK, times=(NOW + timedelta(minutes=4),))),
        "0 s in staging, at least 2m\nwait until 2026-11-23 12:06:00Z",
    ),
    "back since a minute, after an hour's absence": (
        "soak",
        lambda: subject(
            soak=replace(SOAK, times=(*served(180, 150), *served(60, 0))),
            stays=(stay(200, 120), stay(70)),
        ),
        "90 s in staging, at least 2m\nwait until 2026-11-23 12:00:30Z",
    ),
    "back, and not asked since": (
        "soak",
        lambda: subject(
            soak=replace(SOAK, times=served(180, 150)), stays=(stay(200, 120), stay(70))
        ),
        "30 s in staging, at least 2m, and nothing since it was released there (again)\nsend it",
    ),
    "gone": (
        "soak",
        lambda: subject(soak=replace(SOAK, times=served(180, 150)), stays=(stay(200, 120),)),
        "30 s in staging, at least 2m, and nothing since",
    ),
    "served there, but never released": (
        "soak",
        lambda: subject(stays=()),
        "0 s in staging, at least 2m",
    ),
    "few predictions": (
        "soak",
        lambda: subject(soak=replace(SOAK, predictions=49)),
        "49 predictions, at least 50",
    ),
    "few labels": (
        "soak",
        lambda: subject(soak=replace(SOAK, labelled=19)),
        "19 labelled, at least 20\nslipway label toy --env staging",
    ),
    "served badly": (
        "soak",
        lambda: subject(soak=replace(SOAK, squared_error=0.28)),
        "brier 0.2800 served, 0.1738 on the holdout, margin 0.1",
    ),
    "no score": (
        "soak",
        lambda: subject(soak=replace(SOAK, squared_error=None)),
        "not evaluated: no brier of what was served",
    ),
    # freeze: Berlin is an hour ahead of UTC, and neither counts the day as the other does.
    "weekend": (
        "freeze",
        lambda: subject(now=instant("2026-11-27T23:00:00+00:00")),
        "frozen: nobody is there (Sat 2026-11-28 00:00 Europe/Berlin)",
    ),
    "holidays": (
        "freeze",
        lambda: subject(now=instant("2027-01-01T23:00:00+00:00")),
        "frozen: end of year (Sat 2027-01-02 00:00 Europe/Berlin)\nmerge after 2027-01-02 24:00",
    ),
    "late in the evening": (
        "freeze",
        lambda: subject(now=instant("2026-11-23T21:00:00+00:00")),
        "frozen: the nightly load",
    ),
    # approvals
    "nobody approves": (
        "approvals",
        lambda: subject(pull=approved()),
        "0 of 2 by release-managers\nask anna, Boris to approve 4ead4ead4ead",
    ),
    "the author approves": (
        "approvals",
        lambda: subject(pull=replace(PULL, author="Anna")),
        "1 of 2 by release-managers: boris (anna approves what is their own)\nask Boris",
    ),
    "who asked for it approves": (
        "approvals",
        lambda: subject(pull=replace(PULL, proposers=frozenset({"anna", "anna lee"}))),
        "1 of 2 by release-managers: boris (anna approves what is their own)\nask Boris",
    ),
    "an earlier commit was approved": (
        "approvals",
        lambda: subject(pull=approved("anna", "boris", sha="0" * 40)),
        "0 of 2 by release-managers (anna, boris approved an earlier commit)",
    ),
    "one approves twice": (
        "approvals",
        lambda: subject(pull=approved("anna", "anna", "ANNA")),
        "1 of 2 by release-managers",
    ),
    "strangers approve": (
        "approvals",
        lambda: subject(pull=approved("clara", "dora")),
        "0 of 2 by release-managers",
    ),
    "no pull request": (
        "approvals",
        lambda: subject(pull=None),
        "not evaluated: approvals stand on the pull request",
    ),
    "the release asks for more": (
        "approvals",
        lambda: subject(proposed=edited(approvals=release.Approvals(policy="both"))),
        "0 of 1 by owners\nask clara",
    ),
    "the release drops what it asked for": (
        "approvals",
        lambda: subject(
            champion=CHAMPION.model_copy(update={"approvals": release.Approvals(policy="both")})
        ),
        "0 of 1 by owners",
    ),
    "an unknown approvals policy": (
        "approvals",
        lambda: subject(proposed=edited(approvals=release.Approvals(policy="prodution"))),
        "not evaluated: no approvals policy 'prodution'\ndid you mean 'production'?",
    ),
}


@pytest.mark.parametrize("name", FAILS)
def test_fails(name: str) -> None:
    rule, make, expected = FAILS[name]
    said = failures(make())
    assert rule in said, said
    lines = expected.split("\n")
    failed = [f for f in findings(make(), rule) if f.state == "fail"]
    assert any(lines[0] in f.message and lines[-1] in f"{f.message}{f.fix}" for f in failed), failed


def test_a_promotion_of_values_passes_every_rule() -> None:
    assert failures(regression()) == {}
    said = {f.rule: f.message for f in gates.evaluate(regression()) if f.state == "pass"}
    assert "r2 0.8500 served, 0.9100 on the holdout" in [
        f.message.partition(", margin")[0] for f in findings(regression(), "soak")
    ]
    assert said["superior"].startswith("mae: gain +0.4000")
    assert "worst r2: carrier WN, 0.4000, at least 0.3" in said["slices"]


def test_every_rule_is_tested_both_ways() -> None:
    assert {rule for rule, _, _ in FAILS.values()} == gates.rules().keys()


PASSES: dict[str, tuple[str, Callable[[], Subject], str, str]] = {
    "clocks differ a little": (
        "evidence",
        lambda: subject(evidence=found(created=at(minutes=-4))),
        "pass",
        "signed, about this release",
    ),
    "no champion, none then": (
        "fresh",
        lambda: subject(champion=None, evidence=found(champion=None, comparison=None)),
        "pass",
        "champion and thresholds",
    ),
    "no champion to be compared with": (
        "non_inferior",
        lambda: subject(champion=None, evidence=found(champion=None, comparison=None)),
        "not applicable",
        "prod serves no toy to compare with",
    ),
    "nothing to be measured as": (
        "yardstick",
        lambda: subject(champion=None, evidence=found(champion=None, comparison=None)),
        "not applicable",
        "prod serves no toy to compare with",
    ),
    "a later holdout": (
        "yardstick",
        lambda: subject(evidence=measured("holdout", ["part-1", "part-2"], ["part-3"])),
        "pass",
        "no less than the champion's: holdout: part-1, part-2 -> part-3",
    ),
    "a larger holdout": (
        "yardstick",
        lambda: subject(evidence=measured("holdout", ["part-2"], ["part-1", "part-2"])),
        "pass",
        "holdout: part-2 -> part-1, part-2",
    ),
    "a slice more": (
        "yardstick",
        lambda: subject(evidence=measured("slices", ["hour"], ["carrier", "hour"])),
        "pass",
        "slices: hour -> carrier, hour",
    ),
    "the yardstick may change": (
        "yardstick",
        lambda: subject(
            policy=policy(yardstick={"changed": "allow"}),
            evidence=measured("group", ["day"], []),
        ),
        "waived",
        "group: day -> -, which policies/promotion/prod.yaml allows",
    ),
    "a slice that is not proven": (
        "slices",
        lambda: subject(
            policy=policy(slices={"floors": {}, "refuse": "worse"}),
            evidence=found(tests=with_test(5, passed=False, p_adjusted=0.07)),
        ),
        "pass",
        "2 slices, 1 below 500 rows not judged",
    ),
    "calibrated as far as so few rows tell": (
        "calibration",
        lambda: subject(
            policy=policy(calibration={"maximum_error": 0.017}),
            evidence=found(calibration_chance=0.015),
        ),
        "pass",
        "beyond the 0.0150 of chance 0.0099, at most 0.017",
    ),
    "a slice of one group is not tested": (
        "slices",
        lambda: subject(
            evidence=found(
                tests=TESTS[:5],
                slices=[
                    s.model_copy(update={"groups": 1}) if s.value == "WN" else s for s in SLICES
                ],
            )
        ),
        "pass",
        "2 slices, 1 below 500 rows not judged",
    ),
    "a slice of one outcome has no ROC curve": (
        "slices",
        lambda: subject(
            evidence=found(
                slices=[
                    *SLICES[:1],
                    SLICES[1].model_copy(update={"mean_outcome": 0, "metrics": {"brier": 0.01}}),
                ]
            )
        ),
        "pass",
        "2 slices",
    ),
    "drift of a number that grows": (
        "data",
        lambda: subject(
            policy=policy(data={"minimum_rows": 10000, "maximum_psi": 0.01, "ignore": ["origin"]}),
        ),
        "pass",
        "336,776 rows",
    ),
    "slices may be missing": (
        "slices",
        lambda: subject(
            policy=policy(slices={"floors": {}, "refuse": "worse", "unsliced": "allow"}),
            evidence=found(slices=[]),
        ),
        "waived",
        "which policies/promotion/prod.yaml allows",
    ),
    "groups may be missing": (
        "fairness",
        lambda: subject(
            policy=policy(
                fairness={
                    "columns": {"*": {"demographic_parity": 0.1, "equalized_odds": 0.1}},
                    "unsliced": "allow",
                }
            ),
            evidence=found(fairness=[]),
        ),
        "waived",
        "no groups to compare, which policies/promotion/prod.yaml allows",
    ),
    "an optional input more": (
        "signature",
        lambda: subject(
            evidence=found(signature=[Change(name="gate", kind="added_optional", after="string")])
        ),
        "pass",
        "new and optional: gate",
    ),
    "callers may break": (
        "signature",
        lambda: subject(
            policy=policy(signature={"breaking": "allow"}),
            evidence=found(signature=[Change(name="gate", kind="removed", before="string")]),
        ),
        "waived",
        "breaks callers, which policies/promotion/prod.yaml allows",
    ),
    "borne": (
        "vulnerabilities",
        lambda: subject(evidence=found(vulnerabilities=[known("medium")])),
        "pass",
        "none above medium",
    ),
    "accepted": (
        "vulnerabilities",
        lambda: subject(evidence=found(vulnerabilities=[known("critical", "CVE-2026-1")])),
        "waived",
        "accepts it: the function is not called here",
    ),
    "may go unchecked": (
        "vulnerabilities",
        lambda: subject(
            policy=policy(vulnerabilities={"maximum": "low", "not_checked": "allow"}),
            evidence=found(vulnerabilities=evidence.NOT_CHECKED),
        ),
        "waived",
        "not checked: no database (1 packages), which policies/promotion/prod.yaml allows",
    ),
    "read, though its metadata says nothing": (
        "licences",
        lambda: subject(evidence=found(packages=package(""))),
        "waived",
        "dual 1.0: unknown; policies/promotion/prod.yaml accepts it: used under",
    ),
    "used under its other licence": (
        "licences",
        lambda: subject(evidence=found(packages=package("AGPL-3.0 OR MIT"))),
        "waived",
        "accepts it",
    ),
    "nothing asked of staging": (
        "soak",
        lambda: subject(
            policy=policy(soak={"for": "0s", "predictions": 0, "labelled": 0}), soak=None
        ),
        "pass",
        "asks for no time",
    ),
    "just before the weekend": (
        "freeze",
        lambda: subject(now=instant("2026-11-27T22:59:00+00:00")),
        "pass",
        "none of 3 windows (Fri 2026-11-27 23:59 Europe/Berlin)",
    ),
    "just after the holidays": (
        "freeze",
        lambda: subject(now=instant("2027-01-03T23:00:00+00:00")),
        "pass",
        "none of 3 windows",
    ),
    "what it asked for is no more": (
        "approvals",
        lambda: subject(
            champion=CHAMPION.model_copy(update={"approvals": release.Approvals(policy="gone")})
        ),
        "pass",
        "2 of 2 by release-managers",
    ),
    "nobody need approve": (
        "approvals",
        lambda: subject(policy=policy(approvals={"policy": "none"}), pull=None),
        "pass",
        "nobody's is asked",
    ),
}


@pytest.mark.parametrize("name", PASSES)
def test_does_not_fail(name: str) -> None:
    rule, make, state, expected = PASSES[name]
    found_ = findings(make(), rule)
    assert "fail" not in [f.state for f in found_], found_
    assert any(f.state == state and expected in f.message for f in found_), found_


def test_a_slice_that_is_worse_is_refused_where_proof_is_not_asked() -> None:
    worse = Estimate(value=-0.009, low=-0.012, high=-0.006)
    asked = policy(slices={"floors": {}, "refuse": "worse"})
    tests = with_test(5, passed=False, p_adjusted=1.0, difference=worse)
    assert "gain -0.0090" in failures(subject(policy=asked, evidence=found(tests=tests)))["slices"]


def test_without_evidence_nothing_is_evaluated_and_each_rule_says_so() -> None:
    said = failures(subject(evidence=None, proposed=released(found())))
    asks_no_evidence = {"stages", "cost", "freeze", "approvals"}
    assert said.keys() == gates.rules().keys() - asks_no_evidence
    assert all("not evaluated" in said[rule] for rule in said.keys() - {"evidence"})


# What is not a new release


def former() -> release.Release:
    return released(found(created=at(days=400)))


def states(of: Subject) -> dict[str, str]:
    return {f.rule: f.state for f in gates.evaluate(of)}


def test_going_back_asks_for_evidence_and_its_own_approvals() -> None:
    back = subject(
        evidence=found(
            created=at(days=400),
            evaluated=at(days=401),
            policy=evidence.PolicyPin(environment="prod", digest=digest("00")),
        ),
        proposed=former(),
        former=(CHAMPION, former()),
        previous=None,
        soak=None,
        pull=approved("clara"),
        now=NOW + timedelta(days=5),  # a weekend
    )
    assert back.kind == "rollback"
    asked = {rule: state for rule, state in states(back).items() if state != "not applicable"}
    assert asked == {"evidence": "pass", "approvals": "pass"}
    assert "1 of 1 by owners" in findings(back, "approvals")[0].message
    assert failures(replace(back, pull=approved("anna"))).keys() == {"approvals"}
    assert failures(replace(back, evidence=None)).keys() == {"evidence"}
    # One number more than it was is not the former release.
    other = former().model_copy(update={"rollout": release.Rollout(replicas=2)})
    assert replace(back, proposed=other).kind == "release"


def test_a_change_of_the_rollout_alone_compares_nothing() -> None:
    served = released(found())
    more = served.model_copy(update={"rollout": release.Rollout(replicas=6)})
    old = found(created=at(days=400), evaluated=at(days=401))
    change = subject(champion=served, proposed=more, evidence=old, soak=None)
    assert change.kind == "rollout"
    assert failures(change).keys() == {"cost"}
    asked = {rule for rule, state in states(change).items() if state != "not applicable"}
    assert asked == {"evidence", "size", "cost", "freeze", "approvals"}


def test_gpus_cost_what_the_policy_says_for_as_many_as_there_may_be() -> None:
    rollout = release.Rollout(
        replicas=1,
        gpu=release.Gpu(count=2),
        autoscale=release.Autoscale(maximum=3, waiting=8),
    )
    asked = released(found()).model_copy(update={"rollout": rollout})
    assert "2 GPUs a replica, which have no price here" in failures(subject(proposed=asked))["cost"]
    limits = {"currency": "EUR", "cpu": 20, "memory": 4, "gpu": 500, "maximum": 3021}
    (paid,) = findings(subject(proposed=asked, policy=policy(cost=limits)), "cost")
    assert paid.state == "pass"
    assert "3021.00 EUR a month (3 × 1007.00: 250m CPU, 512Mi, 2 GPU)" in paid.message


def test_replicas_that_follow_the_cpu_cost_what_the_most_of_them_do() -> None:
    scale = release.Autoscale(maximum=9, cpu=70)
    rollout = release.Rollout(replicas=2, autoscale=scale)
    served = released(found())
    asked = served.model_copy(update={"rollout": rollout})
    limits = {"currency": "EUR", "cpu": 20, "memory": 4, "maximum": 62}
    change = subject(champion=served, proposed=asked, policy=policy(cost=limits))
    assert change.kind == "rollout"
    assert (
        "63.00 EUR a month (9 × 7.00: 250m CPU, 512Mi), at most 62.00" in failures(change)["cost"]
    )
    fewer = scale.model_copy(update={"maximum": 8})
    affordable = served.model_copy(
        update={"rollout": rollout.model_copy(update={"autoscale": fewer})}
    )
    assert "cost" not in failures(replace(change, proposed=affordable))


def test_a_removal_asks_when_and_who() -> None:
    removal = subject(removal=True, champion=released(found()), evidence=None, soak=None)
    assert not failures(removal)
    assert failures(replace(removal, pull=approved())).keys() == {"approvals"}
    assert {r for r, s in states(removal).items() if s == "pass"} == {"freeze", "approvals"}


# Break-glass


def glass(**changes: Any) -> BreakGlass:
    values: dict[str, Any] = {
        "who": "anna",
        "why": "the present model answers 500 since noon",
        "until": NOW + timedelta(hours=6),
        "rules": ("soak", "stages"),
    }
    return BreakGlass(**values | changes)


def broken(**changes: Any) -> Subject:
    changes = {"soak": None, "break_glass": glass()} | changes
    return subject(**changes)


def test_break_glass_waives_what_it_names_and_says_so() -> None:
    assert failures(broken(break_glass=None)).keys() == {"soak"}
    first, *rest = gates.evaluate(broken())
    assert (first.rule, first.state) == ("break_glass", "waived")
    assert "anna until 2026-11-23 18:00Z: the present model answers 500" in first.message
    waived = {f.rule: f.message for f in rest if f.state == "waived"}
    assert waived.keys() == {"soak"}
    assert waived["soak"].endswith("(waived by anna, break-glass)")
    assert not failures(broken())
    # What it does not name holds as ever.
    assert failures(broken(evidence=found(latency_p99_ms=151.0))).keys() == {"latency"}
    assert not failures(broken(pull=replace(approved("boris", "BORIS", "anna"), author="clara")))


def test_who_asks_to_break_the_glass_answers_for_it_and_is_nobody_s_approval() -> None:
    asked = replace(PULL, proposers=frozenset({"anna"}))
    assert failures(broken(pull=asked)).keys() == {"approvals"}
    alone = policy(approvals={"policy": "none"})
    assert not failures(broken(pull=asked, policy=alone))
    assert "break_glass" in failures(broken(pull=replace(asked, approvals=()), policy=alone))


GLASS: dict[str, tuple[Callable[[], Subject], str]] = {
    "a rule that may not be": (
        lambda: broken(break_glass=glass(rules=("soak", "approvals"))),
        "approvals may not be waived in prod\nmay: soak, stages, superior",
    ),
    "over": (
        lambda: broken(break_glass=glass(until=NOW)),
        "over since 2026-11-23T12:00:00+00:00",
    ),
    "too long": (
        lambda: broken(break_glass=glass(until=NOW + timedelta(hours=25))),
        "is more than 24 h ahead",
    ),
    "not of the group": (
        lambda: broken(break_glass=glass(who="clara"), pull=replace(PULL, author="clara")),
        "clara is not of release-managers\nthese are: anna, Boris",
    ),
    "did not ask": (
        lambda: broken(pull=approved("boris")),
        "anna neither opened the pull request nor approves its head\nlet anna approve 4ead",
    ),
    "asked for an earlier commit": (
        lambda: broken(pull=approved("anna", sha="0" * 40)),
        "anna neither opened the pull request nor approves its head",
    ),
    "no pull request": (lambda: broken(pull=None), "not evaluated: whether anna asks for it"),
    "not here": (
        lambda: broken(policy=policy(break_glass=None)),
        "prod allows no break-glass",
    ),
}


@pytest.mark.parametrize("name", GLASS)
def test_a_wrong_break_glass_file_fails_and_waives_nothing(name: str) -> None:
    make, expected = GLASS[name]
    said = failures(make())
    assert expected in said["break_glass"]
    assert "soak" in said


# The engine


def test_order_is_the_document_s() -> None:
    asked = policy()
    turned = replace(asked, limits=dict(reversed(asked.limits.items())))
    assert list(states(subject(policy=turned))) == list(reversed(asked.limits))


def test_what_is_skipped_is_shown_with_its_reason() -> None:
    asked = policy(cost=None, skip={"cost": "somebody else pays for it"})
    (shown,) = findings(subject(policy=asked), "cost")
    assert shown.state == "not applicable"
    assert shown.message == "policies/promotion/prod.yaml skips it: somebody else pays for it"


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (lambda *_: 1 / 0, "not evaluated: the rule itself failed: ZeroDivisionError"),
        (lambda *_: [], "not evaluated: the rule found nothing to say"),
    ],
)
def test_a_rule_that_fails_itself_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, check: Any, expected: str
) -> None:
    rules = gates.rules()
    broken_one = rules | {"cost": replace(rules["cost"], check=check)}
    monkeypatch.setattr(gates, "rules", lambda: broken_one)
    said = failures(subject())
    assert expected in said["cost"]
    assert said.keys() == {"cost"}


def test_quantities() -> None:
    assert [gates.cores(q) for q in ("250m", "2", "0.5")] == [0.25, 2, 0.5]
    assert [gates.mebibytes(q) for q in ("512Ki", "512Mi", "2Gi")] == [0.5, 512, 2048]
    assert gates.duration("90s") == gates.duration("1m") * 1.5
    assert gates.duration("1d") == gates.duration("24h")


def test_the_first_environment_has_none_before_it() -> None:
    first = subject(environment="dev", soak=None, previous=None, evidence=found(environment="dev"))
    for rule in ("stages", "soak"):
        assert [f.state for f in findings(first, rule)] == ["not applicable"]
