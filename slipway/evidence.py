"""Evidence: what evaluation found about one bento, for one environment, against its champion.

Steps write an `Evaluation` (the model alone, on the frozen holdout) and the predictions it rests
on. `attest` compares these with the champion's and writes the `Evidence`: one JSON document, the
predicate of an in-toto statement about the bento, signed (slipway.attestation).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from slipway import digests
from slipway.digests import Digest
from slipway.errors import from_validation
from slipway.release import ENVIRONMENTS, Bento, Commit, Finite, ModelName, Run, Strict

MetricName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Level = Annotated[float, Field(gt=0, lt=1)]
Instant = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
Environment = Literal["dev", "staging", "prod"]
assert Environment.__args__ == ENVIRONMENTS  # noqa: S101 -- a Literal cannot be made of a tuple

NOT_CHECKED = "not checked"


class Estimate(Strict):
    """A number with its interval at the document's confidence, from the bootstrap."""

    value: Finite
    low: Finite
    high: Finite


class Holdout(Strict):
    """The rows evaluated on. `digest` is of their partitions and outcomes: equal digests are equal
    rows with equal outcomes, in one order. `unknown` rows have no outcome and are left out of
    `rows`."""

    digest: Digest
    partitions: list[str]
    group: str = Field(
        default="", description="column whose values are the independent observations; else rows"
    )
    rows: Positive
    unknown: Count
    positive_rate: Share


class Slice(Strict):
    """The holdout's rows where `column` is `value`. A metric that needs both outcomes may lack."""

    column: str
    value: str
    rows: Count
    positive_rate: Share
    mean_prediction: Share
    metrics: dict[MetricName, Finite]


class Bin(Strict):
    """One point of the reliability curve: rows whose predictions fall into [low, high)."""

    low: Share
    high: Share
    rows: Count
    predicted: Share
    observed: Share


class Fairness(Strict):
    """Differences between the groups of one column, by fairlearn, at one decision threshold."""

    column: str
    threshold: Share
    demographic_parity: Share = Field(description="largest difference of selection rates")
    equalized_odds: Share = Field(description="largest difference of true or false positive rates")
    worst_group: str


class Drift(Strict):
    """How far one column of the training data moved from the champion's; PSI over fixed bins."""

    column: str
    psi: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Validation(Strict):
    """The data's checks, all of which held, or there would be no evidence."""

    rows: Positive
    columns: Positive
    checks: list[str]


class Data(Strict):
    """The dataset manifest trained and evaluated on; `train` are the partitions learned from."""

    digest: Digest
    rows: Positive
    train: list[str] = Field(default=[])


class Column(Strict):
    """One column of the model's MLflow signature."""

    name: str
    type: str
    required: bool = True


class Signature(Strict):
    """The model's MLflow signature; `digest` is of the two lists' canonical JSON."""

    digest: Digest
    inputs: list[Column]
    outputs: list[Column]


class Serving(Strict):
    """The bento itself, served in the workflow and asked one request after the other."""

    requests: Positive
    latency_p50_ms: Annotated[float, Field(gt=0)]
    latency_p99_ms: Annotated[float, Field(gt=0)]
    memory_mib: Annotated[float, Field(gt=0)]
    start_seconds: Annotated[float, Field(gt=0)]
    bento_bytes: Positive


class Package(Strict):
    """One locked dependency; `licence` as its metadata has it, "" where it says nothing."""

    name: str
    version: str
    licence: str


class Vulnerability(Strict):
    """A known vulnerability of a locked dependency."""

    package: str
    version: str
    id: str
    severity: Literal["low", "medium", "high", "critical", "unknown"]


class Dependencies(Strict):
    """What the bento is locked to. Without a database vulnerabilities are "not checked"."""

    lock: Digest
    packages: list[Package]
    vulnerabilities: list[Vulnerability] | Literal["not checked"] = NOT_CHECKED
    database: str = Field(default="", description="name and date of what was checked against")


class Evaluation(Strict):
    """What the model files answered on the holdout. Metrics are of predicted probabilities."""

    model: ModelName
    model_digest: Digest
    data: Data
    code: Commit
    run: Run
    parameters: dict[str, str | int | float | bool | None]
    holdout: Holdout
    predictions: Digest = Field(description="Parquet in the store, bucket evidence")
    confidence: Level = 0.95
    metrics: dict[MetricName, Estimate]
    baselines: dict[MetricName, dict[MetricName, Finite]]
    gain: dict[MetricName, Estimate] = Field(
        description="Brier skill score over each baseline: 1 - brier / baseline brier, paired"
    )
    reliability: list[Bin]
    by_period: dict[str, dict[MetricName, Finite]] = Field(
        description="holdout partition to metrics"
    )
    slices: list[Slice]
    fairness: list[Fairness]
    validation: Validation
    signature: Signature


class Champion(Strict):
    """What the environment served when the evidence was written."""

    version: Positive
    bento: Digest
    evidence: Digest
    commit: Commit
    data: Digest
    predictions: Digest
    metrics: dict[MetricName, Estimate]
    parameters: dict[str, str | int | float | bool | None]
    reliability: list[Bin] = Field(default=[])
    by_period: dict[str, dict[MetricName, Finite]] = Field(default={})


class Test(Strict):
    """One paired test on the holdout's rows.

    `difference` is the challenger's gain over the champion: positive is better, whichever way the
    metric points. Non-inferior: the gain is above -margin; superior: it is above 0. One-sided;
    `p_adjusted` is Holm's over all tests of the same kind in the document, slices included.
    """

    kind: Literal["non_inferiority", "superiority"]
    metric: MetricName
    column: str = Field(default="", description="slice; empty for the whole holdout")
    value: str = ""
    rows: Positive
    margin: Annotated[float, Field(ge=0)]
    alpha: Level
    difference: Estimate
    p_value: Share
    p_adjusted: Share
    passed: bool


class Change(Strict):
    """A column of the signature that differs from the champion's."""

    name: str
    kind: Literal["removed", "retyped", "added_required", "added_optional", "made_required"]
    before: str = ""
    after: str = ""

    @property
    def breaks(self) -> bool:
        """Whether a caller of the champion is refused, or misunderstood, by the challenger."""
        return self.kind != "added_optional"


class Comparison(Strict):
    """Challenger against champion, on the challenger's holdout, from stored predictions."""

    tests: list[Test]
    signature: list[Change]
    drift: list[Drift]
    dependencies: list[str] = Field(description="`name old -> new`, absent sides as `-`")


class PolicyPin(Strict):
    """The thresholds whose margins and levels the tests used; digest of the parsed document."""

    environment: Environment
    digest: Digest


class Evidence(Strict):
    """The whole document. `champion` and `comparison` are null where the environment has none."""

    schema_version: Literal[2] = 2
    created: Instant
    environment: Environment
    policy: PolicyPin
    bento: Bento
    evaluation: Evaluation
    serving: Serving
    dependencies: Dependencies
    champion: Champion | None
    comparison: Comparison | None

    def summary(self) -> dict[str, float]:
        """The few numbers that a release file carries."""
        metrics = {name: round(e.value, 4) for name, e in self.evaluation.metrics.items()}
        base = self.evaluation.baselines.get("base_rate", {})
        metrics |= {f"baseline_{n}": round(v, 4) for n, v in base.items() if n == "brier"}
        if self.champion:
            metrics |= {
                f"champion_{n}": round(e.value, 4)
                for n, e in self.champion.metrics.items()
                if n == "brier"
            }
        return metrics


T = TypeVar("T", Evaluation, Evidence, Serving, Dependencies, Validation)


def dumps(document: Strict) -> bytes:
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
