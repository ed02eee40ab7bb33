"""How the engine is called: on which stack and cluster, and with what beside the checkout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from slipway import claims, endpoints, paths, pulumi, toolchain
from slipway.claims import Object
from slipway.cli import app
from slipway.endpoints import Cluster
from slipway.errors import BadInput, SlipwayError

INFRA = paths.REPOSITORY / "infra"
FIXTURES = paths.REPOSITORY / "tests" / "fixtures" / "stacks"
# An engine in name only: it makes stacks as the real one does, and repeats what it is told.
ENGINE = """#!/bin/sh
echo "$*" >>"$ENGINE_LOG"
if [ "$1 $2" = "stack init" ]; then
    place=${PULUMI_BACKEND_URL#file://}/.pulumi/stacks/slipway
    [ ! -e "$place/$3.json" ] || { echo "error: stack '$3' already exists" >&2; exit 255; }
    [ "$3" != broken ] || { echo "error: no space left on device" >&2; exit 255; }
    mkdir -p "$place"
    echo "$ENGINE_STATE" >"$place/$3.json"
    exit
fi
echo "to $1"
echo "error: none" >&2
exit 3
"""
STATE = {"secrets_providers": {"type": "passphrase", "state": {"salt": "v1:salt"}}}


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one stack, on a machine that has an engine."""
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("ENGINE_LOG", str(tmp_path / "engine.log"))
    monkeypatch.setenv("ENGINE_STATE", json.dumps({"checkpoint": {"latest": STATE}}))
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path / "checkout")
    monkeypatch.setattr(pulumi, "install_plugin", lambda: None)
    engine = tmp_path / "bin" / "pulumi"
    engine.parent.mkdir()
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    monkeypatch.setattr(toolchain, "binary", lambda name: tmp_path / "bin" / name)
    committed(tmp_path / "checkout").parent.mkdir(parents=True)
    committed(tmp_path / "checkout").write_text((FIXTURES / "valid" / "embedded.yaml").read_text())
    return tmp_path / "checkout"


def committed(checkout: Path) -> Path:
    return checkout / "environments" / "Pulumi.local.yaml"


def calls(checkout: Path) -> list[str]:
    log = checkout.parent / "engine.log"
    return log.read_text().splitlines() if log.exists() else []


def merged(arguments: tuple[str, ...] = ("preview",), stack: str = "local") -> dict[str, Any]:
    """The stack file that the engine is given."""
    command = pulumi._command(stack, arguments)
    return yaml.safe_load(Path(command[command.index("--config-file") + 1]).read_text())


# --- stack files ------------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("valid/*.yaml")), ids=lambda f: f.stem)
def test_valid(checkout: Path, file: Path) -> None:
    committed(checkout).write_text(file.read_text())
    assert pulumi.is_embedded("local") == (file.stem != "kubeconfig")
    assert set(merged()) == {"encryptionsalt", "config"}
    assert merged()["encryptionsalt"] == "v1:salt"
    assert committed(checkout).read_text() == file.read_text()


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("invalid/*.yaml")), ids=lambda f: f.stem)
def test_invalid(checkout: Path, file: Path) -> None:
    committed(checkout).write_text(file.read_text())
    for ask in (lambda: pulumi.is_embedded("local"), lambda: pulumi.run("local", "preview")):
        with pytest.raises(BadInput) as error:
            ask()
        assert file.with_suffix(".expected").read_text().strip() in str(error.value)
    assert calls(checkout) == []


def test_an_unknown_stack_is_answered_with_the_known_one() -> None:
    with pytest.raises(BadInput, match=r"no such stack: locl\n  fix: did you mean 'local'\?"):
        pulumi.run("locl", "preview")


def test_the_salt_stays_outside_the_checkout(checkout: Path) -> None:
    before = committed(checkout).read_text()
    found = merged()
    assert found["config"]["slipway:environments"] == ["dev"]
    assert next(iter(found)) == "encryptionsalt"
    assert committed(checkout).read_text() == before
    assert [f.name for f in checkout.rglob("*") if f.is_file()] == ["Pulumi.local.yaml"]
    assert paths.data() in pulumi._stack_file("local").parents


def test_a_stack_is_made_once(checkout: Path) -> None:
    for _ in range(2):
        merged()
    assert calls(checkout) == ["stack init local --non-interactive"]


def test_a_first_run_that_was_interrupted_after_the_stack_was_made_goes_on(checkout: Path) -> None:
    merged()
    (paths.data() / "pulumi" / "Pulumi.local.yaml").unlink()
    assert merged()["encryptionsalt"] == "v1:salt"


def test_a_stack_that_cannot_be_made_says_why(checkout: Path) -> None:
    committed(checkout).with_name("Pulumi.broken.yaml").write_text("config: {}")
    with pytest.raises(SlipwayError, match="stack init broken: error: no space left on device"):
        merged(stack="broken")


# --- whose cluster ----------------------------------------------------------------------------


def test_a_kubeconfig_of_the_user_s_turns_the_embedded_cluster_off(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed(checkout).write_text(committed(checkout).read_text() + "  slipway:nodePorts: true\n")
    before = committed(checkout).read_text()
    assert pulumi.is_embedded("local")
    assert merged()["config"]["slipway:nodePorts"] is True
    monkeypatch.setenv("KUBECONFIG", str(checkout.parent / "kind.yaml"))
    assert not pulumi.is_embedded("local")
    config = merged()["config"]
    assert (config["slipway:cluster"], config["slipway:nodePorts"]) == ("kubeconfig", False)
    assert config["slipway:environments"] == ["dev"]
    assert committed(checkout).read_text() == before


def test_a_stack_on_aws_stays_there_and_gets_the_manifests_that_it_applies(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = committed(checkout).read_text().replace("embedded", "eks")
    committed(checkout).write_text(text)
    fetched: list[str] = []
    monkeypatch.setattr(pulumi.toolchain, "fetch", fetched.extend)
    monkeypatch.setenv("KUBECONFIG", str(checkout.parent / "kind.yaml"))
    assert merged()["config"]["slipway:cluster"] == "eks"
    assert fetched == [*pulumi.MANIFESTS_ON_AWS]


# A bucket in name only: each state is a file beside the log.
SHARED = """#!/bin/sh
echo "$PULUMI_BACKEND_URL $*" >>"$ENGINE_LOG"
case "$1 $2" in
"stack init") echo "$ENGINE_STATE" >"$ENGINE_LOG.state" ;;
"stack export")
    [ -e "$ENGINE_LOG.state" ] || { echo "error: no stack named 'local' found" >&2; exit 255; }
    cat "$ENGINE_LOG.state"
    ;;
esac
"""
BUCKET, KEY = "s3://our-state?region=eu-central-1", "awskms://alias/our-pulumi"


@pytest.fixture
def shared(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stack's state is in a bucket; the stack file."""
    text = committed(checkout).read_text().replace("embedded", "eks")
    backend = f"  slipway:backend: {{url: '{BUCKET}', secretsProvider: '{KEY}'}}\n"
    committed(checkout).write_text(text + backend)
    (checkout.parent / "bin" / "pulumi").write_text(SHARED)
    monkeypatch.setattr(pulumi.toolchain, "fetch", lambda _: None)
    monkeypatch.setenv("PATH", f"{checkout.parent / 'bin'}:{os.environ['PATH']}")
    kept = {"type": "cloud", "state": {"url": KEY, "encryptedkey": "wrapped"}}
    state = {"version": 3, "deployment": {"secrets_providers": kept}}
    monkeypatch.setenv("ENGINE_STATE", json.dumps(state))
    return committed(checkout)


def test_a_teams_state_is_in_its_bucket_under_its_key(shared: Path, checkout: Path) -> None:
    before = shared.read_text()
    for _ in range(2):
        found = merged()
    assert (found["secretsprovider"], found["encryptedkey"]) == (KEY, "wrapped")
    assert "encryptionsalt" not in found
    assert shared.read_text() == before
    assert [call for call in calls(checkout) if "export" not in call] == [
        f"{BUCKET} stack init local --non-interactive --secrets-provider {KEY}"
    ]
    assert pulumi.run("local", "preview") == 0
    assert calls(checkout)[-1].startswith(f"{BUCKET} preview --stack local")
    assert pulumi.known("local").ids == frozenset()
    # What is asked of no stack, is asked of this machine.
    assert pulumi.environment()["PULUMI_BACKEND_URL"].startswith("file://")


def test_a_stack_has_one_state(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", pulumi.environment()["PULUMI_BACKEND_URL"])
    assert merged()["encryptedkey"] == "wrapped"
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://mine")
    with pytest.raises(BadInput, match=r"slipway:backend: PULUMI_BACKEND_URL is s3://mine, "):
        merged()
    shared.write_text(shared.read_text().replace("s3://", "gs://"))
    with pytest.raises(BadInput, match=r"Pulumi\.local\.yaml: url: "):
        merged()


def test_a_state_under_a_passphrase_is_no_teams(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_STATE", json.dumps({"deployment": STATE}))
    with pytest.raises(SlipwayError, match=r"by a passphrase\n  fix: `pulumi stack change-secr"):
        merged()


@pytest.fixture
def simulated(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stack is one of simulated GPUs; what has been built and pushed for it."""
    text = committed(checkout).read_text().replace("embedded", "simulated")
    committed(checkout).write_text(text)
    done: list[str] = []

    def note(what: str) -> Callable[..., None]:
        def act(names: Iterable[str], **_: object) -> None:
            done.extend(f"{what} {name}" for name in names)

        return act

    monkeypatch.setattr(pulumi.toolchain, "build", note("build"))
    monkeypatch.setattr(pulumi.images, "build", note("image"))
    monkeypatch.setattr(pulumi.images, "push", note("push"))
    return done


@pytest.mark.parametrize("command", ["up", "preview", "destroy", "refresh"])
def test_what_simulated_gpus_need_is_built_when_the_program_runs(
    simulated: list[str], command: str
) -> None:
    assert not pulumi.is_embedded("local")
    assert merged((command,))["config"]["slipway:cluster"] == "simulated"
    wanted = [f"{what} {name}" for what in ("build", "image", "push") for name in pulumi.SIMULATION]
    assert simulated == (wanted if command in ("up", "preview") else [])


def test_nodes_are_simulated_on_the_embedded_cluster_alone(
    simulated: list[str], checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(checkout.parent / "kind.yaml"))
    with pytest.raises(BadInput, match=r"KUBECONFIG: simulated nodes .*\n  fix: unset KUBECONFIG"):
        merged(("destroy",))
    assert simulated == []


@pytest.mark.parametrize("value", ["", "ours"])
def test_our_own_kubeconfig_does_not(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", value and str(paths.kubeconfig()))
    assert pulumi.is_embedded("local")


def test_the_stack_file_may_mean_the_usual_kubeconfig(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(checkout.parent))
    assert endpoints.kubeconfig() == paths.kubeconfig()
    committed(checkout).write_text((FIXTURES / "valid" / "kubeconfig.yaml").read_text())
    assert endpoints.kubeconfig() == checkout.parent / ".kube" / "config"
    monkeypatch.setenv("KUBECONFIG", "/some/where")
    assert endpoints.kubeconfig() == Path("/some/where")
    monkeypatch.delenv("KUBECONFIG")
    committed(checkout).unlink()
    assert endpoints.kubeconfig() == paths.kubeconfig()


def test_of_several_kubeconfigs_none_is_meant(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", f"/a{os.pathsep}/b")
    with pytest.raises(BadInput, match=r"KUBECONFIG: several files: /a:/b\n  fix: `kubectl"):
        endpoints.kubeconfig()
    odd = checkout.parent / "a:b"
    odd.touch()
    monkeypatch.setenv("KUBECONFIG", str(odd))
    assert endpoints.kubeconfig() == odd


@pytest.mark.parametrize(
    ("written", "found"), [("{mlflow: 'r/m@sha256:0'}", {"mlflow": "r/m@sha256:0"}), ("[a]", {})]
)
def test_images_that_the_stack_names(checkout: Path, written: str, found: dict[str, str]) -> None:
    assert pulumi.named_images("local") == {}
    file = committed(checkout)
    file.write_text(f"{file.read_text()}  slipway:images: {written}\n")
    assert pulumi.named_images("local") == found


# --- what is on the cluster already -----------------------------------------------------------


KINDS = {
    "/api/v1": {"Namespace": "namespaces", "ConfigMap": "configmaps"},
    "/apis/apiextensions.k8s.io/v1": {"CustomResourceDefinition": "customresourcedefinitions"},
    "/apis/rbac.authorization.k8s.io/v1": {"ClusterRole": "clusterroles"},
    "/apis/discovery.k8s.io/v1": {"EndpointSlice": "endpointslices"},
}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The UIDs of what is on a cluster, by its path; it can only be read."""
    there: dict[str, str] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.method == "GET"
        path = request.url.path
        if path in KINDS:
            kinds = [{"kind": k, "name": n} for k, n in KINDS[path].items()]
            kinds += [{"kind": k["kind"], "name": f"{k['name']}/status"} for k in kinds]
            return httpx.Response(200, json={"resources": kinds})
        if path == "/api/v1/namespaces":
            uids = [uid for name, uid in there.items() if name.startswith(f"{path}/")]
            return httpx.Response(200, json={"items": [{"metadata": {"uid": u}} for u in uids]})
        if path in there:
            return httpx.Response(200, json={"metadata": {"uid": there[path]}})
        return httpx.Response(404, json={})

    client = httpx.Client(base_url="https://api", transport=httpx.MockTransport(answer))
    monkeypatch.setattr(Cluster, "connect", lambda _: Cluster(client, embedded=False))
    return there


def declares(checkout: Path, *declared: tuple[str, str, dict[str, str]]) -> None:
    """What the program declares, by a preview; all else that the engine is asked ends well."""
    steps = [
        {
            # The API server's own, which the program only asks.
            "op": "read" if kind == "EndpointSlice" else "create",
            "newState": {"inputs": {"apiVersion": version, "kind": kind, "metadata": metadata}},
        }
        for version, kind, metadata in declared
    ]
    (checkout.parent / "preview").write_text(json.dumps({"steps": [{"op": "delete"}, *steps]}))
    engine = ENGINE.replace("exit 3", "exit 0").replace(
        'echo "to $1"', f'[ "$1" != preview ] || exec cat {checkout.parent}/preview\necho "to $1"'
    )
    (checkout.parent / "bin" / "pulumi").write_text(engine)


@pytest.fixture
def given(checkout: Path, api: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A cluster that was there already, for `local` with a dev."""
    monkeypatch.setenv("KUBECONFIG", str(checkout.parent / "kind.yaml"))
    declares(
        checkout,
        ("v1", "Namespace", {"name": "dev"}),
        ("v1", "ConfigMap", {"name": "within", "namespace": "dev"}),
        ("v1", "ConfigMap", {"name": "beside", "namespace": "kube-system"}),
        ("rbac.authorization.k8s.io/v1", "ClusterRole", {"name": "argocd-server"}),
        ("of.none/v1", "Thing", {"name": "thing"}),
        ("discovery.k8s.io/v1", "EndpointSlice", {"name": "kubernetes", "namespace": "default"}),
        ("v1", "Secret", {"generateName": "named-by-the-server"}),
    )
    return api


def held(*resources: dict[str, Any], pending: tuple[dict[str, Any], ...] = ()) -> str:
    """The content of a state."""
    begun = [{"type": "creating", "resource": one} for one in pending]
    latest = {**STATE, "resources": resources, "pending_operations": begun}
    return json.dumps({"checkpoint": {"latest": latest}})


def resource(kind: str, name: str, uid: str = "") -> dict[str, Any]:
    version = "apiextensions.k8s.io/v1" if kind == "CustomResourceDefinition" else "v1"
    inputs = {"apiVersion": version, "kind": kind, "metadata": {"name": name}}
    group = version if "/" in version else f"core/{version}"
    outputs = {"outputs": {"metadata": {"uid": uid}}} if uid else {}
    return {"type": f"kubernetes:{group}:{kind}", "inputs": inputs, **outputs}


STACK = {"type": "pulumi:pulumi:Stack"}


def keep(state: str) -> None:
    file = paths.data() / "pulumi" / "state" / ".pulumi" / "stacks" / "slipway" / "local.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(state)


def ups(checkout: Path) -> int:
    """How often the engine was told to change something."""
    return sum(call.startswith("up ") for call in calls(checkout))


def test_an_empty_cluster_is_used(checkout: Path, given: dict[str, str]) -> None:
    given["/api/v1/namespaces/kube-system"] = given["/api/v1/namespaces/team"] = "theirs"
    slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    given[f"{slices}/kubernetes"] = "the API server's, which is only read"
    assert pulumi.run("local", "up") == 0
    log = checkout.parent / "log"
    assert pulumi.follow("local", "up", log=log, on_line=lambda _: None) == 0
    assert ups(checkout) == 2


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/v1/namespaces/dev", "Namespace dev"),
        ("/api/v1/namespaces/argocd", "Namespace argocd"),
        (f"{CRDS}/workflows.argoproj.io", "CustomResourceDefinition workflows.argoproj.io"),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles/argocd-server", "ClusterRole argocd-s"),
        ("/api/v1/namespaces/kube-system/configmaps/beside", "ConfigMap kube-system/beside"),
    ],
)
def test_what_is_there_is_not_taken_over(
    checkout: Path, given: dict[str, str], path: str, said: str
) -> None:
    given[path] = "theirs"
    with pytest.raises(
        BadInput,
        match=rf"kind\.yaml: its cluster has {said}[^ ]*, which the state of stack local did not",
    ):
        pulumi.run("local", "update")
    with pytest.raises(BadInput, match=said):
        pulumi.follow("local", "up", log=checkout, on_line=lambda _: None)
    assert ups(checkout) == 0
    assert pulumi.run("local", "preview") == 0


def test_of_much_that_is_there_ten_are_named() -> None:
    many = [Object("v1", "Namespace", str(number)) for number in range(12)]
    assert claims.told(many).endswith(", Namespace 9 and 2 more")
    assert claims.told(many[:2]) == "Namespace 0, Namespace 1"


def test_what_the_state_made_is_ours_on_its_own_cluster_alone(
    checkout: Path, given: dict[str, str]
) -> None:
    given |= {"/api/v1/namespaces/dev": "1", "/api/v1/namespaces/argocd": "2"}
    keep(held(STACK, resource("Namespace", "dev", "1"), resource("Namespace", "argo", "3")))
    assert pulumi.run("local", "up") == 0
    assert not [call for call in calls(checkout) if call.startswith("preview")]
    given["/api/v1/namespaces/dev"] = "of another cluster"
    with pytest.raises(BadInput, match="Namespace argocd, Namespace dev, which"):
        pulumi.run("local", "up")


def test_what_a_killed_first_update_left_is_ours(checkout: Path, given: dict[str, str]) -> None:
    crd = "workflows.argoproj.io"
    given |= {"/api/v1/namespaces/dev": "1", f"{CRDS}/{crd}": "2"}
    made, begun = resource("CustomResourceDefinition", crd, "2"), resource("Namespace", "dev")
    component = {"type": "slipway:platform:Thing"}
    keep(held(STACK, made, pending=(begun, component)))
    assert pulumi.run("local", "up") == 0
    # Later the engine still calls it pending.
    gone = resource("Namespace", "argo", "of another cluster")
    for later in (held(pending=(begun,)), held(STACK, made, gone, pending=(begun,))):
        keep(later)
        with pytest.raises(BadInput, match="has Namespace dev"):
            pulumi.run("local", "up")
    assert ups(checkout) == 1


def test_a_lost_state_of_the_embedded_cluster_makes_no_other_secrets(
    checkout: Path, api: dict[str, str]
) -> None:
    declares(checkout)
    assert pulumi.run("local", "up") == 0
    assert not [call for call in calls(checkout) if call.startswith("preview")]
    api["/api/v1/namespaces/forge"] = "1"
    with pytest.raises(BadInput, match=r"Namespace forge, .*\n  fix: .*make down ERASE=1"):
        pulumi.run("local", "up")


def test_simulated_gpus_come_beside_the_platform(
    checkout: Path, simulated: list[str], api: dict[str, str]
) -> None:
    pool = "{name: l4, families: [g6], sizes: [48xlarge], max: 1, budget: 9000}"
    file = committed(checkout)
    file.write_text(f"{file.read_text()}  slipway:gpuPools: [{pool}]\n")
    declares(checkout)
    api |= {"/api/v1/namespaces/dev": "1", f"{CRDS}/workflows.argoproj.io": "2"}
    assert pulumi.run("local", "up") == 0
    api["/api/v1/namespaces/gpus"] = "3"
    simulated.clear()
    with pytest.raises(BadInput, match="has Namespace gpus, which"):
        pulumi.run("local", "up")
    assert simulated == []


def test_a_preview_that_fails_says_why(checkout: Path, given: dict[str, str]) -> None:
    said = [{"severity": "info", "message": "fine"}, {"severity": "error", "message": "no image"}]
    engine = (
        f"#!/bin/sh\n[ $1 = preview ] || exit 0\necho '{json.dumps({'diagnostics': said})}'\nexit 1"
    )
    keep(held())
    (checkout.parent / "bin" / "pulumi").write_text(engine)
    with pytest.raises(SlipwayError, match=r"^pulumi preview failed\nno image$"):
        pulumi.run("local", "up")
    assert ups(checkout) == 0


# --- the plugin ---------------------------------------------------------------------------------


PLUGIN = Path("plugins", "resource-kubernetes-v4.24.0", "pulumi-resource-kubernetes")


def installed(folder: Path, **environment: str) -> str:
    """What the script says, where no engine is at hand that could take a stand-in."""
    done = subprocess.run(
        [sys.executable, INFRA.parent / "toolchain/pulumi-kubernetes/install", "--offline"],
        env={"HOME": str(folder), "PULUMI_HOME": str(folder / "slipway"), **environment},
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or done.stderr


def plugin(home: Path, content: str) -> Path:
    (home / PLUGIN).parent.mkdir(parents=True)
    (home / PLUGIN).write_text(content)
    (home / PLUGIN).chmod(0o755)
    return home / PLUGIN


@pytest.mark.parametrize(
    "before", [None, "#!/bin/sh\n# Slipway's stand-in for the official plugin."]
)
def test_an_official_plugin_that_the_user_has_is_taken(tmp_path: Path, before: str | None) -> None:
    theirs = plugin(tmp_path / ".pulumi", "official")
    (theirs.parent / "PulumiPlugin.yaml").write_text("runtime: go\n")
    if before:
        plugin(tmp_path / "slipway", before)
    for _ in range(2):
        assert installed(tmp_path) == "official"
    taken = tmp_path / "slipway" / PLUGIN
    assert (taken.read_text(), os.access(taken, os.X_OK)) == ("official", True)
    assert sorted(f.name for f in taken.parent.iterdir()) == ["PulumiPlugin.yaml", PLUGIN.name]
    assert theirs.read_text() == "official"


def test_a_stand_in_that_the_user_has_is_not_taken_for_official(tmp_path: Path) -> None:
    plugin(tmp_path / ".pulumi", "# Slipway's stand-in for the official plugin.")
    assert "pulumi" in installed(tmp_path, PATH="")
    assert not (tmp_path / "slipway" / PLUGIN).exists()


# --- calling the engine -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "added"),
    [
        (("preview", "--diff"), "--stack local --config-file FILE"),
        (("up",), "--stack local --config-file FILE"),
        (("config", "get", "x"), "--stack local --config-file FILE"),
        (("stack", "export"), "--stack local"),
        (("stack", "rm", "--yes"), "--stack local --preserve-config"),
        (("cancel",), "--stack local"),
        (("version",), ""),
        (("plugin", "ls"), ""),
        ((), ""),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else "",
)
def test_each_command_is_given_what_it_takes(arguments: tuple[str, ...], added: str) -> None:
    command = pulumi._command("local", arguments)
    file = str(paths.data() / "pulumi" / "Pulumi.local.yaml")
    said = " ".join(command[1 + len(arguments) :]).replace(file, "FILE")
    assert command[1 : 1 + len(arguments)] == list(arguments)
    assert said == added


@pytest.mark.parametrize(
    ("arguments", "packs"),
    [
        (("preview",), [str(pulumi.POLICIES)]),
        (("up", "--yes"), [str(pulumi.POLICIES)]),
        (("update",), [str(pulumi.POLICIES)]),
        (("up", "--policy-pack", "ours"), ["ours"]),
        (("up", "--policy-pack=ours"), []),
        (("destroy",), []),
        (("refresh",), []),
    ],
    ids=lambda v: " ".join(v),
)
def test_a_stack_on_aws_is_judged_by_the_policies_of_this_repository(
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    packs: list[str],
) -> None:
    committed(checkout).write_text(committed(checkout).read_text().replace("embedded", "eks"))
    monkeypatch.setattr(toolchain, "fetch", lambda _: None)
    command = pulumi._command("local", arguments)
    pairs = pairwise(command)
    assert [after for word, after in pairs if word == "--policy-pack"] == packs
    assert (pulumi.POLICIES / "PulumiPolicy.yaml").exists()


@pytest.mark.parametrize("word", ["set", "rm"])
def test_configuration_is_changed_in_the_file_itself(checkout: Path, word: str) -> None:
    """The engine would change its copy, and the change be gone at the next call."""
    with pytest.raises(
        BadInput, match=r"environments/Pulumi\.local\.yaml: .*\n  fix: edit the file"
    ):
        pulumi.run("local", "config", word, "slipway:cluster", "embedded")
    assert calls(checkout) == []


ENCRYPTS = """#!/bin/sh
echo "$*" >>"$ENGINE_LOG"
while [ "$1" != --config-file ]; do shift; done
grep -v -e forgeToken -e secure: "$2" >"$2.new"
printf '  slipway:forgeToken: {secure: v1:a:b}\\n' >>"$2.new"
mv "$2.new" "$2"
"""


def test_a_secret_is_encrypted_by_the_engine_and_written_where_the_stack_is(
    checkout: Path,
) -> None:
    merged()
    (checkout.parent / "bin" / "pulumi").write_text(ENCRYPTS)
    file = committed(checkout)
    file.write_text(f"# ours\n{file.read_text()}  slipway:tags: {{}}  # none\n")
    before = file.read_text()
    line = "  slipway:forgeToken: {secure: 'v1:a:b'}\n"
    assert pulumi.run("local", "config", "set", "--secret", "forgeToken") == 0
    assert file.read_text().replace(line, "") == before
    assert line in file.read_text()
    changed = file.read_text()
    assert pulumi.run("local", "config", "set", "--secret", "forgeToken") == 0
    assert file.read_text() == changed


def test_stacks_may_be_in_a_folder_of_ones_own(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "stacks"
    own.mkdir()
    monkeypatch.setenv("SLIPWAY_STACKS", str(own))
    with pytest.raises(BadInput, match=rf"^{own}/Pulumi.local.yaml: no such stack"):
        pulumi.is_embedded("local")
    (own / "Pulumi.local.yaml").write_text("config: {'slipway:cluster': kubeconfig}\n")
    assert pulumi.is_elsewhere("local")
    assert merged()["config"]["slipway:cluster"] == "kubeconfig"


def test_a_gitea_that_is_there_is_not_given_up_by_a_setting_alone(
    checkout: Path, api: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    declares(checkout)
    state = json.loads(held({"type": "slipway:platform:Gitea", "urn": "urn:g"}))
    kept = paths.data() / "pulumi" / "state" / ".pulumi" / "stacks" / "slipway" / "local.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps(state))
    assert pulumi.run("local", "up") == 0
    with committed(checkout).open("a") as file:
        place = "places: [{cidr: 203.0.113.7/32}]"
        file.write(f"  slipway:forge: {{kind: github, repository: a/b, username: c, {place}}}\n")
        file.write("  slipway:forgeToken: {secure: v1:a:b}\n")
    with pytest.raises(BadInput, match=r"slipway:forge: with this forge stack local gives up") as e:
        pulumi.run("local", "up")
    assert "SLIPWAY_GIVE_UP=gitea" in str(e.value)
    assert pulumi.run("local", "preview") == 0
    monkeypatch.setenv("SLIPWAY_GIVE_UP", "gitea")
    assert pulumi.run("local", "up") == 0
    monkeypatch.delenv("SLIPWAY_GIVE_UP")
    kept.write_text(held())
    assert pulumi.run("local", "up") == 0


def test_what_the_program_takes_from_the_toolchain_is_fetched_on_any_cluster() -> None:
    sources = "".join(f.read_text() for f in INFRA.rglob("*.py"))
    taken = set(re.findall(r'toolchain\.(?:files|binary)\("([\w-]+)"', sources))
    assert taken == {*pulumi.MANIFESTS_ON_AWS, *pulumi.SIMULATION}
    assert {*pulumi.TOOLS, *taken} <= set(toolchain.tools())


def test_a_destroy_saves_its_state_once_and_one_that_was_killed_is_looked_after(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, api: dict[str, Any]
) -> None:
    engine = checkout.parent / "bin" / "pulumi"
    told = 'echo "$1 $PULUMI_SKIP_CHECKPOINTS" >>"$ENGINE_LOG.told"\n'
    killed = '[ "$1" != destroy ] || kill -9 $$\n'
    given = ENGINE.partition("\n")[2]
    engine.write_text(f"#!/bin/sh\n{told}{given}")
    assert pulumi.run("local", "destroy", "--yes") == 3
    assert "--refresh" not in pulumi._command("local", ("up",))
    engine.write_text(f"#!/bin/sh\n{told}{killed}{given.replace('exit 3', 'exit 0')}")
    assert pulumi.run("local", "destroy", "--yes") < 0
    assert "--refresh" in pulumi._command("local", ("preview",))
    assert pulumi.run("local", "up") == 0
    assert "--refresh" not in pulumi._command("local", ("up",))
    said = (checkout.parent / "engine.log.told").read_text().splitlines()
    assert [line for line in said if not line.startswith("stack")] == [
        *("destroy true", "destroy true", "up "),
    ]


def test_the_exit_code_is_the_engine_s(checkout: Path) -> None:
    assert pulumi.run("local", "whoami") == 3
    assert calls(checkout) == ["whoami"]


def test_lines_are_heard_as_they_come_and_kept(checkout: Path) -> None:
    heard: list[str] = []
    log = checkout.parent / "logs" / "pulumi.log"
    assert pulumi.follow("local", "whoami", log=log, on_line=heard.append) == 3
    assert heard == ["to whoami", "error: none"]
    assert log.read_text().splitlines() == heard


def test_the_engine_s_own_things_are_the_owner_s_only() -> None:
    first = pulumi.environment()
    passphrase = Path(first["PULUMI_CONFIG_PASSPHRASE_FILE"])
    assert passphrase.stat().st_mode & 0o777 == 0o600
    assert len(passphrase.read_text()) == 64
    assert pulumi.environment() == first
    assert passphrase.read_text() not in str(first)
    assert first["PATH"].startswith(str(Path(sys.executable).parent))


def test_a_shell_gets_what_it_needs_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    given = CliRunner().invoke(app, ["env"])
    assert given.exit_code == 0, given.output
    typed = f'{given.stdout}\necho "$KUBECONFIG $PATH"; command -v pulumi; command -v slipway'
    said = subprocess.run(["sh", "-euc", typed], capture_output=True, text=True, check=True)
    variables, *found = said.stdout.splitlines()
    kubeconfig, path = variables.split()
    assert kubeconfig == str(paths.kubeconfig())
    here = Path(sys.executable).parent
    assert path == f"{SHIM.parent}:{toolchain.binary('kubectl').parent}:{here}:/usr/bin:/bin"
    assert found == [str(SHIM), str(here / "slipway")]
    # Again in the same shell, nothing changes.
    monkeypatch.setenv("PATH", path)
    assert "PATH" not in CliRunner().invoke(app, ["env"]).stdout


SHIM = toolchain.SHELL / "pulumi"


@pytest.mark.parametrize("folder", [".", "infra/aws"])
def test_a_shells_pulumi_is_slipways(tmp_path: Path, folder: str) -> None:
    (tmp_path / "slipway").write_text('#!/bin/sh\necho "$# $*"; exit 3\n')
    (tmp_path / "slipway").chmod(0o755)
    done = subprocess.run(
        ["pulumi", "up", "--message", "two words"],
        cwd=SHIM.parents[2] / folder,
        env={"PATH": f"{SHIM.parent}:{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (3, "4 pulumi up --message two words\n")


def test_a_shells_pulumi_leaves_other_projects_alone(tmp_path: Path) -> None:
    done = subprocess.run([SHIM, "destroy"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"is for the project in {SHIM.parents[2]}\n  fix: go there" in done.stderr


def test_a_secret_that_was_half_written_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.with_name("passphrase.partial").write_text("half")
    secret = paths.secret(file)
    assert len(secret) == 64
    assert paths.secret(file) == secret


# --- locks ------------------------------------------------------------------------------------


def lock(name: str, text: str) -> Path:
    folder = paths.data() / "pulumi/state/.pulumi/locks/organization/slipway/local"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(text)
    return folder / f"{name}.json"


def test_locks_of_the_dead_go(checkout: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    dead = [
        lock("gone", json.dumps({"pid": gone.pid})),
        lock("reused", json.dumps({"pid": os.getpid()})),
        lock("half-written", '{"pid": 1'),
        lock("empty", ""),
        lock("of-nobody", "{}"),
    ]
    pulumi._command("local", ("cancel",))
    assert [f.name for f in dead if f.exists()] == []


def test_what_a_killed_update_left_empty_goes(checkout: Path) -> None:
    """The engine would not read the state: `failed to load checkpoint: EOF`."""
    keep(held())
    state = paths.data() / "pulumi/state/.pulumi/stacks/slipway/local.json"
    halves = [state.with_name(f"{name}.json.attrs") for name in ("local", "dev")]
    halves[0].touch()
    halves[1].write_text("{}")
    pulumi._command("local", ("cancel",))
    assert [f.exists() for f in (state, *halves)] == [True, False, True]


def test_a_living_update_keeps_its_lock(checkout: Path) -> None:
    program = checkout.parent / "pulumi"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as update:
        held = lock("held", json.dumps({"pid": update.pid}))
        other = held.parent.parent / "dev" / "held.json"
        other.parent.mkdir()
        other.write_text("{}")
        pulumi._command("local", ("cancel",))
        update.kill()
    assert held.exists()
    assert other.exists(), "another stack's lock is not this one's affair"


# --- a state of another machine ---------------------------------------------------------------


@pytest.fixture
def obliging(checkout: Path) -> Path:
    """The engine exports and imports, too; where what it imports is then."""
    more = """
case $2 in
    export) echo "$ENGINE_STATE"; exit ;;
    import) cat "$6" "$PULUMI_CONFIG_PASSPHRASE_FILE" >"$ENGINE_LOG.imported"; exit ;;
esac
"""
    engine = checkout.parent / "bin" / "pulumi"
    engine.write_text(ENGINE.replace('echo "to $1"\n', f'{more}echo "to $1"\n'))
    return checkout.parent / "engine.log.imported"


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    file = tmp_path / "pulumi.json"
    file.write_text('{"version": 3}')
    return file


def test_a_state_is_exported_as_it_is_encrypted(checkout: Path, obliging: Path) -> None:
    assert json.loads(pulumi.exported("local")) == {"checkpoint": {"latest": STATE}}
    assert calls(checkout) == ["stack export --stack local --non-interactive"]


def test_a_state_that_is_changing_is_not_exported(checkout: Path, obliging: Path) -> None:
    program = checkout.parent / "pulumi"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as update:
        lock("held", json.dumps({"pid": update.pid}))
        with pytest.raises(SlipwayError, match="pulumi is changing stack local"):
            pulumi.exported("local")
        update.kill()
    assert pulumi.exported("local")


def test_a_machine_that_has_none_gets_state_and_passphrase(
    obliging: Path, exported: Path, checkout: Path
) -> None:
    pulumi.check_passphrase("local", "of another machine")
    pulumi.adopt("local", exported, "of another machine")
    assert obliging.read_text() == '{"version": 3}of another machine'
    assert pulumi.passphrase_file().stat().st_mode & 0o777 == 0o600
    # The next update finds out what of it is on no cluster any more.
    assert "--refresh" in pulumi._command("local", ("up",))
    pulumi.adopt("local", exported, "of another machine")
    assert sum(call.startswith("stack init") for call in calls(checkout)) == 1


def test_another_passphrase_takes_the_place_of_one_that_nothing_needs(
    obliging: Path, exported: Path, checkout: Path
) -> None:
    merged()
    pulumi.check_passphrase("local", "of another machine")
    pulumi.adopt("local", exported, "of another machine")
    assert pulumi.passphrase_file().read_text() == "of another machine"
    assert sum(call.startswith("stack init") for call in calls(checkout)) == 2


def test_a_passphrase_that_another_stack_needs_stays(checkout: Path) -> None:
    pulumi.environment()
    states = paths.data() / "pulumi/state/.pulumi/stacks/slipway"
    states.mkdir(parents=True)
    made = {"checkpoint": {"latest": {**STATE, "resources": [{"type": "pulumi:pulumi:Stack"}]}}}
    (states / "simulated.json").write_text(json.dumps(made))
    with pytest.raises(BadInput, match="destroy --stack simulated"):
        pulumi.check_passphrase("local", "of another machine")
    pulumi.check_passphrase("local", pulumi.passphrase_file().read_text().strip())
    (states / "simulated.json").write_text(json.dumps({"checkpoint": {"latest": STATE}}))
    pulumi.check_passphrase("local", "of another machine")
