"""A stack whose forge is there already: the whole program against mocks, for both kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pulumi
import pytest

from infra.config import TOKEN
from slipway import protection
from tests.manifests import program
from tests.manifests.program import Program, decoded

HERE = Path(__file__).parent
SECRET = "d41d8cd98f00b204e9800998ecf8427e"


def of(name: str) -> Program:
    """What the stack of a valid file is, its token decrypted."""
    given = program.settings(HERE / "valid" / f"{name}.yaml") | {TOKEN: SECRET}
    own = ("mlflow", "serving", "training")
    images = json.dumps({image: f"registry.example.com/{image}@sha256:{'0' * 64}" for image in own})
    given.setdefault("slipway:images", images)
    return program.run(given, encrypted=[TOKEN])


@pytest.fixture(scope="module")
def gitea() -> Program:
    return of("forge_gitea_inside")


@pytest.fixture(scope="module")
def github() -> Program:
    return of("forge_on_github")


BOTH = pytest.mark.parametrize("kind", ["gitea", "github"])


@pytest.fixture
def stack(kind: str, request: pytest.FixtureRequest) -> Program:
    return request.getfixturevalue(kind)


@BOTH
def test_there_is_no_gitea_and_nothing_of_it(stack: Program) -> None:
    assert "forge" not in {n["metadata"]["name"] for n in stack.all("Namespace")}
    for manifest in stack.manifests:
        where = manifest["metadata"].get("namespace")
        assert where != "forge"
        assert manifest["metadata"]["name"] != "gitea"
        if manifest["kind"] == "NetworkPolicy":
            assert '"forge"' not in json.dumps(manifest), manifest["metadata"]["name"]
    assert not [r.name for r in stack.resources if r.name.startswith("gitea")]
    assert "gitea" not in stack.outputs["secrets"]
    assert "gitea" not in stack.outputs.get("consoles", {})


@BOTH
def test_databases_are_those_that_are_used_and_a_former_one_goes(stack: Program) -> None:
    assert set(decoded(stack.one("Secret", "postgres-databases"))) == {"mlflow", "argo"}
    pod = stack.one("Job", "postgres-databases")["spec"]["template"]["spec"]
    [former] = pod["initContainers"]
    assert former["command"][-2:] == [
        '--command=DROP DATABASE IF EXISTS "gitea" WITH (FORCE)',
        '--command=DROP ROLE IF EXISTS "gitea"',
    ]
    local = program.of_stack(program.LOCAL).one("Job", "postgres-databases")
    assert "initContainers" not in local["spec"]["template"]["spec"]


def test_argo_cd_reads_it_as_whose_token_it_is(gitea: Program, github: Program) -> None:
    for stack, url, username in (
        (gitea, "http://10.9.0.7:3000/acme/models.git", "slipway-bot"),
        (github, "https://github.com/acme/models.git", "acme-slipway-bot"),
    ):
        assert decoded(stack.one("Secret", "repository-slipway", "argocd")) == {
            "type": "git",
            "name": "slipway",
            "url": url,
            "username": username,
            "password": SECRET,
        }
        assert stack.one("Application", "workflows")["spec"]["source"]["repoURL"] == url
        for project in stack.all("AppProject"):
            assert project["spec"]["sourceRepos"] == [url]
        [generator] = stack.one("ApplicationSet", "dev")["spec"]["generators"]
        assert generator["git"]["repoURL"] == url
        # Others use it, too: no more often than the stack says.
        assert generator["git"]["requeueAfterSeconds"] == 60
        assert stack.outputs["repository"] == url


def test_steps_find_it(gitea: Program, github: Program) -> None:
    def settings(stack: Program) -> dict[str, str]:
        found: dict[str, Any] = stack.one("ConfigMap", "platform", "pipelines")["data"]
        return {key: value for key, value in found.items() if key.startswith("FORGE_")}

    assert settings(gitea) == {
        "FORGE_KIND": "gitea",
        "FORGE_URL": "http://10.9.0.7:3000",
        "FORGE_SERVER": "http://10.9.0.7:3000",
        "FORGE_REPOSITORY": "acme/models",
        "FORGE_GATES": "cluster",
    }
    assert settings(github) == {
        "FORGE_KIND": "github",
        "FORGE_URL": "https://api.github.com",
        "FORGE_SERVER": "https://github.com",
        "FORGE_REPOSITORY": "acme/models",
        "FORGE_GATES": "actions",
    }
    secret = decoded(github.one("Secret", "forge", "pipelines"))
    assert secret == {"FORGE_USERNAME": "acme-slipway-bot", "FORGE_PASSWORD": SECRET}


def test_the_gates_of_an_enterprise_may_be_the_cluster_s() -> None:
    found = of("forge_of_an_enterprise_whose_cluster_judges")
    settings = found.one("ConfigMap", "platform", "pipelines")["data"]
    assert settings["FORGE_GATES"] == "cluster"
    assert settings["FORGE_URL"] == "https://git.acme.com/api/v3"
    assert settings["FORGE_SERVER"] == "https://git.acme.com"


@BOTH
def test_only_those_who_read_it_reach_it(stack: Program, kind: str) -> None:
    places = {
        "gitea": [("10.9.0.7/32", [3000])],
        "github": [("140.82.112.0/20", [443]), ("192.30.252.0/22", [443])],
    }[kind]
    reach = {
        policy["metadata"]["name"]
        for policy in stack.all("NetworkPolicy")
        for rule in policy["spec"].get("egress", [])
        for to in rule.get("to", [])
        if (to.get("ipBlock", {}).get("cidr"), [p["port"] for p in rule["ports"]]) in places
    }
    assert reach == {"argocd-repo-server", "steps"}


@BOTH
def test_its_events_are_signed_and_where_they_are_to_go_is_told(stack: Program, kind: str) -> None:
    signed = {"gitea": "gogs", "github": "github"}[kind]
    secret = decoded(stack.one("Secret", "argocd-secret"))
    [client] = decoded(stack.one("Secret", "argo-workflows-webhook-clients")).values()
    assert json.loads(client)["secret"] == secret[f"webhook.{signed}.secret"]
    assert stack.outputs["secrets"]["webhooks"] == f"argocd/argocd-secret, webhook.{signed}.secret"
    events = "api/v1/events/pipelines/forge"
    assert (
        stack.outputs["webhooks"]
        == {
            "gitea": {
                "http://127.0.0.1:30080/api/webhook": ["push"],
                f"http://127.0.0.1:30746/{events}": ["pull_request_only", "pull_request_sync"],
            },
            "github": {
                "http://argocd-server.argocd.svc/api/webhook": ["push"],
                f"http://argo-server.argo.svc:2746/{events}": ["pull_request"],
            },
        }[kind]
    )


@BOTH
def test_the_token_is_nowhere_in_plain(stack: Program) -> None:
    for manifest in stack.manifests:
        assert SECRET not in json.dumps(manifest), manifest["metadata"]["name"]
    for resource in stack.resources:
        if resource.inputs.get("kind") == "Secret" and "data" in resource.inputs:
            assert "data" in resource.secret, resource.name
    assert SECRET not in json.dumps(stack.outputs)


def test_a_token_in_plain_text_is_refused() -> None:
    given = program.settings(HERE / "valid" / "forge_on_github.yaml") | {TOKEN: SECRET}
    with pytest.raises(
        pulumi.RunError, match="slipway:forgeToken: a token in plain text"
    ) as refused:
        program.run(given)
    assert SECRET not in str(refused.value)


def test_the_platform_s_own_gitea_is_protected_by_the_same_rules() -> None:
    job = program.of_stack(program.LOCAL).one("ConfigMap", "gitea-setup")
    own = json.loads(job["data"]["settings.json"])["protection"]
    assert own == protection.gitea("slipway/check", pushers=["slipway-admin"])
    others = protection.gitea("slipway/check")
    assert {k for k in own if own[k] != others[k]} == {
        *("enable_push", "enable_push_whitelist", "push_whitelist_usernames")
    }
