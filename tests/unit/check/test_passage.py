"""What came to main past the gates, and what did not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slipway import passage
from slipway.forge import PullRequest
from slipway.merging import CONTEXT
from slipway.repository import Repository
from tests.unit.check.place import Place, files

TOY = "environments/dev/models/toy.yaml"


def doubt(place: Place, judge: str = "bot") -> str:
    with Repository(place.folder) as repository:
        commit = repository.versions("main", [TOY])[TOY][0].commit
        return passage.doubt(place, repository, commit, TOY, judge)  # type: ignore[arg-type]


def proposed(place: Place, state: str = "success") -> PullRequest:
    place.write("head", files(place.next()), "Release toy 3 to dev")
    pull = place.open("head", "Release toy 3 to dev")
    place.set_status(pull.sha, CONTEXT, state)  # type: ignore[arg-type]
    return pull


def test_what_the_gates_let_in_is_beyond_doubt(place: Place) -> None:
    place.merge(proposed(place).number)
    place.write("main", {"README.md": b"pushed\n"}, "Another file")
    assert doubt(place) == doubt(place, "BOT") == doubt(place, "") == ""


def test_a_push_is_none_of_the_gates(place: Place) -> None:
    place.write("main", files(place.next()), "Release toy 3 to dev")
    assert doubt(place) == f"pushed as {place.commit()[:12]} by Ada"
    # Nor does it become one by the name of a pull request that it is not.
    place.write("other", {"x": b"1"}, "Another")
    place.open("other", "Another")
    place.write("main", files(place.next("bf", 4)), "Release toy 4 to dev (#1)")
    assert doubt(place).startswith("pushed as ")


@pytest.mark.parametrize("state", ["failure", "pending", "error"])
def test_a_merge_without_a_pass_is_told(place: Place, state: str) -> None:
    pull = proposed(place, state)
    place.merge(pull.number)
    assert doubt(place).endswith(f"by Ada, without a verdict that lets {pull.sha[:12]} in")
    place.reported.clear()
    assert "without a verdict" in doubt(place)


def test_a_verdict_of_somebody_else_is_told(place: Place) -> None:
    place.merge(proposed(place).number)
    place.reporter = "mallory"
    assert doubt(place).endswith("by a verdict of mallory, not of bot")
    assert doubt(place, "") == ""


def test_a_merge_of_something_else_is_told(place: Place) -> None:
    """Made by hand: it names a head that was judged, and has other content."""
    pull = proposed(place)
    place.write("evil", files(place.next("bf", 4)), "Another release")
    parents = [place.commit("main"), pull.sha]
    place.merge_as("evil", parents, "Merge pull request 'Release toy 3 to dev' (#1)")
    assert doubt(place).endswith("by Ada, and not as it was proposed")


def test_what_was_squashed_is_by_its_pull_request(place: Place) -> None:
    pull = proposed(place)
    sha = place.write("main", files(place.next()), "Release toy 3 to dev (#1)")
    assert doubt(place).startswith("pushed as ")  # nobody merged that pull request
    place.asked[0] = replace(pull, state="closed", merged=True, merge_sha=sha)
    assert doubt(place) == ""
    place.set_status(pull.sha, CONTEXT, "failure")
    assert "without a verdict" in doubt(place)
