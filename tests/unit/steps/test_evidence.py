from __future__ import annotations

import json
from typing import Any

import pytest

from slipway import evidence
from slipway.errors import BadInput
from slipway.evidence import Evidence
from tests import samples


def document(**changes: Any) -> dict[str, Any]:
    found = samples.document().model_dump(mode="json")
    return found | {"evaluation": found["evaluation"] | changes}


def test_equal_documents_are_equal_bytes() -> None:
    one = samples.document()
    assert evidence.loads(Evidence, evidence.dumps(one), "x") == one
    assert evidence.dumps(Evidence.model_validate(document())) == evidence.dumps(one)
    assert one.summary() == {"roc_auc": 0.7, "brier": 0.15, "baseline_brier": 0.2}


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
    with pytest.raises(BadInput, match="s3://evidence/x") as raised:
        evidence.loads(Evidence, json.dumps(document(**changes)).encode(), "s3://evidence/x")
    assert message in str(raised.value)


def test_the_schema_is_closed() -> None:
    schema = evidence.schema()
    assert schema["additionalProperties"] is False
    assert all(d.get("additionalProperties") is False for d in schema["$defs"].values())
