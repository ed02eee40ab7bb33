"""Gates as the forge sees them: a comment and a status for the commit that was judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from slipway import merging, publish, release
from slipway.errors import SlipwayError
from slipway.forge import ForgeError, Review
from slipway.merging import CONTEXT
from slipway.steps import __main__ as steps
from slipway.steps import gates, hold
from slipway.steps.gates import Fetched, Gates, fetching
from slipway.store import Unreachable
from tests import samples
from tests.unit.check.place import APPROVALS, NOW, PEOPLE, UNREACHABLE, Place, files, rules

DEV = "policies/promotion/dev.yaml"


@pytest.fixture
def fetched(place: Place) -> Iterator[Fetched]:
    with fetching(place) as found:
        yield found


@pytest.fixture
def step(place: Place, fetched: Fetched) -> Gates:
    return Gates(place, fetched, place.source)


def judged(step: Gates, place: Place) -> list[str]:
    return list(step.judge(place.pulls()))


def states(place: Place) -> list[str]:
    return [state for _, state, _ in place.log]


def test_pending_then_a_comment_then_success(place: Place, step: Gates) -> None:
    place.landed("be", 3)
    place.write("head", files(place.next("bf", 4)), "Release toy 4 to dev")
    pull = place.open("head", "Release toy 4 to dev")
    assert judged(step, place) == ["1: ✅ may be merged: 5 of 5 gates pass"]
    assert place.log == [
        (pull.sha, "pending", "the gates are being evaluated"),
        (pull.sha, "success", "may be merged: 5 of 5 gates pass"),
    ]
    (said,) = place.comments(1)
    assert said.body.startswith("<!-- slipway-check -->\n## ✅ may be merged")
    assert f"(compare/{place.trained}" not in said.body  # the same commit trained both
    assert "![reliability, and what each period is worth](attachments/dev-toy.png)" in said.body
    # Again, with nothing changed: nothing is said, set or sent.
    before = (list(place.log), list(place.comments(1)), list(place.attached))
    assert judged(step, place) == ["1: ✅ may be merged: 5 of 5 gates pass"]
    assert (place.log, place.comments(1), place.attached) == before
    assert merging.wait_for_gates(place, 1).sha == pull.sha


def test_what_was_merged_before_its_turn_keeps_what_was_said(place: Place, step: Gates) -> None:
    place.landed("be", 3)
    place.write("head", files(place.next("bf", 4)), "Release toy 4 to dev")
    pull = place.open("head", "Release toy 4 to dev")
    judged(step, place)
    before = (list(place.log), list(place.comments(1)))
    place._git("update-ref", "refs/heads/main", pull.sha)  # merged
    assert judged(step, place) == ["1: merged"]
    assert (place.log, place.comments(1)) == before


def test_failure_names_the_first_gate_and_goes_when_it_is_mended(place: Place, step: Gates) -> None:
    place.write("main", {DEV: rules(approvals={"policy": "two"})}, "Strict")
    place.write("head", files(place.next()), "Release")
    pull = place.open("head", "Release toy 3 to dev")
    judged(step, place)
    sha, state, description = place.log[-1]
    assert (sha, state) == (pull.sha, "failure")
    assert description.startswith("approvals: 0 of 1 by managers")
    assert len(description) <= 140
    # The author of the branch's commits cannot approve them, whoever opened the pull request.
    place.asked[0] = place.asked[0].__class__(**{**vars(place.asked[0]), "author": "slipway-bot"})
    place.approvals[1] = [Review("ada", "approved", pull.sha, NOW)]
    judged(step, place)
    assert place.statuses(pull.sha)[CONTEXT] == "failure"
    place.approvals[1] += [Review("grace", "approved", pull.sha, NOW)]
    judged(step, place)
    assert place.statuses(pull.sha)[CONTEXT] == "success"
    # In place, not once more.
    assert len(place.comments(1)) == 1
    assert "✅" in place.comments(1)[0].body
    assert states(place).count("pending") == 1


@pytest.mark.parametrize(
    "asked",
    ["Grace Hopper <grace@x>", "Grace <g@x>", "grace", "grace, Ada <a@x>", "bot, Grace <g@x>"],
)
def test_who_asked_for_a_release_does_not_approve_it(place: Place, step: Gates, asked: str) -> None:
    place.write("main", {DEV: rules(approvals={"policy": "two"})}, "Strict")
    place.write("head", files(place.next()), f"Release toy 3 to dev\n\nRequested-by: {asked}")
    pull = place.open("head", "Release toy 3 to dev")
    place.approvals[1] = [Review("grace", "approved", pull.sha, NOW)]
    judged(step, place)
    assert place.log[-1][2].startswith("approvals: 0 of 1 by managers")


@pytest.mark.parametrize(
    "committer",
    [
        "Grace <g@x>",
        "Grace Hopper <grace@x>",
        "G <12345+grace@users.noreply.github.com>",
        "G <grace+work@x>",
    ],
)
def test_who_amends_a_commit_does_not_approve_it(place: Place, step: Gates, committer: str) -> None:
    """It keeps its author, whose work it no longer need be."""
    place.write("main", {DEV: rules(approvals={"policy": "two"})}, "Strict")
    place.write("head", files(place.next()), "Release toy 3 to dev")
    sha = place.amend("head", committer)
    place.open("head", "Release toy 3 to dev")
    place.approvals[1] = [Review("grace", "approved", sha, NOW)]
    judged(step, place)
    assert place.log[-1][2].startswith("approvals: 0 of 1 by managers")
    # One of somebody else's keeps her from nothing.
    sha = place.amend("head", "Gracelyn <gracelyn@x>")
    place.approvals[1] = [Review("grace", "approved", sha, NOW)]
    judged(step, place)
    assert place.log[-1][:2] == (sha, "success")


def test_a_new_push_is_judged_anew_and_alone(place: Place, step: Gates) -> None:
    place.write("head", files(place.next()), "Release")
    first = place.open("head", "Release toy 3 to dev").sha
    judged(step, place)
    edited = place.next().model_copy(update={"version": 9, "bento": samples.bento("ff")})
    second = place.write("head", files(edited), "Edit the bento")
    judged(step, place)
    assert place.statuses(first)[CONTEXT] == "success"
    assert place.statuses(second)[CONTEXT] == "failure"


def test_a_head_that_moves_meanwhile_is_judged_too(
    place: Place, step: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("head", files(place.next()), "Release")
    first = place.open("head", "Release toy 3 to dev").sha
    moved: list[str] = []
    said = place.comment

    def comment(number: int, marker: str, body: str) -> None:
        said(number, marker, body)
        if not moved:  # forced: the judged commit is not even an ancestor
            place._git("update-ref", "refs/heads/head", place.commit("main"))
            moved.append(place.write("head", files(samples.released()), "Forced"))

    monkeypatch.setattr(place, "comment", comment)
    judged(step, place)
    assert place.statuses(first)[CONTEXT] == "success"
    assert place.statuses(moved[0])[CONTEXT] == "failure"


def test_a_base_that_moves_meanwhile_decides(
    place: Place, step: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("head", files(place.next()), "Release")
    sha = place.open("head", "Release toy 3 to dev").sha
    said, strict = place.comment, rules(approvals={"policy": "two"})

    def comment(number: int, marker: str, body: str) -> None:
        said(number, marker, body)
        place.write("main", {DEV: strict}, "Strict, once")

    monkeypatch.setattr(place, "comment", comment)
    judged(step, place)
    # Never success by thresholds that were no longer main's when it was said.
    assert [s for at, s, _ in place.log if at == sha] == ["pending", "failure"]


def test_one_that_moves_all_the_time_is_no_endless_work(
    place: Place, step: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("head", files(place.next()), "Release")
    place.open("head", "Release toy 3 to dev")
    commits = iter(range(1000))
    seen = place.statuses

    def statuses(sha: str) -> Any:
        place.write("main", {"README.md": str(next(commits)).encode()}, "Again")
        found = seen(sha)
        return found

    real = step._judge_head

    def judge_head(pull: Any) -> Any:
        found = real(pull)
        statuses(pull.sha)
        return found

    monkeypatch.setattr(step, "_judge_head", judge_head)
    with pytest.raises(SlipwayError, match="moved 5 times"):
        judged(step, place)


def test_what_does_not_answer_is_an_error_and_no_verdict(place: Place, step: Gates) -> None:
    place.write("head", files(place.next()), "Release")
    sha = place.open("head", "Release toy 3 to dev").sha
    place.source.down = UNREACHABLE
    with pytest.raises(Unreachable, match=str(UNREACHABLE)):  # which is worth a retry
        judged(step, place)
    assert place.statuses(sha)[CONTEXT] == "error"
    place.source.down = None
    judged(step, place)
    assert place.statuses(sha)[CONTEXT] == "success"


def test_an_unforeseen_failure_is_an_error_and_does_not_keep_the_others(
    place: Place, step: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        place.write(name, files(place.next()) | {f"tests/{name}": name.encode()}, "Release")
        place.open(name, f"Release {name}")
    broken, reviews = place.pull(2), place.reviews

    def fail_on_two(number: int) -> Any:
        if number == 2:
            raise ZeroDivisionError("oh no")
        return reviews(number)

    monkeypatch.setattr(place, "reviews", fail_on_two)
    lines: list[str] = []
    with pytest.raises(ZeroDivisionError):
        lines.extend(step.judge(place.pulls()))
    assert place.statuses(broken.sha)[CONTEXT] == "error"
    assert place.log[1][2] == "could not be judged: oh no"
    assert place.statuses(place.pull(1).sha)[CONTEXT] == "success"


def test_a_change_of_code_is_not_held_up_and_not_commented_on(place: Place, step: Gates) -> None:
    place.write("head", {"bentos/toy/training.py": b"fit()\n"}, "Code")
    sha = place.open("head", "Code").sha
    judged(step, place)
    assert place.log[-1] == (sha, "success", "no release changed")
    assert place.comments(1) == []
    count = len(place.log)
    judged(step, place)
    assert len(place.log) == count


def test_a_change_of_the_gates_waits_for_an_approval(place: Place, step: Gates) -> None:
    place.write("head", {"slipway/gates.py": b"nothing is checked any more\n"}, "Code")
    pull = place.open("head", "Code")
    assert judged(step, place) == ["1: ❌ 1 of 2 gates fails: custody"]
    assert place.log[-1] == (pull.sha, "failure", "custody: 0 of 1 by managers")
    (said,) = place.comments(1)
    assert f"ask grace to approve {pull.sha[:12]}; the author ada does not count" in said.body
    # Of what asks nobody to look again, the sweep finds an approval, and a push that outdates it.
    place.approvals[1] = [Review("grace", "approved", pull.sha, NOW)]
    judged(step, place)
    assert place.log[-1] == (pull.sha, "success", "may be merged: 2 of 2 gates pass")
    assert "1 of 1 by managers: grace" in place.comments(1)[0].body
    sha = place.write("head", {"slipway/gates.py": b"nothing at all\n"}, "More code")
    judged(step, place)
    assert place.statuses(sha)[CONTEXT] == "failure"
    assert "grace approved an earlier commit" in place.comments(1)[0].body


def test_who_committed_to_the_gates_does_not_approve_them(place: Place, step: Gates) -> None:
    place.write("head", {APPROVALS: PEOPLE.replace(b"grace", b"grace, bob")}, "Code")
    pull = place.open("head", "Code")
    place.asked[0] = replace(pull, author="bob")
    place.approvals[1] = [Review("ada", "approved", pull.sha, NOW)]  # the commit's author
    judged(step, place)
    said = "custody: 0 of 1 by managers (ada approves what is their own)"
    assert place.log[-1] == (pull.sha, "failure", said)


def test_a_fork_s_own_gates_and_thresholds_judge_nothing(place: Place, step: Gates) -> None:
    place.write("main", {DEV: rules(approvals={"policy": "two"})}, "Strict")
    theirs = {"slipway/steps/gates.py": b"raise SystemExit(0)\n", DEV: rules()}
    place.write("head", files(samples.released()) | theirs, "Trust me")
    pull = place.open("head", "Trust me")
    place.fork(1)
    judged(step, place)
    assert place.statuses(pull.sha)[CONTEXT] == "failure"
    said = place.comments(1)[0].body
    assert "it changes what judges or serves releases together with a release" in said
    assert "0 of 1 by managers" in said


def test_somebody_else_s_comment_with_the_marker_is_not_ours(place: Place, step: Gates) -> None:
    place.write("head", files(samples.released()), "Release")
    place.open("head", "Release toy 3 to dev")
    judged(step, place)
    (mine,) = place.comments(1)
    forged = mine.__class__(9, "mallory", mine.body.replace("❌", "✅"), NOW)
    place.commented[1] = [forged]
    judged(step, place)
    assert [c.author for c in place.comments(1)] == ["mallory", "bot"]


def test_only_open_ones_on_main_are_judged(place: Place, step: Gates) -> None:
    place.write("head", files(place.next()), "Release")
    pull = place.open("head", "Release toy 3 to dev")
    place.write("other", {"x": b"1"}, "Stacked")
    place.open("other", "Stacked", base="head")
    judged(step, place)
    assert {at for at, _, _ in place.log} == {pull.sha}
    place.merge(1)
    assert list(step.judge([place.pull(1)])) == []


# Held, once main has moved


def test_what_passed_by_an_older_main_is_held_until_it_is_judged_again(
    place: Place, step: Gates
) -> None:
    place.landed("be", 3)
    place.write("release", files(place.next("bf", 4)), "Release toy 4 to dev")
    place.write("code", {"bentos/toy/training.py": b"fit()\n"}, "Code")
    place.write("refused", files(place.next("bc", 9, comparison=None)), "Release")
    pulls = [place.open(name, name) for name in ("release", "code", "refused")]
    judged(step, place)
    assert [place.statuses(p.sha)[CONTEXT] for p in pulls] == ["success", "success", "failure"]
    place.write("main", {DEV: rules(approvals={"policy": "two"})}, "Strict")
    assert list(hold.hold(place)) == [1]
    assert [place.statuses(p.sha)[CONTEXT] for p in pulls] == ["pending", "success", "failure"]
    assert list(hold.hold(place)) == []
    judged(step, place)
    assert [place.statuses(p.sha)[CONTEXT] for p in pulls] == ["failure", "success", "failure"]


def test_what_is_held_after_it_was_judged_again_is_judged_once_more(
    place: Place, step: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was faster looked at the new main already: nothing is new but the state."""
    place.write("head", files(place.next()), "Release")
    sha = place.open("head", "Release toy 3 to dev").sha
    judged(step, place)
    place.write("main", {"README.md": b"moved\n"}, "Moved")
    judged(step, place)
    assert list(hold.hold(place)) == [1]
    judged(step, place)
    assert place.statuses(sha)[CONTEXT] == "success"
    # While it is judged, too: who began before did not see it, and leaves it to the next.
    facts = step._facts

    def held_meanwhile(*about: Any) -> Any:
        list(hold.hold(place))
        return facts(*about)

    monkeypatch.setattr(step, "_facts", held_meanwhile)
    judged(step, place)
    assert place.statuses(sha)[CONTEXT] == "pending"
    monkeypatch.undo()
    judged(step, place)
    assert place.statuses(sha)[CONTEXT] == "success"


def test_where_the_forge_s_actions_judge_the_cluster_holds_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORGE_GATES", "actions")
    monkeypatch.setattr(hold, "from_environment", lambda: pytest.fail("the forge was asked"))
    assert hold.run() == {"held": ""}


# The command


@pytest.fixture
def mounted(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(gates, "from_environment", lambda: place)
    monkeypatch.setattr(gates, "Mounted", lambda _: place.source)
    return place


def test_the_step_judges_one_or_all(mounted: Place, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        mounted.write(name, {f"tests/{name}": b"x"}, name)
        mounted.open(name, name)
    assert steps.main(["gates", "--pull", "2"]) == 0
    assert "judged: 2: ✅ no release changed" in capsys.readouterr().out
    assert {at for at, _, _ in mounted.log} == {mounted.pull(2).sha}
    assert steps.main(["gates"]) == 0
    assert len({at for at, _, _ in mounted.log}) == 2


def test_git_that_does_not_answer_is_worth_a_retry(
    mounted: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted.write("one", {"x": b"1"}, "One")
    sha = mounted.open("one", "One").sha

    def fail(*_: object) -> None:
        raise SlipwayError("git fetch failed: could not resolve host")

    monkeypatch.setattr(publish, "fetch", fail)
    assert steps.main(["gates", "--pull", "1"]) == steps.TRANSIENT
    assert mounted.statuses(sha)[CONTEXT] == "error"
    assert steps.is_transient(ForgeError("", status=0))
    assert steps.is_transient(Unreachable(""))


def test_where_the_forges_actions_judge_the_cluster_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two reports of one status the later would count."""
    monkeypatch.setenv("FORGE_GATES", "actions")
    monkeypatch.setattr(gates, "from_environment", lambda: pytest.fail("the forge was asked"))
    assert "Actions judge" in gates.run(None)["judged"]


@pytest.mark.parametrize(
    ("here", "judges"),
    [("dev", {1}), ("staging", {2, 3}), ("prod", {4}), ("dev staging prod", {*range(1, 5)})],
)
def test_of_several_stacks_on_one_forge_one_judges_each_pull_request(
    here: str, judges: set[int], place: Place, step: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_GATES", "cluster")
    monkeypatch.setenv("ENVIRONMENTS", here)
    place.landed("be", 3, "prod")
    there = str(release.path("prod", "toy"))
    changes: list[dict[str, bytes | None]] = [
        {"README.md": b"of no environment"},
        files(place.next("bf", 4, "staging"), "staging"),
        files(place.next("bf", 4)) | files(place.next("bf", 4, "staging"), "staging"),
        # Git tells of it as of one file, which has another name.
        {there: None, "notes/toy.yaml": place.read(there)},
    ]
    pulls = {}
    for number, changed in enumerate(changes, start=1):
        place.write(f"head-{number}", changed, "Change")
        pulls[number] = place.open(f"head-{number}", "Change").sha
    said = dict(line.split(": ", 1) for line in judged(step, place))
    elsewhere = {int(number) for number, what in said.items() if what == "another stack's to judge"}
    assert elsewhere == pulls.keys() - judges
    assert {sha for sha, _, _ in place.log} == {pulls[number] for number in judges}
    assert not [number for number in elsewhere if place.comments(number)]


def test_of_a_forge_of_its_own_a_stack_judges_everything(
    place: Place, step: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVIRONMENTS", "prod")
    place.write("head", {"README.md": b"new"}, "Change")
    place.open("head", "Change")
    assert judged(step, place) == ["1: \u2705 no release changed"]
