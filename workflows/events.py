"""What happens on the forge, and what follows.

A pull request that opens or changes is judged (`gates`); once merged, those that passed before are
held until they are judged again, its code is trained and its releases followed (`on-push`). What no
event told of, `sweep` finds. All of them run main's code, look at the present state rather than at
the event, and may run again at any time.

Argo's server hears an event only if its signature is the forge's. Of those that Gitea signs as
GitHub does, it can read the ones of pull requests: what changes without one (an approval, a push by
`make up`) is the sweep's to find. GitHub's own have another word for a head that moved.
"""

from __future__ import annotations

import yaml
from hera.workflows import Container, CronWorkflow, Parameter, Steps, Suspend, WorkflowTemplate
from hera.workflows.models import (
    Arguments,
    ArtifactLocation,
    ContinueOn,
    Event,
    Mutex,
    ObjectMeta,
    PodGC,
    Submit,
    Synchronization,
    TTLStrategy,
    ValueFrom,
    WorkflowEventBinding,
    WorkflowEventBindingSpec,
    WorkflowTemplateRef,
)
from hera.workflows.models import Parameter as EventParameter

from workflows.steps import FORGE, MAIN, STORE, parameter, step, template

NAMESPACE = "pipelines"
# As infra/platform/gitea.py calls it.
BOT = "slipway-bot"
# A release that is merged has the node's processors to itself for so long: its callers wait, and
# nobody does for the alias that follows it.
ROLLOUT = "12s"
# May start the workflows that train.
DISPATCHER = "dispatcher"


def _template(name: str, *parameters: Parameter) -> WorkflowTemplate:
    made = template(name, *parameters, entrypoint=name, images=("training-image",), seconds=900)
    # Somebody waits for a verdict; nobody does for a model that trains.
    made.priority = 10
    made.ttl_strategy = TTLStrategy(seconds_after_success=3600, seconds_after_failure=86400)
    return made


def gates() -> WorkflowTemplate:
    """Judges one pull request; another run for the same one waits for the first."""
    made = _template("gates", Parameter(name="pull", description="its number"))
    made.synchronization = Synchronization(mutexes=[Mutex(name=f"gates-{parameter('pull')}")])
    with made:
        step(
            "gates",
            constants={"pull": parameter("pull")},
            revision=MAIN,
            secrets=(STORE, FORGE),
            verifies=True,
        )
    return made


def _all(**constants: str) -> Container:
    """One pod for all."""
    return step(
        "sweep",
        constants=constants,
        revision=MAIN,
        secrets=(STORE, FORGE),
        verifies=True,
        account=DISPATCHER,
        asks=True,
    )


def on_push() -> WorkflowTemplate:
    """After main has moved: holds what is open, trains its code, judges anew, follows releases."""
    made = _template(
        "on-push",
        Parameter(name="commit", description="that moved main: for the record"),
        Parameter(name="others", value="1", description="how many pull requests are open"),
        Parameter(name="pause", value="0s", description="before it starts a pod of its own"),
    )
    with made:
        hold = step("hold", revision=MAIN, secrets=(FORGE,))
        pause, work = Suspend(name="pause", duration=parameter("pause")), _all(wait="180")
        with Steps(name=made.entrypoint):
            # Not to be held is no reason not to be judged.
            lenient = ContinueOn(error=True, failed=True)
            hold(when=f"{parameter('others')} > 0", continue_on=lenient)
            pause()
            work()
    return made


def sweep() -> WorkflowTemplate:
    """The same for whatever nobody told of."""
    made = _template("sweep")
    # Its log is of interest where it failed: then the pod stays as long as the workflow.
    made.pod_gc = PodGC(strategy="OnPodSuccess")
    with made:
        _all().archive_location = ArtifactLocation(archive_logs=False)
    return made


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


def binding(name: str, selector: str, workflow: str, **parameters: str) -> WorkflowEventBinding:
    """An event that starts the template `name`.

    A delivery that is repeated, by the forge or by anybody who has seen it, gives the same
    `workflow` again, and so starts nothing.

    Args:
        selector: which events; an expression over `payload`, the event's body.
        workflow: its name, an expression.
        parameters: the template's, expressions.
    """
    values = [
        EventParameter(name=key, value_from=ValueFrom(event=expression))
        for key, expression in parameters.items()
    ]
    return WorkflowEventBinding(
        api_version="argoproj.io/v1alpha1",
        kind="WorkflowEventBinding",
        metadata=ObjectMeta(name=name, namespace=NAMESPACE),
        spec=WorkflowEventBindingSpec(
            event=Event(selector=f'discriminator == "forge" && {selector}'),
            submit=Submit(
                workflow_template_ref=WorkflowTemplateRef(name=name),
                metadata=ObjectMeta(name=workflow),
                arguments=Arguments(parameters=values),
            ),
        ),
    )


PULL = "payload.pull_request"
OF_MAIN = f'{PULL}.base.ref == "main"'
# Gitea tells of a branch that has just been opened as of one that changed, too; it is judged once.
MOVED = '"synchronized", "synchronize"'
CHANGE = f'(payload.action in ["opened", {MOVED}] ? "" : payload.action + {PULL}.updated_at)'
# As Gitea counts them; GitHub counts issues among them.
OTHERS = "payload.repository?.open_pr_counter ?? payload.repository?.open_issues_count ?? 1"
BINDINGS = (
    binding(
        "gates",
        f'payload.action in ["opened", "reopened", "edited", {MOVED}] && {OF_MAIN}'
        # The plot of a verdict, which the bot attaches, is an edit too.
        f' && !(payload.action == "edited" && payload.sender?.login == "{BOT}")',
        '"gates-" + string(payload.number) + "-" + sprig.trunc(12, sprig.sha256sum('
        f"{CHANGE} + {PULL}.head.sha))",
        pull="payload.number",
    ),
    binding(
        "on-push",
        f'payload.action == "closed" && {PULL}.merged && {OF_MAIN}',
        f'"on-push-" + sprig.trunc(12, {PULL}.merge_commit_sha)',
        commit=f"{PULL}.merge_commit_sha",
        others=OTHERS,
        pause=f'{PULL}.head.ref matches "^(release|rollback)/" ? "{ROLLOUT}" : "0s"',
    ),
)


def render() -> str:
    """All of it as YAML, with the note that it is generated."""
    documents = [str(made().to_yaml()) for made in (gates, on_push, sweep, every_two_minutes)]
    for made in BINDINGS:
        content = made.dict(by_alias=True, exclude_none=True)
        documents.append(yaml.safe_dump(content, sort_keys=False, width=100))
    note = "# Generated: change workflows/events.py and run `python -m workflows`.\n"
    return note + "---\n".join(documents)
