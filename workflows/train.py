"""The workflow that trains a model, signs what it found, and proposes the new bento."""

from __future__ import annotations

from hera.workflows import DAG, Parameter, WorkflowTemplate

from workflows import steps
from workflows.steps import COMMIT, MODEL, chain, parameter, proposing, step, template


def workflow() -> WorkflowTemplate:
    """WorkflowTemplate `train`."""
    commit = MODEL | {"commit": COMMIT}
    with template(
        "train",
        Parameter(name="model", description="folder under bentos/"),
        Parameter(name="commit", description="of this repository, 40 hex digits"),
        Parameter(name="environment", value="dev"),
        Parameter(name="dry-run", value="false", description="true: nothing is proposed"),
        entrypoint="train-and-propose",
        trains=True,
    ) as made:
        chained = (
            step("ingest", (), ("data",), constants=MODEL),
            step("validate", ("data",), ("data", "validation"), constants=MODEL),
            step(
                "train",
                ("data",),
                ("model-digest", "run", "version"),
                constants=commit,
                memory="2Gi",
                verifies=True,
            ),
            step(
                "evaluate",
                ("data", "model-digest", "run", "validation"),
                ("evaluation",),
                constants=commit,
            ),
            step(
                "package",
                ("evaluation",),
                ("bento", "bento-size", "serving", "dependencies", "version"),
                constants=MODEL,
            ),
            *proposing(
                settled={"commit": COMMIT, "runtime-image": parameter("serving-image")},
                dry_run=parameter("dry-run"),
            ),
        )
        with DAG(name=made.entrypoint):
            chain(*chained)
    return made


def render() -> str:
    """It as YAML."""
    return steps.render(workflow())
