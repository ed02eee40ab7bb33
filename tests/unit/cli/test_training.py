"""Starting, finding and following the training workflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from slipway import endpoints, release, training
from slipway.commands import train
from slipway.errors import BadInput, SlipwayError
from slipway.forge import ForgeError, PullRequest
from tests.gitforge import GitForge

COMMIT = "d4" * 20
WORKFLOWS = "/apis/argoproj.io/v1alpha1/namespaces/pipelines/workflows"


def node(name: str, phase: str, kind: str = "Pod", **more: Any) -> dict[str, Any]:
    times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:07Z"}
    return {"displayName": name, "type": kind, "phase": phase, **times, **more}


def workflow(phase: str, name: str = "train-toy-x", **nodes: dict[str, Any]) -> dict[str, Any]:
    tasks = [{"name": step} for step in ("ingest", "train", "propose")]
    spec = {"entrypoint": "main", "templates": [{"name": "main", "dag": {"tasks": tasks}}]}
    return {
        "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"phase": phase, "nodes": nodes, "storedWorkflowTemplateSpec": spec},
    }


def test_start_names_what_it_trains(platform: Any) -> None:
    started = training.start(platform.cluster, "toy", COMMIT, "dev")
    assert started.name == "train-toy-abcde"
    (created,) = platform.created
    assert created["spec"]["workflowTemplateRef"] == {"name": "train"}
    values = {p["name"]: p["value"] for p in created["spec"]["arguments"]["parameters"]}
    assert values == {"model": "toy", "commit": COMMIT, "environment": "dev", "dry-run": "false"}
    assert created["metadata"]["labels"]["slipway.dev/commit"] == COMMIT


def test_no_template_says_what_to_do(platform: Any) -> None:
    platform.objects.clear()
    with pytest.raises(SlipwayError, match="no WorkflowTemplate pipelines/train"):
        training.start(platform.cluster, "toy", COMMIT, "dev")


@pytest.mark.parametrize(
    ("phase", "found"),
    [("Running", True), ("", True), ("Succeeded", True), ("Failed", False), ("Error", False)],
)
def test_a_failed_one_is_not_gone_on_with(platform: Any, phase: str, found: bool) -> None:
    platform.objects[WORKFLOWS] = {"items": [workflow(phase)]}
    assert bool(training.find(platform.cluster, "toy", COMMIT, "dev")) == found


def test_steps_are_tasks_and_not_their_attempts(platform: Any) -> None:
    nodes = {
        "root": node("train-toy-x", "Running", "DAG"),
        "a": node("ingest", "Succeeded", "Retry", children=["a0", "a1"]),
        "a0": node("ingest(0)", "Failed"),
        "a1": node("ingest(1)", "Succeeded"),
    }
    platform.objects[f"{WORKFLOWS}/train-toy-x"] = workflow("Succeeded", **nodes)
    (last,) = training.follow(platform.cluster, "train-toy-x")
    assert [(s.name, s.phase) for s in last.steps] == [
        ("ingest", "Succeeded"),
        ("train", ""),
        ("propose", ""),
    ]
    assert last.steps[0].seconds == 7


def test_follow_ends_with_the_workflow(platform: Any) -> None:
    states = [workflow("Running"), workflow("Running"), workflow("Succeeded")]
    platform.objects[f"{WORKFLOWS}/train-toy-x"] = states
    seen = [w.phase for w in training.follow(platform.cluster, "train-toy-x", every_s=0)]
    assert seen == ["Running", "Running", "Succeeded"]


def test_follow_waits_for_an_api_server_that_begins_anew(
    platform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints.time, "sleep", lambda _: None)
    platform.objects[f"{WORKFLOWS}/train-toy-x"] = [
        workflow("Running"),
        httpx.ConnectError("refused"),
        httpx.Response(503, json={"message": "not all paths are installed"}),
        httpx.Response(403, json={"message": "who may do what has not been read yet"}),
        workflow("Running"),
        workflow("Succeeded"),
    ]
    news: list[str] = []
    seen = training.follow(platform.cluster, "train-toy-x", news.append, every_s=0)
    assert [w.phase for w in seen] == ["Running", "Running", "Succeeded"]
    [said] = news
    assert said.startswith("waiting for the API server, at most 120 s: ")
    assert "refused" in said


def test_a_failure_shows_the_last_attempts_log(platform: Any) -> None:
    nodes = {
        "a": node("train", "Failed", "Retry", children=["a0", "a1"], message="exit code 2"),
        "a0": node("train(0)", "Failed"),
        "a1": node("train(1)", "Failed"),
    }
    item = workflow("Failed", **nodes)
    platform.objects[f"{WORKFLOWS}/train-toy-x"] = item
    pods = [
        {
            "metadata": {
                "name": f"pod-{key}",
                "annotations": {"workflows.argoproj.io/node-id": key},
            }
        }
        for key in ("a0", "a1")
    ]
    platform.objects["/api/v1/namespaces/pipelines/pods"] = {"items": pods}
    platform.objects["/api/v1/namespaces/pipelines/pods/pod-a1/log"] = "corrupt partition 2013-02"
    (last,) = training.follow(platform.cluster, "train-toy-x")
    said = training.failure(platform.cluster, last)
    assert "step train failed: exit code 2" in said
    assert "corrupt partition 2013-02" in said


def test_commit_must_be_on_the_forge(platform: Any) -> None:
    with pytest.raises(BadInput, match="the forge has no commit 0123"):
        training.commit_of(platform.forge, "0123")
    assert training.commit_of(platform.forge, None) == platform.forge.head


def test_model_must_be_in_the_commit(platform: Any) -> None:
    training.check_model(platform.forge, "toy", COMMIT)
    with pytest.raises(BadInput, match="commit d4d4d4d4d4d4 has no bentos/other/model"):
        training.check_model(platform.forge, "other", COMMIT)
    with pytest.raises(BadInput, match="the forge's main at d4d4d4d4d4d4 has no bentos") as told:
        training.check_model(platform.forge, "other", COMMIT, named="main")
    for fix in ("merge it", "--commit BRANCH", "slipway new other"):
        assert fix in str(told.value)


def test_merged_is_what_the_forges_main_has(tmp_path: Path) -> None:
    forge = GitForge(tmp_path)
    start = forge.commit()
    branch = forge.write("mine", {"a": b"1"}, "Mine")
    assert training.is_merged(forge, start)
    assert not training.is_merged(forge, branch)
    assert not training.is_merged(forge, "0" * 40)
    forge.merge(forge.open("mine", "Mine", "").number)
    assert training.is_merged(forge, branch)
    assert training.is_merged(forge, start)
    forge.folder = tmp_path / "gone"
    with pytest.raises(ForgeError):
        training.is_merged(forge, branch)


def test_a_dry_run_is_found_apart_from_the_others(
    platform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    training.start(platform.cluster, "toy", COMMIT, "dev", dry_run=True)
    (created,) = platform.created
    assert {"name": "dry-run", "value": "true"} in created["spec"]["arguments"]["parameters"]
    assert created["metadata"]["labels"]["slipway.dev/dry-run"] == "true"
    platform.objects[WORKFLOWS] = {"items": [created]}
    assert training.workflows(platform.cluster, "toy", "dev") == {}
    asked: list[dict[str, str]] = []

    def newest(_: Any, labels: dict[str, str]) -> list[Any]:
        asked.append(labels)
        return []

    monkeypatch.setattr(training, "newest", newest)
    for dry_run in (True, False):
        training.find(platform.cluster, "toy", COMMIT, "dev", dry_run=dry_run)
    assert [labels["dry-run"] for labels in asked] == ["true", "false"]


def proposed(platform: Any, number: int, *, merged: bool = False, state: str = "open") -> Any:
    return PullRequest(
        number=number,
        url=f"http://forge/{number}",
        title="",
        body="",
        head=release.branch("toy", 3),
        base="main",
        sha=platform.forge.head,
        state="closed" if merged else state,  # type: ignore[arg-type]
        merged=merged,
        merge_sha=None,
    )


def test_the_proposal_is_the_newest_that_this_commit_made(platform: Any) -> None:
    forge = platform.forge
    forge.pull_requests = [proposed(platform, 9, state="closed"), proposed(platform, 8)]
    found = training.proposal(forge, "toy", "dev", COMMIT)
    assert found
    assert found.number == 8
    assert training.proposal(forge, "toy", "dev", "0" * 40) is None
    forge.pull_requests = [proposed(platform, 7, merged=True)]
    assert training.proposal(forge, "toy", "dev", COMMIT)


def test_up_goes_on_with_what_succeeded_only_while_the_forge_has_what_it_came_to(
    platform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: list[str] = []

    def ended(_: Any, found: training.Workflow, __: Any) -> training.Workflow:
        followed.append(found.name)
        return training.Workflow(found.name, "Succeeded", "", ())

    monkeypatch.setattr(train, "_each", ended)
    platform.objects[WORKFLOWS] = {"items": [workflow("Succeeded")]}

    def trained() -> PullRequest | None:
        news: list[str] = []
        options: Any = {"commit": COMMIT, "environment": "dev", "say": news.append}
        return train.train(platform.cluster, platform.forge, "toy", **options)

    # Released already, so that it had nothing to propose.
    assert trained() is None
    platform.forge.pull_requests = [proposed(platform, 7)]
    found = trained()
    assert found
    assert found.number == 7
    # A forge that was made anew: no release, and no pull request either.
    platform.forge.head, platform.forge.pull_requests = COMMIT, []
    assert trained() is None
    assert followed == ["train-toy-x", "train-toy-x", "train-toy-abcde"]
    assert len(platform.created) == 1
    # What runs is gone on with; it has yet to propose.
    platform.objects[WORKFLOWS] = {"items": [workflow("Running")]}
    trained()
    assert followed[3:] == ["train-toy-x"]
