"""Each link of the lineage breaks when its own source disagrees, and only that one is blamed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from slipway import lineage, release
from slipway.errors import BadInput


def links(platform: Any) -> dict[str, lineage.Link]:
    found = lineage.trace(
        *(platform.cluster, platform.forge, platform.store, platform.keys, platform.mlflow),
        *("dev", "toy"),
    )
    return {link.what: link for link in found}


def test_all_sources_agree(platform: Any) -> None:
    found = links(platform)
    assert [link.what for link in found.values() if not link.ok] == []
    assert list(found) == [
        *("answers", "pods", "release", "bento", "evidence", "commit", "run", "model", "data")
    ]


def wrong_bento_answers(platform: Any) -> None:
    answer = platform.models["toy"]

    def other(request: Any) -> Any:
        response = answer(request)
        response.headers["x-slipway-bento"] = "sha256:" + "0" * 64
        return response

    platform.models["toy"] = other


def nothing_answers(platform: Any) -> None:
    del platform.models["toy"]


def _pod(platform: Any) -> Any:
    return platform.objects["/api/v1/namespaces/dev/pods"]["items"][0]


def edited_annotation(platform: Any) -> None:
    _pod(platform)["metadata"]["annotations"]["slipway.dev/commit"] = "0" * 40


def other_image(platform: Any) -> None:
    _pod(platform)["spec"]["containers"][0]["image"] = "serving:latest"


def other_image_beside_it(platform: Any) -> None:
    _pod(platform)["spec"]["containers"][1]["image"] = "shipping:latest"


def no_model(platform: Any) -> None:
    del _pod(platform)["spec"]["containers"][0]


def other_variable(platform: Any) -> None:
    _pod(platform)["spec"]["containers"][0]["env"] = []


def no_pods(platform: Any) -> None:
    platform.objects["/api/v1/namespaces/dev/pods"] = {"items": []}


def altered_bento(platform: Any) -> None:
    platform.store.content["bentos", platform.release.bento.digest] = b"altered"


def deleted_bento(platform: Any) -> None:
    del platform.store.content["bentos", platform.release.bento.digest]


def hand_edited_metric(platform: Any) -> None:
    summary = {**platform.release.evidence.summary, "roc_auc": 0.99}
    proof = release.Evidence(digest=platform.release.evidence.digest, summary=summary)
    edited = platform.release.model_copy(update={"evidence": proof})
    path = str(release.path("dev", "toy"))
    platform.forge.put("0a" * 20, {path: release.dumps(edited).encode()})


def signed_by_another(platform: Any) -> None:
    platform.key = Ed25519PrivateKey.generate()


def other_run_status(platform: Any) -> None:
    platform.mlflow_answers["runs/get"]["run"]["info"]["status"] = "FAILED"


def no_version(platform: Any) -> None:
    del platform.mlflow_answers["model-versions/get"]


def lost_partition(platform: Any) -> None:
    (partition,) = [key for key, value in platform.store.content.items() if value == b"rows"]
    del platform.store.content[partition]


@pytest.mark.parametrize(
    ("broken", "at", "said"),
    [
        (wrong_bento_answers, {"answers"}, "the bento that answers is sha256:000"),
        (nothing_answers, {"answers"}, "nothing answers"),
        (edited_annotation, {"pods"}, "slipway.dev/commit of pod toy-1 is 0000"),
        (other_image, {"pods"}, "the image of pod toy-1 is serving:latest"),
        (other_image_beside_it, {"pods"}, "the image of pod toy-1 is shipping:latest"),
        (no_model, {"pods"}, "SLIPWAY_BENTO_DIGEST of pod toy-1 is None"),
        (other_variable, {"pods"}, "SLIPWAY_BENTO_DIGEST of pod toy-1 is None"),
        (no_pods, {"pods"}, "no pods of toy in dev"),
        (altered_bento, {"bento"}, "corrupt"),
        (deleted_bento, {"bento"}, "no such object"),
        (hand_edited_metric, {"evidence"}, "its summary is"),
        (signed_by_another, {"evidence", "run", "model"}, "not signed by a known key"),
        (other_run_status, {"run"}, "the run's status is FAILED"),
        (no_version, {"model"}, "MLflow: no model-versions/get"),
        (lost_partition, {"data"}, "partitions are gone: part-1"),
    ],
)
def test_a_broken_link_is_found(
    platform: Any, broken: Callable[[Any], None], at: set[str], said: str
) -> None:
    broken(platform)
    found = links(platform)
    assert {link.what for link in found.values() if not link.ok} == at
    assert said in " ".join(found[what].found for what in at)


def test_code_that_changed_under_the_commit_breaks_commit_and_run(platform: Any) -> None:
    del platform.forge.commits[platform.release.code.commit]
    assert {link.what for link in links(platform).values() if not link.ok} == {"commit", "run"}


def test_not_released(platform: Any) -> None:
    with pytest.raises(BadInput, match="toy is not released to prod"):
        lineage.released(platform.forge, "prod", "toy")
