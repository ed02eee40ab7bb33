"""`slipway protect`, on a forge in name only."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import pytest
from typer.testing import CliRunner

from slipway.cli import app
from slipway.endpoints import Cluster, Outside

CHANGES = {"enforce_admins": (False, True)}


class Forge:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bool]] = []
        self.changes: dict[str, tuple[Any, Any]] = dict(CHANGES)

    def protect(self, status: str, *, by: str, dry_run: bool) -> dict[str, tuple[Any, Any]]:
        self.asked.append((status, by, dry_run))
        return self.changes


@pytest.fixture
def forge(monkeypatch: pytest.MonkeyPatch) -> Forge:
    made = Forge()
    platform = Cluster(None, embedded=False)  # type: ignore[arg-type]
    monkeypatch.setattr(Cluster, "connect", lambda: platform)
    monkeypatch.setattr(Cluster, "forge", lambda _: nullcontext(made))
    outside = Outside("github", "https://github.com", "acme/models", "actions")
    monkeypatch.setattr(Cluster, "outside_forge", lambda _: outside)
    return made


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["protect", *arguments])


def test_it_says_what_it_changes_and_when_there_is_nothing(forge: Forge) -> None:
    found = run()
    assert found.exit_code == 0
    assert "enforce_admins" in found.stdout
    assert "main of acme/models on https://github.com is now protected so" in found.stderr
    forge.changes.clear()
    assert "nothing to do" in run().stderr
    assert forge.asked == [("slipway/check", "github-actions", False)] * 2


def test_a_dry_run_changes_nothing(forge: Forge) -> None:
    found = run("--dry-run", "-o", "json")
    assert json.loads(found.stdout) == {
        "forge": "https://github.com",
        "repository": "acme/models",
        "changed": False,
        "changes": {"enforce_admins": {"from": False, "to": True}},
    }
    assert forge.asked == [("slipway/check", "github-actions", True)]
    assert json.loads(run("-o", "json").stdout)["changed"] is True


def test_where_the_cluster_judges_whoever_reports_counts(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = Outside("gitea", "https://git.example.com", "acme/models", "cluster")
    monkeypatch.setattr(Cluster, "outside_forge", lambda _: outside)
    assert run().exit_code == 0
    assert forge.asked == [("slipway/check", "", False)]


def test_where_an_app_judges_nobody_elses_report_counts(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = Outside("github", "https://github.com", "acme/models", "cluster", app="12345")
    monkeypatch.setattr(Cluster, "outside_forge", lambda _: outside)
    assert run().exit_code == 0
    assert forge.asked == [("slipway/check", "12345", False)]


def test_the_platforms_own_is_none_of_its_concern(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cluster, "outside_forge", lambda _: None)
    found = run()
    assert found.exit_code == 2
    assert "slipway up makes it so" in found.stderr
    assert forge.asked == []
