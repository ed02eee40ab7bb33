"""The workflow that proposes to one environment what another one runs, on evidence of its own."""

from __future__ import annotations

from hera.workflows import DAG, Parameter, WorkflowTemplate

from workflows import steps
from workflows.steps import MAIN, SETTLED, TARGET, chain, parameter, proposing, step, template


def workflow() -> WorkflowTemplate:
    """WorkflowTemplate `promote`."""
    with template(
        "promote",
        Parameter(name="model", description="folder under bentos/"),
        Parameter(name="environment", description="where it is to run"),
        Parameter(name="from-environment", description="whose release is promoted"),
        Parameter(name="break-glass", value="", description="content of a break-glass file"),
        Parameter(name="dry-run", value="false", description="true: nothing is pushed"),
        Parameter(name="requested-by", value="", description="who asks for it, for the record"),
        entrypoint="promote",
        images=("training-image",),
    ) as made:
        chained = (
            step(
                "select",
                (),
                (
                    "evaluation",
                    "serving",
                    "dependencies",
                    "bento",
                    "bento-size",
                    "version",
                    *SETTLED,
                ),
                constants=TARGET | {"from-environment": parameter("from-environment")},
                revision=MAIN,
                verifies=True,
            ),
            *proposing(
                break_glass=parameter("break-glass"),
                dry_run=parameter("dry-run"),
                requested_by=parameter("requested-by"),
            ),
        )
        with DAG(name=made.entrypoint):
            chain(*chained)
    return made


def render() -> str:
    """It as YAML."""
    return steps.render(workflow())
