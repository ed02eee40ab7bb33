"""The workflow that makes a bento once more, from a commit, and registers nothing."""

from __future__ import annotations

from hera.workflows import DAG, Parameter, WorkflowTemplate

from workflows import steps
from workflows.steps import MODEL, chain, step, template


def workflow() -> WorkflowTemplate:
    """WorkflowTemplate `reproduce`."""
    with template(
        "reproduce",
        Parameter(name="model", description="folder under bentos/"),
        Parameter(name="commit", description="of this repository, 40 hex digits"),
        entrypoint="reproduce",
        images=("training-image",),
        trains=True,
    ) as made:
        chained = (
            step("ingest", (), ("data",), constants=MODEL),
            step("validate", ("data",), ("data", "validation"), constants=MODEL),
            step(
                "rebuild",
                ("data",),
                ("code", "model-digest", "bento"),
                constants=MODEL,
                memory="2Gi",
            ),
        )
        with DAG(name=made.entrypoint):
            chain(*chained)
    return made


def render() -> str:
    """It as YAML."""
    return steps.render(workflow())
