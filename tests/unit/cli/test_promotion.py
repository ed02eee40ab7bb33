"""`slipway promote` and `slipway reproduce`: what is started, what is shown, and what is left."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from slipway import (
    attestation,
    digests,
    evidence,
    gates,
    paths,
    promotion,
    release,
    reproduce,
    sources,
    store,
)
from slipway.cli import app
from slipway.endpoints import Cluster
from slipway.errors import BadInput
from slipway.forge import ForgeError, PullRequest
from slipway.gates import Soak
from slipway.steps import tracking

API = "/apis/argoproj.io/v1alpha1/namespaces/pipelines"
PATH = "environments/staging/models/toy.yaml"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def ends(
    connected: Any,
    template: str,
    phase: str = "Succeeded",
    *,
    reached: str = "propose",
    **outputs: str,
) -> None:
    """Lets the workflow of `template` end so; its step `reached` is the last that ran."""
    connected.objects[f"{API}/workflowtemplates/{template}"] = {}
    node = {
        "displayName": reached,
        "type": "Pod",
        "phase": phase,
        "message": "exit code 1" if phase == "Failed" else "",
        "finishedAt": "2026-01-01T00:00:07Z",
        "outputs": {"parameters": [{"name": k, "value": v} for k, v in outputs.items()]},
    }
    name = f"{template}-toy-abcde"
    ended = {
        "metadata": {"name": name},
        "status": {"phase": phase, "nodes": {"a": node}},
    }
    api = connected._api

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET" and request.url.path == f"{API}/workflows/{name}":
            return httpx.Response(200, json=ended)
        return api(request)

    connected._api = answer
    Cluster.connect()._client = connected.cluster._client


def submitted(connected: Any) -> dict[str, str]:
    (created,) = connected.created
    assert set(created["spec"]) == {"workflowTemplateRef", "arguments"}  # admission wants no more
    return {p["name"]: p["value"] for p in created["spec"]["arguments"]["parameters"]}


@pytest.fixture
def pull(connected: Any, monkeypatch: pytest.MonkeyPatch) -> PullRequest:
    """Pull request 7 on the forge, which the gates have let pass."""
    made = PullRequest(
        number=7,
        url="http://127.0.0.1:30300/slipway/slipway/pulls/7",
        title="",
        body="",
        head="release/staging-toy-3",
        base="main",
        sha="a7" * 20,
        state="open",
        merged=False,
        merge_sha=None,
        author="slipway-bot",
    )
    forge = connected.forge
    forge.reported[made.sha] = {"slipway/check": "success"}
    text = "<!-- slipway-check -->\n## ✅ may be merged: 15 gates pass\n\nmore"

    def said(number: int, marker: str, *, by: Collection[str]) -> str:
        assert (number, marker, *by) == (7, "slipway-check", "slipway-bot", "github-actions[bot]")
        return text

    monkeypatch.setattr(forge, "pull", lambda _: made, raising=False)
    monkeypatch.setattr(forge, "said", said, raising=False)
    return made


def test_a_promotion_ends_in_a_pull_request_that_the_gates_have_judged(
    connected: Any, pull: PullRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "_signature", lambda: "Ada <ada@example.org>")
    ends(connected, "promote", **{"pull-request": "7", "evidence": "e", "release": "r"})
    result = run("promote", "toy", "--to", "staging")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == pull.url
    assert "may be merged: 15 gates pass" in result.stderr
    assert submitted(connected) == {
        "model": "toy",
        "environment": "staging",
        "from-environment": "dev",
        "break-glass": "",
        "dry-run": "false",
        "requested-by": "slipway-admin, Ada <ada@example.org>",
    }
    run("promote", "toy", "--to", "staging", "--as", "grace")
    asked = connected.created[-1]["spec"]["arguments"]["parameters"]
    assert {"name": "requested-by", "value": "slipway-admin, grace"} in asked


def test_who_asks_is_a_login_and_who_git_would_sign_as(
    connected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    asked: list[str] = []
    for name, email in (("", ""), ("", "ada@example.org"), ("Ada", "ada@example.org")):
        for key, value in (("user.name", name), ("user.email", email)):
            subprocess.run(["git", "config", key, value], cwd=tmp_path, check=True)
        asked.append(promotion.requester(connected.forge))
    admin = "slipway-admin"
    assert asked == [admin, f"{admin}, ada@example.org", f"{admin}, Ada <ada@example.org>"]


def test_a_refusal_is_exit_code_one(connected: Any, pull: PullRequest) -> None:
    connected.forge.reported[pull.sha] = {"slipway/check": "failure"}
    ends(connected, "promote", **{"pull-request": "7", "evidence": "e", "release": "r"})
    result = run("promote", "toy", "--to", "staging")
    assert result.exit_code == 1
    assert "the gates refuse pull request 7" in result.stderr
    result = run("promote", "toy", "--to", "staging", "-o", "json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["status"], found["pull_request"]) == ("refused", pull.url)
    result = run("promote", "toy", "--to", "staging", "--no-wait")
    assert result.exit_code == 0


def test_what_is_there_already_is_not_promoted(connected: Any) -> None:
    there = release.dumps(connected.release).encode()
    connected.forge.put("a1" * 20, {PATH: there})
    result = run("promote", "toy", "--to", "staging")
    assert result.exit_code == 0
    assert "nothing to promote: staging has version 3 of dev already" in result.stderr
    assert not connected.created


def test_a_newer_proposal_is_named(connected: Any) -> None:
    note = "a newer version is proposed already: http://forge/pulls/9"
    ends(connected, "promote", **{"note": note, "evidence": "e", "release": "r"})
    result = run("promote", "toy", "--to", "staging")
    assert result.exit_code == 0
    assert f"nothing to propose: {note}" in result.stderr


def test_the_same_promotion_is_not_started_twice(connected: Any) -> None:
    running = {
        "metadata": {"name": "promote-toy-x", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"phase": "Running"},
    }
    connected.objects[f"{API}/workflows"] = {"items": [running]}
    connected.objects[f"{API}/workflowtemplates/promote"] = {}
    wanted = promotion.plan("toy", "staging", None)
    found, new = promotion.begin(connected.cluster, wanted)
    assert (found.name, new) == ("promote-toy-x", False)
    broken = dataclasses.replace(wanted, break_glass="who: me")
    assert promotion.begin(connected.cluster, broken)[1] is True


@pytest.mark.parametrize(
    ("reached", "state"),
    [
        ("rescore", "nothing was pushed: no branch, no pull request, and main is as it was"),
        ("propose", "main is as it was. What was begun on the forge, the next run finishes"),
    ],
)
def test_a_failure_says_what_was_pushed(connected: Any, reached: str, state: str) -> None:
    ends(connected, "promote", "Failed", reached=reached)
    result = run("promote", "toy", "--to", "staging")
    assert result.exit_code == 1
    assert f"step {reached} failed: exit code 1" in result.stderr
    assert state in result.stderr
    assert "promote again" in result.stderr


def test_a_forge_that_is_down_promotes_nothing(
    connected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any) -> bytes:
        raise ForgeError("no answer from the forge at http://forge", fix="see whether it runs")

    monkeypatch.setattr(connected.forge, "read", down)
    result = run("promote", "toy", "--to", "staging")
    assert result.exit_code == 1
    assert "no answer from the forge" in result.stderr
    assert "nothing was promoted: no workflow was started" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "dev"], "nothing comes before dev"),
        (["--to", "prod"], "toy is not released to staging"),
        (["--to", "staging", "--from", "staging"], "staging is where it is to go"),
        (["--to", "production"], "unknown environment 'production'"),
        (["--to", "staging", "--rule", "soak"], "--break-glass: say why"),
        (["--to", "staging", "--break-glass", "because"], "says until when, and which rules"),
    ],
)
def test_a_wrong_promotion_is_bad_input(connected: Any, arguments: list[str], message: str) -> None:
    admin = {"data": {"username": "c2xpcHdheS1hZG1pbg==", "password": "aGVycw=="}}
    connected.objects["/api/v1/namespaces/forge/secrets/gitea-admin"] = admin
    result = run("promote", "toy", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not connected.created


@pytest.mark.parametrize("who", ["slipway-admin", "ada"])
def test_the_glass_is_broken_by_name(connected: Any, pull: PullRequest, who: str) -> None:
    connected.forge.login = who
    ends(connected, "promote", **{"pull-request": "7", "evidence": "e", "release": "r"})
    why = "the feed of dev is down and this mends it"
    glass = ["--break-glass", why, "--until", "6h", "--rule", "soak", "--rule", "stages"]
    result = run("promote", "toy", "--to", "staging", *glass)
    assert result.exit_code == 0, result.output
    text = submitted(connected)["break-glass"]
    assert f"who: {who}\nwhy: {why}\n" in text
    assert "- soak\n- stages\n" in text
    with pytest.raises(BadInput, match="until"):
        promotion.glass("me", why, "tomorrow", ["soak"], "x")


def staged(connected: Any, **changes: Any) -> release.Release:
    """The release that a promotion to staging would propose, its evidence signed."""
    proof = connected.release.evidence.digest
    document = attestation.fetch(connected.store, proof, connected.keys)
    policy = gates.load_policy(gates.reader(paths.REPOSITORY), "staging", "toy")
    pin = document.policy.model_copy(update={"environment": "staging", "digest": policy.digest})
    evaluated = document.evaluation.model_copy(update={"evaluated": f"{datetime.now(UTC):%FT%TZ}"})
    made = {"environment": "staging", "policy": pin, "evaluation": evaluated}
    document = document.model_copy(update={**made, **changes})
    digest = connected.store.put("evidence", attestation.sign(document, connected.key))
    return connected.release.model_copy(
        update={"evidence": release.Evidence(digest=digest, summary=document.summary())}
    )


@pytest.fixture
def judged(connected: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The forge's main, with this checkout's gates, as git fetches it."""
    origin = tmp_path / "origin"
    (origin / "environments/dev/models").mkdir(parents=True)
    dev = origin / "environments/dev/models/toy.yaml"
    dev.write_text(release.dumps(connected.release))
    shutil.copytree(paths.REPOSITORY / "policies", origin / "policies")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], [*identity, "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=origin, check=True)

    def fetch(_remote: Any, into: Path, *refspecs: str) -> None:
        subprocess.run(["git", "fetch", "-q", str(origin), *refspecs], cwd=into, check=True)

    monkeypatch.setattr(promotion.publish, "fetch", fetch)
    monkeypatch.setattr(connected.forge, "remote", None, raising=False)
    nothing = Soak(times=(), predictions=0, labelled=0, squared_error=None)
    monkeypatch.setattr(sources.Platform, "soak", lambda *_: nothing)


@pytest.mark.usefixtures("judged")
def test_a_dry_run_shows_diff_evidence_and_verdict(connected: Any) -> None:
    proposed = staged(connected)
    outputs = {"evidence": proposed.evidence.digest, "release": release.dumps(proposed)}
    ends(connected, "promote", **outputs)
    result = run("promote", "toy", "--to", "staging", "--dry-run", "-o", "json")
    assert result.exit_code == 1, result.output  # of ten rows nothing is learned
    found = json.loads(result.stdout)
    assert f"+++ b/{PATH}" in found["diff"]
    assert found["release"]["version"] == 3
    (judged,) = found["verdict"]["releases"]
    states = {f["rule"]: f["state"] for f in judged["findings"]}
    assert (states["stages"], states["data"]) == ("pass", "fail")
    assert judged["evidence"]["environment"] == "staging"
    assert submitted(connected)["dry-run"] == "true"
    shown = run("promote", "toy", "--to", "staging", "--dry-run")
    assert "nothing was pushed" in shown.stderr
    assert f"+++ b/{PATH}" in shown.stdout


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize("fate", ["the same", "expired", "edited", "broken", "removed"])
def test_what_is_proposed_already_keeps_its_approvals(
    connected: Any, pull: PullRequest, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    """Another pull request would close it. Its evidence is another only by when it was made."""
    monkeypatch.setattr(promotion, "judge", partial(promotion.judge, as_merged=True))
    age = timedelta(days=31 if fate == "expired" else 29)
    there = staged(connected, created=f"{datetime.now(UTC) - age:%Y-%m-%dT%H:%M:%SZ}")
    if fate == "edited":
        there = there.model_copy(update={"version": 2})
    content = None if fate == "removed" else release.dumps(there).encode()
    files = {PATH: b"version: x" if fate == "broken" else content}
    main = connected.forge.commits[connected.forge.head]
    connected.forge.commits[pull.sha] = {k: v for k, v in (main | files).items() if v is not None}
    connected.forge.pull_requests = [pull]
    ends(connected, "promote", **{"pull-request": "7", "evidence": "e", "release": "r"})
    result = run("promote", "toy", "--to", "staging")
    assert (result.exit_code, result.stdout.strip()) == (0, pull.url), result.output
    assert bool(connected.created) == (fate != "the same")
    assert ("proposed already" in result.stderr) == (fate == "the same")
    assert "may be merged: 15 gates pass" in result.stderr
    glass = ("--break-glass", "because it burns here", "--until", "6h", "--rule", "soak")
    run("promote", "toy", "--to", "staging", *glass)
    assert connected.created


@pytest.mark.usefixtures("judged")
def test_what_main_does_not_have_is_only_tried(connected: Any) -> None:
    """Its evidence and the verdict are shown, as it would be judged once merged."""
    commit, champion = connected.release.code.commit, connected.release
    document = attestation.fetch(connected.store, champion.evidence.digest, connected.keys)
    bento = release.Bento(
        digest=(digest := connected.store.put("bentos", b"another")),
        uri=store.uri("bentos", digest),
        size=7,
    )
    now = evidence.instant(datetime.now(UTC))
    evaluation = document.evaluation.model_copy(update={"evaluated": now})
    document = document.model_copy(
        update={"version": 6, "bento": bento, "evaluation": evaluation, "created": now}
    )
    proof = connected.store.put("evidence", attestation.sign(document, connected.key))
    tried = champion.model_copy(
        update={
            "version": 6,
            "bento": bento,
            "evidence": release.Evidence(digest=proof, summary=document.summary()),
        }
    )
    ends(connected, "train", evidence=proof, release=release.dumps(tried), note="only tried")
    last = f"main does not have {commit[:12]}; merge it, and main's training proposes"
    shown = run("train", "toy", "--commit", commit, "--wait")
    assert shown.exit_code == 1, shown.output  # of ten rows nothing is learned
    assert shown.stderr.splitlines()[-1] == f"not proposed: {last}"
    assert "+version: 6" in shown.stdout
    assert "roc_auc" in shown.stdout
    assert submitted(connected) == {
        "model": "toy",
        "commit": commit,
        "environment": "dev",
        "dry-run": "true",
    }
    found = json.loads(run("train", "toy", "--commit", commit, "--wait", "-o", "json").stdout)
    assert found["note"] == f"not proposed: {last}"
    (one,) = found["verdict"]["releases"]
    assert one["kind"] == "release"
    assert {f["state"] for f in one["findings"] if f["rule"] == "evidence"} == {"pass"}


def test_a_training_of_main_proposes_unless_asked_not_to(connected: Any, pull: PullRequest) -> None:
    ends(connected, "train", **{"pull-request": "7", "note": "", "release": "r"})
    result = run("train", "toy", "--wait")
    assert (result.exit_code, result.stdout.strip()) == (0, pull.url), result.output
    assert submitted(connected)["dry-run"] == "false"
    shown = json.loads(run("train", "toy", "--wait", "-o", "json").stdout)
    assert shown["pull_request"] == pull.url
    started = run("train", "toy", "--dry-run")
    asked = connected.created[-1]["spec"]["arguments"]["parameters"]
    assert {"name": "dry-run", "value": "true"} in asked
    assert "it is only tried: --dry-run" in started.stderr
    assert f"slipway train toy --commit {connected.forge.head} --dry-run --wait" in started.stderr
    noted = json.loads(run("train", "toy", "-o", "json").stdout)
    assert noted == {"workflow": "train-toy-abcde", "note": ""}


# Reproduce

IMAGE = "localhost:5000/slipway/training@sha256:"


def rebuilt(connected: Any, **changes: str) -> None:
    """Lets `reproduce` end with the release's own digests, but for `changes`."""
    tags = connected.mlflow_answers["runs/get"]["run"]["data"]["tags"]
    tags.append({"key": tracking.IMAGE, "value": IMAGE + "1" * 64})
    trains_in(connected, changes.pop("image", IMAGE + "1" * 64))
    same = {tag["key"]: tag["value"] for tag in tags}
    outputs = {
        "data": same["slipway.data_digest"],
        "code": digests.of_files({**code_of(connected)}),
        "model-digest": same["slipway.model_digest"],
        "bento": connected.release.bento.digest,
    }
    ends(connected, "reproduce", **(outputs | changes))


def trains_in(connected: Any, image: str) -> None:
    """What the platform trains in by now."""
    settings = {"data": {"TRAINING_IMAGE": image}}
    connected.objects["/api/v1/namespaces/pipelines/configmaps/platform"] = settings


def code_of(connected: Any) -> dict[str, bytes]:
    files = connected.forge.commits[connected.release.code.commit]
    return {path.removeprefix("bentos/toy/"): content for path, content in files.items()}


def test_the_same_bento_is_said_to_be_the_same(connected: Any) -> None:
    rebuilt(connected)
    result = run("reproduce", "toy", "--env", "dev")
    assert result.exit_code == 0, result.output
    assert f"the same bento: {connected.release.bento.digest}" in result.stdout
    pins = connected.release
    wanted = {"model": "toy", "commit": pins.code.commit, "data": pins.data.digest}
    assert submitted(connected) == wanted | {"image": IMAGE + "1" * 64}
    assert "note:" not in result.stderr


def difference(connected: Any, **changes: str) -> dict[str, Any]:
    rebuilt(connected, **{"bento": digests.of(b"another bento"), **changes})
    result = run("reproduce", "toy", "--env", "dev", "-o", "json")
    assert result.exit_code == 1, result.output
    return json.loads(result.stdout)["first_difference"]


def test_what_the_source_gives_by_now_is_told_and_is_no_difference(connected: Any) -> None:
    part = {"name": "part-2", "digest": digests.of(b"more"), "rows": 5, "size": 4}
    manifest = {"schema_version": 1, "model": "toy", "partitions": [part]}
    data = connected.store.put("data", digests.canonical_json(manifest))
    rebuilt(connected, data=data)
    result = run("reproduce", "toy", "--env", "dev")
    assert result.exit_code == 0, result.output
    assert "the same bento" in result.stdout
    assert "partition part-1: 10 rows, now not there" in result.stderr
    assert "partition part-2: not there, now 5 rows" in result.stderr


def test_a_source_that_is_gone_is_told(connected: Any) -> None:
    rebuilt(connected, data="")
    result = run("reproduce", "toy", "--env", "dev", "-o", "json")
    assert result.exit_code == 0, result.output
    assert "did not give them again" in json.loads(result.stdout)["source"]


def test_it_is_made_in_the_image_that_it_was_made_in(connected: Any) -> None:
    """Whatever the platform trains in by now: its libraries are none of the release's."""
    found = difference(connected, image=IMAGE + "2" * 64)
    assert submitted(connected)["image"] == IMAGE + "1" * 64
    assert found["what"] == "bento"


def test_an_image_of_another_registry_shows_its_libraries(connected: Any) -> None:
    connected.forge.put("a2" * 20, {"requirements/training.txt": b"numpy==2.4 \\\n"})
    moved = f"registry.example/training@sha256:{'2' * 64}"
    found = difference(connected, image=moved)
    assert submitted(connected)["image"] == moved
    assert found["what"] == "training image"
    assert found["detail"] == "numpy - -> 2.4"


def test_other_model_files_are_shown(connected: Any) -> None:
    old = store.tar({"model.onnx": b"\xff\x00\x01", "names.txt": b"a\nb\n"})
    new = store.tar({"model.onnx": b"\xff\x00\x02", "names.txt": b"a\nb\n"})
    first, second = reproduce.first_member(store.untar(old), store.untar(new))
    assert first.startswith("model.onnx: 3 bytes")
    assert first.endswith("from byte 2 on")
    assert second.startswith("model.onnx: 3 bytes")
    found = difference(connected, **{"model-digest": connected.store.put("bentos", new)})
    assert found["what"] == "model files"
    assert "cannot be compared" in found["detail"]  # the released ones are no object here


def test_another_service_shows_the_lines(connected: Any) -> None:
    old, new = (
        {"bento.yaml": b"name: toy\n", "src/service.py": text}
        for text in (b"import a\nserve()\n", b"import b\nserve()\n")
    )
    lines = list(reproduce.first_member(old, new))
    assert lines[:2] == ["--- released/src/service.py", "+++ found/src/service.py"]
    assert "-import a" in lines
    assert "+import b" in lines
    assert list(reproduce.first_member(old, {**old, "z": b""})) == ["z: only in the new one"]
    found = difference(connected, bento=connected.store.put("bentos", store.tar(new)))
    assert found["what"] == "bento"
    assert "cannot be compared" in found["detail"]


def test_a_failed_reproduction_is_no_difference(connected: Any) -> None:
    connected.mlflow_answers["runs/get"] = {}
    trains_in(connected, present := IMAGE + "2" * 64)
    ends(connected, "reproduce", "Failed", reached="rebuild")
    result = run("reproduce", "toy", "--env", "dev")
    assert result.exit_code == 1
    assert "step rebuild failed" in result.stderr
    # Nothing tells in what it was trained.
    assert submitted(connected)["image"] == present


def test_evidence_that_cannot_be_trusted_reproduces_nothing(connected: Any) -> None:
    proof = connected.release.evidence.digest
    connected.store.content["evidence", proof] += b" "
    result = run("reproduce", "toy", "--env", "dev")
    assert result.exit_code == 1
    assert "corrupt" in result.stderr
    assert not connected.created
