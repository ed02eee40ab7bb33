"""Who is no administrator: a viewer looks, a promoter promotes, and what else they try is refused.

Each has a kubeconfig and a login of the forge's own, and nothing of the machine's.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from slipway import paths, release, training
from slipway.endpoints import Cluster, ClusterError

from .conftest import ENV, MODEL, SLIPWAY, as_user, login

Done = subprocess.CompletedProcess[str]
PIPELINES = "/api/v1/namespaces/pipelines"


@dataclass(frozen=True)
class Person:
    """Somebody at a machine of their own."""

    folder: Path
    login: str
    password: str

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def run(self, *arguments: str, code: int | None = 0, known: bool = True) -> Done:
        """`slipway ARGUMENTS`. `known`: the forge is told who it is."""
        told = {"FORGE_USERNAME": self.login, "FORGE_PASSWORD": self.password} if known else {}
        own = {"KUBECONFIG": str(self.kubeconfig), "XDG_CACHE_HOME": str(self.folder / "cache")}
        done = subprocess.run(
            [SLIPWAY, *arguments],
            cwd=paths.REPOSITORY,
            env=os.environ | own | told,
            capture_output=True,
            text=True,
            timeout=600,
        )
        said = f"slipway {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
        assert code in (None, done.returncode), said
        return done

    def cluster(self, monkeypatch: pytest.MonkeyPatch) -> Cluster:
        """The cluster, as it lets this one."""
        monkeypatch.setenv("KUBECONFIG", str(self.kubeconfig))
        return Cluster.connect()


@pytest.fixture(scope="module")
def people(
    slipway: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Person]]:
    """A viewer and a promoter, who may read on the forge and not write."""
    platform = Cluster.connect()
    admin = platform.secret("forge", "gitea-admin")
    with (
        as_user(platform, admin["username"], admin["password"]) as api,
        ExitStack() as logins,
    ):
        made: dict[str, Person] = {}
        for role in ("viewer", "promoter"):
            name = f"{role}-{secrets.token_hex(3)}"
            told = logins.enter_context(login(api, name))
            who = made[role] = Person(tmp_path_factory.mktemp(role), name, told["FORGE_PASSWORD"])
            group, file = f"slipway-{role}s", str(who.kubeconfig)
            slipway("kubeconfig", "--for", name, "--group", group, "--hours=1", "--to", file)
        yield made


@pytest.fixture
def viewer(people: dict[str, Person]) -> Person:
    return people["viewer"]


@pytest.fixture
def promoter(people: dict[str, Person]) -> Person:
    return people["promoter"]


# --- looking ----------------------------------------------------------------------------------


def test_a_viewer_sees_the_whole_board(viewer: Person) -> None:
    done = viewer.run("status", "-o", "json")
    row = next(r for r in json.loads(done.stdout) if (r["model"], r["environment"]) == (MODEL, ENV))
    assert row["serving"] is True
    assert row["sync"] == "Synced"
    # From the forge, the store and MLflow, each of which would be said to be missing.
    assert done.stderr == ""
    assert row["alias"] == row["version"]


def test_a_viewer_traces_it_and_reads_its_history(viewer: Person) -> None:
    links = json.loads(viewer.run("trace", MODEL, "--env", ENV, "-o", "json").stdout)
    assert all(link["ok"] for link in links), links
    assert {"bento", "evidence", "run", "data"} <= {link["what"] for link in links}
    done = viewer.run("history", MODEL, "--env", ENV, "-o", "json")
    assert json.loads(done.stdout)
    assert done.stderr == ""
    viewer.run("check", "--base", "HEAD")


def test_a_viewer_reads_the_logs_of_what_runs(
    viewer: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = viewer.cluster(monkeypatch)
    selector = f"app.kubernetes.io/name={release.service(MODEL)}"
    pod = mine.items(f"/api/v1/namespaces/{ENV}/pods", labelSelector=selector)[0]
    assert mine.log(ENV, pod["metadata"]["name"], "model", 5)


def test_who_does_not_say_who_it_is_on_the_forge_is_told_how(viewer: Person) -> None:
    said = viewer.run("trace", MODEL, "--env", ENV, code=1, known=False).stderr
    assert 'cannot get resource "secrets"' in said
    assert "set FORGE_USERNAME and FORGE_PASSWORD, or FORGE_TOKEN" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("promote", MODEL, "--to", "staging", "--dry-run"),
        ("train", MODEL, "--dry-run"),
        ("predict", MODEL, "--env", ENV),
    ],
)
def test_a_viewer_is_told_who_may_do_more(viewer: Person, arguments: tuple[str, ...]) -> None:
    said = viewer.run(*arguments, code=1).stderr
    assert f'User "{viewer.login}" cannot create' in said
    assert "promoters have this right" in said
    assert "under slipway:people.promoters" in said


def test_a_viewer_s_label_is_the_labellers_to_give(viewer: Person, tmp_path: Path) -> None:
    """Before that, its ids are looked up, which a viewer may."""
    file = tmp_path / "labels.csv"
    file.write_text(f"id,outcome\n{'0' * 28},1\n")
    said = viewer.run("label", MODEL, "--env", ENV, "--file", str(file), code=2).stderr
    assert "none of its 1 ids is of a prediction" in said


# --- promoting --------------------------------------------------------------------------------


def test_a_promoter_asks_a_model(promoter: Person) -> None:
    answer = json.loads(promoter.run("predict", MODEL, "--env", ENV, "-o", "json").stdout)
    assert answer["bento"].startswith("sha256:")


def test_a_promotion_is_tried_in_the_promoter_s_own_name(
    promoter: Person, platform: Cluster
) -> None:
    tried = ("promote", MODEL, "--to", "staging", "--dry-run", "-o", "json")
    done = promoter.run(*tried, code=None)
    found = json.loads(done.stdout)
    # Whether the gates would let it in depends on what staging has.
    assert done.returncode == found["verdict"]["exit_code"]
    assert found["evidence"].startswith("sha256:")
    name = next(word for word in done.stderr.split() if word.startswith("promote-"))
    made = platform.find(f"{training.API}/workflows/{name}")
    assert made
    asked = {p["name"]: p["value"] for p in made["spec"]["arguments"]["parameters"]}
    assert asked["requested-by"].split(", ")[0] == promoter.login


@pytest.mark.parametrize("role", ["viewer", "promoter"])
def test_neither_reads_what_signs_or_what_opens_stores(
    people: dict[str, Person], role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = people[role].cluster(monkeypatch)
    for namespace, name in (
        ("pipelines", "evidence-key"),
        ("pipelines", "object-store"),
        ("pipelines", "forge"),
        ("pipelines", "labels"),
        ("forge", "gitea-admin"),
        ("storage", "minio"),
        ("prod", "object-store"),
    ):
        with pytest.raises(ClusterError) as told:
            mine.secret(namespace, name)
        assert told.value.status == 403
    with pytest.raises(ClusterError, match="cannot list resource"):
        mine.items(f"{PIPELINES}/secrets")


def test_what_they_read_the_store_with_writes_nothing(
    viewer: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slipway.store import StoreError

    with (
        viewer.cluster(monkeypatch).store() as store,
        pytest.raises(StoreError, match="the store refused: AccessDenied"),
    ):
        store.put("evidence", b"nothing that anybody has signed")


def test_mlflow_is_read_and_not_written(viewer: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the API server's leave: MLflow itself asks nobody who they are."""
    mine = viewer.cluster(monkeypatch)
    path = "/api/v1/namespaces/mlflow/services/mlflow:main/proxy/api/2.0/mlflow/experiments"
    host = {"Host": "mlflow"}
    read = mine.send("GET", f"{path}/get?experiment_id=0", headers=host)
    assert read.status_code == 200
    assert mine.send("POST", f"{path}/create", headers=host, json={"name": "x"}).status_code == 403
    # Another way there would let it.
    with pytest.raises(ClusterError) as told, mine.mlflow():
        pass
    assert told.value.status == 403


def started(**more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": "mine-"},
        "spec": {"workflowTemplateRef": {"name": "train"}},
        **more,
    }


STEAL: dict[str, Any] = {
    "entrypoint": "steal",
    "serviceAccountName": "evidence",
    "volumes": [{"name": "key", "secret": {"secretName": "evidence-key"}}],
    "templates": [
        {
            "name": "steal",
            "container": {
                "image": "busybox",
                "command": ["cat", "/keys/private.pem"],
                "volumeMounts": [{"name": "key", "mountPath": "/keys"}],
            },
        }
    ],
}
REFERS = {"workflowTemplateRef": {"name": "train"}}


@pytest.mark.parametrize(
    ("workflow", "said"),
    [
        (started(spec=STEAL), "denied request"),
        (
            started(spec={**REFERS, "volumes": STEAL["volumes"]}),
            "says nothing beside its arguments",
        ),
        (started(spec={**REFERS, "serviceAccountName": "evidence"}), "says nothing beside"),
        # The controller would go by it, and look at no template.
        (
            started(status={"storedWorkflowTemplateSpec": STEAL}),
            "what became of a workflow is the controller's to say",
        ),
        (
            started(spec={"workflowTemplateRef": {"name": "sweep"}}),
            "people start experiments, promote, reproduce, train",
        ),
    ],
)
def test_a_promoter_s_workflow_gets_at_no_key(
    promoter: Person, workflow: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ClusterError) as told:
        promoter.cluster(monkeypatch).create(f"{training.API}/workflows", workflow)
    assert told.value.status == 422
    assert said in str(told.value)


@pytest.mark.parametrize("env", ["staging", "prod"])
def test_a_promoter_changes_nothing_that_runs(
    promoter: Person, env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = promoter.cluster(monkeypatch)
    deployment = f"/apis/apps/v1/namespaces/{env}/deployments/{release.service(MODEL)}"
    application = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications"
    attempts: list[Callable[[], object]] = [
        lambda: mine.patch(deployment, {"spec": {"replicas": 0}}),
        lambda: mine.delete(deployment),
        lambda: mine.create(f"/api/v1/namespaces/{env}/pods", {}),
        lambda: mine.patch(f"{application}/releases-{env}", {"spec": {"syncPolicy": None}}),
        lambda: mine.patch(f"/apis/slipway.dev/v1/namespaces/{env}/releasesets/releases", {}),
    ]
    for attempt in attempts:
        with pytest.raises(ClusterError) as told:
            attempt()
        assert told.value.status == 403
        assert "no role of slipway:people has this right" in str(told.value)
