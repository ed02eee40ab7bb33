"""What happens on the forge, and what follows. Writes events.yaml: `python workflows/events.py`.

A pull request that opens or changes is judged (`gates`); once merged, its code is trained and its
releases followed (`on-push`). What no event told of, `sweep` finds. All of them run main's code,
look at the present state rather than at the event, and may run again at any time.

Argo's server hears an event only if its signature is the forge's. Of those that Gitea signs as
GitHub does, it can read the ones of pull requests: what changes without one (an approval, a push by
`make up`) is the sweep's to find.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from hera.workflows import (
    DAG,
    ConfigMapEnvFrom,
    ConfigMapVolume,
    Container,
    CronWorkflow,
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
from hera.workflows.models import Arguments as EventArguments
from hera.workflows.models import (
    ArtifactLocation,
    Backoff,
    Capabilities,
    ConfigMapKeySelector,
    Event,
    Mutex,
    ObjectMeta,
    PodGC,
    PodSecurityContext,
    SeccompProfile,
    SecretKeySelector,
    SecurityContext,
    Submit,
    Synchronization,
    TTLStrategy,
    ValueFrom,
    WorkflowEventBinding,
    WorkflowEventBindingSpec,
    WorkflowTemplateRef,
)
from hera.workflows.models import Parameter as EventParameter

NAMESPACE = "pipelines"
USER = 10001
TMP = "/tmp"  # noqa: S108 -- a volume of the pod's own
KEYS = "/etc/slipway/evidence-keys"
ACCOUNT, DISPATCHER = "workflow", "dispatcher"
# EX_TEMPFAIL of slipway.steps, and what a killed container or a lost node leaves.
TRANSIENT = ("75", "137", "143", "255")


def _platform(key: str) -> ValueFrom:
    return ValueFrom(config_map_key_ref=ConfigMapKeySelector(name="platform", key=key))


def _forge(key: str) -> SecretKeySelector:
    return SecretKeySelector(name="forge", key=key)


def _step(
    step: str,
    *arguments: str,
    account: str = ACCOUNT,
    store: bool = False,
    memory: str = "256Mi",
    again: bool = True,
) -> Container:
    """A template that runs `python -m slipway.steps STEP` on main, as it is then.

    Args:
        store: it reads evidence, and so has the object store's credentials and the public keys.
        again: a transient failure is tried again, and the log kept; else the next run will do.
    """
    secrets = ("forge", "object-store") if store else ("forge",)
    keys = [ConfigMapVolume(name="evidence-keys", mount_path=KEYS, read_only=True)] if store else []
    return Container(
        name=step,
        image="{{workflow.parameters.training-image}}",
        command=["python", "-m", "slipway.steps", step],
        args=list(arguments) or None,
        working_dir="/src",
        service_account_name=account,
        inputs=[
            GitArtifact(
                name="source",
                path="/src",
                repo="{{workflow.parameters.forge-url}}/{{workflow.parameters.forge-repository}}.git",
                branch="main",
                single_branch=True,
                depth=1,
                username_secret=_forge("FORGE_USERNAME"),
                password_secret=_forge("FORGE_PASSWORD"),
                disable_submodules=True,
            ),
        ],
        env=[
            Env(name="HOME", value=TMP),
            Env(name="PYTHONPATH", value="/src"),
            Env(name="PYTHONDONTWRITEBYTECODE", value="1"),
            Env(name="PYTHONUNBUFFERED", value="1"),
            Env(name="OMP_NUM_THREADS", value="1"),
            *([Env(name="SLIPWAY_EVIDENCE_KEYS", value=f"{KEYS}/public.pem")] if store else []),
        ],
        env_from=[
            ConfigMapEnvFrom(name="platform"),
            *(SecretEnvFrom(name=name) for name in secrets),
        ],
        resources=Resources(
            cpu_request="50m", cpu_limit=2, memory_request="96Mi", memory_limit=memory
        ),
        security_context=SecurityContext(
            allow_privilege_escalation=False,
            capabilities=Capabilities(drop=["ALL"]),
            read_only_root_filesystem=True,
            run_as_non_root=True,
            run_as_user=USER,
            seccomp_profile=SeccompProfile(type="RuntimeDefault"),
        ),
        volumes=[EmptyDirVolume(name="tmp", mount_path=TMP), *keys],
        archive_location=None if again else ArtifactLocation(archive_logs=False),
        retry_strategy=RetryStrategy(
            limit=4,
            retry_policy="Always",
            expression=(
                'lastRetry.status == "Error" || lastRetry.exitCode in '
                f"[{', '.join(repr(code) for code in TRANSIENT)}]"
            ),
            backoff=Backoff(duration="2s", factor=2, max_duration="2m"),
        )
        if again
        else None,
    )


def _template(name: str, seconds: int, *parameters: Parameter) -> WorkflowTemplate:
    return WorkflowTemplate(
        name=name,
        namespace=NAMESPACE,
        entrypoint=name,
        service_account_name=ACCOUNT,
        active_deadline_seconds=seconds,
        # Somebody waits for a verdict; nobody does for a model that trains.
        priority=10,
        ttl_strategy=TTLStrategy(seconds_after_success=3600, seconds_after_failure=86400),
        arguments=[
            *parameters,
            Parameter(name="training-image", value_from=_platform("TRAINING_IMAGE")),
            Parameter(name="forge-url", value_from=_platform("FORGE_URL")),
            Parameter(name="forge-repository", value_from=_platform("FORGE_REPOSITORY")),
        ],
        security_context=PodSecurityContext(
            fs_group=USER,
            run_as_group=USER,
            run_as_non_root=True,
            run_as_user=USER,
            seccomp_profile=SeccompProfile(type="RuntimeDefault"),
        ),
    )


def gates() -> WorkflowTemplate:
    """Judges one pull request; another run for the same one waits for the first."""
    template = _template("gates", 600, Parameter(name="pull", description="its number"))
    template.synchronization = Synchronization(
        mutexes=[Mutex(name="gates-{{workflow.parameters.pull}}")]
    )
    with template:
        _step("gates", "--pull={{workflow.parameters.pull}}", store=True, memory="1Gi")
    return template


def on_push() -> WorkflowTemplate:
    """After main has moved: trains its code, follows its releases, judges anew what is open."""
    about = Parameter(name="commit", description="that moved main: for the record")
    with _template("on-push", 900, about) as template:
        steps = (
            _step("dispatch", account=DISPATCHER),
            _step("follow", "--wait=180"),
            _step("gates", "--all", store=True, memory="1Gi"),
        )
        with DAG(name=template.entrypoint):
            for step in steps:
                Task(name=str(step.name), template=step)
    return template


def sweep() -> WorkflowTemplate:
    """All of that for whatever nobody told of, in one pod."""
    template = _template("sweep", 600)
    # A pod that failed stays as long as its workflow, for its log.
    template.pod_gc = PodGC(strategy="OnPodSuccess")
    with template:
        _step("sweep", account=DISPATCHER, store=True, memory="1Gi", again=False)
    return template


def every_two_minutes() -> CronWorkflow:
    """Runs `sweep`, one at a time."""
    return CronWorkflow(
        name="sweep",
        namespace=NAMESPACE,
        schedules=["*/2 * * * *"],
        concurrency_policy="Forbid",
        starting_deadline_seconds=0,
        successful_jobs_history_limit=1,
        failed_jobs_history_limit=2,
        workflow_template_ref=WorkflowTemplateRef(name="sweep"),
    )


def binding(template: str, selector: str, name: str, **parameters: str) -> WorkflowEventBinding:
    """An event that starts a template.

    A delivery that is repeated, by the forge or by anybody who has seen it, gives the same `name`
    again, and so starts nothing.

    Args:
        selector: which events; an expression over `payload`, the event's body.
        name: the workflow's, an expression.
        parameters: the template's, expressions.
    """
    return WorkflowEventBinding(
        api_version="argoproj.io/v1alpha1",
        kind="WorkflowEventBinding",
        metadata=ObjectMeta(name=template, namespace=NAMESPACE),
        spec=WorkflowEventBindingSpec(
            event=Event(selector=f'discriminator == "forge" && {selector}'),
            submit=Submit(
                workflow_template_ref=WorkflowTemplateRef(name=template),
                metadata=ObjectMeta(name=name),
                arguments=EventArguments(
                    parameters=[
                        EventParameter(name=key, value_from=ValueFrom(event=expression))
                        for key, expression in parameters.items()
                    ]
                ),
            ),
        ),
    )


PULL = "payload.pull_request"
OF_MAIN = f'{PULL}.base.ref == "main"'
BINDINGS = (
    binding(
        "gates",
        f'payload.action in ["opened", "reopened", "synchronized", "edited"] && {OF_MAIN}',
        '"gates-" + string(payload.number) + "-" + sprig.trunc(12, sprig.sha256sum('
        f"payload.action + {PULL}.head.sha + {PULL}.updated_at))",
        pull="payload.number",
    ),
    binding(
        "on-push",
        f'payload.action == "closed" && {PULL}.merged && {OF_MAIN}',
        f'"on-push-" + sprig.trunc(12, {PULL}.merge_commit_sha)',
        commit=f"{PULL}.merge_commit_sha",
    ),
)


def render() -> str:
    """All of it as YAML, with the note that it is generated."""
    documents = [
        *(made().to_yaml() for made in (gates, on_push, sweep, every_two_minutes)),
        *(
            yaml.safe_dump(b.dict(by_alias=True, exclude_none=True), sort_keys=False, width=100)
            for b in BINDINGS
        ),
    ]
    return "# Generated by workflows/events.py; change that and run it.\n" + "---\n".join(documents)


if __name__ == "__main__":
    Path(__file__).with_suffix(".yaml").write_text(render())
