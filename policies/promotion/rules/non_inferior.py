"""No metric that has a margin may be worse than the champion's by more than it: this is proven."""

from __future__ import annotations

from collections.abc import Iterator

from slipway.gates import Finding, NotEvaluated, Subject, difference, failed, passed
from slipway.release import Strict


class Limits(Strict):
    """Nothing to set here: margins and level are those of the block `evidence`."""


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    compared, asked = subject.compared(), subject.policy.evidence
    if compared is None:
        yield subject.no_champion
        return
    task = subject.found().evaluation.task
    if not (margins := asked.whole(task)):
        raise NotEvaluated(
            f"no metric of {task} has a margin",
            fix=f"{subject.policy.file}: name some in evidence.margins",
        )
    tests = {t.metric: t for t in compared.tests if t.kind == "non_inferiority" and not t.column}
    for metric, margin in margins.items():
        test = tests.get(metric)
        if test is None:
            yield failed(f"{metric}: not evaluated: the evidence has no such test", subject.again)
        elif (test.margin, test.alpha) != (margin, asked.alpha):
            yield failed(
                f"{metric}: tested with margin {test.margin:g} and α {test.alpha:g}, "
                f"{subject.policy.file} says {margin:g} and {asked.alpha:g}",
                subject.again,
            )
        elif test.passed:
            yield passed(difference(test))
        else:
            yield failed(difference(test), "train a better model, or keep the champion")
