"""Evidence: what evaluation found about one bento, for one environment, against its champion.

Steps write an `Evaluation` (the model alone, on the frozen holdout) and the predictions it rests
on. `attest` compares these with the champion's and writes the `Evidence`: one JSON document, the
predicate of an in-toto statement about the bento, signed (slipway.attestation).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from slipway import digests
from slipway.digests import Digest
from slipway.errors import from_validation
from slipway.release import ENVIRONMENTS, Bento, Commit, Finite, ModelName, Run, Runtime, Strict
from slipway.tasks import TASKS, TaskName

MetricName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Level = Annotated[float, Field(gt=0, lt=1)]
Instant = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
Environment = Literal["dev", "staging", "prod"]
assert Environment.__args__ == ENVIRONMENTS  # noqa: S101 -- a Literal cannot be made of a tuple

NOT_CHECKED = "not checked"


def instant(when: datetime) -> Instant:
    """It as documents have it: UTC, to the second."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Estimate(Strict):
    """A number with its interval at the document's confidence, from the bootstrap."""

    value: Finite
    low: Finite
    high: Finite


class Holdout(Strict):
    """The rows evaluated on. `digest` is of their partitions and outcomes: equal digests are equal
    rows with equal outcomes, in one order. `unknown` rows have no outcome and are left out of
    `rows`. Of classes the mean outcome is the share of positives."""

    digest: Digest
    partitions: list[str]
    outcomes: dict[str, Digest] = Field(description="partition to what came of its rows, in order")
    group: str = Field(
        default="", description="column whose values are the independent observations; else rows"
    )
    rows: Positive
    unknown: Count
    mean_outcome: Finite
    deviation: Annotated[float, Field(gt=0, description="standard deviation of the outcomes")]


class Slice(Strict):
    """The holdout's rows where `column` is `value`. A metric that needs both outcomes may lack.

    What is in units of the outcome's deviation is in those of the whole holdout's.
    """

    column: str
    value: str
    rows: Count
    groups: Count = Field(description="independent observations among them")
    mean_outcome: Finite
    mean_prediction: Finite
    metrics: dict[MetricName, Finite]


class Bin(Strict):
    """One point of the reliability curve: rows whose predictions fall into [low, high)."""

    low: Finite
    high: Finite
    rows: Count
    predicted: Finite
    observed: Finite


class Fairness(Strict):
    """Largest differences between the groups of one column, by fairlearn.

    Classification: `demographic_parity` (of selection rates) and `equalized_odds` (of true or false
    positive rates), where a probability from `threshold` on is taken for a yes. Regression:
    `bias_difference` (of mean errors) and `error_difference` (of mean absolute errors), in the
    outcome's deviations.
    """

    column: str
    threshold: Share | None = None
    differences: dict[MetricName, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
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
    compared: Count = Field(
        default=0, description="answers that were compared with those evaluated, and equal"
    )


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
    """What the bento is locked to. Without a database vulnerabilities are "not checked".

    They are looked up when evidence is written, by the database that the thresholds name then.
    """

    lock: Digest
    packages: list[Package]
    vulnerabilities: list[Vulnerability] | Literal["not checked"] = NOT_CHECKED
    database: str = Field(default="", description="name and date of what was checked against")


class Evaluation(Strict):
    """What the model files answered on the holdout: probabilities, or values."""

    model: ModelName
    task: TaskName
    model_digest: Digest
    data: Data
    code: Commit
    run: Run
    evaluated: Instant
    parameters: dict[str, str | int | float | bool | None]
    holdout: Holdout
    predictions: Digest = Field(description="Parquet in the store, bucket evidence")
    confidence: Level = 0.95
    metrics: dict[MetricName, Estimate]
    baselines: dict[MetricName, dict[MetricName, Finite]]
    gain: dict[MetricName, Estimate] = Field(
        description="skill over each baseline: 1 - squared error / the baseline's, paired"
    )
    reliability: list[Bin]
    calibration_chance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        description="the calibration error that chance alone would show of so few rows"
    )
    by_period: dict[str, dict[MetricName, Finite]] = Field(
        description="holdout partition to metrics"
    )
    slice_columns: list[str] = Field(description="also those without a value of enough rows")
    slices: list[Slice]
    decision_threshold: Share | None = Field(description="of classes, where fairness is measured")
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


ChangeKind = Literal[
    "removed",
    "retyped",
    "added_required",
    "added_optional",
    "made_required",
    "made_optional",
    "narrowed",
    "widened",
]


class Change(Strict):
    """A field of what callers send or get that differs from the champion's (slipway.interface), or
    a column of what the model itself takes or gives.

    Narrowed is what may be sent, widened what may be answered, in the limits of a type.
    """

    name: str
    kind: ChangeKind
    before: str = ""
    after: str = ""

    @property
    def breaks(self) -> bool:
        """Whether a caller of the champion is refused, or misunderstood, by the challenger."""
        return self.kind not in ("added_optional", "made_optional")


Yardstick = Literal[
    "group", "slices", "decision threshold", "holdout", "outcomes", "champion's training"
]


class YardstickChange(Strict):
    """What the challenger is measured by, and the champion was not when it came.

    `outcomes` are of partitions that both were evaluated on: the target is another, or the rows.
    `champion's training`: partitions of the challenger's holdout that the champion learned from.
    """

    what: Yardstick
    before: list[str]
    after: list[str]

    @property
    def matters(self) -> bool:
        """Whether it can decide the comparison: more slices cannot, nor can a later holdout."""
        before, after = set(self.before), set(self.after)
        if self.what == "holdout" and before and after and max(before) < max(after):
            return False
        return self.what not in ("slices", "holdout") or not before <= after


class Comparison(Strict):
    """Challenger against champion, on the challenger's holdout, from stored predictions."""

    tests: list[Test]
    yardstick: list[YardstickChange]
    signature: list[Change] = Field(description="of the service's requests and answers")
    model_signature: list[Change] = Field(
        default=[], description="of the model's MLflow signature, which is no caller's matter"
    )
    drift: list[Drift]
    dependencies: list[str] = Field(description="`name old -> new`, absent sides as `-`")


class PolicyPin(Strict):
    """The thresholds whose margins and levels the tests used; digest of the parsed document."""

    environment: Environment
    digest: Digest


class Evidence(Strict):
    """The whole document. `champion` and `comparison` are null where the environment has none."""

    schema_version: Literal[4] = 4
    created: Instant
    environment: Environment
    policy: PolicyPin
    version: Positive = Field(description="MLflow's, of the registered model")
    bento: Bento
    runtime: Runtime
    evaluation: Evaluation
    serving: Serving
    dependencies: Dependencies
    champion: Champion | None
    comparison: Comparison | None

    def summary(self) -> dict[str, float]:
        """The few numbers that a release file carries."""
        task = TASKS[self.evaluation.task]
        metrics = {name: round(e.value, 4) for name, e in self.evaluation.metrics.items()}
        base = self.evaluation.baselines.get(task.constant, {})
        if task.lead in base:
            metrics[f"baseline_{task.lead}"] = round(base[task.lead], 4)
        if self.champion and task.lead in self.champion.metrics:
            metrics[f"champion_{task.lead}"] = round(self.champion.metrics[task.lead].value, 4)
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
