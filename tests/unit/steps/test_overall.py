"""Steps about the repository as a whole: dispatch, follow, sweep, and their workflows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from slipway import bento, paths, publish, release, training
from slipway.endpoints import Cluster, ClusterError
from slipway.errors import BadInput, SlipwayError
from slipway.forge import NotFound, PullRequest
from slipway.repository import Repository
from slipway.steps import __main__ as steps
from slipway.steps import dispatch, follow, sweep
from slipway.steps.registry import Registry
from tests import samples
from workflows.__main__ import render
from workflows.steps import source

OLD, HEAD = "1" * 40, "2" * 40


class Kubernetes:
    """Workflows, the template, and the memo, behind the API's paths."""

    def __init__(self) -> None:
        self.workflows: dict[str, dict[str, Any]] = {}
        self.memo: dict[str, str] = {}
        transport = httpx.MockTransport(self._answer)
        self.cluster = Cluster(
            httpx.Client(base_url="http://api", transport=transport), embedded=False
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == dispatch.MEMO:
            if request.method == "PATCH":
                for key, value in json.loads(request.content)["data"].items():
                    self.memo.pop(key, None)
                    if value is not None:
                        self.memo[key] = value
            return httpx.Response(200, json={"data": self.memo} if self.memo else {})
        if path == f"{training.API}/workflowtemplates/train":
            return httpx.Response(200, json={})
        assert path == f"{training.API}/workflows"
        if request.method == "POST":
            body = json.loads(request.content)
            name = body["metadata"].get("name") or f"generated-{len(self.workflows)}"
            if name in self.workflows:
                return httpx.Response(409, json={"message": "already exists"})
            self.workflows[name] = body
            body["metadata"] |= {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
            return httpx.Response(201, json=body)
        wanted = dict(p.split("=") for p in request.url.params["labelSelector"].split(","))
        items = [
            w for w in self.workflows.values() if wanted.items() <= w["metadata"]["labels"].items()
        ]
        return httpx.Response(200, json={"items": items})


class Forge:
    """Files by commit."""

    def __init__(self, **commits: dict[str, bytes]) -> None:
        self.commits = commits
        self.proposed: list[PullRequest] = []

    def pulls(self, state: str) -> list[PullRequest]:
        assert state == "all"
        return self.proposed

    def files(self, folder: str, ref: str) -> list[str]:
        if ref not in self.commits:
            raise NotFound(ref, status=404)
        return [p for p in self.commits[ref] if str(Path(p).parent) == folder]

    def read(self, path: str, ref: str) -> bytes:
        if ref not in self.commits:
            raise NotFound(ref, status=404)
        return self.commits[ref][path]


class Trained:
    """MLflow, as far as it says what has been trained."""

    def __init__(self, **runs: str) -> None:
        self.codes = {code: run for run, code in runs.items()}

    def runs(self, model: str, code: str) -> list[str]:
        return [self.codes[code]] if code in self.codes else []


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """bentos/ with one model."""
    source = paths.REPOSITORY / "bentos" / "flight_delay"
    made = tmp_path / "bentos" / "flight_delay"
    made.mkdir(parents=True)
    for file in source.iterdir():
        if file.is_file():
            (made / file.name).write_bytes(file.read_bytes())
    return tmp_path / "bentos"


@pytest.fixture
def api() -> Kubernetes:
    return Kubernetes()


def run(
    api: Kubernetes, folders: Path, *, trained: Any = None, forge: Any = None, commit: str = HEAD
) -> list[str]:
    return dispatch.dispatch(api.cluster, trained or Trained(), forge or Forge(), folders, commit)


def code(folders: Path) -> str:
    return bento.load(folders / "flight_delay").code()


def touch(folders: Path, name: str) -> None:
    file = folders / "flight_delay" / name
    file.write_text(file.read_text() + "\n# changed\n")


def test_code_that_has_changed_is_trained_once(api: Kubernetes, folders: Path) -> None:
    [name] = run(api, folders)
    assert name == f"train-flight-delay-{code(folders)[7:19]}"
    workflow = api.workflows[name]
    assert workflow["metadata"]["labels"] == {
        "slipway.dev/model": "flight_delay",
        "slipway.dev/commit": HEAD,
        "slipway.dev/environment": "dev",
        "slipway.dev/dry-run": "false",
    }
    assert run(api, folders) == []
    touch(folders, "training.py")
    [other] = run(api, folders, commit="3" * 40)
    assert other != name
    assert api.memo == {"flight_delay": code(folders)}


def test_prose_and_tests_train_nothing(api: Kubernetes, folders: Path) -> None:
    run(api, folders)
    touch(folders, "README.md")
    (folders / "flight_delay" / "tests").mkdir()
    (folders / "flight_delay" / "tests" / "test_model.py").write_text("")
    assert run(api, folders, commit="3" * 40) == []


def test_what_a_person_has_started_is_not_started_again(api: Kubernetes, folders: Path) -> None:
    training.start(api.cluster, "flight_delay", HEAD, "dev")
    assert run(api, folders) == []
    assert len(api.workflows) == 1
    api.memo.clear()
    # Main has moved since, in something else; the forge tells what that commit's code was.
    files = {
        f"bentos/flight_delay/{f.name}": f.read_bytes()
        for f in (folders / "flight_delay").iterdir()
    }
    files["requirements/training.txt"] = bento.LOCK.read_bytes()
    assert run(api, folders, forge=Forge(**{HEAD: files}), commit="3" * 40) == []
    api.memo.clear()
    # Of a commit that is gone nobody can tell: it trains.
    assert len(run(api, folders, commit="3" * 40)) == 1


@pytest.mark.parametrize("state", ["open", "closed", "merged"])
def test_what_was_trained_and_proposed_is_not_trained_again(
    api: Kubernetes, folders: Path, state: str
) -> None:
    sha = "4" * 40
    made = samples.released(model="flight_delay")
    content = release.dumps(made).encode()
    forge = Forge(**{sha: {"environments/dev/models/flight_delay.yaml": content}})
    forge.proposed = [proposal("release/flight_delay-3-0a0a0a0a", sha, state)]
    trained = Trained(**{made.mlflow.run: code(folders)})
    assert run(api, folders, trained=trained, forge=forge) == []
    assert api.workflows == {}


def test_what_was_only_tried_on_a_branch_is_trained_once_merged(
    api: Kubernetes, folders: Path
) -> None:
    """Its workflow and its run are there, and no proposal of it."""
    training.start(api.cluster, "flight_delay", HEAD, "dev", dry_run=True)
    sha = "4" * 40
    content = release.dumps(samples.released(model="flight_delay")).encode()
    forge = Forge(**{sha: {"environments/dev/models/flight_delay.yaml": content}})
    forge.proposed = [
        proposal("release/flight_delay-2-0a0a0a0a", sha, "merged"),  # of another run
        proposal("release/flight_delay-1-0a0a0a0a", "5" * 40, "closed"),  # of whose commit is gone
    ]
    [name] = run(api, folders, trained=Trained(tried=code(folders)), forge=forge)
    values = api.workflows[name]["spec"]["arguments"]["parameters"]
    assert {"name": "dry-run", "value": "false"} in values
    assert len(api.workflows) == 2


def proposal(head: str, sha: str, state: str) -> PullRequest:
    return PullRequest(
        number=1,
        url="",
        title="",
        body="",
        head=head,
        base="main",
        sha=sha,
        state="open" if state == "open" else "closed",
        merged=state == "merged",
        merge_sha=None,
    )


def test_two_that_notice_at_once_start_one(
    api: Kubernetes, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(api, folders)
    api.memo.clear()
    monkeypatch.setattr(training, "workflows", lambda *_: {})  # the other's, not yet to be seen
    assert run(api, folders) == []
    assert len(api.workflows) == 1


def test_a_broken_folder_does_not_keep_the_others(api: Kubernetes, folders: Path) -> None:
    broken = folders / "broken"
    broken.mkdir()
    (broken / "model.yaml").write_text("{}")
    with pytest.raises(BadInput, match="broken"):
        run(api, folders)
    assert len(api.workflows) == 1


def test_a_pretrained_model_is_checked_and_not_trained(api: Kubernetes, folders: Path) -> None:
    copy = folders / "qwen_chat"
    shutil.copytree(paths.REPOSITORY / "bentos" / "qwen_chat", copy)
    assert [name.split("-")[1] for name in run(api, folders)] == ["flight"]
    assert set(api.memo) == {"flight_delay"}
    (copy / "model.yaml").write_text("kind: pretrained\n")
    with pytest.raises(BadInput, match="qwen_chat"):
        run(api, folders)
    assert len(api.workflows) == 1


def test_a_model_that_is_gone_is_forgotten(api: Kubernetes, folders: Path) -> None:
    run(api, folders)
    api.memo["gone"] = "sha256:" + "0" * 64
    assert run(api, folders) == []
    assert set(api.memo) == {"flight_delay"}


def test_a_stack_without_dev_trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENTS", "prod")
    assert dispatch.run() == {"workflows": ""}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as the forge packs it for steps."""
    place = tmp_path_factory.mktemp("packed")
    pack = ["git", "archive", "--worktree-attributes", "HEAD"]
    archive = subprocess.run(pack, cwd=paths.REPOSITORY, check=True, capture_output=True).stdout
    subprocess.run(["tar", "--extract", "--directory", place], input=archive, check=True)
    return place


def test_what_is_packed_knows_its_commit(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "COMMIT", packed / "slipway/steps/commit")
    assert dispatch._head() == publish.head()  # pyright: ignore[reportPrivateUsage]


def test_what_is_not_packed_knows_none() -> None:
    with pytest.raises(SlipwayError, match="names no commit: this folder was not packed"):
        dispatch._head()  # pyright: ignore[reportPrivateUsage]


def test_what_is_packed_has_all_that_steps_read(packed: Path) -> None:
    """And no link, which Argo refuses where it leads out of its folder."""
    files = list(packed.rglob("*"))
    assert not [file for file in files if file.is_symlink()]
    there = {str(file.relative_to(packed)) for file in files}
    with Repository(paths.REPOSITORY) as repository:
        for folder in ("bentos", "environments", "infra", "policies", "requirements", "workflows"):
            ours = repository.files("HEAD", folder)
            assert {f for f in ours if not (paths.REPOSITORY / f).is_symlink()} <= there
    every = "; ".join(f"import slipway.steps.{step}" for step in (*steps.FLAGS, *steps.OVERALL))
    environment = {**os.environ, "PYTHONPATH": str(packed)}
    command = [sys.executable, "-P", "-c", f"{every}; print(slipway.__file__)"]
    shown = subprocess.run(command, cwd=packed, env=environment, capture_output=True, text=True)
    assert shown.stdout.startswith(str(packed)), shown.stderr


def test_outside_a_pod_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterError, match="no cluster around this process"):
        Cluster.inside()


# --- follow -----------------------------------------------------------------------------------

AMONG = ["dev", "prod"]


class Aliases:
    """MLflow's aliases in memory."""

    def __init__(self, **models: dict[str, int]) -> None:
        self.models = models

    def aliases(self) -> dict[str, dict[str, int]]:
        return {model: dict(aliases) for model, aliases in self.models.items()}

    def set_alias(self, model: str, alias: str, version: int) -> None:
        self.models[model][alias] = version

    def delete_alias(self, model: str, alias: str) -> None:
        del self.models[model][alias]


def following(
    aliases: Aliases, releases: dict[tuple[str, str], Any], answers: dict[tuple[str, str], str]
) -> list[str]:
    def ask(model: str, environment: str) -> str | None:
        return answers.get((model, environment))

    registry: Any = aliases
    return [str(b) for b in follow.follow(registry, releases, AMONG, ask)]


def released() -> Any:
    return samples.released(version=2)


def test_an_alias_moves_once_the_model_answers_with_what_git_says() -> None:
    aliases, here = Aliases(flight_delay={"dev": 1}), ("flight_delay", "dev")
    new = released()
    assert following(aliases, {here: new}, {}) == [
        "flight_delay@dev: version 2 is released, but nothing answers"
    ]
    [late] = following(aliases, {here: new}, {here: "sha256:old"})
    assert "answers with sha256:old" in late
    assert aliases.models == {"flight_delay": {"dev": 1}}
    assert following(aliases, {here: new}, {here: new.bento.digest}) == []
    assert aliases.models == {"flight_delay": {"dev": 2}}


def test_an_alias_that_is_right_asks_nobody() -> None:
    def ask(*_: str) -> str | None:
        raise AssertionError

    registry: Any = Aliases(flight_delay={"dev": 2, "champion": 1})
    assert follow.follow(registry, {("flight_delay", "dev"): released()}, AMONG, ask) == []


def test_the_alias_of_a_removed_release_goes_once_nothing_answers() -> None:
    aliases, here = Aliases(flight_delay={"dev": 2, "staging": 1}), ("flight_delay", "dev")
    [still] = following(aliases, {}, {here: "sha256:old"})
    assert "its release file is gone, but sha256:old still answers" in still
    assert following(aliases, {}, {}) == []
    # staging is another stack's to say.
    assert aliases.models == {"flight_delay": {"staging": 1}}


def test_release_files_are_read_where_the_stack_has_an_environment(tmp_path: Path) -> None:
    for environment in ("dev", "staging"):
        folder = tmp_path / environment / "models"
        folder.mkdir(parents=True)
        (folder / f"{released().model}.yaml").write_text(release.dumps(released()))
    (tmp_path / "dev" / "models" / "wrong.yaml").write_text("model: 1\n")
    found, problems = follow.read(tmp_path, AMONG)
    assert set(found) == {(released().model, "dev")}
    assert len(problems) == 1
    assert "wrong.yaml" in str(problems[0])


def test_aliases_and_runs_are_mlflows_own(mlflow_server: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_server)
    client.create_registered_model("follows")
    experiment = client.create_experiment("follows")
    for _ in range(2):
        run = client.create_run(experiment).info.run_id
        client.create_model_version("follows", f"runs:/{run}/model", run)
    with Registry(mlflow_server) as registry:
        registry.set_alias("follows", "dev", 1)
        registry.set_alias("follows", "dev", 2)
        assert registry.aliases()["follows"] == {"dev": 2}
        registry.delete_alias("follows", "dev")
        registry.delete_alias("follows", "dev")
        assert registry.aliases()["follows"] == {}
        with pytest.raises(SlipwayError, match="MLflow has no version 9 of follows"):
            registry.set_alias("follows", "dev", 9)
        assert registry.runs("never", "sha256:a") == []
        run = client.create_run(experiment, tags={"slipway.code_digest": "sha256:a"}).info.run_id
        assert registry.runs("follows", "sha256:a") == []
        client.set_terminated(run, "FINISHED")
        assert registry.runs("follows", "sha256:a") == [run]
        assert registry.runs("follows", "sha256:b") == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_mlflow_that_is_down_is_worth_another_try(status: int) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status))
    with (
        Registry("http://mlflow", transport=transport) as registry,
        pytest.raises(ConnectionError) as caught,
    ):
        registry.aliases()
    assert steps.is_transient(caught.value)
    assert steps.is_transient(ClusterError("", status=503))
    assert not steps.is_transient(ClusterError("", status=403))


# --- sweep ------------------------------------------------------------------------------------


def test_a_sweep_does_all_of_it_whatever_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def fails(problem: Exception | None) -> Callable[..., dict[str, str]]:
        def step(**_: Any) -> dict[str, str]:
            ran.append("one")
            if problem:
                raise problem
            return {}

        return step

    monkeypatch.setattr("slipway.steps.dispatch.run", fails(ConnectionError()))
    monkeypatch.setattr("slipway.steps.follow.run", fails(ValueError()))
    monkeypatch.setattr("slipway.steps.gates.run", fails(None))
    assert steps.main(["sweep"]) == 1
    assert len(ran) == 3
    with pytest.raises(SlipwayError, match="failed: dispatch, follow"):
        sweep.run()


# --- the workflows ----------------------------------------------------------------------------


def documents() -> Iterator[dict[str, Any]]:
    [content] = [text for file, text in render().items() if file.stem == "events"]
    yield from yaml.safe_load_all(content)


TEMPLATES = [
    t
    for d in documents()
    if d["kind"] == "WorkflowTemplate"
    for t in d["spec"]["templates"]
    if "container" in t
]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: t["name"])
def test_each_runs_mains_code_with_the_rights_that_it_needs(template: dict[str, Any]) -> None:
    [code] = template["inputs"]["artifacts"]
    assert code["http"]["url"] == source("refs/heads/main").url
    starts = template["name"] in ("dispatch", "sweep")
    assert template.get("serviceAccountName") == ("dispatcher" if starts else None)
    given = {e["secretRef"]["name"] for e in template["container"]["envFrom"] if "secretRef" in e}
    judges = template["name"] in ("gates", "sweep")
    assert given == {"forge", "object-store"} if judges else {"forge"}
    assert "evidence-key:" not in yaml.safe_dump(template)
    assert template["container"]["command"][-1] in steps.OVERALL


def test_one_pull_request_is_judged_by_one_at_a_time_and_a_sweep_does_not_meet_itself() -> None:
    found = {(d["kind"], d["metadata"]["name"]): d["spec"] for d in documents()}
    [mutex] = found["WorkflowTemplate", "gates"]["synchronization"]["mutexes"]
    assert mutex == {"name": "gates-{{workflow.parameters.pull}}"}
    cron = found["CronWorkflow", "sweep"]
    assert cron["concurrencyPolicy"] == "Forbid"
    # Admission lets a workflow say no more than which template it runs.
    assert cron["workflowSpec"] == {"workflowTemplateRef": {"name": "sweep"}}
