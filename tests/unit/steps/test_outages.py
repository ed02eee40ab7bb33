"""A part of the platform that is down while a step needs it: worth a retry, and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from slipway import attestation, bento, evidence, paths, release, store
from slipway.endpoints import Cluster
from slipway.steps import (
    attest,
    dispatch,
    package,
    predictions,
    propose,
    rescore,
    select,
    tracking,
    train,
)
from slipway.steps import experiment as experiments
from slipway.steps.__main__ import FLAGS, OVERALL, TRANSIENT, main
from tests import samples
from tests.unit.steps.test_overall import Kubernetes

NOWHERE = "http://127.0.0.1:1"
# What a message has to name.
PARTS = {"store": "s3://", "mlflow": "mlflow", "forge": "the forge at"}
MODEL = "flight_delay"
DIGEST = samples.digest("d1")


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> samples.Objects:
    """Where nothing answers; a store in memory for steps that get past theirs. Dev has a release
    of the model."""
    for name in ("AWS_ENDPOINT_URL", "MLFLOW_TRACKING_URI", "FORGE_URL"):
        monkeypatch.setenv(name, NOWHERE)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "FORGE_USERNAME", "FORGE_PASSWORD"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("FORGE_REPOSITORY", "o/r")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("ENVIRONMENTS", "dev staging")
    monkeypatch.delenv("FORGE_KIND", raising=False)
    monkeypatch.setattr("time.sleep", lambda _: None)
    keys = {"SIGNING_KEY": samples.private_pem(), "EVIDENCE_KEYS": samples.public_pem()}
    for name, content in keys.items():
        (tmp_path / name).write_bytes(content)
        monkeypatch.setenv(f"SLIPWAY_{name}", str(tmp_path / name))
    return samples.Objects()


@pytest.fixture
def main_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: samples.Objects) -> None:
    """A checkout of main whose dev runs the model."""
    document = samples.document(evaluation=samples.evaluation(model=MODEL))
    proof = platform.put("evidence", attestation.sign(document, samples.KEY))
    made = samples.released(document, proof)
    file = tmp_path / "main" / release.path("dev", MODEL)
    file.parent.mkdir(parents=True)
    file.write_text(release.dumps(made))
    for folder in ("policies", "bentos", "requirements"):
        (tmp_path / "main" / folder).symlink_to(paths.REPOSITORY / folder)
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path / "main")


def nothing(*_: Any) -> None:
    """The store, or whatever comes first, is what is down."""


def one_partition(objects: samples.Objects, patch: pytest.MonkeyPatch) -> None:
    """Ingest has something to send."""
    rows = pd.DataFrame({"a": [1.0]})
    made = SimpleNamespace(
        config=SimpleNamespace(name=MODEL),
        training=lambda: SimpleNamespace(ingest=lambda: [("2013-01", rows)]),
    )
    patch.setattr(bento, "find", lambda _: made)


def nothing_trained(objects: samples.Objects, patch: pytest.MonkeyPatch) -> None:
    """MLflow knows of no such run."""
    for module in (train, experiments):
        patch.setattr(module.tracking, "client", lambda: None)
    patch.setattr(tracking, "trained", lambda *_: [])
    patch.setattr(tracking, "experiments", lambda *_: [])


def evaluated(objects: samples.Objects, **changes: Any) -> str:
    found = samples.evaluation(model=MODEL, **changes)
    return objects.put("evidence", evidence.dumps(found))


def packaged(objects: samples.Objects, patch: pytest.MonkeyPatch) -> dict[str, str]:
    """The bento is built and stored."""
    patch.setattr(package, "Store", lambda: objects)
    patch.setattr(package, "build", lambda *_: b"bento")
    model = objects.put("bentos", store.tar({"model.onnx": b"weights"}))
    return {"evaluation": evaluated(objects, model_digest=model)}


def another_holdout(objects: samples.Objects, patch: pytest.MonkeyPatch) -> dict[str, str]:
    """The champion's code has to be fetched, to be asked about it."""
    patch.setattr(rescore, "Store", lambda: objects)
    patch.setattr(predictions, "get", lambda *_: pd.DataFrame({"row": [0]}))
    patch.setattr(rescore.dataset, "manifest", nothing)
    patch.setattr(rescore.dataset, "read", lambda *_: pd.DataFrame({"a": [1.0]}))
    objects.content["bentos", samples.bento().digest] = store.tar({})
    patch.setattr(objects, "get", lambda bucket, digest: objects.content[bucket, digest])
    holdout = samples.evaluation().holdout.model_copy(update={"digest": samples.digest("a9")})
    return {"evaluation": evaluated(objects, holdout=holdout)}


def compared(objects: samples.Objects, patch: pytest.MonkeyPatch) -> dict[str, str]:
    """Everything to be signed is there."""
    patch.setattr(attest, "Store", lambda: objects)
    document = samples.document(environment="staging", evaluation=samples.evaluation(model=MODEL))
    patch.setattr(attest, "write", lambda *_, **__: document)
    return {
        "commit": document.evaluation.code,
        "environment": "staging",
        "evaluation": evaluated(objects),
        "serving": objects.put("evidence", evidence.dumps(samples.serving())),
        "dependencies": objects.put("evidence", evidence.dumps(samples.dependencies())),
        "champion": "",
    }


def signed(objects: samples.Objects, patch: pytest.MonkeyPatch) -> dict[str, str]:
    """The evidence is there."""
    patch.setattr(propose, "Store", lambda: objects)
    document = samples.document(evaluation=samples.evaluation(model=MODEL))
    return {"evidence": objects.put("evidence", attestation.sign(document, samples.KEY))}


def released(objects: samples.Objects, patch: pytest.MonkeyPatch) -> None:
    """What is to be promoted can be read."""
    patch.setattr(select, "Store", lambda: objects)


def a_cluster(objects: samples.Objects, patch: pytest.MonkeyPatch) -> None:
    """The API server answers, and knows of no workflow."""
    patch.setattr(Cluster, "inside", lambda: Kubernetes().cluster)
    patch.setattr(dispatch, "_head", lambda: "1" * 40)


Prepare = Callable[[samples.Objects, pytest.MonkeyPatch], dict[str, str] | None]

# Of a store that is down while pull requests are judged, the verdict tells: see test_gates_step.
CASES: dict[tuple[str, str], Prepare] = {
    ("ingest", "store"): one_partition,
    ("validate", "store"): nothing,
    ("train", "mlflow"): nothing,
    ("train", "store"): nothing_trained,
    ("evaluate", "store"): nothing,
    ("package", "store"): nothing,
    ("package", "mlflow"): packaged,
    ("experiment", "mlflow"): nothing,
    ("experiment", "store"): nothing_trained,
    ("collect", "mlflow"): nothing,
    ("rebuild", "store"): nothing,
    ("rescore", "store"): nothing,
    ("rescore", "forge"): another_holdout,
    ("select", "store"): nothing,
    ("select", "mlflow"): released,
    ("attest", "store"): nothing,
    ("attest", "mlflow"): compared,
    ("propose", "store"): nothing,
    ("propose", "forge"): signed,
    ("dispatch", "mlflow"): a_cluster,
    ("follow", "mlflow"): nothing,
    ("gates", "forge"): nothing,
    ("hold", "forge"): nothing,
}
GIVEN = {
    "commit": "1" * 40,
    "environment": "dev",
    "from-environment": "dev",
    "version": "3",
    "bento-size": "5",
    "number": "0",
    "real": "0",
    "search": "s",
    "break-glass": "",
    "dry-run": "false",
    "requested-by": "",
    "runtime-image": samples.IMAGE,
    "champion-predictions": "",
}


def test_every_step_is_among_them() -> None:
    # A sweep is three of them, each as it is.
    assert {step for step, _ in CASES} == {*FLAGS, *OVERALL} - {"sweep"}


@pytest.mark.usefixtures("main_has")
@pytest.mark.parametrize(("step", "part"), CASES, ids=lambda value: value)
def test_what_does_not_answer_is_named_and_worth_a_retry(
    step: str,
    part: str,
    platform: samples.Objects,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = GIVEN | (CASES[step, part](platform, monkeypatch) or {})
    if step == "select":
        given["environment"] = "staging"
    flags = [f"--{flag}={given.get(flag, DIGEST)}" for flag in FLAGS.get(step, ())]
    if step in FLAGS:
        flags += [f"--model={MODEL}"]
    signatures = [key for key in platform.content if key[0] == "evidence"]
    assert main([step, *flags, f"--output-dir={tmp_path / 'outputs'}"]) == TRANSIENT
    said = capsys.readouterr().err
    assert PARTS[part] in said.lower()
    assert "worth a retry" in said
    assert not (tmp_path / "outputs").exists()
    written = [key for key in platform.content if key[0] == "evidence"]
    # Evidence is named by its digest: what a retry writes is the same object.
    assert written == signatures or (step, part) == ("attest", "mlflow")
