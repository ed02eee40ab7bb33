"""policies/admission: each refusal and each acceptance is the API server's own answer."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.platform.admission import POLICIES
from infra.platform.applications import RELEASES
from slipway import release
from slipway.chart import CHART
from tests.apiserver import binary, start_apiserver
from tests.manifests.program import ROOT

pytestmark = pytest.mark.apiserver

FIXTURE = ROOT / "tests" / "fixtures" / "releases" / "valid" / "flight_delay.yaml"
RELEASE, TEXT = release.load(FIXTURE), FIXTURE.read_text()
ARGO_CD = "system:serviceaccount:argocd:argocd-application-controller"
DEPLOYMENTS = "system:serviceaccount:kube-system:deployment-controller"
REPLICA_SETS = "system:serviceaccount:kube-system:replicaset-controller"
NAMESPACES = "system:serviceaccount:kube-system:namespace-controller"
GARBAGE = "system:serviceaccount:kube-system:generic-garbage-collector"
ADMIN = "admin"
OTHER = "sha256:" + "0" * 64

Object = dict[str, Any]
Done = subprocess.CompletedProcess[str]


class Kubectl:
    """kubectl as somebody; what it sends is judged, and only kept where a test says so."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def run(self, *arguments: str, who: str = ADMIN, stdin: str = "") -> Done:
        command = [binary("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        if who != ADMIN:
            # Their rights are not what is tested; who they are is.
            command += [f"--as={who}", "--as-group=system:masters"]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)

    def create(self, item: Object, *, who: str, keep: bool = False) -> Done:
        dry = [] if keep else ["--dry-run=server"]
        return self.run("create", *dry, "-f", "-", who=who, stdin=json.dumps(item))

    def keep(self, *arguments: str, who: str = ADMIN, stdin: str = "") -> None:
        done = self.run(*arguments, who=who, stdin=stdin)
        assert done.returncode == 0, done.stderr


def refused(done: Done, *said: str) -> None:
    assert done.returncode != 0, done.stdout
    for text in said:
        assert text in done.stderr


def accepted(done: Done) -> None:
    assert done.returncode == 0, done.stderr


def render(chart: str | Path, namespace: str, *arguments: str) -> list[Object]:
    command = [binary("helm"), "template", "it", str(chart), "--namespace", namespace, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


render_once = functools.cache(render)


def rendered(kind: str, namespace: str = "prod", *arguments: str) -> Object:
    objects = copy.deepcopy(render_once(CHART, namespace, "-f", str(FIXTURE), *arguments))
    [found] = [item for item in objects if item["kind"] == kind]
    found["metadata"]["namespace"] = namespace
    return found


def replica_set(deployment: Object, name: str = "flight-delay-1") -> Object:
    """As the deployment controller makes it."""
    template = copy.deepcopy(deployment["spec"]["template"])
    template["metadata"]["labels"]["pod-template-hash"] = "1"
    selector = {"matchLabels": template["metadata"]["labels"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": deployment["metadata"]["namespace"]},
        "spec": {"replicas": 1, "selector": selector, "template": template},
    }


def pod(deployment: Object) -> Object:
    """As the ReplicaSet's controller makes it."""
    template = copy.deepcopy(deployment["spec"]["template"])
    metadata = {**template["metadata"], "namespace": deployment["metadata"]["namespace"]}
    metadata["generateName"] = "flight-delay-1-"
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def releases(tmp_path: Path, files: dict[str, str]) -> Object:
    """The ReleaseSet that Argo CD makes of a commit with these release files of prod."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    chart = ROOT / RELEASES
    target = tmp_path / RELEASES
    target.parent.mkdir(parents=True)
    subprocess.run(["cp", "-a", chart, target], check=True)
    folder = tmp_path / "environments" / "prod" / "models"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    [made] = render(target, "prod", "--set", "environment=prod")
    made["metadata"]["namespace"] = "prod"
    return made


def in_force(run: Kubectl, listed: Object) -> None:
    """The policies are applied, and refuse what is not in the list."""
    run.keep("apply", "-f", str(POLICIES))
    _until(lambda: "slipway-custody" in run.create(listed, who=ADMIN).stderr)
    run.keep("create", "-f", "-", who=ARGO_CD, stdin=json.dumps(listed))
    released = replica_set(rendered("Deployment"))
    other = json.loads(json.dumps(released).replace(RELEASE.bento.digest, OTHER))
    _until(lambda: "says" in run.create(other, who=DEPLOYMENTS).stderr)
    _until(lambda: run.create(released, who=DEPLOYMENTS).returncode == 0)


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """An API server with the environments, the policies in force, and one release in prod."""
    # The one that checks the types in policies.
    controller = "validatingadmissionpolicy-status-controller"
    with start_apiserver(tmp_path_factory.mktemp("apiserver"), controller) as config:
        run = Kubectl(config)
        label = {"pod-security.kubernetes.io/enforce": "restricted"}
        for name in ("dev", "staging", "prod"):
            namespace = {"apiVersion": "v1", "kind": "Namespace"}
            namespace |= {"metadata": {"name": name, "labels": label}}  # type: ignore[dict-item]
            run.keep("apply", "-f", "-", stdin=yaml.safe_dump(namespace))
        in_force(run, releases(tmp_path_factory.mktemp("main"), {FIXTURE.name: TEXT}))
        yield run


def test_the_policies_have_no_type_errors(kubectl: Kubectl) -> None:
    """The API server checks the expressions against the schemas of what they match."""
    found: dict[str, Any] = {}

    def checked() -> bool:
        done = kubectl.run("get", "validatingadmissionpolicies", "-o", "json")
        for policy in json.loads(done.stdout)["items"]:
            found[policy["metadata"]["name"]] = policy.get("status", {})
        return all("observedGeneration" in status for status in found.values())

    _until(checked)
    assert set(found) == {
        *("slipway-images", "slipway-custody", "slipway-custody-of-settings", "slipway-releases"),
        "slipway-templates",
    }
    warnings = {
        name: status["typeChecking"]["expressionWarnings"]
        for name, status in found.items()
        if status.get("typeChecking", {}).get("expressionWarnings")
    }
    assert not warnings


# --- what is released, made by those who make it --------------------------------------------------


def test_a_release_goes_all_the_way(kubectl: Kubectl) -> None:
    for item in render(CHART, "prod", "-f", str(FIXTURE)):
        item["metadata"]["namespace"] = "prod"
        accepted(kubectl.create(item, who=ARGO_CD))
    deployment = rendered("Deployment")
    accepted(kubectl.create(replica_set(deployment), who=DEPLOYMENTS))
    accepted(kubectl.create(pod(deployment), who=REPLICA_SETS))


def test_dev_is_for_trying_things_out(kubectl: Kubectl) -> None:
    tried = pod(rendered("Deployment", "dev"))
    for container in tried["spec"]["containers"]:
        container["image"] = "registry.example/anything:latest"
    accepted(kubectl.create(tried, who=ADMIN))


# --- images ---------------------------------------------------------------------------------------

BY_TAG = "localhost:5000/slipway/serving:latest"
FOREIGN = f"registry.example/slipway/serving@{OTHER}"
LOOKALIKE = f"localhost:5000.example/slipway/serving@{OTHER}"


@pytest.mark.parametrize("where", ["containers", "initContainers"])
@pytest.mark.parametrize(
    ("image", "said"),
    [
        (BY_TAG, "images are named by digest"),
        (f"{BY_TAG}@{OTHER[:-1]}", "images are named by digest"),
        (FOREIGN, "images come from localhost:5000/ only"),
        (LOOKALIKE, "images come from localhost:5000/ only"),
        (f"serving@{OTHER}", "images come from localhost:5000/ only"),
    ],
)
def test_images_are_named_by_digest_and_come_from_ours(
    kubectl: Kubectl, where: str, image: str, said: str
) -> None:
    wrong = pod(rendered("Deployment"))
    wrong["spec"][where][-1]["image"] = image
    refused(kubectl.create(wrong, who=REPLICA_SETS), "slipway-images", said, image)


# --- releases -------------------------------------------------------------------------------------


def _annotated(made: Object, **pins: str) -> Object:
    annotations = made["spec"]["template"]["metadata"]["annotations"]
    annotations |= {f"slipway.dev/{name}": value for name, value in pins.items()}
    return made


def _container(made: Object, name: str) -> Object:
    spec = made["spec"]["template"]["spec"]
    [found] = [c for c in spec["containers"] + spec["initContainers"] if c["name"] == name]
    return found


def other_bento(made: Object) -> None:
    _annotated(made, bento=OTHER)


def other_evidence(made: Object) -> None:
    _annotated(made, evidence=OTHER)


def other_runtime(made: Object) -> None:
    _annotated(made, runtime=f"localhost:5000/slipway/serving@{OTHER}")


def other_model(made: Object) -> None:
    _annotated(made, model="never_released")


def no_pins(made: Object) -> None:
    del made["spec"]["template"]["metadata"]["annotations"]


def another_image_beside(made: Object) -> None:
    _container(made, "model")["image"] = f"localhost:5000/slipway/training@{OTHER}"


def another_bento_fetched(made: Object) -> None:
    _container(made, "fetch-bento")["args"][1] = OTHER


def evidence_not_verified(made: Object) -> None:
    fetch = _container(made, "fetch-bento")
    fetch["args"] = [a for a in fetch["args"] if not a.startswith("--evidence")]


def evidence_for_elsewhere(made: Object) -> None:
    fetch = _container(made, "fetch-bento")
    fetch["args"] = [a.replace("--environment=prod", "--environment=dev") for a in fetch["args"]]


def evidence_for_another_version(made: Object) -> None:
    fetch = _container(made, "fetch-bento")
    fetch["args"] = ["--version=1" if a.startswith("--version") else a for a in fetch["args"]]


def evidence_for_another_image(made: Object) -> None:
    fetch = _container(made, "fetch-bento")
    fetch["args"] = [a for a in fetch["args"] if not a.startswith("--runtime")]


def another_bento_claimed(made: Object) -> None:
    for variable in _container(made, "model")["env"]:
        if variable["name"] == "SLIPWAY_BENTO_DIGEST":
            variable["value"] = OTHER


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_bento, f"bento {OTHER} of model flight_delay"),
        (other_bento, f"flight_delay.yaml on main says {RELEASE.bento.digest}"),
        (other_evidence, "stands in no release of prod"),
        (other_runtime, "stands in no release of prod"),
        (other_model, "environments/prod/models/never_released.yaml on main is not there"),
        (no_pins, "bento (none) of model (unnamed)"),
        (another_image_beside, "every container runs the image of the release"),
        (another_bento_fetched, "fetch-bento verifies the evidence and fetches the bento"),
        (evidence_not_verified, "fetch-bento verifies the evidence"),
        (evidence_for_elsewhere, "expected"),
        (evidence_for_another_version, f"--version={RELEASE.version} --runtime="),
        (evidence_for_another_image, f"--runtime={RELEASE.runtime.image} --environment=prod"),
        (another_bento_claimed, "its container model serves it"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_replica_set_is_what_a_release_says(
    kubectl: Kubectl, change: Callable[[Object], None], said: str
) -> None:
    made = replica_set(rendered("Deployment"))
    change(made)
    refused(kubectl.create(made, who=DEPLOYMENTS), "slipway-releases", said)


def test_verification_cannot_be_switched_off(kubectl: Kubectl) -> None:
    made = replica_set(rendered("Deployment", "prod", "--set", "serving.evidence.verify=false"))
    refused(kubectl.create(made, who=DEPLOYMENTS), "fetch-bento verifies the evidence")


def test_without_the_list_nothing_is_released(kubectl: Kubectl) -> None:
    made = replica_set(rendered("Deployment", "staging"))
    refused(kubectl.create(made, who=DEPLOYMENTS), "no params found")


def test_while_the_next_bento_comes_up_the_old_one_is_kept_alive(
    kubectl: Kubectl, tmp_path: Path
) -> None:
    deployment = rendered("Deployment")
    old = replica_set(deployment, "flight-delay-old")
    accepted(kubectl.create(old, who=DEPLOYMENTS, keep=True))
    listed = ("get", "releaseset", "releases", "-n", "prod", "-o", "json")
    before = json.dumps({"spec": json.loads(kubectl.run(*listed).stdout)["spec"]})
    text = TEXT.replace(RELEASE.bento.digest.removeprefix("sha256:"), OTHER[7:])
    after = json.dumps({"spec": releases(tmp_path, {FIXTURE.name: text})["spec"]})
    patch = ("patch", "releaseset", "releases", "-n", "prod", "--type=merge", "-p")
    kubectl.keep(*patch, after, who=ARGO_CD)
    try:
        _until(lambda: kubectl.create(replica_set(deployment), who=DEPLOYMENTS).returncode != 0)
        accepted(kubectl.create(pod(deployment), who=REPLICA_SETS))
        scaled = ("scale", "replicaset", "flight-delay-old", "-n", "prod", "--replicas=2")
        accepted(kubectl.run(*scaled, "--dry-run=server", who=DEPLOYMENTS))
        refused(kubectl.run(*scaled, "--dry-run=server"), "slipway-custody")
        # Another template in the old one's place is a new one.
        digest = json.dumps({"slipway.dev/bento": "sha256:" + "1" * 64})
        template = f'{{"spec": {{"template": {{"metadata": {{"annotations": {digest}}}}}}}}}'
        change = ("patch", "replicaset", "flight-delay-old", "-n", "prod", "-p", template)
        refused(kubectl.run(*change, "--dry-run=server", who=DEPLOYMENTS), "slipway-templates")
    finally:
        kubectl.keep(*patch, before, who=ARGO_CD)
        _until(lambda: kubectl.create(replica_set(deployment), who=DEPLOYMENTS).returncode == 0)


def _until(true: Callable[[], bool]) -> None:
    """The API server sees a parameter's change a moment later."""
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# --- custody --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deployed(kubectl: Kubectl) -> None:
    for kind in ("ConfigMap", "Deployment"):
        accepted(kubectl.create(rendered(kind), who=ARGO_CD, keep=True))
    running = replica_set(rendered("Deployment"), "flight-delay-run")
    accepted(kubectl.create(running, who=DEPLOYMENTS, keep=True))
    alive = pod(rendered("Deployment"))
    alive["metadata"]["name"] = "flight-delay-run-1"
    accepted(kubectl.create(alive, who=REPLICA_SETS, keep=True))


@pytest.mark.parametrize(
    ("make", "who", "by"),
    [
        (pod, ADMIN, REPLICA_SETS),
        (pod, ARGO_CD, REPLICA_SETS),
        (pod, "system:serviceaccount:kube-system:job-controller", REPLICA_SETS),
        (replica_set, ADMIN, DEPLOYMENTS),
        (replica_set, ARGO_CD, DEPLOYMENTS),
        (lambda deployment: deployment, ADMIN, ARGO_CD),
        (lambda deployment: deployment, "system:serviceaccount:argocd:argocd-server", ARGO_CD),
    ],
)
def test_nobody_else_makes_what_runs(
    kubectl: Kubectl, make: Callable[[Object], Object], who: str, by: str
) -> None:
    done = kubectl.create(make(rendered("Deployment")), who=who)
    refused(done, "slipway-custody", f"are made by {by} only, not by {who}", "environments/prod")


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize(
    "change",
    [
        ("set", "image", "deployment/flight-delay", f"model=localhost:5000/slipway/base@{OTHER}"),
        ("scale", "deployment/flight-delay", "--replicas=0"),
        ("rollout", "restart", "deployment/flight-delay"),
        ("scale", "replicaset/flight-delay-run", "--replicas=3"),
        ("set", "image", "pod/flight-delay-run-1", f"model=localhost:5000/slipway/base@{OTHER}"),
    ],
    ids=lambda change: " ".join(change[:3]),
)
def test_nobody_changes_what_runs(kubectl: Kubectl, change: tuple[str, ...]) -> None:
    dry = ["--dry-run=server"] if "restart" not in change else []
    refused(kubectl.run(*change, *dry, "-n", "prod"), "slipway-custody", "not by admin")


@pytest.mark.usefixtures("deployed")
def test_labels_and_finalizers_are_free(kubectl: Kubectl) -> None:
    dry = ("-n", "prod", "--dry-run=server")
    accepted(kubectl.run("label", "pod/flight-delay-run-1", "debug=yes", *dry))
    accepted(kubectl.run("annotate", "deployment/flight-delay", "note=x", *dry))
    finalizers = '{"metadata": {"finalizers": ["foregroundDeletion"]}}'
    change = ("patch", "deployment/flight-delay", "--type=merge", "-p", finalizers)
    accepted(kubectl.run(*change, *dry, who=GARBAGE))
    scaler = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
    accepted(kubectl.run("scale", "deployment/flight-delay", "--replicas=2", *dry, who=scaler))


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize(
    "change",
    [
        ("label", "releaseset/releases", "it=x"),
        ("patch", "configmap/flight-delay-scripts", "-p", '{"data": {"fetch_bento.py": "pass"}}'),
        ("label", "configmap/flight-delay-scripts", "slipway.dev/model-"),
        ("delete", "configmap/flight-delay-scripts"),
        ("delete", "releaseset/releases"),
    ],
    ids=lambda change: " ".join(change[:2]),
)
def test_nobody_else_keeps_what_pods_are_judged_by_and_run(
    kubectl: Kubectl, change: tuple[str, ...]
) -> None:
    dry = ("-n", "prod", "--dry-run=server")
    refused(kubectl.run(*change, *dry), "slipway-custody-of-settings", "kept by Argo CD from main")
    accepted(kubectl.run(*change, *dry, who=ARGO_CD))


@pytest.mark.usefixtures("deployed")
def test_a_namespace_on_its_way_out_takes_them_along(kubectl: Kubectl) -> None:
    """It deletes all at once, by a request that bears no name."""
    every = ("delete", "--raw", "/api/v1/namespaces/prod/configmaps?dryRun=All")
    refused(kubectl.run(*every), "slipway-custody-of-settings", "ConfigMap flight-delay-scripts")
    accepted(kubectl.run(*every, who=NAMESPACES))


def test_other_config_maps_are_free(kubectl: Kubectl) -> None:
    """kube-root-ca.crt is Kubernetes' own, and evidence-keys is Pulumi's."""
    made = {"apiVersion": "v1", "kind": "ConfigMap"}
    made |= {"metadata": {"name": "evidence-keys", "namespace": "prod"}}  # type: ignore[dict-item]
    accepted(kubectl.create(made, who=ADMIN))


@pytest.mark.usefixtures("deployed")
def test_debugging_takes_a_known_image(kubectl: Kubectl) -> None:
    debug = (
        "debug",
        "pod/flight-delay-run-1",
        "-n",
        "prod",
        "--profile=restricted",
        "--attach=false",
    )
    refused(kubectl.run(*debug, f"--image={FOREIGN}"), "slipway-images", FOREIGN)


def test_pods_are_restricted(kubectl: Kubectl) -> None:
    wrong = pod(rendered("Deployment"))
    wrong["spec"]["hostNetwork"] = True
    refused(kubectl.create(wrong, who=REPLICA_SETS), 'violates PodSecurity "restricted')


def test_after_a_destroy_they_come_into_force_again(kubectl: Kubectl, tmp_path: Path) -> None:
    """On the same API server, which has meanwhile had no policy that is told anything."""
    listed = releases(tmp_path, {FIXTURE.name: TEXT})
    kubectl.keep("delete", "-f", str(POLICIES))
    _until(lambda: kubectl.create(pod(rendered("Deployment")), who=ADMIN).returncode == 0)
    in_force(kubectl, listed)


# --- the list of releases -------------------------------------------------------------------------


def test_a_file_that_is_no_release_is_left_out_of_the_list(tmp_path: Path) -> None:
    invalid = FIXTURE.parent.parent / "invalid"
    names = ("empty", "list", "not_yaml", "stem_differs")
    files = {f"{name}.yaml": (invalid / f"{name}.yaml").read_text() for name in names}
    made = releases(tmp_path, {**files, FIXTURE.name: TEXT})
    pins = {
        "bento": RELEASE.bento.digest,
        "evidence": RELEASE.evidence.digest,
        "runtime": RELEASE.runtime.image,
    }
    assert made["spec"]["models"] == {"flight_delay": pins}


def test_no_files_no_releases(tmp_path: Path) -> None:
    assert releases(tmp_path, {})["spec"]["models"] == {}
