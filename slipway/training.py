"""Workflows on the platform, started, found and followed; the one that trains a model above all."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from slipway import publish, release
from slipway.digests import Digest
from slipway.endpoints import Cluster, part, parts, patiently
from slipway.errors import BadInput, SlipwayError
from slipway.forge import Forge, ForgeError, NotFound, PullRequest
from slipway.release import Release
from slipway.repository import empty

NAMESPACE, TEMPLATE = "pipelines", "train"
API = f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}"
RUNNING, SUCCEEDED = ("", "Pending", "Running"), "Succeeded"


@dataclass(frozen=True)
class Step:
    """A step of a workflow. `seconds` it has taken so far; `node` is Argo's name for it."""

    name: str
    phase: str
    seconds: float
    message: str
    node: str


@dataclass(frozen=True)
class Workflow:
    """A workflow as it stands; `outputs` are what its steps have put out so far, by name."""

    name: str
    phase: str
    message: str
    steps: tuple[Step, ...]
    outputs: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def ended(self) -> bool:
        return self.phase not in RUNNING

    def began(self, step: str) -> bool:
        """Whether a step has run, or tries to."""
        return any(s.name == step and s.phase not in ("", "Pending", "Omitted") for s in self.steps)


def submit(
    cluster: Cluster,
    template: str,
    values: Mapping[str, str],
    labels: Mapping[str, str],
    *,
    name: str = "",
) -> Workflow:
    """Starts the workflow of a template.

    Args:
        values: its parameters.
        labels: what `newest` finds it by; the model among them.
        name: its name; without, one that nothing else has.

    Raises:
        ClusterError: status 409, there is one of that name.
        SlipwayError: the platform has no such template yet.
    """
    if cluster.find(f"{API}/workflowtemplates/{template}") is None:
        raise SlipwayError(
            f"the cluster has no WorkflowTemplate {NAMESPACE}/{template}",
            fix="see whether Argo CD has synced the application `workflows`, or run `make up`",
        )
    prefix = f"{template}-{release.service(labels['model'])}-"
    body = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            **({"name": name} if name else {"generateName": prefix}),
            "labels": {f"slipway.dev/{key}": value for key, value in labels.items()},
        },
        "spec": {
            "workflowTemplateRef": {"name": template},
            "arguments": {
                "parameters": [{"name": key, "value": value} for key, value in values.items()]
            },
        },
    }
    return read(cluster.create(f"{API}/workflows", body))


def newest(cluster: Cluster, labels: Mapping[str, str]) -> list[Workflow]:
    """The workflows that have all of these labels, the newest first."""
    selector = ",".join(f"slipway.dev/{key}={value}" for key, value in labels.items())
    found = cluster.items(f"{API}/workflows", labelSelector=selector)
    found.sort(key=lambda item: item["metadata"]["creationTimestamp"], reverse=True)
    return [read(item) for item in found]


def start(
    cluster: Cluster,
    model: str,
    commit: str,
    environment: str,
    *,
    code: Digest = "",
    dry_run: bool = False,
) -> Workflow:
    """Submits the workflow for `commit` (40 hex).

    Given the digest of the code, it is named by that: a second one for the same code is refused.
    A dry run ends with evidence and proposes nothing.

    Raises:
        ClusterError: status 409, there is one for this code.
        SlipwayError: the platform has no such workflow yet.
    """
    values = _values(model, commit, environment, dry_run=dry_run)
    name = f"{TEMPLATE}-{release.service(model)}-{code[7:19]}" if code else ""
    return submit(cluster, TEMPLATE, values, values, name=name)


def find(
    cluster: Cluster, model: str, commit: str, environment: str, *, dry_run: bool = False
) -> Workflow | None:
    """The newest workflow for the same of all these, if one runs or succeeded."""
    found = newest(cluster, _values(model, commit, environment, dry_run=dry_run))
    return next((w for w in found if not w.ended or w.phase == SUCCEEDED), None)


def workflows(cluster: Cluster, model: str, environment: str) -> dict[str, str]:
    """The commit that each training workflow is about, whatever became of it, by its name.

    Dry runs are left out: what they tried is yet to be proposed.
    """
    selector = f"slipway.dev/model={model},slipway.dev/environment={environment}"
    return {
        item["metadata"]["name"]: part(item, "metadata", "labels", "slipway.dev/commit") or ""
        for item in cluster.items(f"{API}/workflows", labelSelector=selector)
        if part(item, "metadata", "labels", "slipway.dev/dry-run") != "true"
    }


def _values(model: str, commit: str, environment: str, *, dry_run: bool) -> dict[str, str]:
    """Parameters of a training, and the labels that it is found by."""
    return {
        "model": model,
        "commit": commit,
        "environment": environment,
        "dry-run": str(dry_run).lower(),
    }


def follow(
    cluster: Cluster,
    name: str,
    say: Callable[[str], None] = lambda _: None,
    *,
    every_s: float = 1.0,
) -> Iterator[Workflow]:
    """The workflow as it stands, again and again; the last one has ended.

    An API server that is away for a while is waited for, and `say` told so: the workflow goes on
    without it.
    """
    while True:
        found = patiently(lambda: cluster.find(f"{API}/workflows/{name}"), say)
        if found is None:
            raise SlipwayError(f"workflow {name} is gone", fix="start it again")
        workflow = read(found)
        yield workflow
        if workflow.ended:
            return
        time.sleep(every_s)


def failure(cluster: Cluster, workflow: Workflow, *, lines: int = 30) -> str:
    """Which step failed and the last lines it wrote."""
    failed = [s for s in workflow.steps if s.phase in ("Failed", "Error")]
    if not failed:
        return f"{workflow.name}: {workflow.phase} {workflow.message}".rstrip()
    step = failed[-1]
    log = _log(cluster, workflow.name, step.node, lines)
    said = log.rstrip() if log else "(it left no log)"
    return f"{workflow.name}: step {step.name} failed: {step.message}\n{said}"


def commit_of(forge: Forge, revision: str | None) -> str:
    """The forge's commit that `revision` names (main's head by default): workflows take code there.

    Raises:
        BadInput: the forge has no such commit.
    """
    try:
        return forge.commit(revision or "main")
    except NotFound:
        raise BadInput(
            f"the forge has no commit {revision or 'main'}",
            field="commit",
            fix="push it first, or leave --commit out to train the forge's main",
        ) from None


def check_model(forge: Forge, model: str, commit: str, *, named: str = "") -> None:
    """`BadInput` unless bentos/<model>/ is in `commit`, which was `named` so: a branch, mostly."""
    release.check_model_name(model)
    if not has_model(forge, model, commit):
        looked_at = "commit" if not named or commit.startswith(named) else f"{named} at"
        raise BadInput(
            f"the forge's {looked_at} {commit[:12]} has no bentos/{model}/model.yaml",
            field="model",
            fix="push the branch that has it and merge it; or, once pushed, try it with --commit "
            f"BRANCH (`slipway new {model}` makes the folder where there is none)",
        )


def has_model(forge: Forge, model: str, commit: str) -> bool:
    """Whether bentos/<model>/ is in a commit."""
    return f"bentos/{model}/model.yaml" in forge.files(f"bentos/{model}", commit)


def is_released(forge: Forge, model: str, environment: str) -> bool:
    """Whether the forge's main has a release file of the model in the environment."""
    path = release.path(environment, model)
    return str(path) in forge.files(str(path.parent))


def is_merged(forge: Forge, commit: str) -> bool:
    """Whether the forge's main has a commit in its history.

    Raises:
        ForgeError: the history is not to be had.
    """
    if forge.commit() == commit:
        return True
    with empty() as repository:
        try:
            publish.fetch(forge.remote, repository.path, "+refs/heads/main:refs/heads/main")
        except SlipwayError as error:
            raise ForgeError(str(error)) from error
        return bool(repository.contains("main", commit))


def unmerged(commit: str) -> str:
    """Why what a commit trained is not proposed."""
    return f"main does not have {commit[:12]}; merge it, and main's training proposes"


def proposal(forge: Forge, model: str, environment: str, commit: str) -> PullRequest | None:
    """The newest pull request, open or merged, that proposes what `commit` trained."""
    for pull in _proposals(forge, model, environment):
        if pull.merged or pull.state == "open":
            found = _proposed(forge, model, environment, pull)
            if found and found.code.commit == commit:
                return pull
    return None


def stands(forge: Forge, model: str, environment: str, commit: str) -> bool:
    """Whether what a training of `commit` came to is still on the forge: the proposal, or the
    release that made one needless. A forge that was made anew has neither."""
    if is_released(forge, model, environment):
        return True
    return proposal(forge, model, environment, commit) is not None


def was_proposed(forge: Forge, model: str, environment: str, runs: Collection[str]) -> bool:
    """Whether what one of these MLflow runs trained was ever proposed, whatever became of it."""
    found = (
        _proposed(forge, model, environment, pull) for pull in _proposals(forge, model, environment)
    )
    return bool(runs) and any(proposed and proposed.mlflow.run in runs for proposed in found)


def _proposals(forge: Forge, model: str, environment: str) -> Iterator[PullRequest]:
    for pull in forge.pulls("all"):
        about = release.proposes(pull.head)
        if about and about[:2] == (environment, model) and not pull.fork:
            yield pull


def _proposed(forge: Forge, model: str, environment: str, pull: PullRequest) -> Release | None:
    """What a pull request proposes; None where that cannot be read any more."""
    path = str(release.path(environment, model))
    with suppress(NotFound, BadInput):
        return release.parse(forge.read(path, pull.sha), path)
    return None


def read(item: Any) -> Workflow:
    """A Workflow as the cluster has it."""
    nodes = _nodes(item)
    attempts = {c for n in nodes.values() if n["type"] == "Retry" for c in parts(n, "children")}
    steps = [
        _step(key, node)
        for key, node in sorted(nodes.items(), key=lambda pair: str(pair[1].get("startedAt")))
        if node["type"] in ("Pod", "Retry") and key not in attempts
    ]
    known = {step.name for step in steps}
    steps += [Step(name, "", 0, "", "") for name in _planned(item) if name not in known]
    phase, message = (part(item, "status", key) or "" for key in ("phase", "message"))
    ended = sorted(nodes.values(), key=lambda node: str(node.get("finishedAt") or ""))
    outputs = {
        str(parameter["name"]): str(parameter.get("value") or "")
        for node in ended
        for parameter in parts(node, "outputs", "parameters")
    }
    return Workflow(item["metadata"]["name"], phase, message, tuple(steps), outputs)


def _nodes(workflow: Any) -> dict[str, dict[str, Any]]:
    return part(workflow, "status", "nodes") or {}


def _planned(workflow: Any) -> list[str]:
    """Names of the tasks in the order in which the template has them."""
    spec = part(workflow, "status", "storedWorkflowTemplateSpec")
    entrypoint = part(spec, "entrypoint")
    return [
        str(task["name"])
        for template in parts(spec, "templates")
        if template["name"] == entrypoint
        for task in parts(template, "dag", "tasks")
    ]


def _step(key: str, node: dict[str, Any]) -> Step:
    begun = _seconds(node.get("startedAt"))
    ended = _seconds(node.get("finishedAt")) or time.time()
    phase, message = (str(node.get(k) or "") for k in ("phase", "message"))
    return Step(node["displayName"], phase, max(ended - begun, 0) if begun else 0, message, key)


def _seconds(timestamp: str | None) -> float:
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else 0


def _log(cluster: Cluster, workflow: str, node: str, lines: int) -> str | None:
    """The step's last attempt's log: from its pod, or from the store once the pod is gone."""
    nodes = _nodes(cluster.find(f"{API}/workflows/{workflow}"))
    if part(nodes.get(node), "type") == "Retry":
        node = (parts(nodes[node], "children") or [node])[-1]
    selector = f"workflows.argoproj.io/workflow={workflow}"
    for pod in cluster.items(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=selector):
        if part(pod, "metadata", "annotations", "workflows.argoproj.io/node-id") == node:
            return cluster.log(NAMESPACE, pod["metadata"]["name"], "main", lines)
    for artifact in parts(nodes.get(node), "outputs", "artifacts"):
        if artifact["name"] == "main-logs" and (key := part(artifact, "s3", "key")):
            with cluster.store() as store:
                text = store.read("workflows", key).decode()
            return "\n".join(text.splitlines()[-lines:])
    return None
