"""The commands as a person runs them: what they print, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from slipway import training
from slipway.cli import app

COMMANDS = [info.name for info in app.registered_commands if info.name]


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_trace(connected: Any) -> None:
    result = run("trace", "toy", "--env", "dev", "-o", "json")
    assert result.exit_code == 0, result.output
    assert all(link["ok"] for link in json.loads(result.stdout))
    connected.mlflow_answers.clear()
    result = run("trace", "toy", "--env", "dev")
    assert result.exit_code == 1
    assert "broken: run, model" in result.stderr


@pytest.mark.parametrize("command", [["trace", "toy"], ["predict", "toy", "--data", "{}"]])
def test_unknown_environment(command: list[str]) -> None:
    result = run(*command, "--env", "stagin")
    assert result.exit_code == 2
    assert "did you mean 'staging'?" in result.stderr


def predicts(connected: Any, status: int, body: Any) -> list[bytes]:
    asked: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.content)
        return httpx.Response(status, json=body, headers={"x-slipway-bento": "sha256:abc"})

    connected.models["toy"] = answer
    return asked


def test_predict_sends_what_it_was_given(connected: Any, tmp_path: Path) -> None:
    asked = predicts(connected, 200, {"probability": 0.25})
    file = tmp_path / "body.json"
    file.write_text('{"x": 1}')
    ask = ("predict", "toy", "--env", "dev", "--data")
    for result in (run(*ask, '{"x": 1}'), run(*ask, f"@{file}"), run(*ask, "-", stdin='{"x": 1}')):
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) == {"probability": 0.25}
        assert "answered by sha256:abc" in result.stderr
    assert asked == [b'{"x": 1}'] * 3


def test_predict_shows_the_field_that_was_refused(connected: Any) -> None:
    detail = [{"loc": ["flight", "carrier"], "msg": "Field required"}]
    predicts(connected, 400, {"error": "1 validation error", "detail": detail})
    result = run("predict", "toy", "--env", "dev", "--data", "{}")
    assert result.exit_code == 2
    assert "flight.carrier: Field required" in result.stderr


@pytest.mark.parametrize(
    ("data", "said"),
    [("{", "--data: not JSON"), ("@/nowhere.json", "/nowhere.json: cannot be read")],
)
def test_predict_with_a_body_that_is_none(connected: Any, data: str, said: str) -> None:
    result = run("predict", "toy", "--env", "dev", "--data", data)
    assert result.exit_code == 2
    assert said in result.stderr


def test_predict_where_no_model_runs(connected: Any) -> None:
    result = run("predict", "other", "--env", "dev", "--data", "{}")
    assert result.exit_code == 1
    assert "other does not run in dev" in result.stderr


def test_predict_shows_the_id_that_a_label_needs(connected: Any) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        headers = {"x-slipway-bento": "sha256:abc", "x-slipway-prediction": "01a2"}
        return httpx.Response(200, json={"probability": 0.25}, headers=headers)

    connected.models["toy"] = answer
    assert (
        "id 01a2, for `slipway label`"
        in run("predict", "toy", "--env", "dev", "--data", "{}").stderr
    )
    shown = run("predict", "toy", "--env", "dev", "--data", "{}", "-o", "json")
    assert json.loads(shown.stdout)["id"] == "01a2"


@pytest.mark.parametrize("merged", [True, False])
def test_train_starts_and_says_how_to_follow(
    connected: Any, monkeypatch: pytest.MonkeyPatch, merged: bool
) -> None:
    monkeypatch.setattr(training, "is_merged", lambda *_: merged)
    commit = connected.release.code.commit
    result = run("train", "toy", "--commit", commit)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == "train-toy-abcde"
    assert f"slipway train toy --commit {commit} --wait" in result.stderr
    assert ("it is only tried: main does not have d4d4d4d4d4d4" in result.stderr) is not merged


def test_train_waits_and_fails_with_the_workflow(
    connected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = {"metadata": {"name": "w"}, "status": {"phase": "Error", "message": "no such image"}}
    path = "/apis/argoproj.io/v1alpha1/namespaces/pipelines/workflows/train-toy-abcde"
    api = connected._api

    def fails(request: httpx.Request) -> httpx.Response:
        if request.method == "GET" and request.url.path == path:
            return httpx.Response(200, json=ended)
        return api(request)

    monkeypatch.setattr(connected, "_api", fails)
    from slipway.endpoints import Cluster

    Cluster.connect()._client = connected.cluster._client
    result = run("train", "toy", "--wait")
    assert result.exit_code == 1
    assert "no such image" in result.stderr


def test_train_of_a_pretrained_model_says_what_there_is_instead(connected: Any) -> None:
    connected.forge.put("f7" * 20, {"bentos/chat/model.yaml": b"kind: pretrained\n"})
    result = run("train", "chat", "--commit", "f7" * 20)
    assert result.exit_code == 0, result.output
    assert "chat is pretrained: nothing is trained" in result.stderr
    assert "slipway fetch chat" in result.stderr
    assert connected.created == []


def test_train_of_an_unknown_model(connected: Any) -> None:
    result = run("train", "other")
    assert result.exit_code == 2
    assert "the forge's main at f6f6f6f6f6f6 has no bentos/other/model.yaml" in result.stderr
    for fix in ("merge it", "--commit BRANCH", "slipway new other"):
        assert fix in result.stderr


def test_no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    result = run("status")
    assert result.exit_code == 1
    assert "run `make up`" in result.stderr


def test_new_refuses_a_bad_name() -> None:
    result = run("new", "Not-A-Name")
    assert result.exit_code == 2
    assert "a model's name is" in result.stderr
