"""What is said to happen in so many of a hundred cases does."""

from __future__ import annotations

from collections.abc import Iterator

from slipway.evidence import Share
from slipway.gates import Finding, NotEvaluated, Subject, failed, passed
from slipway.release import Strict


class Limits(Strict):
    """Expected calibration error over ten bins, on the holdout, beyond what chance alone would show
    of so few rows; of values, in the outcome's deviations."""

    maximum_error: Share


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    evaluation = subject.found().evaluation
    error, chance = evaluation.metrics.get("calibration_error"), evaluation.calibration_chance
    if error is None:
        raise NotEvaluated("the evidence has no calibration_error", fix="train again")
    # Both are lengths that do not depend on each other: so they add up by their squares.
    beyond = max(error.value**2 - chance**2, 0.0) ** 0.5
    message = (
        f"calibration error {error.value:.4f} [{error.low:.4f}, {error.high:.4f}], beyond the "
        f"{chance:.4f} of chance {beyond:.4f}, at most {limits.maximum_error:g}"
    )
    if beyond <= limits.maximum_error:
        yield passed(message)
    else:
        yield failed(message, "calibrate (the evidence has the reliability curve), and train again")
