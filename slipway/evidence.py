"""Evidence: what evaluation found about one bento, as a JSON document named by its digest."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from slipway import digests
from slipway.digests import Digest
from slipway.errors import SlipwayError, from_validation
from slipway.release import Bento, Commit, Finite, ModelName, Run, Strict

MetricName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Count = Annotated[int, Field(ge=0)]
T = TypeVar("T", "Evaluation", "Evidence")


class Estimate(Strict):
    """A metric on the holdout with its bootstrap interval."""

    value: Finite
    low: Finite
    high: Finite


class Holdout(Strict):
    """The rows evaluated on. `unknown` rows have no outcome and are left out of `rows`."""

    partitions: list[str]
    rows: Annotated[int, Field(gt=0)]
    unknown: Count
    positive_rate: Annotated[float, Field(ge=0, le=1)]


class Slice(Strict):
    """The holdout's rows where `column` is `value`. A metric that needs both outcomes may lack."""

    column: str
    value: str
    rows: Count
    positive_rate: Annotated[float, Field(ge=0, le=1)]
    mean_prediction: Annotated[float, Field(ge=0, le=1)]
    metrics: dict[MetricName, Finite]


class Data(Strict):
    """The dataset manifest trained and evaluated on."""

    digest: Digest
    rows: Annotated[int, Field(gt=0)]


class Evaluation(Strict):
    """What the model files answered on the holdout. Metrics are of predicted probabilities."""

    model: ModelName
    model_digest: Digest
    data: Data
    code: Commit
    run: Run
    holdout: Holdout
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    metrics: dict[MetricName, Estimate]
    baselines: dict[MetricName, dict[MetricName, Finite]]
    gain: dict[MetricName, Estimate] = Field(
        description="Brier skill score over each baseline: 1 - brier / baseline brier, paired"
    )
    slices: list[Slice]


class Evidence(Strict):
    """An evaluation bound to the one bento that holds the evaluated model files."""

    schema_version: Literal[1] = 1
    bento: Bento
    evaluation: Evaluation

    def summary(self) -> dict[str, float]:
        """The few numbers that a release file carries."""
        metrics = {name: round(e.value, 4) for name, e in self.evaluation.metrics.items()}
        base = self.evaluation.baselines.get("base_rate", {})
        return metrics | {f"baseline_{n}": round(v, 4) for n, v in base.items() if n == "brier"}


def dumps(document: Evaluation | Evidence) -> bytes:
    """Canonical JSON: equal documents give equal bytes, and so one digest."""
    return digests.canonical_json(document.model_dump(mode="json"))


def loads(kind: type[T], data: bytes, name: str) -> T:
    """Reads a document; `BadInput` names each wrong field, and `name` says where it came from."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise from_validation(error, kind, name) from None


def schema() -> dict[str, Any]:
    """JSON schema of the evidence document."""
    return Evidence.model_json_schema()


def check_about(evidence: Evidence, bento: Digest) -> None:
    """Raises when the evidence is about another bento."""
    if evidence.bento.digest != bento:
        raise SlipwayError(
            f"the evidence is about bento {evidence.bento.digest}, not {bento}",
            fix="name the evidence that the package step wrote for this bento",
        )
