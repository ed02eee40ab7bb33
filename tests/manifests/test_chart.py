"""The serving chart, rendered by helm itself."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.aws.config import Pool
from infra.platform.managed import SERVING_KINDS
from slipway import release
from slipway.chart import CHART
from tests.apiserver import binary
from tests.manifests.program import Kubectl

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
    # How many there are is the scaler's to say, and no sync takes it back.
    assert "replicas" not in made["Deployment"]["spec"]
    fixed = render(FIXTURES / "valid" / "gpu.yaml")
    assert "HorizontalPodAutoscaler" not in fixed
    assert fixed["Deployment"]["spec"]["replicas"] == 1


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
