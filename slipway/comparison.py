"""Challenger against champion: paired tests on one holdout, and what else differs between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from slipway.evidence import Comparison, Dependencies, Drift, Evaluation, Level, Positive
from slipway.release import Strict

if TYPE_CHECKING:
    import pandas as pd

MetricName = Literal["roc_auc", "brier", "log_loss", "calibration_error"]
Margin = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class EvidencePolicy(Strict):
    """The `evidence:` block of policies/promotion/<env>.yaml: how a comparison is to be made."""

    alpha: Level = Field(default=0.05, description="one-sided, of each family after Holm")
    confidence: Level = Field(default=0.95, description="of the intervals of differences")
    resamples: Annotated[int, Field(ge=100, le=10_000)] = 1000
    margins: dict[MetricName, Margin] = Field(
        default={},
        description="what a metric may lose and still be non-inferior; one that is not named here "
        "is tested for superiority alone",
    )
    slice_metric: Literal["brier", "log_loss"] = "brier"
    slice_margin: Margin = 0.01
    minimum_slice_rows: Positive = Field(default=500, description="a smaller slice is not tested")
    maximum_age_days: Positive = Field(default=30, description="older evidence has expired")


def compare(
    challenger: Evaluation,
    table: pd.DataFrame,
    champion: Evaluation,
    champion_table: pd.DataFrame,
    policy: EvidencePolicy,
    *,
    drift: Sequence[Drift] = (),
    locks: tuple[Dependencies, Dependencies] | None = None,
) -> Comparison:
    """Predictions tables of the same holdout rows; `locks` are challenger's and champion's."""
    raise NotImplementedError
