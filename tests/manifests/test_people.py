"""What people may do and what they may not, as a real API server answers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from slipway.people import ROLES
from tests.manifests import program
from tests.manifests.api import ARGO, Api
from tests.manifests.program import Kubectl

pytestmark = pytest.mark.apiserver

ENVIRONMENTS = ("dev", "staging", "prod")
Asked = tuple[str, str, str, str]
# Verb, kind (with its group, where that is not the core), namespace, name: and who may.
LOOK: list[Asked] = [
    ("list", "applications.argoproj.io", "argocd", ""),
    ("watch", "workflows.argoproj.io", "pipelines", ""),
    ("get", "workflowtemplates.argoproj.io", "pipelines", "train"),
    ("list", "pods", "pipelines", ""),
    ("get", "pods/log", "pipelines", "one"),
    ("get", "configmaps", "pipelines", "platform"),
    ("get", "configmaps", "pipelines", "evidence-keys"),
    ("get", "secrets", "pipelines", "reader"),
    *(
        (verb, kind, env, name)
        for env in ENVIRONMENTS
        for verb, kind, name in (
            ("list", "pods", ""),
            ("get", "pods/log", "one"),
            ("get", "deployments.apps", "toy"),
            ("list", "events", ""),
            ("get", "services/proxy", "toy:http"),
        )
    ),
    ("get", "services/proxy", "mlflow", "mlflow:main"),
    ("get", "services", "storage", "minio"),
    ("create", "pods/portforward", "storage", "minio-0"),
    ("create", "pods/portforward", "forge", "gitea-6c8f-abcde"),
]
PROMOTE: list[Asked] = [
    ("create", "workflows.argoproj.io", "pipelines", ""),
    *(("create", "services/proxy", env, "toy:http") for env in ENVIRONMENTS),
]
LABEL: list[Asked] = [("get", "secrets", "pipelines", "labels")]
NOBODY: list[Asked] = [
    # What signs, what opens the store and the forge, and what the platform's parts know.
    *(("get", "secrets", "pipelines", s) for s in ("evidence-key", "object-store", "forge")),
    ("get", "secrets", "pipelines", "argo-artifacts"),
    ("get", "secrets", "forge", "gitea-admin"),
    ("get", "secrets", "storage", "minio"),
    ("get", "secrets", "argo", "console-token"),
    ("get", "secrets", "argocd", "argocd-initial-admin-secret"),
    *(("list", "secrets", place, "") for place in ("pipelines", "forge", "prod", "kube-system")),
    *(("get", "secrets", env, "object-store") for env in ENVIRONMENTS),
    # What runs.
    *(
        (verb, kind, env, "one")
        for env in ENVIRONMENTS
        for verb, kind in (
            ("create", "pods"),
            ("create", "pods/exec"),
            ("get", "pods/exec"),
            ("create", "pods/attach"),
            ("create", "pods/portforward"),
            ("update", "pods/ephemeralcontainers"),
            ("delete", "pods"),
            ("patch", "deployments.apps"),
            ("update", "deployments.apps/scale"),
            ("create", "deployments.apps"),
            ("patch", "configmaps"),
            ("patch", "releasesets.slipway.dev"),
            ("patch", "services"),
        )
    ),
    # By which what runs, or is judged, would be another's to say.
    ("patch", "applications.argoproj.io", "argocd", "prod-toy"),
    ("create", "applications.argoproj.io", "argocd", ""),
    ("update", "workflowtemplates.argoproj.io", "pipelines", "train"),
    ("create", "cronworkflows.argoproj.io", "pipelines", ""),
    ("patch", "workflows.argoproj.io", "pipelines", "one"),
    ("delete", "workflows.argoproj.io", "pipelines", "one"),
    ("create", "workflowtaskresults.argoproj.io", "pipelines", ""),
    ("create", "pods", "pipelines", ""),
    ("create", "pods/exec", "pipelines", "one"),
    ("patch", "configmaps", "pipelines", "evidence-keys"),
    ("create", "serviceaccounts/token", "pipelines", "evidence"),
    ("impersonate", "serviceaccounts", "argo", "argo"),
    ("create", "rolebindings.rbac.authorization.k8s.io", "prod", ""),
    ("escalate", "roles.rbac.authorization.k8s.io", "pipelines", "slipway-viewer"),
    ("create", "services/proxy", "mlflow", "mlflow:main"),
    ("delete", "services/proxy", "mlflow", "mlflow:main"),
    ("create", "services/proxy", "storage", "minio:main"),
    ("create", "pods/portforward", "storage", "postgres-0"),
    ("create", "pods/portforward", "mlflow", "mlflow-1"),
    ("create", "pods/exec", "forge", "gitea-1"),
    ("create", "certificatesigningrequests.certificates.k8s.io", "", ""),
    ("delete", "validatingadmissionpolicies.admissionregistration.k8s.io", "", "evidence-key"),
    ("list", "nodes", "", ""),
    ("get", "nodes/proxy", "", "one"),
    ("list", "pods", "kube-system", ""),
]
TABLE = [
    *((asked, {"viewer", "promoter", "labeller"}) for asked in LOOK),
    *((asked, {"promoter"}) for asked in PROMOTE),
    *((asked, {"labeller"}) for asked in LABEL),
    *((asked, set[str]()) for asked in NOBODY),
]


@pytest.fixture(scope="module")
def api(kubeconfig: Path, kubectl: Kubectl) -> Api:
    registered = program.of_stack(program.LOCAL)
    ours = {f"slipway-{role}" for role in ROLES}
    named = {"workflows-of-people", "workflows-from-main"}
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    roles = [m for m in registered.all("Role", "RoleBinding") if m["metadata"]["name"] in ours]
    rules = [m for m in registered.all(*kinds) if m["metadata"]["name"] in named]
    kubectl("apply", "--server-side", objects=[*roles, *rules])
    made = Api(kubeconfig)
    deadline = time.monotonic() + 120
    while start(made, "gates", "promoter")[0] == 201 or not may(made, "promoter", *PROMOTE[0]):
        assert time.monotonic() < deadline, "neither rules nor rights take hold"
        time.sleep(0.2)
    return made


def may(api: Api, role: str, verb: str, what: str, namespace: str, name: str) -> bool:
    """Whether somebody may who logs in and is of the role's group, and of no other."""
    resource, _, rest = what.partition(".")
    group, slash, subresource = rest.partition("/")
    if not slash:
        resource, _, subresource = resource.partition("/")
    attributes = {"verb": verb, "resource": resource, "subresource": subresource}
    attributes |= {"group": group, "namespace": namespace, "name": name}
    spec = {
        "user": "ada",
        "groups": [f"slipway-{role}s", "system:authenticated"],
        "resourceAttributes": attributes,
    }
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(api.client.post(path, json=review).raise_for_status().json()["status"]["allowed"])


def _told(value: Asked | set[str]) -> str:
    # Sets have an order of their own in each process, and processes share these tests.
    return " ".join(sorted(value) if isinstance(value, set) else value) or "nobody"


@pytest.mark.parametrize(("asked", "roles"), TABLE, ids=_told)
def test_who_may(api: Api, asked: Asked, roles: set[str]) -> None:
    assert {role for role in ROLES if may(api, role, *asked)} == roles


def start(api: Api, template: str, role: str, **more: object) -> tuple[int, str]:
    body = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": "mine-"},
        "spec": {"workflowTemplateRef": {"name": template}, **more},
    }
    return api.create(f"{ARGO}/workflows", body, user="ada", group=f"slipway-{role}s")


@pytest.mark.parametrize("template", ["experiments", "promote", "reproduce", "train"])
def test_promoters_start_what_is_theirs(api: Api, template: str) -> None:
    assert start(api, template, "promoter")[0] == 201
    status, said = start(api, template, "viewer")
    assert status == 403
    assert 'User "ada" cannot create resource "workflows"' in said


@pytest.mark.parametrize("template", ["gates", "on-push", "sweep", "another"])
def test_promoters_start_nothing_else(api: Api, template: str) -> None:
    status, said = start(api, template, "promoter")
    assert status == 422
    assert "people start experiments, promote, reproduce, train" in said


def test_a_promoter_s_workflow_says_nothing_beside_its_arguments(api: Api) -> None:
    volume = {"name": "key", "secret": {"secretName": "evidence-key"}}
    for more in ({"volumes": [volume]}, {"serviceAccountName": "evidence"}, {"podSpecPatch": "{}"}):
        status, said = start(api, "train", "promoter", **more)
        assert status == 422
        assert "says nothing beside its arguments" in said
