from typing import Any

import numpy as np
import pytest

from slipway import evidence
from slipway.errors import BadInput, SlipwayError
from slipway.evidence import Evidence
from slipway.steps import evaluate


def document(**changes: Any) -> dict[str, Any]:
    digest = "sha256:" + "a" * 64
    estimate = {"value": 0.7, "low": 0.6, "high": 0.8}
    evaluation = {
        "model": "flight_delay",
        "model_digest": digest,
        "data": {"digest": digest, "rows": 10},
        "code": "b" * 40,
        "run": "c" * 32,
        "holdout": {"partitions": ["x"], "rows": 5, "unknown": 1, "positive_rate": 0.4},
        "confidence": 0.95,
        "metrics": {"roc_auc": estimate, "brier": estimate},
        "baselines": {"base_rate": {"brier": 0.9}},
        "gain": {"base_rate": estimate},
        "slices": [],
    }
    bento = {"digest": digest, "uri": "s3://bentos/sha256/" + "a" * 64, "size": 1}
    return {"schema_version": 1, "bento": bento, "evaluation": evaluation | changes}


def test_equal_documents_are_equal_bytes() -> None:
    one = Evidence.model_validate(document())
    assert evidence.loads(Evidence, evidence.dumps(one), "x") == one
    assert evidence.dumps(Evidence.model_validate(document())) == evidence.dumps(one)
    assert one.summary() == {"roc_auc": 0.7, "brier": 0.7, "baseline_brier": 0.9}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"code": "abc"}, "evaluation.code: short commit"),
        ({"model_digest": "latest"}, "evaluation.model_digest: not a digest"),
        ({"metrics": {"AUC": {}}}, "evaluation.metrics"),
        ({"slises": []}, "did you mean 'slices'?"),
    ],
)
def test_a_wrong_document_names_the_field(changes: dict[str, Any], message: str) -> None:
    import json

    with pytest.raises(BadInput, match="s3://evidence/x") as raised:
        evidence.loads(Evidence, json.dumps(document(**changes)).encode(), "s3://evidence/x")
    assert message in str(raised.value)


def test_evidence_for_another_bento_is_refused() -> None:
    one = Evidence.model_validate(document())
    evidence.check_about(one, "sha256:" + "a" * 64)
    with pytest.raises(SlipwayError, match="about bento"):
        evidence.check_about(one, "sha256:" + "d" * 64)


def test_the_schema_is_closed() -> None:
    schema = evidence.schema()
    assert schema["additionalProperties"] is False
    assert all(d.get("additionalProperties") is False for d in schema["$defs"].values())


def test_metrics_agree_with_scikit_learn() -> None:
    from sklearn import metrics

    random = np.random.default_rng(1)
    y = random.integers(0, 2, 500).astype(float)
    p = np.round(np.clip(random.normal(0.4 + 0.2 * y, 0.2), 0.01, 0.99), 2)  # with ties
    w = random.integers(0, 4, 500).astype(float)
    for ours, theirs in (
        (evaluate.roc_auc, metrics.roc_auc_score),
        (evaluate.brier, metrics.brier_score_loss),
        (evaluate.log_loss, metrics.log_loss),
    ):
        assert ours(y, p, w) == pytest.approx(theirs(y, p, sample_weight=w), abs=1e-12)


def test_intervals_hold_the_value_and_are_the_same_each_time() -> None:
    random = np.random.default_rng(2)
    y = random.integers(0, 2, 400).astype(float)
    p = np.clip(0.3 + 0.4 * y + random.normal(0, 0.2, 400), 0.01, 0.99)
    metrics, gain = evaluate.bootstrap(y, p, {"base_rate": np.full(400, y.mean())})
    for estimate in (*metrics.values(), *gain.values()):
        assert estimate.low <= estimate.high
    for name in ("roc_auc", "brier", "log_loss"):
        assert metrics[name].low < metrics[name].value < metrics[name].high
    assert gain["base_rate"].low > 0
    assert evaluate.bootstrap(y, p, {"base_rate": np.full(400, y.mean())}) == (metrics, gain)
