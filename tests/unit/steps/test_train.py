"""What a training believes of MLflow, which asks nobody who they are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slipway import attestation, evidence
from slipway.steps import tracking, train
from tests import samples
from tests.samples import COMMIT, KEY, RUN, Objects

DATA, MODEL, OTHER = samples.evaluation().data.digest, samples.digest("0d"), samples.digest("66")


class MLflow:
    """Runs, each of which says what whoever wrote it liked."""

    def __init__(self) -> None:
        self.runs: list[Any] = []

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="1")

    def search_runs(self, *_: Any, page_token: str | None = None, **__: Any) -> Any:
        """A run a page."""

        class Page(list[Any]):
            token = ""

        at = int(page_token or 0)
        page = Page(self.runs[at : at + 1])
        page.token = str(at + 1) if at + 1 < len(self.runs) else ""
        return page

    def add(self, run: str, model: str, *proofs: str) -> None:
        environments = ("dev", "staging", "prod")
        tags = {
            f"slipway.evidence_digest.{e}": p for e, p in zip(environments, proofs, strict=False)
        }
        tags |= {tracking.MODEL: model, tracking.LOGGED: "m-1"}
        self.runs.append(
            SimpleNamespace(info=SimpleNamespace(run_id=run), data=SimpleNamespace(tags=tags))
        )


@pytest.fixture
def objects() -> Objects:
    made = Objects()
    made.content["bentos", MODEL] = made.content["bentos", OTHER] = b"weights"
    return made


@pytest.fixture
def mlflow(objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MLflow:
    made = MLflow()
    (tmp_path / "public.pem").write_bytes(samples.public_pem())
    monkeypatch.setenv("SLIPWAY_EVIDENCE_KEYS", str(tmp_path / "public.pem"))
    monkeypatch.setattr(train, "Store", lambda: objects)
    monkeypatch.setattr(tracking, "client", lambda: made)
    monkeypatch.setattr(tracking, "register", lambda *_: 4)
    monkeypatch.setattr(train, "_train", lambda *_: (samples.digest("77"), "new", "m-2"))
    return made


def signed(objects: Objects, **changes: Any) -> str:
    document = samples.document(evaluation=samples.evaluation(**changes))
    return objects.put("evidence", attestation.sign(document, KEY))


def run() -> tuple[str, str]:
    folder: Any = SimpleNamespace(config=SimpleNamespace(name="toy"), code=lambda: "sha256:c0de")
    made = train.run(folder, DATA, COMMIT)
    return made["run"], made["model-digest"]


def test_what_signed_evidence_says_is_not_trained_again(mlflow: MLflow, objects: Objects) -> None:
    mlflow.add("f" * 32, OTHER)
    mlflow.add(RUN, MODEL, samples.digest("00"), signed(objects))
    assert run() == (RUN, MODEL)


def planted(mlflow: MLflow, objects: Objects) -> None:
    """A branch's workflow wrote a run with main's inputs, and a model of its own."""
    mlflow.add("f" * 32, OTHER)


def under_anothers_evidence(mlflow: MLflow, objects: Objects) -> None:
    mlflow.add("f" * 32, OTHER, signed(objects))


def altered(mlflow: MLflow, objects: Objects) -> None:
    """The model of a run that there is evidence of."""
    mlflow.add(RUN, OTHER, signed(objects))


def by_a_branch(mlflow: MLflow, objects: Objects) -> None:
    """Evidence there is, and what evaluated was the branch itself."""
    mlflow.add(RUN, MODEL, signed(objects, code="b7" * 20))


def of_other_data(mlflow: MLflow, objects: Objects) -> None:
    mlflow.add(RUN, MODEL, signed(objects, data=evidence.Data(digest=samples.digest("d0"), rows=1)))


def unsigned(mlflow: MLflow, objects: Objects) -> None:
    mlflow.add(RUN, MODEL, objects.put("evidence", evidence.dumps(samples.document())))


def not_a_digest(mlflow: MLflow, objects: Objects) -> None:
    mlflow.add(RUN, MODEL, "../../x")


def gone(mlflow: MLflow, objects: Objects) -> None:
    mlflow.add(RUN, MODEL, signed(objects))
    del objects.content["bentos", MODEL]


@pytest.mark.parametrize(
    "write",
    [
        planted,
        under_anothers_evidence,
        altered,
        by_a_branch,
        of_other_data,
        unsigned,
        not_a_digest,
        gone,
    ],
    ids=lambda write: write.__name__,
)
def test_what_no_evidence_says_is_trained(mlflow: MLflow, objects: Objects, write: Any) -> None:
    write(mlflow, objects)
    assert run() == ("new", samples.digest("77"))
