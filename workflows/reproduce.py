"""The workflow that makes a bento once more, from a commit, and registers nothing."""

from __future__ import annotations

from hera.workflows import DAG, Parameter, Task, WorkflowTemplate
from hera.workflows.models import ConfigMapKeySelector, ContinueOn, ValueFrom

from workflows import steps
from workflows.steps import MODEL, chain, parameter, step, template

# Admission lets a workflow name a former image of the same name here: nothing signs in it.
IMAGE = Parameter(
    name="image",
    value_from=ValueFrom(
        config_map_key_ref=ConfigMapKeySelector(name="platform", key="TRAINING_IMAGE")
    ),
)


def workflow() -> WorkflowTemplate:
    """WorkflowTemplate `reproduce`."""
    with template(
        "reproduce",
        Parameter(name="model", description="folder under bentos/"),
        Parameter(name="commit", description="of this repository, 40 hex digits"),
        Parameter(name="data", description="digest of the dataset, which is in the store"),
        IMAGE,
        entrypoint="reproduce",
        images=(),
        trains=True,
    ) as made:
        rebuild = step(
            "rebuild",
            (),
            ("code", "model-digest", "bento"),
            image=IMAGE.name,
            constants={**MODEL, "data": parameter("data")},
            memory="2Gi",
        )
        source = step("ingest", (), ("data",), image=IMAGE.name, constants=MODEL)
        with DAG(name=made.entrypoint):
            chain(rebuild)
            # What the source gives today is told beside it, and may have moved, or be gone.
            anyhow = ContinueOn(failed=True, error=True)
            Task(name=source.name, template=source, continue_on=anyhow)
    return made


def render() -> str:
    """It as YAML."""
    return steps.render(workflow())
