"""The whole program, run once against mocks: what matters about what it registers."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pulumi
import pytest
import yaml
from pulumi.output import UNKNOWN

from infra.config import size_in_bytes
from infra.platform import pods, upstream
from infra.platform.applications import SCALED
from infra.platform.managed import SERVING_KINDS
from infra.platform.signing_key import SigningKeyProvider
from slipway import attestation
from slipway.errors import SlipwayError
from tests.manifests import program
from tests.manifests.program import Program, containers, decoded

ENVIRONMENTS = ["dev", "staging", "prod"]
BY_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
# Runs as root on the node's disk, and is no workload of the program's: the provisioner makes it.
PRIVILEGED = {"local-path-storage"}
KEPT = ("predictions", "labels", "workflows")


@pytest.fixture(scope="module")
def local() -> Program:
    return program.of_stack(program.LOCAL)


def millicores(text: str) -> int:
    return int(text[:-1]) if text.endswith("m") else 1000 * int(text)


def everywhere(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from everywhere(item)
    elif isinstance(value, list):
        for item in value:
            yield from everywhere(item)
    elif isinstance(value, str):
        yield value


def test_every_pod_is_restricted(local: Program) -> None:
    for namespace, name, pod in local.pods():
        where = f"{namespace}/{name}"
        context = pod.get("securityContext", {})
        assert context.get("runAsNonRoot") is True, where
        assert isinstance(context.get("runAsUser"), int | float), where
        assert context.get("seccompProfile") == {"type": "RuntimeDefault"}, where
        for container in containers(pod):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, where
            assert own["capabilities"] == {"drop": ["ALL"]}, where
            assert own["readOnlyRootFilesystem"] is True, where
        assert not [v for v in pod.get("volumes", []) if "hostPath" in v], where


def test_every_image_is_named_by_digest(local: Program) -> None:
    for namespace, name, pod in local.pods():
        for container in containers(pod):
            assert BY_DIGEST.search(container["image"]), f"{namespace}/{name}"
            assert container["imagePullPolicy"] == "IfNotPresent"
    deployment = local.one("Deployment", "workflow-controller")
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert BY_DIGEST.search(arguments[arguments.index("--executor-image") + 1])


def test_every_container_says_what_it_needs(local: Program) -> None:
    for namespace, name, pod in local.pods():
        for container in containers(pod):
            resources = container["resources"]
            assert set(resources["requests"]) == {"cpu", "memory"}, f"{namespace}/{name}"
            assert "memory" in resources["limits"], f"{namespace}/{name}"


def test_every_lasting_container_has_probes(local: Program) -> None:
    for manifest in local.all("Deployment", "StatefulSet"):
        for container in manifest["spec"]["template"]["spec"]["containers"]:
            name = container["name"]
            assert "readinessProbe" in container or name == "local-path", name


def test_the_platform_leaves_room_for_training(local: Program) -> None:
    cpu = memory = 0
    for manifest in local.all("Deployment", "StatefulSet"):
        for container in manifest["spec"]["template"]["spec"]["containers"]:
            requests = container["resources"]["requests"]
            cpu += millicores(requests["cpu"])
            memory += size_in_bytes(requests["memory"])
    assert cpu <= 300
    assert memory <= 1.5 * 2**30


def test_only_pods_that_call_the_api_get_a_token(local: Program) -> None:
    with_token = {
        name
        for _, name, pod in local.pods()
        if pod.get("automountServiceAccountToken", True) is not False
    }
    assert with_token == {
        "argo-server",
        "argocd-application-controller",
        "argocd-applicationset-controller",
        "argocd-server",
        "local-path",
        "metrics-server",
        "workflow-controller",
    }


def test_namespaces_enforce_pod_security(local: Program) -> None:
    for namespace in local.all("Namespace"):
        name = namespace["metadata"]["name"]
        expected = "privileged" if name in PRIVILEGED else "restricted"
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == expected


def test_every_namespace_denies_by_default(local: Program) -> None:
    for namespace in local.all("Namespace"):
        name = namespace["metadata"]["name"]
        policy = local.one("NetworkPolicy", "default", name)["spec"]
        assert policy["podSelector"].get("matchLabels", {}) == {}
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        assert "ingress" not in policy
        [dns] = policy["egress"]
        assert {p["port"] for p in dns["ports"]} == {53}


def test_network_policies_meet_pods_that_exist(local: Program) -> None:
    labels = {
        (m["metadata"]["namespace"], k, v)
        for m in local.all("Deployment", "StatefulSet", "Job")
        for k, v in m["spec"]["template"]["metadata"]["labels"].items()
    }
    for policy in local.all("NetworkPolicy"):
        where = policy["metadata"]["namespace"]
        for key, value in policy["spec"]["podSelector"].get("matchLabels", {}).items():
            assert (where, key, value) in labels, policy["metadata"]["name"]


def test_no_password_in_plain(local: Program) -> None:
    made = {r.name: r for r in local.resources if r.token.endswith(":RandomPassword")}
    assert len(made) >= 15
    passwords = {program.password(r.name, int(r.inputs["length"])) for r in made.values()}
    passwords.add(program.password("evidence-key", 64))
    for manifest in local.manifests:
        text = json.dumps(manifest)
        assert not [p for p in passwords if p in text], manifest["metadata"]["name"]
        if manifest["kind"] == "Secret":
            assert not manifest.get("stringData")
            assert {"data"} & manifest.keys() or "service-account-token" in manifest["type"]
    assert not [t for t in everywhere(local.outputs) if any(p in t for p in passwords)]


def test_secrets_are_secret_in_the_state(local: Program) -> None:
    for resource in local.resources:
        if resource.inputs.get("kind") == "Secret" and "data" in resource.inputs:
            assert "data" in resource.secret, resource.name


def test_workflows_find_what_they_need(local: Program) -> None:
    store = decoded(local.one("Secret", "object-store", "pipelines"))
    assert set(store) == {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ENDPOINT_URL",
        "AWS_DEFAULT_REGION",
    }
    assert store["AWS_ENDPOINT_URL"] == "http://minio.storage.svc:9000"
    forge = decoded(local.one("Secret", "forge", "pipelines"))
    assert forge["FORGE_USERNAME"] == "slipway-bot"
    platform = local.one("ConfigMap", "platform", "pipelines")
    assert platform["metadata"]["labels"] == {"workflows.argoproj.io/configmap-type": "Parameter"}
    assert platform["data"] == {
        "MLFLOW_TRACKING_URI": "http://mlflow.mlflow.svc:5000",
        "FORGE_URL": "http://gitea.forge.svc:3000",
        "FORGE_REPOSITORY": "slipway/slipway",
        "FORGE_JUDGE": "slipway-bot",
        "TRAINING_IMAGE": program.IMAGES["training"],
        "SERVING_IMAGE": program.IMAGES["serving"],
        "ENVIRONMENTS": "dev staging prod",
    }
    for namespace in ("pipelines", "argo"):
        assert set(local.one("Secret", "argo-artifacts", namespace)["data"]) == {
            "accesskey",
            "secretkey",
        }


def test_mlflow_starts_on_tables_of_its_own_schema(local: Program) -> None:
    pod = local.one("Deployment", "mlflow")["spec"]["template"]["spec"]
    [migrate], [server] = pod["initContainers"], pod["containers"]
    script = local.one("ConfigMap", "mlflow", "mlflow")["data"]
    assert migrate["command"] == ["python", f"/scripts/{next(iter(script))}"]
    assert (migrate["image"], migrate["env"]) == (server["image"], server["env"])
    assert {"name": "scripts", "configMap": {"name": "mlflow"}} in pod["volumes"]


def test_models_read_bentos_and_evidence_and_add_predictions(local: Program) -> None:
    settings = json.loads(local.one("ConfigMap", "minio-buckets")["data"]["settings.json"])
    for environment in ENVIRONMENTS:
        store = decoded(local.one("Secret", "object-store", environment))
        rights = settings["users"][store["AWS_ACCESS_KEY_ID"]]
        assert rights == {
            "read": ["bentos", "evidence"],
            "write": [],
            "delete": [],
            "put": [f"predictions/{environment}/"],
        }
        assert (
            local.one("ServiceAccount", "model", environment)["automountServiceAccountToken"]
            is False
        )
    pipelines = settings["users"]["pipelines"]
    assert pipelines["write"] == ["data", "bentos", "evidence"]
    assert pipelines["read"] == ["predictions", "labels"]
    assert pipelines["delete"] == pipelines["put"] == []
    assert settings["users"]["mlflow"]["write"] == ["mlflow"]
    labels = decoded(local.one("Secret", "labels", "pipelines"))["AWS_ACCESS_KEY_ID"]
    assert settings["users"][labels]["write"] == ["labels"]
    reader = decoded(local.one("Secret", "reader", "pipelines"))["AWS_ACCESS_KEY_ID"]
    assert settings["users"][reader]["read"] == [*("data", "bentos", "evidence"), *KEPT]
    assert not [v for k, v in settings["users"][reader].items() if k != "read" and v]
    assert set(settings["buckets"]) == {
        *("data", "bentos", "evidence", "predictions", "labels", "mlflow", "workflows")
    }


def test_admission_knows_the_stacks_registries(local: Program) -> None:
    policies = {p["metadata"]["name"] for p in local.all("ValidatingAdmissionPolicy")}
    bound = {b["spec"]["policyName"] for b in local.all("ValidatingAdmissionPolicyBinding")}
    assert policies == bound
    assert {p.stem for p in (program.ROOT / "policies" / "admission").glob("*.yaml")} <= {
        name.removeprefix("slipway-") for name in policies
    }
    images = local.one("ValidatingAdmissionPolicy", "slipway-images")["spec"]["variables"]
    assert images[0] == {"name": "registries", "expression": '["localhost:5000/"]'}


def test_each_environment_keeps_a_list_of_its_releases(local: Program) -> None:
    """By an Application that the ApplicationSet makes, of one template laid over the other."""
    for environment in ENVIRONMENTS:
        spec = local.one("ApplicationSet", environment)["spec"]
        [made] = [g["list"] for g in spec["generators"] if "list" in g]
        assert len(made["elements"]) == 1
        # Without a parameter a template would be taken as it stands.
        assert made["elements"][0]
        application = overlaid(spec["template"], made["template"])
        assert application["metadata"]["name"] == f"releases-{environment}"
        paths = application["metadata"]["annotations"]["argocd.argoproj.io/manifest-generate-paths"]
        assert f"/environments/{environment}/models" in paths.split(";")
        spec = application["spec"]
        assert spec["project"] == spec["destination"]["namespace"] == environment
        assert spec["source"]["path"] == "policies/admission/releases"
        assert spec["source"]["targetRevision"] == "main"
        assert spec["source"]["helm"]["valueFiles"] == ["values.yaml"]
        assert spec["source"]["helm"]["parameters"] == [
            {"name": "environment", "value": environment}
        ]
        assert spec["syncPolicy"]["automated"] == {"prune": True, "selfHeal": True}
        # None of the models' own parameters, which this one has not.
        assert "{{" not in json.dumps(application)


def overlaid(base: Any, over: Any) -> Any:
    """What `over` leaves open is as `base` has it."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    both = {key: overlaid(base[key], over[key]) for key in base.keys() & over.keys()}
    return {**base, **over, **both}


def test_an_application_set_for_each_environment(local: Program) -> None:
    for environment in ENVIRONMENTS:
        spec = local.one("ApplicationSet", environment)["spec"]
        [git] = [g["git"] for g in spec["generators"] if "git" in g]
        assert git["files"] == [{"path": f"environments/{environment}/models/*.yaml"}]
        application = spec["template"]["spec"]
        assert application["project"] == environment
        assert application["destination"]["namespace"] == environment
        assert application["source"]["path"] == "bentos/serving"
        assert application["source"]["helm"]["valueFiles"] == [
            "values.yaml",
            f"/environments/{environment}/values.yaml",
            "/{{ .path.path }}/{{ .path.filename }}",
        ]
        assert application["source"]["helm"]["ignoreMissingValueFiles"] is True
        assert application["syncPolicy"]["automated"] == {"prune": True, "selfHeal": True}
        assert "RespectIgnoreDifferences=true" in application["syncPolicy"]["syncOptions"]
        assert spec["templatePatch"] == SCALED
        project = local.one("AppProject", environment)["spec"]
        assert [d["namespace"] for d in project["destinations"]] == [environment]
        assert project["clusterResourceWhitelist"] == []
        # Those of the serving chart (tests/manifests/test_chart.py), and so no Secret and no Role.
        assert project["namespaceResourceWhitelist"] == [
            {"group": group, "kind": kind}
            for group, kinds in SERVING_KINDS.items()
            for kind in kinds
        ]


def test_the_repository_is_the_same_everywhere(local: Program) -> None:
    url = "http://gitea.forge.svc:3000/slipway/slipway.git"
    assert decoded(local.one("Secret", "repository-slipway"))["url"] == url
    assert local.one("Application", "workflows")["spec"]["source"]["repoURL"] == url
    ini = decoded(local.one("Secret", "gitea", "forge"))["app.ini"]
    # Argo CD matches a push to applications by the address that Gitea gives itself.
    assert "ROOT_URL = http://gitea.forge.svc:3000/\n" in ini


def test_what_no_webhook_tells_of_is_looked_for(local: Program) -> None:
    data = local.one("ConfigMap", "argocd-cm")["data"]
    assert (data["timeout.reconciliation"], data["timeout.reconciliation.jitter"]) == ("60s", "0s")
    for made in local.all("ApplicationSet"):
        assert made["spec"]["generators"][0]["git"]["requeueAfterSeconds"] == 10


def rights(local: Program, account: str) -> dict[str, set[str]]:
    return {
        resource: set(rule["verbs"])
        for rule in local.one("Role", account, "pipelines")["rules"]
        for resource in rule["resources"]
    }


def test_accounts_of_workflow_pods_may_do_what_their_steps_need(local: Program) -> None:
    """None reports how a step went but Argo's own containers, whose token no step has."""
    bound = {s["name"] for m in local.all("RoleBinding") for s in m["subjects"]}
    assert {"workflow", "evidence"}.isdisjoint(bound)
    assert "executor" in bound
    assert rights(local, "executor") == {"workflowtaskresults": {"create", "patch"}}
    token = local.one("Secret", "executor.service-account-token", "pipelines")
    assert token["metadata"]["annotations"] == {"kubernetes.io/service-account.name": "executor"}
    assert rights(local, "dispatcher") == {
        "workflows": {"create", "get", "list"},
        "workflowtemplates": {"get"},
        "configmaps": {"get", "patch"},
    }
    [memo] = [
        r
        for r in local.one("Role", "dispatcher", "pipelines")["rules"]
        if r["resources"] == ["configmaps"]
    ]
    assert memo["resourceNames"] == ["dispatched"]


def test_what_happens_on_the_forge_is_announced_and_signed(local: Program) -> None:
    settings = json.loads(local.one("ConfigMap", "gitea-setup")["data"]["settings.json"])
    assert settings["webhooks"] == {
        "http://argocd-server.argocd.svc/api/webhook": ["push"],
        "http://argo-server.argo.svc:2746/api/v1/events/pipelines/forge": [
            "pull_request_only",
            "pull_request_sync",
        ],
    }
    secret = decoded(local.one("Secret", "gitea-setup"))["webhook"]
    assert decoded(local.one("Secret", "argocd-secret"))["webhook.gogs.secret"] == secret
    clients = decoded(local.one("Secret", "argo-workflows-webhook-clients", "pipelines"))
    assert json.loads(clients["forge-events"]) == {"type": "github", "secret": secret}
    token = local.one("Secret", "forge-events.service-account-token", "pipelines")
    assert token["metadata"]["annotations"] == {
        "kubernetes.io/service-account.name": "forge-events"
    }
    assert rights(local, "forge-events") == {
        "workfloweventbindings": {"list"},
        "workflowtemplates": {"get"},
        "workflows": {"create"},
    }


def test_nobody_starts_a_workflow_unasked(local: Program) -> None:
    arguments = local.one("Deployment", "argo-server")["spec"]["template"]["spec"]
    assert [a for a in arguments["containers"][0]["args"] if "auth-mode" in a] == [
        "--auth-mode=client"
    ]
    data = local.one("ConfigMap", "workflow-controller-configmap")["data"]
    assert yaml.safe_load(data["workflowRestrictions"]) == {"templateReferencing": "Strict"}
    assert {v for verbs in rights(local, "console").values() for v in verbs} == {
        "get",
        "list",
        "watch",
    }


def test_main_changes_only_by_what_has_passed(local: Program) -> None:
    settings = json.loads(local.one("ConfigMap", "gitea-setup")["data"]["settings.json"])
    protection = settings["protection"]
    assert protection["status_check_contexts"] == ["slipway/check"]
    assert protection["enable_status_check"] is True
    assert protection["block_admin_merge_override"] is True
    assert protection["push_whitelist_usernames"] == ["slipway-admin"]
    assert protection["enable_push_whitelist"] is True
    assert protection["enable_force_push"] is False
    assert settings["merges"]["allow_merge_commits"] is True
    assert settings["merges"]["allow_rebase"] is False
    ini = decoded(local.one("Secret", "gitea", "forge"))["app.ini"]
    assert "[attachment]\nENABLED = true\nALLOWED_TYPES = .png\n" in ini


def test_the_key_is_readable_by_the_step_that_signs_and_nobody_else(local: Program) -> None:
    private = local.one("Secret", "evidence-key", "pipelines")
    assert set(decoded(private)) == {"private.pem"}
    for namespace in ("pipelines", *ENVIRONMENTS):
        public = local.one("ConfigMap", "evidence-keys", namespace)
        assert public["data"] == {"public.pem": "a public key"}
    for role in (*local.all("Role"), *local.all("ClusterRole")):
        if role["metadata"].get("namespace", "pipelines") == "pipelines":
            for rule in role["rules"]:
                if {"secrets", "*"} & set(rule.get("resources", ())):
                    assert "evidence-key" not in rule["resourceNames"]
                    assert rule["verbs"] == ["get"]


def test_a_signing_key_is_made_once_and_is_one_that_evidence_is_signed_with() -> None:
    provider = SigningKeyProvider()
    made, other = (provider.create({}).outs or {} for _ in range(2))
    assert made["private"] != other["private"]
    private = attestation.load_private(made["private"].encode(), "private.pem")
    [key] = attestation.load_keys(made["public"]).values()
    assert attestation.key_id(key) == attestation.key_id(private.public_key())
    assert provider.diff("", made, {"private": None, "public": None}).changes is False
    assert provider.update("", made, {}).outs == made


def test_argo_cd_changes_only_the_namespaces_it_manages(local: Program) -> None:
    for name in ("argocd-application-controller", "argocd-server"):
        verbs = {v for r in local.one("ClusterRole", name)["rules"] for v in r["verbs"]}
        assert verbs <= {"get", "list", "watch"}
    for role in local.all("Role"):
        if role["metadata"]["name"].startswith("argocd-") and (
            role["metadata"]["namespace"] != "argocd"
        ):
            assert not {"*", "secrets", "pods"} & {n for r in role["rules"] for n in r["resources"]}
    namespaces = {
        r["metadata"]["namespace"]
        for r in local.all("RoleBinding")
        if r["metadata"]["name"] == "argocd-application-controller"
    }
    assert namespaces == {"argocd", "pipelines", *ENVIRONMENTS}


def test_nobody_reaches_the_world(local: Program) -> None:
    for policy in local.all("NetworkPolicy"):
        for rule in policy["spec"].get("egress") or ():
            assert rule.get("to"), policy["metadata"]
    [steps] = [
        p["spec"]["egress"]
        for p in local.all("NetworkPolicy")
        if (p["metadata"]["namespace"], p["metadata"]["name"]) == ("pipelines", "steps")
    ]
    blocks = [rule for rule in steps if any("ipBlock" in peer for peer in rule["to"])]
    assert blocks == [
        {"to": [{"ipBlock": {"cidr": cidr}}], "ports": [{"port": port, "protocol": "TCP"}]}
        for cidr, port in (("10.244.0.1/32", 6443), ("10.96.0.1/32", 443))
    ]


def test_argo_workflows_has_rights_in_its_namespaces_only(local: Program) -> None:
    assert not [
        r["metadata"]["name"]
        for r in local.all("ClusterRoleBinding")
        if any(s["namespace"] == "argo" for s in r["subjects"])
    ]
    own = local.one("Role", "argo-role", "argo")["rules"]
    assert not [r for r in own if "pods" in r["resources"]]
    assert (
        local.one("RoleBinding", "argo-binding-managed")["roleRef"]["name"] == "argo-role-managed"
    )


def test_workflow_pods_are_restricted_by_the_controller(local: Program) -> None:
    data = local.one("ConfigMap", "workflow-controller-configmap")["data"]
    for part in ("executor", "mainContainer"):
        context = yaml.safe_load(data[part])["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["allowPrivilegeEscalation"] is False
    spec = yaml.safe_load(data["workflowDefaults"])["spec"]
    assert spec["securityContext"]["runAsUser"] == pods.USER
    assert spec["podGC"] == {"strategy": "OnPodCompletion"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["executor"] == {"serviceAccountName": "executor"}
    repository = yaml.safe_load(data["artifactRepository"])
    assert repository["archiveLogs"] is True
    assert repository["s3"]["bucket"] == "workflows"
    assert yaml.safe_load(data["persistence"])["postgresql"]["database"] == "argo"


def test_consoles_are_where_the_addresses_say(local: Program) -> None:
    ports = {
        p["nodePort"] for s in local.all("Service") for p in s["spec"]["ports"] if p.get("nodePort")
    }
    named = {int(url.rsplit(":", 1)[1]) for url in local.outputs["consoles"].values()}
    assert ports == named == {30300, 30080, 30500, 30746, 30900}


def test_names_are_fixed_and_unique(local: Program) -> None:
    names = Counter(
        (m["apiVersion"], m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"])
        for m in local.manifests
    )
    assert not [name for name, count in names.items() if count > 1]
    tokens = {r.token for r in local.resources if "apiVersion" in r.inputs}
    assert "kubernetes:core/v1:ConfigMap" in tokens
    assert not [t for t in tokens if t.startswith("kubernetes:v1:")]


def test_a_cluster_that_exists_brings_its_own_storage() -> None:
    images = {n: f"registry.example/{n}@sha256:{'0' * 64}" for n, v in program.NAMES.items()}
    config = {
        "slipway:cluster": "kubeconfig",
        "slipway:environments": '["prod"]',
        "slipway:images": json.dumps({n: images[n] for n in ("mlflow", "serving", "training")}),
    }
    elsewhere = program.run(config, "prod")
    policy = elsewhere.one("ValidatingAdmissionPolicy", "slipway-images")["spec"]
    assert policy["variables"][0]["expression"] == '["registry.example/"]'
    assert not elsewhere.all("StorageClass", "APIService")
    assert {m["metadata"]["name"] for m in elsewhere.all("ApplicationSet")} == {"prod"}
    assert not [s for s in elsewhere.all("Service") if s["spec"].get("type") == "NodePort"]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({}, "environments/Pulumi.prod.yaml: images.mlflow: only Slipway has this image"),
        ({"trainin": "x"}, "images.trainin: no such image\n  fix: did you mean 'training'?"),
    ],
)
def test_images_that_nobody_serves_must_be_named(images: dict[str, str], message: str) -> None:
    config = {
        "slipway:cluster": "kubeconfig",
        "slipway:environments": '["prod"]',
        "slipway:images": json.dumps(images),
    }
    with pytest.raises(pulumi.RunError, match=re.escape(message)):
        program.run(config, "prod")


def test_a_patch_that_fits_nothing_is_refused() -> None:
    with pytest.raises(SlipwayError, match="upstream has no Deployment gone to patch"):
        upstream.patch([], [{"kind": "Deployment", "metadata": {"name": "gone"}}])


def test_patches_merge_by_name() -> None:
    base = {
        "kind": "Deployment",
        "metadata": {"name": "a", "labels": {"x": "1"}},
        "spec": {"containers": [{"name": "one", "args": [1]}, {"name": "two"}], "old": 1},
    }
    change = {
        "kind": "Deployment",
        "metadata": {"name": "a"},
        "spec": {
            "containers": [{"name": "one", "args": [2]}, {"name": "two", "$patch": "delete"}],
            "old": None,
        },
    }
    [patched] = upstream.patch([base], [change])
    assert patched["metadata"] == {"name": "a", "labels": {"x": "1"}}
    assert patched["spec"] == {"containers": [{"name": "one", "args": [2]}]}
    assert base["spec"]["old"] == 1


def test_an_image_that_is_not_ours_is_refused() -> None:
    pod = {"containers": [{"name": "a", "image": "docker.io/library/other:1"}]}
    manifest = {"kind": "Deployment", "metadata": {}, "spec": {"template": {"spec": pod}}}
    with pytest.raises(SlipwayError, match="no image of ours for"):
        upstream.with_images([manifest], {})


class Filter(dict[str, Any]):
    """A provider's type, as its SDK has it."""

    @property
    def values(self) -> Any:
        return self["values"]


@pytest.mark.parametrize(
    ("value", "unknown"),
    [
        ({"a": [1, {"b": "c"}]}, False),
        ({"a": [1, {"b": UNKNOWN}]}, True),
        (Filter(values=["a"]), False),
        ([Filter(values=["a", UNKNOWN])], True),
    ],
)
def test_what_is_unknown_is_found_wherever_it_is(value: Any, unknown: bool) -> None:
    assert program.contains_unknowns(value) is unknown
