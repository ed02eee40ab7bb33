"""What is said to happen in so many of a hundred cases does."""

from __future__ import annotations

from collections.abc import Iterator

from slipway.evidence import Share
from slipway.gates import Finding, NotEvaluated, Subject, failed, passed
from slipway.release import Strict


class Limits(Strict):
    """Expected calibration error over ten bins, on the holdout; of values, in the outcome's
    deviations."""

    maximum_error: Share


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    error = subject.found().evaluation.metrics.get("calibration_error")
    if error is None:
        raise NotEvaluated("the evidence has no calibration_error", fix="train again")
    message = (
        f"calibration error {error.value:.4f} [{error.low:.4f}, {error.high:.4f}], "
        f"at most {limits.maximum_error:g}"
    )
    if error.value <= limits.maximum_error:
        yield passed(message)
    else:
        yield failed(message, "calibrate (the evidence has the reliability curve), and train again")
