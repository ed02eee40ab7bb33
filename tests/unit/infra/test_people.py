"""Roles of people: exactly these rules, in exactly these namespaces, and whose they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slipway import people
from tests.manifests import program
from tests.manifests.program import Program

HERE = Path(__file__).parent
ENVIRONMENTS = ("dev", "staging", "prod")
READ = ["get", "list", "watch"]


def rule(group: str, kinds: str, verbs: list[str], *names: str) -> dict[str, Any]:
    named = {"resourceNames": list(names)} if names else {}
    return {"apiGroups": [group], "resources": kinds.split(), "verbs": verbs, **named}


ENVIRONMENT = [
    rule("apps", "deployments replicasets", READ),
    rule("", "events pods services", READ),
    rule("", "pods/log services/proxy", ["get"]),
]
RULES: dict[str, dict[str, list[dict[str, Any]]]] = {
    "viewer": {
        "argocd": [rule("argoproj.io", "applications", READ)],
        "pipelines": [
            rule("argoproj.io", "cronworkflows workflows workflowtemplates", READ),
            rule("", "events pods", READ),
            rule("", "pods/log", ["get"]),
            rule("", "configmaps", ["get"], "evidence-keys", "platform"),
            rule("", "secrets", ["get"], "reader"),
        ],
        **dict.fromkeys(ENVIRONMENTS, ENVIRONMENT),
        "mlflow": [rule("", "services/proxy", ["get"], "mlflow:main")],
        "storage": [
            rule("", "services", ["get"], "minio"),
            rule("", "pods", ["list"]),
            rule("", "pods/portforward", ["create", "get"], "minio-0"),
        ],
        "forge": [
            rule("", "services", ["get"], "gitea"),
            rule("", "pods", ["list"]),
            rule("", "pods/portforward", ["create", "get"]),
        ],
    },
    "promoter": {
        "pipelines": [rule("argoproj.io", "workflows", ["create"])],
        **{env: [rule("", "services/proxy", ["create"])] for env in ENVIRONMENTS},
    },
    "labeller": {"pipelines": [rule("", "secrets", ["get"], "labels")]},
}


@pytest.fixture(scope="module")
def local() -> Program:
    return program.of_stack(program.LOCAL)


@pytest.fixture(scope="module")
def elsewhere() -> Program:
    """One environment on a cluster that is there, with viewers and a promoter."""
    own = ("mlflow", "serving", "training")
    images = {image: f"registry.example.com/{image}@sha256:{'0' * 64}" for image in own}
    given = program.settings(HERE / "valid" / "people.yaml")
    return program.run(given | {"slipway:images": json.dumps(images)})


def rules(stack: Program, role: str) -> dict[str, Any]:
    return {
        made["metadata"]["namespace"]: made["rules"]
        for made in stack.all("Role")
        if made["metadata"]["name"] == f"slipway-{role}"
    }


def subjects(stack: Program, role: str) -> set[tuple[tuple[str, str], ...]]:
    """Those of each binding: all namespaces have the same."""
    return {
        tuple((s["kind"], s["name"]) for s in made["subjects"])
        for made in stack.all("RoleBinding")
        if made["metadata"]["name"] == f"slipway-{role}"
    }


@pytest.mark.parametrize("role", people.ROLES)
def test_a_role_has_these_rules_and_no_others(local: Program, role: str) -> None:
    assert rules(local, role) == RULES[role]


def test_each_binding_is_to_the_role_beside_it(local: Program) -> None:
    for role in people.ROLES:
        bound = [b for b in local.all("RoleBinding") if b["metadata"]["name"] == f"slipway-{role}"]
        assert {b["metadata"]["namespace"] for b in bound} == set(RULES[role])
        for binding in bound:
            assert binding["roleRef"] == {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": f"slipway-{role}",
            }
            assert {s["apiGroup"] for s in binding["subjects"]} == {"rbac.authorization.k8s.io"}


def test_whoever_may_more_may_look(local: Program) -> None:
    group = {role: ("Group", f"slipway-{role}s") for role in people.ROLES}
    assert subjects(local, "viewer") == {tuple(group.values())}
    assert subjects(local, "promoter") == {(group["promoter"],)}
    assert subjects(local, "labeller") == {(group["labeller"],)}


def test_nobody_has_a_right_in_the_whole_cluster(local: Program) -> None:
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        assert not [m for m in local.all(kind) if m["metadata"]["name"].startswith("slipway-")]


def test_a_stack_has_roles_where_somebody_has_them(elsewhere: Program) -> None:
    assert subjects(elsewhere, "viewer") == {
        (("User", "auditor@example.com"), ("Group", "oidc:ml-team"), ("User", "ada@example.com"))
    }
    assert set(rules(elsewhere, "promoter")) == {"pipelines", "prod"}
    assert rules(elsewhere, "labeller") == {}
    policy = elsewhere.one("ValidatingAdmissionPolicy", "workflows-of-people")["spec"]
    assert '["ada@example.com"]' in policy["matchConditions"][0]["expression"]


def test_a_stack_without_people_has_no_role() -> None:
    given = program.settings(HERE / "valid" / "local.yaml")
    assert "slipway:people" not in given
    made = program.run(given)
    assert not any(rules(made, role) for role in people.ROLES)
    names = {p["metadata"]["name"] for p in made.all("ValidatingAdmissionPolicy")}
    assert "workflows-from-main" in names
    assert "workflows-of-people" not in names


def test_people_start_templates_that_there_are() -> None:
    folder = program.ROOT / "workflows"
    assert {f"{name}.yaml" for name in people.STARTED} <= {f.name for f in folder.glob("*.yaml")}


def test_nothing_but_the_api_server_is_let_in_for_them(elsewhere: Program) -> None:
    [policy] = [
        p
        for p in elsewhere.all("NetworkPolicy")
        if (p["metadata"]["namespace"], p["metadata"]["name"]) == ("mlflow", "mlflow")
    ]
    assert [r["from"] for r in policy["spec"]["ingress"] if "ipBlock" in r["from"][0]] == [
        [{"ipBlock": {"cidr": "10.244.0.1/32"}}]
    ]
