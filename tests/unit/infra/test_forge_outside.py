"""A stack whose forge is there already: the whole program against mocks, for both kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from infra.config import APP_KEY, TOKEN
from infra.platform import forge_token, pods
from slipway import protection
from tests import tls
from tests.manifests import program
from tests.manifests.program import Program, decoded

HERE = Path(__file__).parent
SECRET = "d41d8cd98f00b204e9800998ecf8427e"


def of(name: str, **secrets: str) -> Program:
    """What the stack of a valid file is, its token decrypted, or what else is secret there."""
    known = {f"slipway:{key}": value for key, value in secrets.items()} or {TOKEN: SECRET}
    given = program.settings(HERE / "valid" / f"{name}.yaml") | known
    own = ("mlflow", "serving", "training")
    images = json.dumps({image: f"registry.example.com/{image}@sha256:{'0' * 64}" for image in own})
    given.setdefault("slipway:images", images)
    return program.run(given, encrypted=list(known))


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
        git, made = stack.one("ApplicationSet", "dev")["spec"]["generators"]
        assert git["git"]["repoURL"] == url
        assert made["list"]["template"]["spec"]["source"]["repoURL"] == url
        # Others use it, too: no more often than the stack says.
        assert git["git"]["requeueAfterSeconds"] == 60
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
        "FORGE_JUDGE": "slipway-bot",
    }
    assert settings(github) == {
        "FORGE_KIND": "github",
        "FORGE_URL": "https://api.github.com",
        "FORGE_SERVER": "https://github.com",
        "FORGE_REPOSITORY": "acme/models",
        "FORGE_GATES": "actions",
        "FORGE_JUDGE": "github-actions[bot]",
    }
    secret = decoded(github.one("Secret", "forge", "pipelines"))
    assert secret == {
        "FORGE_USERNAME": "acme-slipway-bot",
        "FORGE_PASSWORD": SECRET,
        "FORGE_LOGIN": "",
    }


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


# --- an app in the place of a login ------------------------------------------------------------


@pytest.fixture(scope="module")
def key() -> str:
    return tls.rsa_key()


@pytest.fixture(scope="module")
def app(key: str) -> Program:
    return of("forge_on_github_by_an_app", forgeAppKey=key)


ENTERPRISE = "forge_of_an_enterprise_by_an_app_and_its_own_authority"


@pytest.fixture(scope="module")
def enterprise(key: str) -> Program:
    return of(ENTERPRISE, forgeAppKey=key)


def test_argo_cd_reads_it_as_the_app(app: Program, enterprise: Program, key: str) -> None:
    login = {
        "type": "git",
        "name": "slipway",
        "githubAppID": "12345",
        "githubAppInstallationID": "678",
        "githubAppPrivateKey": key,
    }
    secret = decoded(app.one("Secret", "repository-slipway", "argocd"))
    assert secret == {**login, "url": "https://github.com/acme/models.git"}
    assert decoded(enterprise.one("Secret", "repository-slipway", "argocd")) == {
        **login,
        "url": "https://git.acme.com/acme/models.git",
        "githubAppEnterpriseBaseUrl": "https://git.acme.com/api/v3",
    }


def test_steps_find_its_tokens_where_those_of_a_login_are(app: Program, github: Program) -> None:
    assert "data" not in app.one("Secret", "forge", "pipelines"), "what is in it is the pod's"
    # `slipway protect` lets nobody else report.
    assert app.one("ConfigMap", "platform", "pipelines")["data"]["FORGE_APP"] == "12345"
    role = app.one("Role", "forge-token", "pipelines")
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["forge"],
            "verbs": ["patch"],
        }
    ]
    [subject] = app.one("RoleBinding", "forge-token", "pipelines")["subjects"]
    assert (subject["namespace"], subject["name"]) == ("argocd", "forge-token")
    # A login needs none of it.
    assert "forge-token" not in {m["metadata"]["name"] for m in github.manifests}


def test_the_key_is_where_no_workflow_runs(app: Program, enterprise: Program, key: str) -> None:
    for stack in (app, enterprise):
        holders = {
            (m["metadata"]["namespace"], m["metadata"]["name"])
            for m in stack.all("Secret")
            if key in decoded(m if "data" in m else {"data": {}}).values()
        }
        assert holders == {("argocd", "repository-slipway"), ("argocd", "forge-app")}
        for manifest in stack.manifests:
            assert key[40:80] not in json.dumps(manifest), manifest["metadata"]["name"]
        for resource in stack.resources:
            if resource.inputs.get("kind") == "Secret" and "data" in resource.inputs:
                assert "data" in resource.secret, resource.name
        assert key[40:80] not in json.dumps(stack.outputs)


def test_what_makes_tokens_reaches_the_forge_and_the_api(app: Program) -> None:
    policy = app.one("NetworkPolicy", "forge-token", "argocd")
    assert policy["spec"]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "forge-token"}
    to = {
        (peer["ipBlock"]["cidr"], rule["ports"][0]["port"])
        for rule in policy["spec"]["egress"]
        for peer in rule["to"]
    }
    forge = {("140.82.112.0/20", 443), ("192.30.252.0/22", 443)}
    assert to == forge | {("10.244.0.1/32", 6443), ("10.96.0.1/32", 443)}
    assert not policy["spec"].get("ingress")


def test_what_makes_tokens_finds_what_it_imports(app: Program) -> None:
    data = app.one("ConfigMap", "forge-token", "argocd")["data"]
    pod = app.one("Deployment", "forge-token", "argocd")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["command"] == ["python", "/scripts/forge_token.py"]
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert (mounts["scripts"], mounts["key"]) == ("/scripts", "/etc/forge-app")
    [scripts] = [v["configMap"] for v in pod["volumes"] if v["name"] == "scripts"]
    placed = {item["path"]: data[item["key"]] for item in scripts["items"]}
    assert placed.pop("settings.json")
    assert placed == {
        "forge_token.py": (pods.SCRIPTS / "forge_token.py").read_text(),
        **{
            f"slipway/{module}.py": (program.ROOT / "slipway" / f"{module}.py").read_text()
            for module in forge_token.MODULES
        },
    }


def test_its_tokens_may_do_what_steps_do_and_no_more(app: Program, enterprise: Program) -> None:
    def settings(stack: Program) -> dict[str, Any]:
        data = stack.one("ConfigMap", "forge-token", "argocd")["data"]
        return dict(json.loads(data["settings.json"]))

    assert settings(app) == {
        "id": 12345,
        "installation": 678,
        "api": "https://api.github.com",
        "repository": "acme/models",
        "permissions": {"contents": "write", "metadata": "read", "pull_requests": "write"},
        "ca": "",
        "key": "/etc/forge-app/key.pem",
        "account": "/var/run/secrets/kubernetes.io/serviceaccount",
        "secret": "/api/v1/namespaces/pipelines/secrets/forge",
    }
    assert settings(enterprise)["permissions"]["statuses"] == "write", "the cluster judges there"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("d41d8cd98f00b204", "slipway:forgeAppKey: no private key in PEM, without a passphrase"),
        (tls.ec_key(), "slipway:forgeAppKey: a private key, but no RSA one"),
    ],
)
def test_a_key_that_is_none_is_refused(given: str, problem: str) -> None:
    with pytest.raises(pulumi.RunError, match=problem) as refused:
        of("forge_on_github_by_an_app", forgeAppKey=given)
    assert "Pulumi.local.yaml" in str(refused.value)
    assert given not in str(refused.value)


def test_a_key_in_plain_text_is_refused(key: str) -> None:
    file = HERE / "valid" / "forge_on_github_by_an_app.yaml"
    with pytest.raises(pulumi.RunError, match="forgeAppKey: a private key in plain") as refused:
        program.run(program.settings(file) | {APP_KEY: key})
    assert key[40:80] not in str(refused.value)


# --- a certificate by an authority of one's own -------------------------------------------------


def test_who_reads_the_forge_knows_its_authority(enterprise: Program) -> None:
    private = of("forge_gitea_by_its_own_authority")
    for stack, name in ((enterprise, ENTERPRISE), (private, "forge_gitea_by_its_own_authority")):
        given = json.loads(program.settings(HERE / "valid" / f"{name}.yaml")["slipway:forge"])
        ca: str = given["ca"]
        assert stack.one("ConfigMap", "argocd-tls-certs-cm")["data"] == {"git.acme.com": ca}
        assert stack.one("ConfigMap", "platform", "pipelines")["data"]["FORGE_CA"] == ca
        controller = stack.one("ConfigMap", "workflow-controller-configmap")["data"]
        patch = json.loads(yaml.safe_load(controller["workflowDefaults"])["spec"]["podSpecPatch"])
        [volume] = patch["volumes"]
        assert volume["configMap"] == {
            "name": "platform",
            "items": [{"key": "FORGE_CA", "path": "ca.crt"}],
        }
        [init] = patch["initContainers"]
        assert init["name"] == "init"
        [mount] = init["volumeMounts"]
        assert mount["name"] == volume["name"]
        assert init["env"] == [{"name": "SSL_CERT_DIR", "value": mount["mountPath"]}]
    data = enterprise.one("ConfigMap", "forge-token", "argocd")["data"]
    assert json.loads(data["settings.json"])["ca"]


@BOTH
def test_others_know_those_that_everybody_does(stack: Program) -> None:
    assert "data" not in stack.one("ConfigMap", "argocd-tls-certs-cm")
    assert "FORGE_CA" not in stack.one("ConfigMap", "platform", "pipelines")["data"]
    controller = stack.one("ConfigMap", "workflow-controller-configmap")["data"]
    assert "podSpecPatch" not in yaml.safe_load(controller["workflowDefaults"])["spec"]
