"""The forge's events at the real Argo server, on a real API server: what each starts, as whom.

And what the API server itself says to workflows and pods that nobody on main has asked for.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from infra.platform import gitea
from slipway import paths
from tests.apiserver import binary, free_ports
from tests.manifests import program
from tests.manifests.api import ARGO, Api
from tests.manifests.program import Kubectl

pytestmark = pytest.mark.apiserver
FIXTURES = Path(__file__).parents[1] / "fixtures" / "events"
# Deliveries of a Gitea: a body each, as its code composes it (modules/structs in its source).
OPENED = json.loads((FIXTURES / "opened.json").read_text())
SECRET = "shared with the forge"
KINDS = ("ServiceAccount", "Role", "RoleBinding", "ValidatingAdmissionPolicy")
CONTROLLER = "system:serviceaccount:argo:argo"


@pytest.fixture(scope="module")
def api(kubeconfig: Path, kubectl: Kubectl) -> Api:
    registered = program.of_stack(program.LOCAL)
    api = Api(kubeconfig)
    here = [
        m
        for m in registered.all(*KINDS)
        if m["metadata"].get("namespace") in (None, "argo", "pipelines")
    ]
    bindings = registered.all("ValidatingAdmissionPolicyBinding")
    events = list(yaml.safe_load_all((paths.REPOSITORY / "workflows/events.yaml").read_text()))
    clients = copy.deepcopy(registered.one("Secret", "argo-workflows-webhook-clients", "pipelines"))
    client = {"type": "github", "secret": SECRET}
    clients["data"]["forge-events"] = base64.b64encode(json.dumps(client).encode()).decode()
    name = {"name": "workflow-controller-configmap", "namespace": "argo"}
    configuration = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": name}
    apply = ("apply", "--server-side")
    kubectl(*apply, objects=[*here, *bindings, *events, clients, configuration])
    # As the cluster's token controller fills it, which does not run here.
    token = copy.deepcopy(
        registered.one("Secret", "forge-events.service-account-token", "pipelines")
    )
    value = api.token("pipelines", "forge-events")
    token["data"] = {"token": base64.b64encode(value.encode()).decode()}
    kubectl(*apply, objects=[token])
    _until_enforced(api)
    return api


def _until_enforced(api: Api) -> None:
    """A policy takes hold a moment after it has been made."""
    deadline = time.monotonic() + 120
    while api.create(f"{ARGO}/workflows", workflow(templates=[]))[0] == 201:
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def server(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterable[str]:
    """Argo's server with the rights that it has on the platform."""
    folder, [port] = tmp_path_factory.mktemp("argo"), free_ports(1)
    config = yaml.safe_load(api.kubeconfig.read_text())
    token = config["users"][0]["user"]["token"] = api.token("argo", "argo-server")
    config["contexts"][0]["context"]["namespace"] = "argo"
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    registered = program.of_stack(program.LOCAL)
    deployment = registered.one("Deployment", "argo-server")
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [binary("argo"), *arguments, f"--port={port}"],
            env={**os.environ, "HOME": str(folder), "KUBECONFIG": str(folder / "kubeconfig")},
            stdout=log,
            stderr=log,
        )
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while True:
            said = (folder / "log").read_text()[-3000:]
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            try:
                # What the API has behind its front is there a little later than the front itself,
                # which is all that whoever does not log in sees.
                known = {"Authorization": f"Bearer {token}"}
                page = httpx.get(f"{url}/", trust_env=False)
                if (
                    page.is_success
                    and httpx.get(f"{url}/api/v1/version", trust_env=False).status_code == 401
                    and httpx.get(
                        f"{url}/api/v1/version", headers=known, trust_env=False
                    ).is_success
                    # One that starts nothing; whose secrets it knows comes later still.
                    and deliver(url, pull_request("label_updated")).is_success
                ):
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def deliver(
    url: str, body: dict[str, Any], *, secret: str | None = SECRET, event: str = "pull_request"
) -> httpx.Response:
    """Sends what Gitea does (services/webhook/deliver.go), signed."""
    content = json.dumps(body, indent=2).encode()
    headers = {"Content-Type": "application/json", "X-GitHub-Event": event}
    if secret is not None:
        signature = hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()
        headers["X-Hub-Signature-256"] = f"sha256={signature}"
    where = f"{url}/api/v1/events/pipelines/forge"
    return httpx.post(where, content=content, headers=headers, timeout=30, trust_env=False)


def pull_request(action: str, by: str = gitea.ADMIN, **changes: Any) -> dict[str, Any]:
    body = copy.deepcopy(OPENED)
    body |= {"action": action, "sender": {"login": by}}
    body["pull_request"] |= changes
    return body


def started(api: Api, template: str) -> dict[str, dict[str, str]]:
    """Workflows of a template, by name, with their parameters."""
    return {
        w["metadata"]["name"]: {p["name"]: p["value"] for p in w["spec"]["arguments"]["parameters"]}
        for w in api.items("workflows")
        if w["spec"]["workflowTemplateRef"]["name"] == template
    }


def test_a_pull_request_is_judged_whenever_it_changes_and_once_a_change(
    api: Api, server: str
) -> None:
    for action in ("opened", "edited", "reopened"):
        before = started(api, "gates")
        body = pull_request(action)
        answer = deliver(server, body)
        assert answer.status_code == 200, answer.text
        after = started(api, "gates")
        [name] = after.keys() - before.keys()
        assert after[name] == {"pull": "7"}
        assert name.startswith("gates-7-")
        again = deliver(server, body)
        assert "already exists" in again.text
        assert started(api, "gates") == after
    # Gitea tells of the very branch that was opened once more, and of the plot in our own comment.
    plotted = pull_request("edited", gitea.BOT, updated_at="2026-01-01T00:00:07Z")
    for body in (pull_request("synchronized", updated_at="2026-01-01T00:00:08Z"), plotted):
        deliver(server, body)
    assert started(api, "gates") == after
    pushed = pull_request("synchronized")
    pushed["pull_request"]["head"]["sha"] = "d" * 40
    edited = pull_request("edited", updated_at="2026-01-01T00:00:09Z")
    for body in (pushed, edited):
        assert deliver(server, body).status_code == 200
    assert len(started(api, "gates")) == 5


def test_github_has_another_word_for_a_head_that_moved(api: Api, server: str) -> None:
    moved = pull_request("synchronize")
    moved["pull_request"]["head"]["sha"] = "e" * 40
    before = started(api, "gates")
    assert deliver(server, moved).status_code == 200
    assert len(started(api, "gates")) == len(before) + 1
    assert "already exists" in deliver(server, {**moved, "action": "synchronized"}).text


@pytest.mark.parametrize(
    ("branch", "pause"), [("release/staging-m-2-1a2b3c4d", "12s"), ("more-trees", "0s")]
)
def test_a_merge_is_followed_once(api: Api, server: str, branch: str, pause: str) -> None:
    sha = hashlib.sha1(branch.encode()).hexdigest()
    merged = pull_request(
        "closed",
        head={**OPENED["pull_request"]["head"], "ref": branch},
        merged=True,
        merge_commit_sha=sha,
        state="closed",
        merged_at="2026-01-01T00:00:10Z",
    )
    assert deliver(server, merged).status_code == 200
    before = started(api, "on-push")
    deliver(server, merged)
    # Whether anything is to be held.
    others = str(OPENED["repository"]["open_pr_counter"])
    assert before[f"on-push-{sha[:12]}"] == {"commit": sha, "others": others, "pause": pause}
    assert started(api, "on-push") == before


@pytest.mark.parametrize(
    "body",
    [
        pull_request("closed", state="closed"),
        pull_request("label_updated"),
        pull_request("opened", base={**OPENED["pull_request"]["base"], "ref": "other"}),
    ],
)
def test_other_events_start_nothing(api: Api, server: str, body: dict[str, Any]) -> None:
    before = len(api.items("workflows"))
    assert deliver(server, body).status_code == 200
    assert len(api.items("workflows")) == before


@pytest.mark.parametrize("secret", [None, "", "another"])
def test_what_the_forge_has_not_signed_is_refused(
    api: Api, server: str, secret: str | None
) -> None:
    before = len(api.items("workflows"))
    refused = deliver(
        server, pull_request("opened", updated_at="2027-01-01T00:00:00Z"), secret=secret
    )
    assert refused.status_code == 401
    assert len(api.items("workflows")) == before


def test_the_console_wants_its_token_and_only_looks(api: Api, server: str) -> None:
    workflows = f"{server}/api/v1/workflows/pipelines"
    assert httpx.get(workflows, trust_env=False).status_code == 401
    token = {"Authorization": f"Bearer {api.token('argo', 'console')}"}
    assert httpx.get(workflows, headers=token, trust_env=False).status_code == 200
    body = {"workflow": workflow(arguments=parameters(pull="1"))}
    assert httpx.post(workflows, json=body, headers=token, trust_env=False).status_code == 403


# --- admission --------------------------------------------------------------------------------


def workflow(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "one"},
        "spec": {"workflowTemplateRef": {"name": "gates"}, **spec},
    }


def parameters(**values: str) -> dict[str, Any]:
    return {"parameters": [{"name": n.replace("_", "-"), "value": v} for n, v in values.items()]}


TRAINS = program.IMAGES["training"].partition("@")[0]
ELSEWHERE = {
    "name": "image",
    "valueFrom": {"configMapKeyRef": {"name": "mine", "key": "image"}},
}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"arguments": parameters(pull="1")}, ""),
        ({"suspend": True}, ""),
        ({"workflowTemplateRef": {"name": "x", "clusterScope": True}}, "which is on main"),
        ({"templates": []}, "which is on main"),
        ({"podSpecPatch": "{}"}, "which is on main"),
        ({"serviceAccountName": "evidence"}, "which is on main"),
        ({"arguments": parameters(training_image="mine")}, "not a workflow's to choose"),
        ({"arguments": parameters(forge_url="http://mine")}, "not a workflow's to choose"),
        ({"arguments": parameters(image=f"{TRAINS}@sha256:{'0' * 64}")}, ""),
        ({"arguments": parameters(image=f"{TRAINS}:latest")}, "is one that trained here"),
        ({"arguments": parameters(image=f"x/{TRAINS}@sha256:0")}, "is one that trained here"),
        ({"arguments": {"parameters": [ELSEWHERE]}}, "is one that trained here"),
    ],
)
def test_a_workflow_says_only_which_template_it_runs_on_what(
    api: Api, spec: dict[str, Any], message: str
) -> None:
    status, said = api.create(f"{ARGO}/workflows", workflow(**spec))
    assert status == (422 if message else 201), said
    assert message in said


def test_a_workflow_has_a_template(api: Api) -> None:
    body = workflow()
    body["spec"] = {"entrypoint": "mine"}
    assert api.create(f"{ARGO}/workflows", body)[0] == 422


MINE = {"entrypoint": "mine", "templates": [{"name": "mine", "serviceAccountName": "evidence"}]}
CONTROLLER_SAYS = "what became of a workflow is the controller's to say"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        # As Argo's own clients say nothing of it.
        ({"startedAt": None, "finishedAt": None}, ""),
        ({}, ""),
        # Which the controller would run in the place of what is on main, whatever is referred to.
        ({"storedWorkflowTemplateSpec": MINE}, CONTROLLER_SAYS),
        ({"storedTemplates": {"a": MINE["templates"][0]}}, CONTROLLER_SAYS),
        # Which it would take for done, and hand on what is said of it.
        ({"nodes": {"one": {"phase": "Succeeded"}}}, CONTROLLER_SAYS),
        ({"compressedNodes": "x"}, CONTROLLER_SAYS),
        ({"phase": "Succeeded"}, CONTROLLER_SAYS),
    ],
)
def test_a_workflow_begins_with_nothing_done(
    api: Api, status: dict[str, Any], message: str
) -> None:
    code, said = api.create(f"{ARGO}/workflows", workflow() | {"status": status})
    assert code == (422 if message else 201), said
    assert message in said


def test_a_workflow_that_runs_changes_in_its_status_only(api: Api) -> None:
    path = f"{ARGO}/workflows"
    api.client.post(path, json=workflow()).raise_for_status()
    assert api.change(f"{path}/one", {"status": {"phase": "Running"}}, CONTROLLER)[0] == 200
    assert api.change(f"{path}/one", {"spec": {"shutdown": "Stop"}})[0] == 200
    status, said = api.change(f"{path}/one", {"spec": {"podSpecPatch": "{}"}})
    assert status == 422
    assert "which is on main" in said
    status, said = api.change(f"{path}/one", {"status": {"phase": "Succeeded"}})
    assert status == 422
    assert CONTROLLER_SAYS in said


@pytest.mark.parametrize("account", ["workflow", "evidence", "dispatcher", "executor"])
def test_no_step_says_how_another_went(api: Api, account: str) -> None:
    """Argo's own containers do, by an account whose token no step has."""
    result = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTaskResult",
        "metadata": {"name": "train-flight-delay-abcde-123"},
        "outputs": parameters(evaluation="sha256:0"),
    }
    user = f"system:serviceaccount:pipelines:{account}"
    status, said = api.create(f"{ARGO}/workflowtaskresults", result, user)
    assert status == (201 if account == "executor" else 403), said


RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
# As the workflow controller composes it.
ATTEST = [
    *("/var/run/argo/argoexec", "emissary", "--loglevel", "info"),
    *("--", "python", "-m", "slipway.steps", "attest"),
]


def container(name: str = "main", **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "x@sha256:0", "securityContext": RESTRICTED, **fields}


def pod(*containers: dict[str, Any], account: str = "workflow", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "one"},
        "spec": {"serviceAccountName": account, "containers": list(containers), **spec},
    }


def volume(**source: Any) -> dict[str, Any]:
    return {"volumes": [{"name": "key", **source}]}


SIGNS = pod(
    container(command=ATTEST, args=["--model=a"]),
    container("wait", command=["argoexec", "wait"]),
    account="evidence",
    initContainers=[container("init", command=["argoexec", "init"])],
    **volume(secret={"secretName": "evidence-key"}),
)
KEY = {"name": "evidence-key", "key": "private.pem"}
OTHERS = "is for pods of ServiceAccount evidence only"
ELSE = "attest` and nothing else"


def test_the_step_that_signs_gets_the_key_from_the_controller(api: Api) -> None:
    assert api.create("/api/v1/namespaces/pipelines/pods", SIGNS, CONTROLLER) == (201, "")
    status, said = api.create("/api/v1/namespaces/pipelines/pods", SIGNS)
    assert status == 422
    assert "are the workflow controller's to make" in said


@pytest.mark.parametrize(
    ("tried", "message"),
    [
        (pod(container(), **volume(secret={"secretName": "other"})), ""),
        (pod(container(), **volume(secret={"secretName": "evidence-key"})), OTHERS),
        (
            pod(container(), **volume(projected={"sources": [{"secret": {"name": KEY["name"]}}]})),
            OTHERS,
        ),
        (pod(container(env=[{"name": "K", "valueFrom": {"secretKeyRef": KEY}}])), OTHERS),
        (pod(container(envFrom=[{"secretRef": {"name": KEY["name"]}}])), OTHERS),
        (
            pod(
                container(),
                initContainers=[container("i", envFrom=[{"secretRef": {"name": KEY["name"]}}])],
            ),
            OTHERS,
        ),
        (
            pod(container(command=["python", "-m", "slipway.steps", "attest"]), account="evidence"),
            ELSE,
        ),
        (pod(container(command=[*ATTEST[:-1], "train"]), account="evidence"), ELSE),
        (pod(container(command=[*ATTEST, "x"]), account="evidence"), ELSE),
        (pod(container(), account="evidence"), ELSE),
        (pod(container("mine", command=ATTEST), account="evidence"), ELSE),
    ],
)
def test_no_other_pod_gets_the_key(api: Api, tried: dict[str, Any], message: str) -> None:
    status, said = api.create("/api/v1/namespaces/pipelines/pods", tried, CONTROLLER)
    assert status == (422 if message else 201), said
    assert message in said


def test_a_pod_that_signs_is_left_as_it_is(api: Api) -> None:
    path = "/api/v1/namespaces/pipelines/pods"
    headers = {"Impersonate-User": CONTROLLER}
    api.client.post(path, json=SIGNS, headers=headers).raise_for_status()
    assert api.change(f"{path}/one", {"metadata": {"labels": {"a": "b"}}})[0] == 200
    image = {"spec": {"containers": [{**c, "image": "mine"} for c in SIGNS["spec"]["containers"]]}}
    assert api.change(f"{path}/one", image)[0] == 422
    debug = {"spec": {"ephemeralContainers": [container("debug")]}}
    for user in ("", CONTROLLER):
        assert api.change(f"{path}/one/ephemeralcontainers", debug, user)[0] in (403, 422)
