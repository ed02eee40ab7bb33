"""The workflow that trains a model and proposes it. Writes train.yaml: `python workflows/train.py`.

Steps exchange digests, not paths, and each is safe to run again: a retried or resumed workflow
finds what earlier attempts left in the object store and in MLflow.
"""

from __future__ import annotations

from pathlib import Path

from hera.workflows import (
    DAG,
    ConfigMapEnvFrom,
    Container,
    EmptyDirVolume,
    Env,
    GitArtifact,
    Parameter,
    Resources,
    RetryStrategy,
    SecretEnvFrom,
    Task,
    WorkflowTemplate,
)
from hera.workflows.models import (
    Backoff,
    Capabilities,
    ConfigMapKeySelector,
    PodSecurityContext,
    SeccompProfile,
    SecretKeySelector,
    SecurityContext,
    ValueFrom,
)

USER = 10001
TMP = "/tmp"  # noqa: S108 -- a volume of the pod's own
# EX_TEMPFAIL of slipway.steps, and what a killed container or a lost node leaves. Other failures
# (bad input, invalid data) would only fail again.
TRANSIENT = ("75", "137", "143", "255")


def _platform(key: str) -> ValueFrom:
    return ValueFrom(config_map_key_ref=ConfigMapKeySelector(name="platform", key=key))


def _forge(key: str) -> SecretKeySelector:
    return SecretKeySelector(name="forge", key=key)


def _step(
    step: str,
    inputs: tuple[str, ...] = (),
    outputs: tuple[str, ...] = (),
    *,
    constants: dict[str, str] | None = None,
    secrets: tuple[str, ...] = ("object-store",),
    memory: str = "1Gi",
) -> Container:
    """A template that runs `python -m slipway.steps STEP` on the workflow's commit."""
    flags = {"model": "{{workflow.parameters.model}}"}
    flags |= {name: f"{{{{inputs.parameters.{name}}}}}" for name in inputs} | (constants or {})
    return Container(
        name=step,
        image="{{workflow.parameters.training-image}}",
        command=["python", "-m", "slipway.steps", step],
        args=[
            *(f"--{name}={value}" for name, value in flags.items()),
            f"--output-dir={TMP}/outputs",
        ],
        working_dir="/src",
        inputs=[
            *(Parameter(name=name) for name in inputs),
            GitArtifact(
                name="source",
                path="/src",
                repo="{{workflow.parameters.forge-url}}/{{workflow.parameters.forge-repository}}.git",
                revision="{{workflow.parameters.commit}}",
                username_secret=_forge("FORGE_USERNAME"),
                password_secret=_forge("FORGE_PASSWORD"),
                disable_submodules=True,
            ),
        ],
        outputs=[
            Parameter(name=name, value_from=ValueFrom(path=f"{TMP}/outputs/{name}"))
            for name in outputs
        ],
        env=[
            Env(name="HOME", value=TMP),
            Env(name="PYTHONPATH", value="/src"),
            Env(name="PYTHONDONTWRITEBYTECODE", value="1"),
            Env(name="PYTHONUNBUFFERED", value="1"),
            # Threads of numeric libraries that wait for each other by spinning cost the other pods
            # of a small node more than they give.
            Env(name="OMP_NUM_THREADS", value="1"),
        ],
        env_from=[
            ConfigMapEnvFrom(name="platform"),
            *(SecretEnvFrom(name=name) for name in secrets),
        ],
        resources=Resources(
            cpu_request="100m", cpu_limit=2, memory_request="256Mi", memory_limit=memory
        ),
        security_context=SecurityContext(
            allow_privilege_escalation=False,
            capabilities=Capabilities(drop=["ALL"]),
            read_only_root_filesystem=True,
            run_as_non_root=True,
            run_as_user=USER,
            seccomp_profile=SeccompProfile(type="RuntimeDefault"),
        ),
        volumes=[EmptyDirVolume(name="tmp", mount_path=TMP)],
        active_deadline_seconds=1200,
        retry_strategy=RetryStrategy(
            limit=4,
            retry_policy="Always",
            expression=(
                'lastRetry.status == "Error" || lastRetry.exitCode in '
                f"[{', '.join(repr(code) for code in TRANSIENT)}]"
            ),
            backoff=Backoff(duration="5s", factor=2, max_duration="5m"),
        ),
    )


def workflow() -> WorkflowTemplate:
    """WorkflowTemplate `train`."""
    with WorkflowTemplate(
        name="train",
        namespace="pipelines",
        entrypoint="train-and-propose",
        service_account_name="workflow",
        arguments=[
            Parameter(name="model", description="folder under bentos/"),
            Parameter(name="commit", description="of this repository, 40 hex digits"),
            Parameter(name="environment", value="dev"),
            Parameter(name="training-image", value_from=_platform("TRAINING_IMAGE")),
            Parameter(name="serving-image", value_from=_platform("SERVING_IMAGE")),
            Parameter(name="forge-url", value_from=_platform("FORGE_URL")),
            Parameter(name="forge-repository", value_from=_platform("FORGE_REPOSITORY")),
        ],
        active_deadline_seconds=3600,
        security_context=PodSecurityContext(
            fs_group=USER,
            run_as_group=USER,
            run_as_non_root=True,
            run_as_user=USER,
            seccomp_profile=SeccompProfile(type="RuntimeDefault"),
        ),
    ) as template:
        commit = {"commit": "{{workflow.parameters.commit}}"}
        ingest = _step("ingest", outputs=("data",))
        validate = _step("validate", ("data",), ("data",))
        train = _step(
            "train",
            ("data",),
            ("model-digest", "run", "version"),
            constants=commit,
            memory="2Gi",
        )
        evaluate = _step(
            "evaluate", ("data", "model-digest", "run"), ("evaluation",), constants=commit
        )
        package = _step("package", ("evaluation",), ("bento", "evidence", "version"))
        propose = _step(
            "propose",
            ("evidence", "version"),
            ("pull-request",),
            constants={
                "environment": "{{workflow.parameters.environment}}",
                "runtime-image": "{{workflow.parameters.serving-image}}",
            },
            secrets=("object-store", "forge"),
        )
        with DAG(name=template.entrypoint):
            a = Task(name="ingest", template=ingest)
            b = Task(name="validate", template=validate, arguments=[a.get_parameter("data")])
            c = Task(name="train", template=train, arguments=[b.get_parameter("data")])
            d = Task(
                name="evaluate",
                template=evaluate,
                arguments=[
                    b.get_parameter("data"),
                    c.get_parameter("model-digest"),
                    c.get_parameter("run"),
                ],
            )
            e = Task(name="package", template=package, arguments=[d.get_parameter("evaluation")])
            f = Task(
                name="propose",
                template=propose,
                arguments=[e.get_parameter("evidence"), e.get_parameter("version")],
            )
            a >> b >> c >> d >> e >> f
    return template


def render() -> str:
    """The template as YAML, with the note that it is generated."""
    return f"# Generated by workflows/train.py; change that and run it.\n{workflow().to_yaml()}"


if __name__ == "__main__":
    Path(__file__).with_suffix(".yaml").write_text(render())
