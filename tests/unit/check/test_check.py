"""What a change of environments/ may do, and by whose rules it is judged."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from slipway import paths, release, store
from slipway.check import Verdict, check, judge
from slipway.errors import BadInput
from slipway.gates import PullFacts, Soak
from slipway.release import Resources, Rollout
from slipway.repository import Repository
from tests import samples
from tests.unit.check.place import (
    APPROVALS,
    NOW,
    PEOPLE,
    UNREACHABLE,
    Place,
    facts,
    failing,
    files,
    rules,
)

CHANGES = paths.REPOSITORY / "tests" / "fixtures" / "changes"
TOY = "environments/dev/models/toy.yaml"
DEV = "policies/promotion/dev.yaml"
CHART = "bentos/serving/values.yaml"
JUDGING = (
    "slipway/gates.py",
    "workflows/train.py",
    ".github/workflows/check.yaml",
    ".gitea/workflows/check.yaml",
    CHART,
    "policies/admission/x.yaml",
    "infra/stack.py",
    "toolchain/images/serving/Containerfile",
    "requirements/serving.txt",
)


def test_a_first_release_and_a_better_one_may_be_merged(place: Place) -> None:
    first = place.propose(files(place.next("be", 3)))
    assert (first.exit_code, failing(first)) == (0, {})
    assert (
        first.headline == "✅ may be merged: 4 of 4 gates pass"
    )  # scope, evidence, fresh, approvals
    place.landed("be", 3)
    place.delete_branch("head")
    second = place.propose(files(place.next("bf", 4)))
    (found,) = second.releases
    assert (second.exit_code, found.kind) == (0, "release")
    assert found.champion is not None
    assert found.champion.version == 3
    assert found.evidence is not None
    assert found.champion_evidence is not None
    assert {d.what: (d.before, d.after) for d in found.differences}["version"] == ("3", "4")
    assert Verdict.model_validate_json(second.model_dump_json()) == second


def test_without_a_change_there_is_nothing_to_judge(place: Place) -> None:
    place.write("head", {"README.md": b"x", "bentos/toy/training.py": b"x"}, "Code")
    verdict = place.check()
    assert (verdict.exit_code, verdict.headline) == (0, "✅ no release changed")
    assert verdict.description == "no release changed"


def test_thresholds_that_come_with_a_release_are_refused_and_not_used(place: Place) -> None:
    place.write("main", {DEV: rules(approvals={"policy": "two"})}, "Strict")
    made = files(place.next())
    verdict = place.propose(made | {DEV: rules()})
    said = failing(verdict)
    assert "policies/promotion/dev.yaml" in said["scope"]
    assert "two pull requests" in said["scope"]
    assert "approvals" in said  # by main's thresholds


@pytest.mark.parametrize("path", JUDGING)
def test_nothing_that_judges_or_serves_comes_with_a_release(place: Place, path: str) -> None:
    verdict = place.propose(files(place.next()) | {path: b"x: 1\n"})
    assert path in failing(verdict)["scope"]
    assert verdict.exit_code == 1


@pytest.mark.parametrize("name", ["dev/values.yaml", "Pulumi.dev.yaml"])
def test_settings_do_not_come_with_a_release(place: Place, name: str) -> None:
    settings = f"environments/{name}"
    verdict = place.propose(files(place.next()) | {settings: b"serving: {history: 3}\n"})
    assert settings in failing(verdict)["scope"]


def test_a_model_s_own_code_may_come_with_it(place: Place) -> None:
    verdict = place.propose(files(place.next()) | {"bentos/toy/README.md": b"hi\n"})
    assert failing(verdict) == {}


def test_two_environments_in_one_change_are_refused(place: Place) -> None:
    both = files(place.next()) | files(place.next(env="staging"), "staging")
    verdict = place.propose(both)
    assert "changes dev and staging together" in failing(verdict)["scope"]
    values: dict[str, bytes | None] = {
        f"environments/{env}/values.yaml": b"serving: {history: 3}\n" for env in ("dev", "prod")
    }
    place.delete_branch("head")
    assert "dev and prod" in failing(place.propose(values))["scope"]


def test_two_models_of_one_environment_are_named_apart(place: Place) -> None:
    other = samples.released(model="other")
    verdict = place.propose(files(place.next()) | files(other))
    assert set(failing(verdict)) == {"other evidence", "other fresh", "other non_inferior"}
    assert verdict.headline.startswith("❌ 3 of 8 gates fail: other evidence, other fresh, ")
    assert verdict.description.startswith("other evidence: s3://evidence/sha256/")


def test_a_renamed_release_is_refused(place: Place) -> None:
    made = place.landed("be", 3)
    other = made.model_copy(update={"model": "toys"})
    verdict = place.propose({TOY: None} | files(other))
    assert "renames environments/dev/models/toy.yaml" in failing(verdict)["scope"]


def test_a_removal_needs_approvals_alone(place: Place) -> None:
    place.landed("be", 3)
    place.write("main", {DEV: rules(approvals={"policy": "two"})}, "Strict")
    verdict = place.propose({TOY: None}, pull=facts())
    (found,) = verdict.releases
    assert (found.kind, found.proposed) == ("removal", None)
    assert set(failing(verdict)) == {"approvals"}
    assert place.check(pull=facts("grace")).exit_code == 0
    # Without the forge nobody knows who approves: that is no pass.
    assert "not evaluated" in failing(place.check())["approvals"]


def test_a_change_of_the_rollout_keeps_its_evidence(place: Place) -> None:
    made = place.landed("be", 3)
    bigger = made.model_copy(update={"rollout": Rollout(resources=Resources(memory="1Gi"))})
    verdict = place.propose(files(bigger))
    (found,) = verdict.releases
    assert (found.kind, failing(verdict)) == ("rollout", {})
    assert [d.what for d in found.differences] == ["rollout.resources.memory"]


def test_a_change_of_the_rollout_is_taken_back_as_a_release_is(place: Place) -> None:
    """What was too little memory goes back while a window is open, and nobody approves."""
    window = {"why": "end of year", "first": "2025-12-20", "last": "2026-01-05"}
    frozen = {"timezone": "UTC", "windows": [window]}
    strict = rules(freeze=frozen, approvals={"policy": "two"})
    made = place.landed("be", 3)
    little = made.model_copy(update={"rollout": Rollout(resources=Resources(memory="64Mi"))})
    place.write("main", files(little) | {DEV: strict}, "Less memory")
    back = place.propose(files(made), pull=facts())
    assert (back.releases[0].kind, failing(back)) == ("rollback", {})
    other = made.model_copy(update={"rollout": Rollout(resources=Resources(memory="96Mi"))})
    place.write("other", files(other), "Neither one")
    verdict = place.check("other", pull=facts())
    assert verdict.releases[0].kind == "rollout"
    assert failing(verdict).keys() == {"freeze", "approvals"}
    # Comments alone make no other file of it.
    place.write("main", files(made), "Back")
    place.write("same", {TOY: release.dumps(made).encode() + b"# a word\n"}, "A word")
    assert place.check("same", pull=facts()).releases[0].kind == "rollout"


def test_hand_edited_metrics_are_refused(place: Place) -> None:
    made = place.landed("be", 3)
    better = made.evidence.model_copy(update={"summary": {"brier": 0.01}})
    verdict = place.propose(files(made.model_copy(update={"evidence": better})))
    assert "the evidence is not about this release" in failing(verdict)["evidence"]


# What judges or serves releases, alone


def test_who_may_sign_and_from_where_images_are_asks_for_approvals(place: Place) -> None:
    """What a stack's file says of them the next `pulumi up` believes."""
    stack = (CHANGES / "valid" / "stack" / "environments" / "Pulumi.local.yaml").read_bytes()
    path = "environments/Pulumi.local.yaml"
    for content in (stack, None):
        verdict = place.propose({path: content}, pull=facts())
        assert failing(verdict).keys() == {"custody"}
        assert place.check(pull=facts("grace")).exit_code == 0
        place.write("main", {path: stack}, "A stack")
        place.delete_branch("head")


@pytest.mark.parametrize("path", [*JUDGING, "environments/dev/values.yaml"])
def test_what_judges_or_serves_asks_for_approvals(place: Place, path: str) -> None:
    place.write("main", {CHART: (paths.REPOSITORY / CHART).read_bytes()}, "Chart")
    place.write("head", {path: b"serving: {shutdown: {drain: 7}}\n"}, "Propose")
    verdict = place.check(pull=facts())
    assert failing(verdict) == {
        "custody": "0 of 1 by managers → ask grace to approve ; the author ada does not count\n"
    }
    assert (verdict.exit_code, verdict.headline) == (1, "❌ 1 of 2 gates fails: custody")
    assert verdict.description == "custody: 0 of 1 by managers"
    verdict = place.check(pull=facts("Grace"))
    assert (verdict.exit_code, verdict.headline) == (0, "✅ may be merged: 2 of 2 gates pass")
    (_, scope), (_, custody) = verdict.findings
    assert scope.message == f"changes what judges or serves releases, and no release: {path}"
    assert custody.message == "1 of 1 by managers: Grace"


@pytest.mark.parametrize("content", [None, b"# moved\n"], ids=["removed", "moved away"])
def test_what_judges_does_not_go_without_approvals(place: Place, content: bytes | None) -> None:
    place.write("main", {"slipway/gates.py": b"# moved\n"}, "Gates")
    gone: dict[str, bytes | None] = {"slipway/gates.py": None, "bentos/toy/gates.py": content}
    assert set(failing(place.propose(gone, pull=facts()))) == {"custody"}


@pytest.mark.parametrize(
    ("pull", "said"),
    [
        (facts("ada"), "0 of 1 by managers (ada approves what is their own) → ask grace"),
        (facts("ADA", "mallory"), "(ADA approves what is their own) → ask grace"),
        (
            facts("grace", author="Grace"),
            "0 of 1 by managers (grace approves what is their own) → ask ada",
        ),
        (replace(facts("grace"), sha="f00d"), "(grace approved an earlier commit) → ask grace"),
        (
            None,
            "not evaluated: approvals stand on the pull request, and this is none → open a pull",
        ),
    ],
    ids=["the author", "neither of them", "the author otherwise", "an earlier commit", "no pull"],
)
def test_approvals_of_what_judges_are_counted_as_those_of_releases(
    place: Place, pull: PullFacts | None, said: str
) -> None:
    verdict = place.propose({DEV: rules(fresh=None)}, pull=pull)
    assert said in failing(verdict)["custody"]
    assert verdict.exit_code == 1


def test_nobody_lets_himself_in(place: Place) -> None:
    """Who approves is who main says, and not who the change says."""
    mallory = PEOPLE.replace(b"grace", b"mallory, eve")
    place.write("head", {APPROVALS: mallory}, "Let me in")
    assert (
        "0 of 1 by managers" in failing(place.check(pull=facts("eve", author="mallory")))["custody"]
    )
    assert place.check(pull=facts("grace", author="mallory")).exit_code == 0
    for change in (b"custody: none", b"custody: two\n# nobody's"):
        place.write("head", {APPROVALS: PEOPLE.replace(b"custody: two", change)}, "Ask nobody")
        assert set(failing(place.check(pull=facts()))) == {"custody"}
    # Once main says so, it is so.
    place.write("main", {APPROVALS: PEOPLE.replace(b"custody: two", b"custody: none")}, "Trust")
    place.write("code", {"slipway/gates.py": b"x"}, "Code")
    assert place.check("code", pull=facts()).exit_code == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (PEOPLE.replace(b"custody: two\n", b""), "custody: Field required"),
        (PEOPLE.replace(b"custody: two", b"custody: tow"), "did you mean 'two'?"),
        (PEOPLE + b"a: &a [x, x]\nb: *a\n", "YAML alias"),
    ],
    ids=["gone", "no custody", "misspelt", "aliases"],
)
def test_approvals_that_would_let_nobody_mend_them_are_bad_input(
    place: Place, content: bytes | None, said: str
) -> None:
    verdict = place.propose({APPROVALS: content}, pull=facts("grace"))
    assert verdict.exit_code == 2
    (problem,) = verdict.problems
    assert (problem.path, said in problem.message) == (APPROVALS, True)
    place.write("main", {APPROVALS: content}, "Past the gates")
    place.write("mended", {"slipway/gates.py": b"x"}, "Code")
    assert "approvals cannot be read" in failing(place.check("mended", pull=facts()))["custody"]


# Evidence


def test_evidence_that_is_missing_altered_swapped_or_unsigned_is_refused(place: Place) -> None:
    made = place.next("be", 3)
    other = place.next("bf", 4)
    kept = place.source.objects.content
    place.write("head", files(made), "Propose")
    proof = ("evidence", made.evidence.digest)
    envelope = kept.pop(proof)
    assert "no such object" in failing(place.check())["evidence"]
    kept[proof] = envelope[:-9] + b"tampered}"
    assert "corrupt" in failing(place.check())["evidence"]
    kept[proof] = envelope
    place.source.known = {}
    assert "not signed by a known key" in failing(place.check())["evidence"]
    place.source.known = samples.KEYS
    assert place.check().exit_code == 0
    swapped = made.model_copy(update={"evidence": other.evidence})
    place.write("head", files(swapped), "Swap")
    verdict = place.check()
    assert "its bento is" in failing(verdict)["evidence"]
    # What it says of another bento is not shown beside this one.
    assert verdict.releases[0].evidence is None


@pytest.mark.parametrize("problem", [store.Missing, store.Corrupt, store.Unreachable])
@pytest.mark.parametrize("kind", ["release", "rollback", "rollout"])
def test_a_bento_that_is_not_whole_is_refused(
    place: Place, kind: str, problem: type[store.StoreError]
) -> None:
    former, present = place.landed("be", 3), place.landed("bf", 4)
    more = present.model_copy(update={"rollout": Rollout(resources=Resources(memory="1Gi"))})
    proposed = {"release": place.next("c0", 5), "rollback": former, "rollout": more}[kind]
    verdict = place.propose(files(proposed))
    assert (verdict.releases[0].kind, failing(verdict)) == (kind, {})
    place.source.spoilt[proposed.bento.digest] = problem("s3://bentos/…: bad\n  fix: none")
    verdict = place.check()
    assert failing(verdict).keys() == {"evidence"}
    assert "not to be had: s3://bentos/…: bad → put the object back" in failing(verdict)["evidence"]
    assert bool(verdict.unreachable) == (problem is store.Unreachable)


def test_what_a_branch_trained_waits_until_it_is_merged(place: Place) -> None:
    """Its code has evaluated itself: whoever wrote it could have written any metric."""
    branch = place.write("side", {"bentos/toy/training.py": b"brier = 0\n"}, "Better than ever")
    made = place.next(evaluation=samples.evaluation(code=branch))
    assert "which main does not have" in failing(place.propose(files(made)))["evidence"]
    never = place.next(evaluation=samples.evaluation())
    place.write("never", files(never), "A commit that nobody has")
    assert "which main does not have" in failing(place.check("never"))["evidence"]
    place.merge(place.open("side", "Better than ever").number)
    assert failing(place.check()) == {}


def test_a_shallow_clone_cannot_tell_what_was_merged(place: Place, tmp_path: Path) -> None:
    for text in (b"later\n", b"later still\n"):
        place.write("main", {"README.md": text}, "Later")
    place.write("late", files(place.next()), "Propose")
    clone = ["git", "clone", "--quiet", "--depth=2", "--no-single-branch", f"file://{place.folder}"]
    subprocess.run([*clone, str(tmp_path / "shallow")], check=True)
    with Repository(tmp_path / "shallow") as repository:
        verdict = check(repository, "origin/main", "origin/late", source=place.source, now=NOW)
    assert "git fetch --unshallow" in failing(verdict)["evidence"]


def test_a_rotated_key_is_looked_up_before_evidence_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def keys(environment: str, *, fresh: bool = False) -> object:
        asked.append(fresh)
        return samples.KEYS if fresh else {}

    monkeypatch.setattr(place.source, "keys", keys)
    assert place.propose(files(place.next())).exit_code == 0
    assert asked == [False, True]


def test_a_store_that_does_not_answer_is_no_verdict_on_the_evidence(place: Place) -> None:
    place.write("head", files(place.next()), "Propose")
    place.source.down = UNREACHABLE
    verdict = place.check()
    assert verdict.exit_code == 1
    assert verdict.unreachable == [str(UNREACHABLE)]
    place.source.down = store.Missing("gone")
    assert place.check().unreachable == []
    place.source.down = None
    assert "without the platform's store" in failing(place.check(source=None))["evidence"]


def test_soak_is_asked_of_the_previous_environment(place: Place) -> None:
    soak = {"soak": {"for": "1h", "predictions": 10, "labelled": 0}}
    place.write("main", {"policies/promotion/staging.yaml": rules(**soak, stages={})}, "Soak")
    place.when = int(NOW.replace(hour=9).timestamp())
    made = place.landed("be", 3)
    ready = place.next(env="staging")
    assert "has served nothing yet" in failing(place.propose(files(ready, "staging")))["soak"]
    served = Soak((NOW.replace(hour=10),), 20, 0, None)
    place.source.served["dev", "toy", made.bento.digest] = served
    assert failing(place.check()) == {}
    place.source.down = UNREACHABLE
    assert "no answer" in failing(place.check())["soak"]


def test_soak_counts_while_the_release_was_there(place: Place) -> None:
    """One that was asked once, and gone back from, does not soak while another one serves."""
    soak = {"soak": {"for": "7d", "predictions": 2, "labelled": 0}}
    place.write("main", {"policies/promotion/staging.yaml": rules(**soak, stages={})}, "Soak")

    def ago(days: float) -> datetime:
        return NOW - timedelta(days=days)

    def at(days: float) -> None:
        place.when = int(ago(days).timestamp())

    at(9)
    made = place.landed("be", 3)
    at(8)
    place.landed("bf", 4)
    at(1)
    place.write("main", files(made), "Roll back toy in dev to 3")
    at(0.5)
    bigger = made.model_copy(update={"rollout": Rollout(resources=Resources(memory="1Gi"))})
    place.write("main", files(bigger), "More memory")
    place.write("head", files(place.next(env="staging"), "staging"), "Propose")
    bento = ("dev", "toy", made.bento.digest)
    # A quarter of a day in the first stay, one day less an hour in this one.
    place.source.served[bento] = Soak((ago(8.5), ago(8.25), ago(23 / 24)), 20, 0, None)
    said = failing(place.check())["soak"]
    assert "29 h in dev, at least 7d → wait until 2026-01-07 07:00:00Z" in said
    # What it served when another was released there counts for nothing.
    place.source.served[bento] = Soak((ago(9), ago(8.5), ago(7), ago(2), ago(1)), 20, 0, None)
    assert "36 h in dev" in failing(place.check())["soak"]
    assert failing(place.check(now=NOW + timedelta(days=5.5))) == {}


# Main moves


def test_a_champion_that_came_since_makes_evidence_stale(place: Place) -> None:
    place.landed("be", 3)
    place.write("head", files(place.next("bf", 4)), "One")
    place.write("other", files(place.next("c0", 5)), "Two at once")
    first, second = place.open("head", "one"), place.open("other", "two")
    assert place.check("head").exit_code == place.check("other").exit_code == 0
    place.merge(first.number, sha=first.sha)
    said = failing(place.check(second.sha))
    assert "compares with what dev served then" in said["fresh"]
    assert "main" not in said["current"]
    assert f"the base branch has changed {TOY} since" in said["current"]


def test_a_merge_is_not_a_mixture_that_nobody_judged(place: Place) -> None:
    made = place.landed("be", 3)
    place.write("head", files(place.next("bf", 4)), "Propose")
    resized = made.model_copy(update={"rollout": Rollout(replicas=9)})
    place.write("main", files(resized), "More replicas")
    assert set(failing(place.check())) == {"current"}


def test_histories_that_crossed_hide_no_change(place: Place, tmp_path: Path) -> None:
    """Of two merge bases git names one; what differs from the other may be merged too."""
    old = place.landed("be", 3)
    place.write("side", files(place.next("bf", 4)), "Release toy 4 to dev")
    (side,) = [place.open("side", "four")]
    place.write("main", {"README.md": b"later\n"}, "Later")
    later = place.commit("main")
    place.merge(side.number)
    git = ["git", "-c", "user.name=m", "-c", "user.email=m@x"]
    tree = subprocess.check_output(
        [*git, "rev-parse", f"{later}^{{tree}}"], cwd=place.folder, text=True
    ).strip()
    crossed = subprocess.check_output(
        [*git, "commit-tree", tree, "-p", later, "-p", side.sha, "-m", "Crossed"],
        cwd=place.folder,
        text=True,
    ).strip()
    with Repository(place.folder) as repository:
        assert sorted(repository.merge_bases("main", crossed)) == sorted([later, side.sha])
    verdict = place.check(crossed)
    assert [found.release for found in verdict.releases] == [old]


def test_a_release_on_main_that_cannot_be_read_is_not_as_if_there_were_none(place: Place) -> None:
    place.landed("be", 3)
    made = place.next("bf", 4)
    place.write("main", {TOY: b"model: toy\n"}, "Break it")
    verdict = place.propose(files(made))
    assert "what dev serves now cannot be read" in failing(verdict)["policy"]


def test_thresholds_on_main_that_cannot_be_read_let_nothing_in(place: Place) -> None:
    made = files(place.next())
    place.write("main", {DEV: b"nonsense: 1\n"}, "Break it")
    assert "the base's thresholds cannot be read" in failing(place.propose(made))["policy"]


# Back to an earlier release


def test_an_earlier_release_comes_back_with_its_old_evidence(place: Place) -> None:
    first = place.landed("be", 3)
    place.landed("bf", 4)
    verdict = place.propose(files(first))
    assert verdict.releases[0].kind == "rollback"
    assert failing(verdict) == {}
    # Only what the branch itself had counts as released before.
    never = place.next("c1", 9)
    place.write("side", files(never), "Never released")
    place.write("side", files(place.next("c2", 5)), "What is merged")
    side = place.open("side", "five")
    place.merge(side.number)
    place.write("again", files(never), "Sneak in")
    assert place.check("again").releases[0].kind == "release"


def test_break_glass_waives_only_with_the_change_it_came_with(place: Place) -> None:
    glass = {"group": "managers", "maximum_hours": 24, "rules": ["fresh", "non_inferior"]}
    place.write("main", {DEV: rules(break_glass=glass)}, "Glass")
    place.landed("be", 3)
    made = place.next("bf", 4, comparison=None)  # compares with nothing
    path = "environments/dev/break-glass/toy.yaml"
    content = b"""who: grace
why: the champion answers every request with an error
until: 2026-01-01T18:00:00Z
rules: [non_inferior]
"""
    verdict = place.propose(files(made) | {path: content}, pull=facts("grace"))
    assert failing(verdict) == {}
    assert verdict.headline.startswith("⚠️ may be merged, with the glass broken")
    # One that main had before waives nothing.
    place.write("main", {path: content}, "An old one")
    place.write("late", files(made), "Propose")
    assert "non_inferior" in failing(place.check("late", pull=facts("grace")))


# Without a commit


def test_a_release_in_memory_is_judged_as_its_pull_request_would_be(place: Place) -> None:
    made = place.next()
    committed = place.propose(files(made))
    with Repository(place.folder) as repository:
        found = judge(repository, "main", "dev", made, source=place.source, now=NOW)
    assert (found.head, found.exit_code) == ("", 0)
    assert found.releases == committed.releases


# Money

POOL = "environments/Pulumi.dev.yaml"
MONEY = CHANGES / "valid" / "pool"
PRICES = paths.REPOSITORY / "tests" / "fixtures" / "prices" / "valid" / "small.yaml"


@pytest.fixture
def priced(place: Place) -> Place:
    """A base with a price table, and a stack with one pool."""
    stack = (
        (MONEY / POOL).read_bytes().replace(b"families: [g6]", b"families: [g6], sizes: [xlarge]")
    )
    place.write("main", {POOL: stack, "infra/prices.yaml": PRICES.read_bytes()}, "A stack")
    return place


def changed(place: Place, old: bytes, new: bytes) -> dict[str, bytes | None]:
    content = place.read(POOL)
    assert old in content
    return {POOL: content.replace(old, new)}


def test_a_change_of_a_pool_says_what_it_costs(priced: Place) -> None:
    verdict = priced.propose(changed(priced, b"max: 4", b"min: 1, max: 6"), pull=facts("grace"))
    assert (verdict.exit_code, verdict.problems) == (0, [])
    [cost] = verdict.costs
    assert (cost.stack, cost.currency, str(cost.prices)) == ("dev", "USD", "2026-01-02")
    [pool] = cost.lines
    assert pool.name == "pool inference"
    assert pool.before is not None
    assert pool.after is not None
    # An hour of one is 1 USD, a month has 730, and each has a disk of 200 GiB for 20.
    assert (pool.before.floor, pool.before.ceiling) == (0, 4 * 750)
    assert (pool.after.floor, pool.after.ceiling) == (750, 6 * 750)
    assert cost.before is not None
    assert cost.after is not None
    assert cost.after.floor - cost.before.floor == pytest.approx(750)
    assert cost.after.ceiling - cost.before.ceiling == pytest.approx(1500)
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_a_stack_that_comes_or_goes_costs_all_of_it(priced: Place) -> None:
    [gone] = priced.propose({POOL: None}).costs
    assert gone.after is None
    assert {line.name for line in gone.lines} >= {"cluster", "nodes", "pool inference", "network"}
    priced.delete_branch("head")
    more = {"environments/Pulumi.more.yaml": priced.read(POOL)}
    [come] = priced.propose(more).costs
    assert (come.stack, come.before) == ("more", None)
    assert come.after == gone.before


def test_prices_that_come_with_a_change_are_not_used(priced: Place) -> None:
    cheap = PRICES.read_bytes().replace(b"g6.xlarge: 1", b"g6.xlarge: 0.01")
    made = changed(priced, b"max: 4", b"max: 5") | {"infra/prices.yaml": cheap}
    [cost] = priced.propose(made).costs
    assert cost.lines[0].after is not None
    assert cost.lines[0].after.ceiling == 5 * 750


def test_what_the_base_has_gained_is_not_the_change_s(priced: Place) -> None:
    made = changed(priced, b"max: 4", b"max: 5")
    priced.write("head", made, "Propose")
    priced.write("main", changed(priced, b"max: 4", b"max: 9"), "Meanwhile")
    [cost] = priced.check().costs
    assert cost.lines[0].before is not None
    assert cost.lines[0].before.ceiling == 4 * 750


def test_what_cannot_be_priced_is_said_and_stops_nothing(priced: Place) -> None:
    made = changed(priced, b"sizes: [xlarge]", b"sizes: [48xlarge]")
    verdict = priced.propose(made, pull=facts("grace"))
    assert (verdict.exit_code, verdict.costs) == (0, ())
    assert "infra/prices.yaml: machines: no price of g6.48xlarge" in verdict.notes[1]


def test_a_program_that_changes_too_decides_by_itself(priced: Place) -> None:
    made = changed(priced, b"families: [g6]", b"families: [g99]")
    families: dict[str, bytes | None] = {"infra/aws/families.yaml": b"families: {g99: {}}\n"}
    verdict = priced.propose(made | families, pull=facts("grace"))
    assert (verdict.exit_code, verdict.costs) == (0, ())
    assert "no family 'g99'" in verdict.notes[1]


def test_a_floor_beyond_its_budget_is_noted(priced: Place) -> None:
    verdict = priced.propose(
        changed(priced, b"max: 4, budget: 2000", b"min: 1, max: 4, budget: 700")
    )
    assert "pool inference: 107% of its budget of 700.00 USD a month" in verdict.notes[1]


# Bad input


def tree(folder: Path) -> dict[str, bytes | None]:
    inside = [f for f in folder.rglob("*") if f.is_file()]
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in inside}


@pytest.mark.parametrize(
    "case", [f for f in sorted((CHANGES / "invalid").iterdir()) if f.is_dir()], ids=lambda f: f.name
)
def test_bad_files_are_named_with_a_fix(place: Place, case: Path) -> None:
    place.write("main", {CHART: (paths.REPOSITORY / CHART).read_bytes()}, "Chart")
    verdict = place.propose(tree(case))
    assert verdict.exit_code == 2
    (problem,) = verdict.problems
    expected = case.with_suffix(".expected").read_text().splitlines()
    for part in expected:
        assert part in f"{problem.path}: {problem.message}"
    assert verdict.headline.startswith("❌ bad input: environments/")
    assert len(verdict.description) <= 140


@pytest.mark.parametrize("case", sorted((CHANGES / "valid").iterdir()), ids=lambda f: f.name)
def test_settings_may_change_and_are_pointed_out(place: Place, case: Path) -> None:
    place.write("main", {CHART: (paths.REPOSITORY / CHART).read_bytes()}, "Chart")
    verdict = place.propose(tree(case), pull=facts("grace"))
    assert (verdict.exit_code, verdict.problems) == (0, [])
    assert len(verdict.notes) == 1


def odd(place: Place, content: bytes, mode: str = "100644") -> Verdict:
    """The verdict on a release file of any bytes and mode."""

    def git(*arguments: str, given: bytes | None = None) -> str:
        command = ["git", "-c", "user.name=m", "-c", "user.email=m@x", *arguments]
        index = {**os.environ, "GIT_INDEX_FILE": str(place.folder / "odd")}
        done = subprocess.run(
            command, cwd=place.folder, env=index, input=given, capture_output=True, check=True
        )
        return done.stdout.decode().strip()

    blob = git("hash-object", "-w", "--stdin", given=content)
    git("read-tree", "main")
    git("update-index", "--add", "--cacheinfo", f"{mode},{blob},{TOY}")
    made = git("commit-tree", git("write-tree"), "-p", "main", "-m", "odd")
    return place.check(made)


BOMB = "a: &a [x, x]\n" + "".join(f"{c}: [*a, *a]\n" for c in "bcdef")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOMB.encode(), "YAML alias"),
        (b"model: " + b"x" * 70_000, "70,007 bytes"),
        (b"[" * 30_000, "nested too deeply"),
        (b"\xff\xfe\x00", "not YAML"),
        (b"", "empty"),
    ],
    ids=["aliases", "large", "deep", "binary", "empty"],
)
def test_a_hostile_file_is_bad_input_and_no_more(place: Place, content: bytes, said: str) -> None:
    verdict = odd(place, content)
    assert verdict.exit_code == 2
    assert said in verdict.problems[0].message


def test_a_link_is_no_release(place: Place) -> None:
    verdict = odd(place, b"../../prod/models/toy.yaml", "120000")
    assert "a link, not a file" in verdict.problems[0].message
    assert verdict.releases == []


def test_a_commit_that_is_not_there(place: Place) -> None:
    with pytest.raises(BadInput, match="no commit 'nope'"):
        place.check("nope")
    path = release.path("dev", "toy")
    assert str(path) == TOY
