"""The board: from every source at once, from what is left when one is down, and from git alone."""

from __future__ import annotations

import json
import re
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from slipway import board, gates, paths, release
from slipway.board import Past, Row
from slipway.cli import app
from slipway.errors import BadInput, SlipwayError
from slipway.forge import ForgeError, PullRequest
from slipway.gates import Stay
from slipway.mirror import mirror
from slipway.repository import Repository
from tests import samples
from tests.gitforge import GitForge

TOY = str(release.path("dev", "toy"))


def served(*_: object) -> gates.Soak:
    """One prediction, just now."""
    return gates.Soak((datetime.now(UTC),), predictions=1, labelled=0, squared_error=None)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["status", *arguments])


def proposed(number: int, head: str, sha: str, **changes: Any) -> PullRequest:
    return PullRequest(
        **{
            "number": number,
            "url": f"http://forge/o/r/pulls/{number}",
            "title": f"Pull request {number}",
            "body": "",
            "head": head,
            "base": "main",
            "sha": sha,
            "state": "open",
            "merged": False,
            "merge_sha": None,
            **changes,
        }
    )


@pytest.fixture
def git(connected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitForge:
    """The forge's repository: `toy` was merged into dev yesterday, as the gates let it."""
    made = GitForge(tmp_path / "forge.git")
    made.when = int(datetime.now(UTC).timestamp()) - 86_400
    made.write("head", {TOY: release.dumps(connected.release).encode()}, "Release")
    pull = made.open("head", "Release", "")
    made.merge(pull.number)
    connected.forge.reported[pull.sha] = {"slipway/check": "success"}
    platform = "/api/v1/namespaces/pipelines/configmaps/platform"
    connected.objects[platform] = {"data": {"FORGE_JUDGE": "slipway-bot"}}
    monkeypatch.setattr("slipway.board.mirror", lambda _: mirror(made))
    return made


@pytest.fixture
def whole(connected: Any, git: GitForge, monkeypatch: pytest.MonkeyPatch) -> Any:
    """With thresholds on main, a prediction log, and MLflow's aliases as git has it."""
    folder = paths.REPOSITORY / "policies" / "promotion"
    policies = {f"policies/promotion/{f.name}": f.read_bytes() for f in folder.glob("*.yaml")}
    staging = policies["policies/promotion/staging.yaml"].decode()
    asked = re.sub(
        r"^soak: .*$", "soak: {for: 2m, predictions: 50, labelled: 20}", staging, flags=re.M
    )
    policies["policies/promotion/staging.yaml"] = asked.encode()
    connected.forge.put("0c" * 20, policies)
    monkeypatch.setattr("slipway.sources.Platform.soak", served)
    aliases(connected, 3)
    return connected


def aliases(connected: Any, version: int) -> None:
    named = [{"alias": "dev", "version": str(version)}]
    answer = {"registered_model": {"name": "toy", "aliases": named}}
    connected.mlflow_answers["registered-models/get"] = answer


def test_as_data(whole: Any) -> None:
    result = run("-o", "json")
    assert result.exit_code == 0, result.output
    digest = whole.release.bento.digest
    [row] = json.loads(result.stdout)
    soak = row.pop("soak")
    assert row == {
        "model": "toy",
        "environment": "dev",
        "version": 3,
        "bento": digest,
        "sync": "Synced",
        "health": "Healthy",
        "answers": digest,
        "problem": "",
        "pull_requests": [],
        "alias": 3,
        "drift": False,
        "doubt": "",
        "serving": True,
    }
    assert 100 < soak.pop("seconds") <= 120
    assert soak == {"before": "staging", "predictions": 49, "labelled": 20}
    assert not result.stderr


def test_environments_are_columns_and_what_is_under_way_is_told(whole: Any) -> None:
    whole.forge.pull_requests = [
        proposed(9, "main", "9" * 40, fork=True),
        proposed(8, "rollback/dev-toy-2", "8" * 40),
        proposed(7, "release/staging-toy-3", "7" * 40),
        proposed(6, "release/staging-toy-5", "6" * 40),
    ]
    dev, staging = (str(release.path(env, "toy")) for env in ("dev", "staging"))
    changes = {9: dev, 8: dev, 7: staging, 6: "environments/staging/values.yaml"}
    main = whole.forge.commits[whole.forge.head]
    for number, path in changes.items():
        whole.forge.commits[str(number) * 40] = {**main, path: b"%d" % number}
    whole.forge.reported = {"7" * 40: {"slipway/check": "failure", "other": "success"}}
    aliases(whole, 2)
    result = run()
    assert result.exit_code == 0, result.output
    head, row = result.stdout.splitlines()[:2]
    assert head.split() == ["MODEL", "DEV", "STAGING", "PROD"]
    digest = whole.release.bento.digest[7:19]
    assert row.split() == ["toy", "3", digest, "✓", "✓", "✓", "proposed", "-"]
    assert "#7 Pull request 7: gates failure, http://forge/o/r/pulls/7" in result.stdout
    assert "#8 Pull request 8: gates not yet" in result.stdout
    assert "#9 Pull request 9: gates not yet" in result.stdout
    assert "#6" not in result.stdout  # whatever its branch is called
    assert "toy in dev: MLflow's @dev is version 2, git says 3" in result.stdout
    left = r"toy in dev: \d\.\d min, 49 predictions, 20 labelled ones to go before staging"
    assert re.search(left, result.stdout)


def test_an_environment_that_asks_for_no_time_or_has_the_bento_waits_for_nothing(
    whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = gates.Soak((datetime.now(UTC) - timedelta(hours=1),), 100, 100, 0.1)
    monkeypatch.setattr("slipway.sources.Platform.soak", lambda *_: served)
    assert "toy in dev: has served long enough for staging" in run().stdout
    there = release.dumps(whole.release).encode()
    whole.forge.put("0e" * 20, {str(release.path("staging", "toy")): there})
    rows = {r["environment"]: r["soak"] for r in json.loads(run("-o", "json").stdout)}
    assert rows["dev"] is None
    assert rows["staging"]["before"] == "prod"
    free = whole.forge.read("policies/promotion/staging.yaml").replace(
        b"{for: 2m, predictions: 50, labelled: 20}", b"{for: 0s, predictions: 0, labelled: 0}"
    )
    whole.forge.put("0f" * 20, {"policies/promotion/prod.yaml": free})
    rows = {r["environment"]: r["soak"] for r in json.loads(run("-o", "json").stdout)}
    assert rows["staging"] is None


def test_what_it_served_while_another_was_there_is_not_counted(
    whole: Any, git: GitForge, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    other = whole.release.model_copy(update={"bento": samples.bento("ff")})
    for hours, made in ((4, other), (0, whole.release)):
        git.when = int((now - timedelta(hours=hours)).timestamp())
        git.write("main", {TOY: release.dumps(made).encode()}, "Release")
    served = gates.Soak((now - timedelta(hours=5), now - timedelta(hours=3)), 100, 100, 0.1)
    monkeypatch.setattr("slipway.sources.Platform.soak", lambda *_: served)
    assert "toy in dev: 2.0 min to go before staging" in run().stdout


def test_when_a_bento_was_released_is_told_by_git(tmp_path: Path) -> None:
    forge, begun = GitForge(tmp_path / "forge.git"), datetime(2026, 1, 1, tzinfo=UTC)
    first = samples.released()
    bigger = first.model_copy(update={"rollout": release.Rollout(replicas=3)})
    other = first.model_copy(update={"bento": samples.bento("ff")})
    for hour, made in enumerate((first, bigger, other, None, first)):
        forge.when = int((begun + timedelta(hours=hour)).timestamp())
        forge.write("main", {TOY: release.dumps(made).encode() if made else None}, "Release")
    rows = [Row(name, "dev", 3, first.bento.digest) for name in ("toy", "none")]
    there = Stay(begun, begun + timedelta(hours=2)), Stay(begun + timedelta(hours=4), None)
    with Repository(forge.folder) as repository:
        past = Past.of(repository, "main", rows)
        assert [past.stays(row) for row in rows] == [there, ()]


def test_what_came_past_the_gates_is_told(whole: Any, git: GitForge) -> None:
    assert "past the gates" not in run().stdout
    whole.forge.reporter = "mallory"
    assert "toy in dev: past the gates: merged as " in run().stdout
    git.write("main", {TOY: release.dumps(whole.release).encode() + b"# \n"}, "By hand")
    pushed = f"pushed as {git.commit()[:12]} by Ada"
    assert f"toy in dev: past the gates: {pushed}" in run().stdout
    [row] = json.loads(run("-o", "json").stdout)
    assert row["doubt"] == pushed


def test_what_does_not_answer_and_which_file_is_bad(whole: Any) -> None:
    del whole.models["toy"]
    bad = str(release.path("prod", "toy"))
    whole.forge.put("0a" * 20, {bad: b"model: toy\nowner: me\n"})
    result = run()
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[1].split()[-5:] == ["✓", "✗", "-", "bad", "file"]
    assert "toy in dev: nothing answers" in result.stdout
    assert "owner: unknown key" in result.stderr
    # It is MLflow that follows, so while nothing answers it is not MLflow that is wrong.
    assert "MLflow" not in result.stdout


def test_what_cannot_be_had_is_left_out_and_said_once(
    connected: Any, git: GitForge, monkeypatch: pytest.MonkeyPatch
) -> None:
    del connected.mlflow_answers

    def down(*_: object) -> Any:
        raise ForgeError("the forge answered 500")

    monkeypatch.setattr(connected.forge, "pulls", down)
    monkeypatch.setattr(
        "slipway.lineage.mlflow", lambda _: (_ for _ in ()).throw(ForgeError("no MLflow"))
    )
    result = run("-o", "json")
    [row] = json.loads(result.stdout)
    assert row["serving"]
    assert (row["drift"], row["soak"], row["pull_requests"]) == (None, None, [])
    assert "pull requests: not known: the forge answered 500" in result.stderr
    assert "MLflow's aliases: not known: no MLflow" in result.stderr
    assert "soak: not known" in result.stderr
    monkeypatch.setattr(connected.forge, "report", down)
    assert "verdicts: not known: the forge answered 500" in run().stderr

    def gone(_: object) -> Any:
        raise SlipwayError("git fetch failed")

    monkeypatch.setattr("slipway.board.mirror", gone)
    result = run("-o", "json")
    assert json.loads(result.stdout)[0]["doubt"] is None
    assert "history: not known: git fetch failed" in result.stderr


@pytest.mark.parametrize(
    "error",
    [
        ForgeError("no answer from the forge"),
        BadInput("nothing says who you are", field="FORGE_TOKEN"),
    ],
)
def test_without_a_forge_reads_the_checkout_and_says_so(
    error: SlipwayError, connected: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def down(*_: object) -> Any:
        raise error

    monkeypatch.setattr(connected.forge, "files", down)
    file = tmp_path / release.path("dev", "toy")
    file.parent.mkdir(parents=True)
    file.write_text(release.dumps(connected.release))
    monkeypatch.setattr("slipway.board.REPOSITORY", tmp_path)
    result = run("-o", "json")
    assert json.loads(result.stdout)[0]["serving"]
    assert "release files are this checkout's" in result.stderr


# --- from git alone -----------------------------------------------------------------------------


def imported(folder: Path, files: dict[str, bytes]) -> Path:
    """A bare repository with one commit of these files."""
    subprocess.run(["git", "init", "-q", "--bare", "--initial-branch=main", folder], check=True)
    lines = [b"commit refs/heads/main\ncommitter A <a@b> 1700000000 +0000\ndata 1\nx"]
    for path, content in files.items():
        lines.append(b"M 100644 inline %s\ndata %d\n%s" % (path.encode(), len(content), content))
    stream = b"\n".join(lines)
    subprocess.run(["git", "fast-import", "--quiet"], cwd=folder, input=stream, check=True)
    return folder


def test_from_git_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    found = samples.released()
    files = {
        str(release.path("dev", "toy")): release.dumps(found).encode(),
        str(release.path("prod", "other")): b"model: other\n",
        "environments/dev/values.yaml": b"a: 1\n",
        "environments/Pulumi.local.yaml": b"config: {}\n",
    }
    clone = imported(tmp_path / "clone.git", files)
    result = run("--git", "--repo", str(clone))
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["MODEL", "DEV", "STAGING", "PROD"],
        ["other", "-", "-", "bad", "file"],
        ["toy", "3", found.bento.digest[7:19], "-", "-"],
    ]
    rows = json.loads(run("--git", "--repo", str(clone), "-o", "json").stdout)
    assert [(r["model"], r["version"], r["serving"]) for r in rows] == [
        ("other", None, None),
        ("toy", 3, None),
    ]


def test_repo_without_git_and_a_folder_that_is_no_clone(tmp_path: Path) -> None:
    result = run("--repo", str(tmp_path))
    assert result.exit_code == 2
    assert "add --git" in result.stderr
    result = run("--git", "--repo", str(tmp_path))
    assert result.exit_code == 1
    assert "git rev-parse failed" in result.stderr


def test_three_thousand_releases_from_git_within_three_seconds(tmp_path: Path) -> None:
    content = release.dumps(samples.released()).encode()
    files = {
        str(release.path(env, f"model_{n}x")): content.replace(
            b"model: toy", b"model: model_%dx" % n
        )
        for n in range(1000)
        for env in release.ENVIRONMENTS
    }
    clone = imported(tmp_path / "clone.git", files)
    begun = time.process_time()
    with Repository(clone) as repository:
        rows = board.rows_from_git(repository, repository.commit("main"))
    took = time.process_time() - begun  # that of an idle core, however busy this machine is
    assert len(rows) == 3000
    assert not [row.problem for row in rows if row.problem]
    assert took < 3
