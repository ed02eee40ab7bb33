"""Challenger against champion: which tests are made, and what else is said to have changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from slipway import comparison, evidence
from slipway.comparison import EvidencePolicy, NotComparable
from slipway.evidence import Change, Comparison, Data, Evaluation, Holdout, Package
from slipway.steps import dataset, predictions
from tests import samples
from tests.samples import Objects

ROWS, DAYS = 6000, 60
POLICY = EvidencePolicy(
    margins={"brier": 0.005, "roc_auc": 0.01}, minimum_slice_rows=1000, resamples=200
)


def table(noise: float, *, spoilt: str = "", grouped: bool = True) -> pd.DataFrame:
    """Predictions with some noise in the log odds; at airport `spoilt` they are worth nothing."""
    random = np.random.default_rng(0)
    odds = random.normal(-0.5, 1.2, ROWS)
    origin = np.array(["EWR", "JFK", "LGA"])[random.choice(3, ROWS, p=[0.5, 0.4, 0.1])]
    y = (random.random(ROWS) < 1 / (1 + np.exp(-odds))).astype(float)
    wrong = np.random.default_rng(int(noise * 100)).normal(0, noise, ROWS)
    p = 1 / (1 + np.exp(-odds - wrong))
    columns: dict[str, Any] = {
        "row": np.arange(ROWS),
        "outcome": y,
        "prediction": np.where(origin == spoilt, 0.5, p),
        "slice:origin": origin,
        "period": "part-1",
    }
    if grouped:
        columns["group"] = [f"day-{i}" for i in np.repeat(np.arange(DAYS), ROWS // DAYS)]
    return pd.DataFrame(columns)


def compare(new: pd.DataFrame, old: pd.DataFrame, policy: EvidencePolicy = POLICY) -> Comparison:
    found = samples.evaluation()
    return comparison.compare(found, new, found, old, policy)


def passed(found: Comparison, kind: str) -> dict[tuple[str, str], bool]:
    return {(t.metric, t.value): t.passed for t in found.tests if t.kind == kind}


@pytest.mark.parametrize("grouped", [True, False])
def test_a_better_model_is_superior_and_nowhere_inferior(grouped: bool) -> None:
    found = compare(table(0.2, grouped=grouped), table(1.5, grouped=grouped))
    assert passed(found, "superiority") == {
        (name, ""): True for name in ("roc_auc", "brier", "log_loss", "calibration_error")
    }
    # Only metrics with a margin, and slices with rows enough: LGA has about 600.
    assert passed(found, "non_inferiority") == {
        ("roc_auc", ""): True,
        ("brier", ""): True,
        ("brier", "EWR"): True,
        ("brier", "JFK"): True,
    }
    for test in found.tests:
        assert test.difference.low < test.difference.value < test.difference.high
        assert test.difference.value > 0  # positive is better, whichever way the metric points
        assert test.p_value <= test.p_adjusted


def test_a_worse_model_is_neither() -> None:
    found = compare(table(1.5), table(0.2))
    assert not any(test.passed for test in found.tests)


def test_a_slice_that_got_worse_is_found_behind_a_good_average() -> None:
    found = compare(table(0.2, spoilt="JFK"), table(0.8, spoilt="EWR"))
    verdicts = passed(found, "non_inferiority")
    assert verdicts["brier", "EWR"]
    assert not verdicts["brier", "JFK"]
    assert verdicts["brier", ""]


def test_equal_predictions_are_non_inferior_at_any_margin() -> None:
    policy = POLICY.model_copy(update={"margins": {"brier": 0.0}, "slice_margins": {"brier": 0.0}})
    found = compare(table(0.2), table(0.2), policy)
    assert all(passed(found, "non_inferiority").values())
    assert not any(passed(found, "superiority").values())


def test_many_slices_are_corrected_for() -> None:
    new, old = table(0.2), table(0.2)
    for column in range(20):
        values = np.random.default_rng(column).choice(["x", "y"], ROWS)
        new[f"slice:{column}"] = values
    found = compare(new, old)
    assert len(passed(found, "non_inferiority")) == 4 + 2  # the same values: named by column too
    assert len([t for t in found.tests if t.kind == "non_inferiority"]) == 4 + 40
    assert len([t for t in found.tests if t.kind == "superiority"]) == 4


def test_values_are_compared_in_their_own_metrics() -> None:
    random = np.random.default_rng(0)
    y = random.normal(100, 30, ROWS)
    rows = table(0.2).assign(outcome=y)
    new, old = (rows.assign(prediction=y + random.normal(0, off, ROWS)) for off in (5, 25))
    policy = POLICY.model_copy(
        update={"margins": {"brier": 0.1, "r2": 0.01, "mae": 0.5}, "slice_margins": {"r2": 0.02}}
    )
    evaluation = samples.evaluation(task="regression")
    found = comparison.compare(evaluation, new, evaluation, old, policy)
    assert passed(found, "superiority") == {
        (name, ""): True for name in ("r2", "mae", "rmse", "calibration_error")
    }
    assert passed(found, "non_inferiority") == {
        ("r2", ""): True,
        ("mae", ""): True,
        ("r2", "EWR"): True,
        ("r2", "JFK"): True,
    }
    worse = comparison.compare(evaluation, old, evaluation, new, policy)
    assert not any(test.passed for test in worse.tests)


def test_another_task_cannot_be_compared() -> None:
    new, old = samples.evaluation(task="regression"), samples.evaluation()
    with pytest.raises(NotComparable, match="slipway new NAME"):
        comparison.compare(new, table(0.2), old, table(0.2), POLICY)


def test_other_rows_cannot_be_compared() -> None:
    shorter = table(0.2).head(ROWS - 1)
    flipped = table(0.2).assign(outcome=lambda t: 1 - t["outcome"])
    for other in (shorter, flipped):
        with pytest.raises(NotComparable, match="rescore"):
            compare(table(0.2), other)
    one_day = table(0.2).assign(group="day-1")
    with pytest.raises(NotComparable, match="one group"):
        compare(one_day, one_day)


def test_the_champions_metrics_have_intervals() -> None:
    scores = predictions.scores(table(0.2), "classification")
    found = comparison.metrics(scores, POLICY)
    assert found["brier"].low < found["brier"].value < found["brier"].high


@pytest.mark.parametrize(
    "wrong",
    [
        {"margins": {"auc": 0.1}},
        {"margins": {"calibration_error": 0.1}},
        {"alpha": 1.0},
        {"margins": {"brier": -0.1}},
        {"alfa": 1},
    ],
)
def test_a_wrong_policy_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EvidencePolicy.model_validate(wrong)


# Changes


def measured(**changes: Any) -> Evaluation:
    """By day, on two partitions of which each has its outcomes."""
    holdout = {
        "group": "day",
        "partitions": ["part-3", "part-4"],
        "outcomes": {"part-3": samples.digest("03"), "part-4": samples.digest("04")},
    } | {key: changes.pop(key) for key in list(changes) if key in Holdout.model_fields}
    own: dict[str, Any] = {
        "holdout": samples.evaluation().holdout.model_copy(update=holdout),
        "slice_columns": ["carrier", "origin"],
        "data": Data(digest=samples.digest("da"), rows=10, train=["part-1", "part-2"]),
    }
    return samples.evaluation(**own | changes)


LATER = {"part-4": samples.digest("04"), "part-5": samples.digest("05")}


@pytest.mark.parametrize(
    ("challenger", "what", "before", "after", "matters"),
    [
        ({"group": ""}, "group", ["day"], [], True),
        ({"group": "row"}, "group", ["day"], ["row"], True),
        (
            {"slice_columns": ["origin"]},
            "slices",
            ["carrier", "origin"],
            ["origin"],
            True,
        ),
        (
            {"slice_columns": ["hour", "origin", "carrier"]},
            "slices",
            ["carrier", "origin"],
            ["hour", "origin", "carrier"],
            False,
        ),
        ({"decision_threshold": 0.3}, "decision threshold", ["0.5"], ["0.3"], True),
        (
            {"partitions": ["part-4", "part-5"], "outcomes": LATER},
            "holdout",
            ["part-3", "part-4"],
            ["part-4", "part-5"],
            False,
        ),
        (
            {"partitions": ["part-4"], "outcomes": {"part-4": samples.digest("04")}},
            "holdout",
            ["part-3", "part-4"],
            ["part-4"],
            True,
        ),
        (
            {"outcomes": {"part-3": samples.digest("03"), "part-4": samples.digest("44")}},
            "outcomes",
            [f"part-4 {samples.digest('04')}"],
            [f"part-4 {samples.digest('44')}"],
            True,
        ),
    ],
)
def test_what_is_measured_otherwise(
    challenger: dict[str, Any], what: str, before: list[str], after: list[str], matters: bool
) -> None:
    (found,) = comparison.yardstick_changes(measured(), measured(**challenger))
    assert (found.what, found.before, found.after, found.matters) == (what, before, after, matters)


def test_a_later_holdout_hides_no_other_target() -> None:
    outcomes = LATER | {"part-4": samples.digest("44")}
    later = measured(partitions=list(outcomes), outcomes=outcomes)
    found = comparison.yardstick_changes(measured(), later)
    assert [(c.what, c.matters) for c in found] == [("holdout", False), ("outcomes", True)]


def test_a_champion_that_learned_from_the_holdout_is_told() -> None:
    more = Data(digest=samples.digest("da"), rows=10, train=["part-1", "part-2", "part-3"])
    champion = measured(data=more, partitions=["part-4"])
    holdout, seen = comparison.yardstick_changes(champion, measured())
    assert (holdout.what, holdout.matters) == ("holdout", False)
    assert (seen.what, seen.after, seen.matters) == ("champion's training", ["part-3"], True)


def test_the_same_yardstick_is_no_change() -> None:
    turned = measured(slice_columns=["origin", "carrier"], partitions=["part-4", "part-3"])
    assert comparison.yardstick_changes(measured(), turned) == []
    of_values = measured(task="regression", decision_threshold=None)
    assert comparison.yardstick_changes(of_values, of_values) == []


def test_a_comparison_tells_what_is_measured_otherwise() -> None:
    rows = table(0.2)
    found = comparison.compare(measured(group=""), rows, measured(), rows, POLICY)
    assert [c.what for c in found.yardstick] == ["group"]


def test_dependencies_that_differ() -> None:
    old, new = (
        samples.dependencies(
            packages=[Package(name=n, version=v, licence="") for n, v in pins.items()]
        )
        for pins in ({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"})
    )
    found = comparison.dependency_changes(old, new)
    assert found == ["b 1 -> 2", "c 1 -> -", "d - -> 1"]
    evaluation, scores = samples.evaluation(), table(0.2)
    whole = comparison.compare(evaluation, scores, evaluation, scores, POLICY, locks=(new, old))
    assert whole.dependencies == found


def test_what_the_model_itself_takes_is_no_callers_matter() -> None:
    column = evidence.Column(name="engineered", type="double")
    signature = evidence.Signature(digest=samples.digest("52"), inputs=[column], outputs=[])
    old, scores = samples.evaluation(), table(0.2)
    new = samples.evaluation(signature=signature)
    compared = comparison.compare(new, scores, old, scores, POLICY)
    assert compared.signature == []
    assert [(c.name, c.kind) for c in compared.model_signature] == [
        ("engineered", "added_required")
    ]
    met = [Change(name="/predict x", kind="removed", before="number")]
    assert comparison.compare(new, scores, old, scores, POLICY, signature=met).signature == met


def test_what_the_model_itself_takes_is_told_column_by_column() -> None:
    def signature(outputs: str, *inputs: tuple[str, str, bool]) -> evidence.Signature:
        return evidence.Signature(
            digest=samples.digest("52"),
            inputs=[evidence.Column(name=n, type=t, required=r) for n, t, r in inputs],
            outputs=[evidence.Column(name="p", type=outputs)],
        )

    before = signature("double", ("a", "long", True), ("b", "string", True), ("c", "long", False))
    after = signature("float", ("a", "long", False), ("c", "double", False), ("d", "long", False))
    found = comparison.signature_changes(before, after)
    assert [(c.name, c.kind, c.before, c.after) for c in found] == [
        ("a", "made_optional", "long", "long"),
        ("b", "removed", "string", ""),
        ("c", "retyped", "long", "double"),
        ("d", "added_optional", "", "long"),
        ("output p", "retyped", "double", "float"),
    ]
    assert comparison.signature_changes(after, before)[0].kind == "made_required"
    assert comparison.signature_changes(after, after) == []


def test_training_data_that_moved_is_told_by_column() -> None:
    objects = Objects()

    def data(shift: float, *, holdout: float = 0.0) -> Data:
        parts: list[dataset.Partition] = []
        for name, by in (("part-1", shift), ("part-2", holdout)):
            rows = pd.DataFrame(
                {
                    "x": np.random.default_rng(0).normal(by, 1, 500),
                    "kind": ["a", "b"] * 250,
                    "when": pd.date_range("2026-01-01", periods=500, unit="s"),
                    "only " + str(shift): 1.0,
                }
            )
            content = dataset.encode(rows)
            made = objects.put("data", content)
            parts.append(dataset.Partition(name=name, digest=made, rows=500, size=len(content)))
        manifest = dataset.Manifest(model="toy", partitions=parts)
        digest = objects.put_json("data", manifest.model_dump())
        return Data(digest=digest, rows=1000, train=["part-1"])

    found = {d.column: d.psi for d in comparison.drift(objects, data(1.0), data(0.0))}
    assert set(found) == {"x", "kind"}
    assert found["x"] > 0.5
    assert found["kind"] == 0
    # Another holdout is no drift of what was learned from.
    same = comparison.drift(objects, data(0.0, holdout=3.0), data(0.0))
    assert {d.psi for d in same} == {0.0}
