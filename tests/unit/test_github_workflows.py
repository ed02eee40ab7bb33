"""What the workflow files promise beyond their schema. They have never run on GitHub."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from slipway import gates, paths
from slipway.check import is_apart
from slipway.cli import app
from slipway.steps.__main__ import parser

FOLDER = paths.REPOSITORY / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))
# Whose code runs there.
ACTIONS = "actions/[a-z]+|aws-actions/configure-aws-credentials"
# Events that run what a pull request says, if it says so in a workflow file.
OF_THE_HEAD = {"pull_request", "pull_request_review"}


def workflow(file: Path) -> dict[str, Any]:
    found = yaml.safe_load(file.read_text())
    return {**found, "on": found.pop(True)}  # YAML 1.1 takes `on` for a boolean


def steps(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in found["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_actions_are_pinned_and_rights_are_named(file: Path) -> None:
    found = workflow(file)
    assert "permissions" in found, "or it would have the repository's default"
    for step in steps(found):
        if "uses" in step:
            assert re.fullmatch(rf"({ACTIONS})@[0-9a-f]{{40}}", step["uses"])
            assert re.search(rf"{step['uses']}  # v\d+\.\d+\.\d+\n", file.read_text())
    assert all(job["timeout-minutes"] for job in found["jobs"].values())


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_no_script_holds_what_somebody_else_wrote(file: Path) -> None:
    """An expression in a script is put into it as text: a title or input could be a command."""
    for step in steps(workflow(file)):
        assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_what_a_pull_request_may_say_has_no_rights_to_write(file: Path) -> None:
    found = workflow(file)
    if OF_THE_HEAD & found["on"].keys():
        assert set(found["permissions"].values()) <= {"read"}
        assert "secrets." not in file.read_text()


def test_gates_run_mains_code_whatever_the_event() -> None:
    found = workflow(FOLDER / "gates.yml")
    assert not OF_THE_HEAD & found["on"].keys()
    assert found["on"]["workflow_run"]["workflows"] == [workflow(FOLDER / "review.yml")["name"]]
    [checkout] = [step for step in steps(found) if "checkout" in step.get("uses", "")]
    assert checkout["with"]["ref"] == "main"
    text = (FOLDER / "gates.yml").read_text()
    assert "pull_request.head" not in text
    assert "head_ref" not in text


@pytest.mark.parametrize("name", ["gates", "promote"])
def test_a_role_on_aws_is_had_by_an_environment_and_no_key_stands_beside_it(name: str) -> None:
    found = workflow(FOLDER / f"{name}.yml")
    [job] = found["jobs"].values()
    assert found["permissions"]["id-token"] == "write"
    # AWS is told the environment, which a pull request's own workflow is not let into.
    assert job["environment"]
    role = f"{name.upper()}_ROLE"
    [login] = [s for s in job["steps"] if s.get("uses", "").startswith("aws-actions/")]
    assert login["if"] == f"vars.{role} != ''"
    assert set(login["with"]) == {"role-to-assume", "aws-region"}
    assert login["with"]["role-to-assume"] == f"${{{{ vars.{role} }}}}"
    keyed = [s for s in job["steps"] if "ACCESS_KEY" in str(s)]
    assert all(step["if"] == f"vars.{role} == ''" for step in keyed)
    assert "ACCESS_KEY" not in str(job["env"])
    # Before what needs it, and after what runs the longest: a session is short.
    last = job["steps"][-1]
    assert job["steps"].index(login) < job["steps"].index(last)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_commands_parse(file: Path) -> None:
    group: Any = typer.main.get_command(app)
    for step in steps(workflow(file)):
        for line in step.get("run", "").splitlines():
            words = shlex.split(re.sub(r"\$\{PULL:\+(.*)\}", r"\1", line.replace('"', "")))
            words = ["3" if word == "$PULL" else word for word in words]
            if words[:1] == [".venv/bin/slipway"]:
                group.commands[words[1]].make_context(words[1], words[2:])
            elif words[:3] == [".venv/bin/python", "-m", "slipway.steps"]:
                given = vars(parser().parse_args(words[3:]))
                assert given.get("pull") == (3 if given["step"] == "gates" else None)


def test_both_forges_ask_the_same_people_and_prods_are_those_who_may_approve() -> None:
    def lines(file: str) -> list[list[str]]:
        text = (paths.REPOSITORY / file).read_text()
        return [line.split() for line in text.splitlines() if line and line[0] != "#"]

    github = [[path.strip("/"), *who] for path, *who in lines(".github/CODEOWNERS")]
    gitea = [
        [path.removesuffix("/.*").replace("\\", "").replace(".*", "*"), *who]
        for path, *who in lines(".gitea/CODEOWNERS")
    ]
    assert github == gitea
    known = {path for path, *_ in github if any(paths.REPOSITORY.glob(path))}
    # Not every environment has something of its own.
    assert {path for path, *_ in github} - known <= {
        "environments/prod",
        "environments/*/values.yaml",
    }
    owners = {who.removeprefix("@") for path, *all_ in github for who in all_ if "prod" in path}
    approvals = gates.load_approvals(gates.reader(paths.REPOSITORY))
    assert owners == set(approvals.groups["release-managers"])


def test_who_is_asked_to_review_what_judges_or_serves_is_who_has_to_approve_it() -> None:
    lines = (paths.REPOSITORY / ".github/CODEOWNERS").read_text().splitlines()
    asked = {path.lstrip("/"): {*who} for path, *who in map(str.split, lines) if path != "#"}
    folders = {path for path in asked if path.endswith("/")} - {"environments/prod/"}
    assert all(is_apart(path + "x") for path in folders)
    assert all(is_apart(path.replace("*", "dev")) for path in asked.keys() - folders if "*" in path)
    for path in ("httpx.py", "json/__init__.py", ".gitattributes", "Makefile", ".ci/run"):
        assert is_apart(path)
    for path in (
        "README.md",
        "bentos/m/training.py",
        "environments/dev/models/toy.yaml",
        "environments/dev/break-glass/toy.yaml",
        "tests/x.py",
    ):
        assert not is_apart(path)
    approvals = gates.load_approvals(gates.reader(paths.REPOSITORY))
    keep = approvals.policies[approvals.custody]
    logins = {f"@{login}" for one in keep for login in approvals.groups[one.group]}
    assert all(owners == logins for owners in asked.values())
