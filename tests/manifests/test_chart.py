"""The serving chart, rendered by helm itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.aws.config import Pool
from infra.platform.applications import SCALED
from infra.platform.managed import SERVING_KINDS
from slipway import release
from slipway.chart import CHART
from tests.apiserver import binary
from tests.manifests.program import LOCAL, Kubectl, of_stack

FIXTURES = Path(__file__).parents[1] / "fixtures" / "releases"
VALID = sorted((FIXTURES / "valid").glob("*.yaml"))
# What the release file's reader refuses, but helm cannot see: it is given values, not a file.
ONLY_IN_THE_FILE = {"stem_differs", "twice"}
INVALID = [
    file
    for file in sorted((FIXTURES / "invalid").glob("*.yaml"))
    if file.stem not in ONLY_IN_THE_FILE
]


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [binary("helm"), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def render(file: Path, *arguments: str) -> dict[str, Any]:
    """Rendered objects by kind; the chart makes one of each."""
    result = helm("template", "it", CHART, "--namespace", "dev", "-f", file, *arguments)
    assert result.returncode == 0, result.stderr
    return {document["kind"]: document for document in yaml.safe_load_all(result.stdout)}


@pytest.mark.parametrize("file", VALID, ids=lambda f: f.stem)
def test_lint(file: Path) -> None:
    result = helm("lint", "--strict", CHART, "-f", file)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("file", INVALID, ids=lambda f: f.stem)
def test_helm_refuses_what_the_reader_refuses(file: Path) -> None:
    assert helm("template", "it", CHART, "-f", file).returncode != 0


def test_helm_refuses_unknown_settings_of_the_chart() -> None:
    result = helm("template", "it", CHART, "-f", VALID[0], "--set", "serving.store.bucket=x")
    assert "serving/store" in result.stderr
    assert "bucket" in result.stderr


@pytest.mark.parametrize("file", VALID, ids=lambda f: f.stem)
def test_every_pin_is_readable_on_deployment_and_pod(file: Path) -> None:
    read = release.load(file)
    deployment = render(file)["Deployment"]
    pod = deployment["spec"]["template"]
    for metadata in (deployment["metadata"], pod["metadata"]):
        found = {k: v for k, v in metadata["annotations"].items() if k.startswith("slipway.dev/")}
        found.pop("slipway.dev/scripts", None)
        assert found == read.pins
    container = pod["spec"]["containers"][0]
    assert container["image"] == read.runtime.image
    digest = {"name": "SLIPWAY_BENTO_DIGEST", "value": read.bento.digest}
    assert digest in container["env"]


def test_sizes_are_whole_numbers(tmp_path: Path) -> None:
    """Helm holds numbers as floats and would print a large one as 1.2e+09."""
    text = (FIXTURES / "valid" / "flight_delay.yaml").read_text()
    file = tmp_path / "flight_delay.yaml"
    file.write_text(text.replace("size: 412345", "size: 1234567890"))
    spec = render(file)["Deployment"]["spec"]["template"]["spec"]
    assert spec["initContainers"][0]["args"][2] == "1234567890"
    assert spec["volumes"][0]["emptyDir"]["sizeLimit"] == str(2 * 1234567890 + 2**26)


def test_argo_cd_may_make_every_kind_of_the_chart_and_no_other() -> None:
    allowed = {kind for kinds in SERVING_KINDS.values() for kind in kinds}
    # And the list of releases, policies/admission/releases.
    assert {kind for file in VALID for kind in render(file)} | {"ReleaseSet"} == allowed


def test_a_budget_only_where_a_replica_can_be_spared() -> None:
    assert "PodDisruptionBudget" not in render(FIXTURES / "valid" / "flight_delay.yaml")
    assert "PodDisruptionBudget" in render(FIXTURES / "valid" / "replicated.yaml")


def containers(rendered: dict[str, Any]) -> dict[str, dict[str, Any]]:
    spec = rendered["Deployment"]["spec"]["template"]["spec"]
    return {c["name"]: c for c in [*spec["initContainers"], *spec["containers"]]}


def volumes(rendered: dict[str, Any]) -> set[str]:
    return {v["name"] for v in rendered["Deployment"]["spec"]["template"]["spec"]["volumes"]}


def test_evidence_is_verified_unless_an_environment_says_no() -> None:
    read = release.load(VALID[1])
    args = containers(render(VALID[1]))["fetch-bento"]["args"]
    digits = read.evidence.digest.removeprefix("sha256:")
    assert args[4:] == [
        f"--evidence=s3://evidence/sha256/{digits}",
        f"--model={read.model}",
        f"--version={read.version}",
        f"--runtime={read.runtime.image}",
        "--environment=dev",
        "--keys=/keys/public.pem",
    ]
    without = render(VALID[1], "--set", "serving.evidence.verify=false")
    assert len(containers(without)["fetch-bento"]["args"]) == 4
    assert "keys" not in volumes(without)


def test_predictions_are_shipped_beside_the_model() -> None:
    read = release.load(VALID[1])
    made = render(VALID[1])
    ship, model = (containers(made)[name] for name in ("ship-predictions", "model"))
    bento = read.bento.digest.removeprefix("sha256:")
    log = {v["name"]: v.get("value") for v in model["env"]}["SLIPWAY_PREDICTION_LOG"]
    assert ship["args"][:2] == [log, f"s3://predictions/dev/{read.model}/{bento}"]
    # What waits has room beside what is being written.
    assert int(ship["args"][3]) + 2 * (16 << 20) <= 80 << 20
    assert ship["envFrom"] == containers(made)["fetch-bento"]["envFrom"]
    assert "envFrom" not in model, "a model's code gets no key to the store"
    without = render(VALID[1], "--set", "serving.predictions.log=false")
    assert "ship-predictions" not in containers(without)
    assert "predictions" not in volumes(without)


GPUS = FIXTURES / "valid" / "gpus.yaml"


def test_a_replica_with_gpus() -> None:
    deployment = render(GPUS)["Deployment"]["spec"]
    spec = deployment["template"]["spec"]
    assert spec["nodeSelector"] == {"slipway/pool": "inference"}
    # The taint that a pool has unless it says otherwise.
    taint = {"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}
    assert [t.model_dump() for t in Pool.model_fields["taints"].default] == [taint]
    assert spec["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    asked = {name: c["resources"] for name, c in containers(render(GPUS)).items()}
    assert asked["model"]["limits"] == {"memory": "16Gi", "nvidia.com/gpu": "2"}
    assert asked["model"]["requests"] == asked["fetch-bento"]["requests"]
    # GPUs of containers that come before would be added up, or taken from the model.
    assert [name for name, a in asked.items() if "nvidia.com/gpu" in a["limits"]] == ["model"]
    model = spec["containers"][0]
    assert {"name": "SLIPWAY_GPUS", "value": "2"} in model["env"]
    made = {v["name"]: v.get("emptyDir") for v in spec["volumes"]}
    assert made["shared"] == {"medium": "Memory", "sizeLimit": "2Gi"}
    assert made["tmp"] == {"sizeLimit": "8Gi"}
    assert {"name": "shared", "mountPath": "/dev/shm"} in model["volumeMounts"]
    assert model["startupProbe"]["failureThreshold"] == 900
    # A node that has to come first is not a rollout that has failed.
    assert deployment["progressDeadlineSeconds"] == 900 + 60 + 900


def test_a_runtime_class_where_an_environment_says_so() -> None:
    assert "runtimeClassName" not in render(GPUS)["Deployment"]["spec"]["template"]["spec"]
    spec = render(GPUS, "--set", "serving.gpu.runtime=nvidia")["Deployment"]["spec"]
    assert spec["template"]["spec"]["runtimeClassName"] == "nvidia"


def test_without_gpus_nothing_is_asked_of_nodes() -> None:
    deployment = render(FIXTURES / "valid" / "flight_delay.yaml")["Deployment"]["spec"]
    spec = deployment["template"]["spec"]
    assert not {"nodeSelector", "tolerations", "runtimeClassName"} & set(spec)
    assert "nvidia.com/gpu" not in yaml.safe_dump(spec)
    assert spec["containers"][0]["startupProbe"]["failureThreshold"] == 180
    assert deployment["progressDeadlineSeconds"] == 240


def test_replicas_follow_the_queue_where_the_release_says_so() -> None:
    made = render(GPUS)
    scaler = made["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == made["Deployment"]["metadata"]["name"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 4)
    [metric] = scaler["metrics"]
    assert metric["pods"] == {
        "metric": {"name": "vllm:num_requests_waiting"},
        "target": {"type": "AverageValue", "averageValue": "8"},
    }
    fixed = render(FIXTURES / "valid" / "gpu.yaml")
    assert "HorizontalPodAutoscaler" not in fixed
    assert fixed["Deployment"]["spec"]["replicas"] == 1


AUTOSCALED = FIXTURES / "valid" / "autoscaled.yaml"


def test_replicas_follow_the_cpu_where_the_release_says_so() -> None:
    scaler = render(AUTOSCALED)["HorizontalPodAutoscaler"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 6)
    target = {"type": "Utilization", "averageUtilization": 70}
    assert scaler["metrics"] == [
        {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    ]
    # A replica is of use in seconds: Kubernetes' own pace.
    assert "behavior" not in scaler


@pytest.mark.parametrize("file", [GPUS, AUTOSCALED, VALID[1]], ids=lambda f: f.stem)
def test_there_is_a_number_of_replicas_even_where_it_follows_something(file: Path) -> None:
    """What was applied, and is no more, the API server sets to one."""
    assert render(file)["Deployment"]["spec"]["replicas"] == release.load(file).rollout.replicas


@pytest.mark.parametrize("files", ["valid", "rollout: text", "rollout: [1]", "rollout:", "a: 1"])
def test_their_number_is_an_autoscaler_s_where_the_release_has_one(
    tmp_path: Path, files: str
) -> None:
    """Argo CD and helm have the same templates and functions; what is no release breaks none."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: it\nversion: 0.1.0\n")
    template = "{{- with .Values.file }}\n" + SCALED + "{{- end }}\n"
    (tmp_path / "templates" / "patch.yaml").write_text(template)
    texts = [f.read_text() for f in VALID] if files == "valid" else [files]
    for text in texts:
        values = tmp_path / "values.json"
        values.write_text(json.dumps({"file": yaml.safe_load(text)}))
        done = helm("template", "it", tmp_path, "-f", values)
        assert done.returncode == 0, done.stderr
        patch = yaml.safe_load(done.stdout)
        assert (patch != {}) == ("autoscale:" in text)
        if patch:
            [ignored] = patch["spec"]["ignoreDifferences"]
            assert (ignored["group"], ignored["kind"]) == ("apps", "Deployment")


@pytest.mark.parametrize("file", VALID, ids=lambda f: f.stem)
def test_replicas_are_apart_where_they_can_be(file: Path) -> None:
    read, made = release.load(file), render(file)
    spec = made["Deployment"]["spec"]["template"]["spec"]
    spread = spec.get("topologySpreadConstraints", [])
    over = ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert [s["topologyKey"] for s in spread] == (over if read.rollout.most > 1 else [])
    for constraint in spread:
        assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
        assert constraint["labelSelector"] == made["Deployment"]["spec"]["selector"]


# --- who may call -----------------------------------------------------------------------------

CALLED = FIXTURES / "valid" / "called.yaml"
NOBODY = FIXTURES / "valid" / "called_by_nobody.yaml"
ROUTED = FIXTURES / "valid" / "routed.yaml"


def callers(file: Path, *arguments: str) -> Any:
    return render(file, *arguments)["NetworkPolicy"]["spec"].get("ingress", [])


def test_every_pod_may_call_unless_the_release_says_who() -> None:
    ports = [{"port": "http", "protocol": "TCP"}]
    assert callers(VALID[0]) != callers(CALLED)
    assert callers(ROUTED) == [{"ports": ports}]
    name = "kubernetes.io/metadata.name"
    checkout, gateways = (
        {"namespaceSelector": {"matchLabels": {name: n}}} for n in ("checkout", "gateways")
    )
    shop = {
        "namespaceSelector": {"matchLabels": {name: "web"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "shop", "tier": "front"}},
    }
    assert callers(CALLED) == [{"from": [checkout, shop, gateways], "ports": ports}]
    # No rule, of a policy of this direction: nobody.
    assert callers(NOBODY) == []
    assert "Ingress" in render(NOBODY)["NetworkPolicy"]["spec"]["policyTypes"]


def test_an_environment_says_who_where_the_release_does_not() -> None:
    setting = ("--set-json", 'serving.allowFrom=[{"namespace": "shop"}]')
    [rule] = callers(ROUTED, *setting)
    assert [p["namespaceSelector"]["matchLabels"] for p in rule["from"]] == [
        {"kubernetes.io/metadata.name": "shop"}
    ]
    assert callers(CALLED, *setting) == callers(CALLED)
    assert callers(NOBODY, *setting) == []
    refused = helm("template", "it", CHART, "-f", ROUTED, "--set-json", "serving.allowFrom=[]")
    assert "allowFrom lets nobody call" in refused.stderr


def test_a_route_leads_to_the_service_by_what_the_release_names() -> None:
    made = render(CALLED)
    route, service = made["HTTPRoute"]["spec"], made["Service"]
    gateway = {"name": "public", "namespace": "gateways"}
    assert route["parentRefs"] == [{**gateway, "sectionName": "https"}]
    assert route["hostnames"] == ["called.example.com"]
    [rule] = route["rules"]
    assert [m["path"]["value"] for m in rule["matches"]] == ["/predict", "/predict_batch"]
    [port] = service["spec"]["ports"]
    assert rule["backendRefs"] == [{"name": service["metadata"]["name"], "port": port["port"]}]
    plain = render(ROUTED)["HTTPRoute"]["spec"]
    assert plain["parentRefs"] == [gateway]
    [rule] = plain["rules"]
    assert [m["path"]["value"] for m in rule["matches"]] == ["/predict"]
    assert "HTTPRoute" not in render(VALID[0])


def test_the_platform_itself_may_call_whoever_else_may() -> None:
    """What the chart's policy does not let in, that of the namespace does."""
    program = of_stack(LOCAL)
    [port] = containers(render(NOBODY))["model"]["ports"]
    for environment in ("dev", "staging", "prod"):
        policy = program.one("NetworkPolicy", f"{environment}-models", environment)["spec"]
        assert policy["podSelector"] == {"matchLabels": {}}
        steps, api = policy["ingress"]
        assert {p["port"] for rule in (steps, api) for p in rule["ports"]} == {
            port["containerPort"]
        }
        [peer] = steps["from"]
        assert peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == (
            "pipelines"
        )
        assert api["from"] == [{"ipBlock": {"cidr": "10.244.0.1/32"}}]


def test_a_replica_drains_before_it_stops() -> None:
    spec = render(VALID[1])["Deployment"]["spec"]["template"]["spec"]
    model = spec["containers"][0]
    command = model["lifecycle"]["preStop"]["exec"]["command"][-1]
    draining = {v["name"]: v.get("value") for v in model["env"]}["SLIPWAY_DRAINING"]
    assert command == f"touch {draining}; sleep 5"
    assert spec["terminationGracePeriodSeconds"] == 5 + int(model["args"][2]) + 5


def test_a_store_outside_the_cluster_is_reachable_anywhere_on_its_port() -> None:
    inside = render(VALID[0])["NetworkPolicy"]["spec"]["egress"][1]
    assert inside["to"][0]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "storage"
    }
    settings = ("--set", "serving.store.namespace=null,serving.store.port=443")
    outside = render(VALID[0], *settings)["NetworkPolicy"]["spec"]["egress"][1]
    assert outside == {"ports": [{"port": 443, "protocol": "TCP"}]}


DRY_RUN = ("--dry-run=server", "--validate=strict", "--namespace=dev")


@pytest.mark.apiserver
@pytest.mark.parametrize("file", VALID, ids=lambda f: f.stem)
def test_a_real_api_server_takes_every_object(kubectl: Kubectl, file: Path) -> None:
    objects = list(render(file).values())
    done = kubectl("apply", "--server-side", *DRY_RUN, objects=objects)
    assert "would violate PodSecurity" not in done.stderr
    assert len(done.stdout.splitlines()) == len(objects)


@pytest.mark.apiserver
@pytest.mark.parametrize("file", [VALID[0], GPUS], ids=lambda f: f.stem)
def test_pods_pass_the_restricted_policy(kubectl: Kubectl, file: Path) -> None:
    """A Deployment that breaks the policy is only warned about; its pods are refused."""
    template = render(file)["Deployment"]["spec"]["template"]
    template["metadata"]["name"] = "it"
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    assert "pod/it created" in kubectl("create", *DRY_RUN, objects=[pod]).stdout
