"""What the workflows share: the template of each step, and how steps are put together.

Steps exchange digests, not paths, and each is safe to run again: equal content is the same object.

A step runs the trained commit's code or, where it judges that code or speaks for the platform,
main's (`MAIN`). Only `attest` is given the signing key.
"""

from __future__ import annotations

from collections.abc import Sequence

from hera.workflows import (
    ConfigMapEnvFrom,
    ConfigMapVolume,
    Container,
    EmptyDirVolume,
    Env,
    HTTPArtifact,
    Parameter,
    Resources,
    RetryStrategy,
    SecretEnvFrom,
    SecretVolume,
    Task,
    WorkflowTemplate,
)
from hera.workflows.models import (
    Backoff,
    BasicAuth,
    Capabilities,
    ConfigMapKeySelector,
    HTTPAuth,
    Mutex,
    PodSecurityContext,
    SeccompProfile,
    SecretKeySelector,
    SecurityContext,
    SemaphoreRef,
    Synchronization,
    ValueFrom,
)

from slipway import github

USER = 10001
TMP = "/tmp"  # noqa: S108 -- a volume of the pod's own
# EX_TEMPFAIL of slipway.steps, and what a killed container or a lost node leaves. Other failures
# (bad input, invalid data) would only fail again.
TRANSIENT = ("75", "137", "143", "255")
# In full: of a tag and a branch of the same name the tag is taken.
COMMIT, MAIN = "{{workflow.parameters.commit}}", "refs/heads/main"
STORE, FORGE = "object-store", "forge"


def parameter(name: str) -> str:
    """A workflow parameter's value."""
    return f"{{{{workflow.parameters.{name}}}}}"


def step(
    name: str,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    *,
    image: str = "training-image",
    constants: dict[str, str] | None = None,
    revision: str = COMMIT,
    secrets: Sequence[str] = (STORE,),
    memory: str = "1Gi",
    gpus: int | None = None,
    seconds: int = 1200,
    verifies: bool = False,
    signs: bool = False,
    account: str | None = None,
    asks: bool = False,
    mutex: str | None = None,
) -> Container:
    """A template that runs `python -m slipway.steps NAME` on the code of `revision`.

    Args:
        inputs: flags whose values are outputs of earlier steps.
        image: the workflow's parameter that names it.
        constants: further flags with their values, workflow parameters among them.
        secrets: whose keys become environment variables.
        verifies: it finds the public keys that evidence is verified with.
        signs: it finds the signing key too.
        account: its ServiceAccount; None for the workflow's.
        asks: it finds that account's token, by which it asks the API server.
        mutex: at most one step of this name runs at a time, in whatever workflow.
    """
    flags = {key: f"{{{{inputs.parameters.{key}}}}}" for key in inputs} | (constants or {})
    volumes = [EmptyDirVolume(name="tmp", mount_path=TMP)]
    env = {
        "HOME": TMP,
        "PYTHONPATH": "/src",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        # Threads of numeric libraries that wait for each other by spinning cost the other pods of
        # a small node more than they give.
        "OMP_NUM_THREADS": "1",
    }
    if verifies:
        volumes.append(
            ConfigMapVolume(name="evidence-keys", mount_path="/evidence-keys", read_only=True)
        )
        env["SLIPWAY_EVIDENCE_KEYS"] = "/evidence-keys/public.pem"
    if signs:
        volumes.append(
            SecretVolume(
                name="evidence-key",
                secret_name="evidence-key",  # noqa: S106 -- its name, not its content
                mount_path="/keys",
                read_only=True,
            )
        )
        env["SLIPWAY_SIGNING_KEY"] = "/keys/private.pem"
    return Container(
        name=name,
        image=parameter(image),
        command=["python", "-m", "slipway.steps", name],
        args=[*(f"--{key}={value}" for key, value in flags.items()), f"--output-dir={TMP}/outputs"],
        working_dir="/src",
        inputs=[*(Parameter(name=key) for key in inputs), source(revision)],
        outputs=[
            Parameter(name=key, value_from=ValueFrom(path=f"{TMP}/outputs/{key}"))
            for key in outputs
        ],
        env=[Env(name=key, value=value) for key, value in env.items()],
        env_from=[
            ConfigMapEnvFrom(name="platform"),
            *(SecretEnvFrom(name=secret) for secret in secrets),
        ],
        resources=Resources(
            cpu_request="20m",
            cpu_limit=2,
            memory_request="256Mi",
            memory_limit=memory,
            gpus=gpus,
        ),
        security_context=SecurityContext(
            allow_privilege_escalation=False,
            capabilities=Capabilities(drop=["ALL"]),
            read_only_root_filesystem=True,
            run_as_non_root=True,
            run_as_user=USER,
            seccomp_profile=SeccompProfile(type="RuntimeDefault"),
        ),
        service_account_name=account,
        automount_service_account_token=True if asks else None,
        synchronization=Synchronization(mutexes=[Mutex(name=mutex)]) if mutex else None,
        volumes=volumes,
        active_deadline_seconds=seconds,
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


def source(revision: str) -> HTTPArtifact:
    """The repository at a revision of the forge's, as /src.

    As the forge packs it (.gitattributes): a clone by a commit's name brings all that was ever
    committed. Where that is follows from parameters that no workflow can choose.
    """
    username, password = (
        SecretKeySelector(name=FORGE, key=f"FORGE_{name}") for name in ("USERNAME", "PASSWORD")
    )
    url, repository = (f"workflow.parameters['forge-{name}']" for name in ("url", "repository"))
    name = revision.strip("{}") if revision == COMMIT else f"'{revision}'"
    return HTTPArtifact(
        name="source",
        path="/src",
        url=(
            f"{{{{={url} matches '{github.APIS}'"
            f" ? {url} + '/repos/' + {repository} + '/tarball/' + {name}"
            f" : {url} + '/' + {repository} + '/archive/' + {name} + '.tar.gz'}}}}"
        ),
        auth=HTTPAuth(basic_auth=BasicAuth(username_secret=username, password_secret=password)),
    )


def chain(*steps: Container) -> None:
    """Tasks one after the other, each given what the nearest before it put out by that name."""
    made: dict[str, Parameter] = {}
    last: Task | None = None
    for container in steps:
        wanted = [i.name for i in container.inputs if isinstance(i, Parameter)]
        if missing := [name for name in wanted if name not in made]:
            raise ValueError(f"{container.name}: no step before it puts out {missing}")
        task = Task(
            name=container.name, template=container, arguments=[made[name] for name in wanted]
        )
        made |= {o.name: task.get_parameter(o.name) for o in container.outputs}
        if last:
            last >> task
        last = task


def template(
    name: str,
    *parameters: Parameter,
    entrypoint: str,
    images: Sequence[str] = ("training-image", "serving-image"),
    seconds: int = 3600,
    account: str = "workflow",
    trains: bool = False,
) -> WorkflowTemplate:
    """WorkflowTemplate `name` in pipelines; steps and a DAG are added inside `with`.

    Args:
        parameters: those that whoever submits it gives.
        trains: it waits for its turn among the workflows that train.
    """
    turn = SemaphoreRef(config_map_key_ref=ConfigMapKeySelector(name="limits", key="training"))
    return WorkflowTemplate(
        name=name,
        namespace="pipelines",
        entrypoint=entrypoint,
        service_account_name=account,
        arguments=[
            *parameters,
            *(
                Parameter(
                    name=key,
                    value_from=ValueFrom(
                        config_map_key_ref=ConfigMapKeySelector(
                            name="platform", key=key.replace("-", "_").upper()
                        )
                    ),
                )
                for key in (*images, "forge-url", "forge-repository")
            ),
        ],
        synchronization=Synchronization(semaphores=[turn]) if trains else None,
        active_deadline_seconds=seconds,
        security_context=PodSecurityContext(
            fs_group=USER,
            run_as_group=USER,
            run_as_non_root=True,
            run_as_user=USER,
            seccomp_profile=SeccompProfile(type="RuntimeDefault"),
        ),
    )


def render(workflow: WorkflowTemplate) -> str:
    """The template as YAML, with the note that it is generated."""
    note = f"# Generated: change workflows/{workflow.name}.py and run `python -m workflows`.\n"
    return note + str(workflow.to_yaml())


MODEL = {"model": parameter("model")}
TARGET = MODEL | {"environment": parameter("environment")}
# What evidence is about, and no step that runs the trained commit's code may say.
SETTLED = ("commit", "runtime-image")


def proposing(
    *,
    settled: dict[str, str] | None = None,
    break_glass: str = "",
    dry_run: str = "false",
    requested_by: str = "",
) -> tuple[Container, ...]:
    """Steps that compare a packaged bento with the champion, sign what they found, and propose it.

    Args:
        settled: of `SETTLED` what the workflow says itself. The rest an earlier step of main's code
            puts out; never one of the trained commit's, which would speak for itself.
    """
    settled = settled or {}
    rescore = step(
        "rescore",
        ("evaluation",),
        ("champion", "champion-predictions"),
        constants=TARGET,
        revision=MAIN,
        secrets=(STORE, FORGE),
        memory="2Gi",
        verifies=True,
    )
    attest = step(
        "attest",
        (
            "evaluation",
            "serving",
            "dependencies",
            "bento",
            "bento-size",
            "version",
            "champion",
            "champion-predictions",
            *(name for name in SETTLED if name not in settled),
        ),
        ("evidence",),
        constants=TARGET | settled,
        revision=MAIN,
        memory="2Gi",
        verifies=True,
        signs=True,
        account="evidence",
    )
    propose = step(
        "propose",
        ("evidence",),
        ("pull-request", "note", "release"),
        constants=TARGET
        | {"break-glass": break_glass, "dry-run": dry_run, "requested-by": requested_by},
        revision=MAIN,
        secrets=(STORE, FORGE),
        verifies=True,
        # Two proposals of one model at once would close each other's pull requests.
        mutex=f"propose-{parameter('model')}-{parameter('environment')}",
    )
    return rescore, attest, propose
