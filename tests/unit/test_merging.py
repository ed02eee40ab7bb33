"""Merging by command: after the gates, of what they judged, and with a way out when they refuse."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from slipway import merging
from slipway.errors import SlipwayError
from slipway.forge import Report, State


class Forge:
    """Answers with one state after the other."""

    def __init__(self, *states: State | None, **pull: Any) -> None:
        self.states = list(states)
        self.item = {"sha": "a" * 40, "merged": False, "state": "open", "url": "u", **pull}
        self.merged_sha: str | None = None

    def pull(self, number: int) -> Any:
        return SimpleNamespace(number=number, **self.item)

    def report(self, sha: str, context: str) -> Report | None:
        assert (sha, context) == (self.item["sha"], merging.CONTEXT)
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        said = "the store does not answer" if state == "error" else ""
        return Report(state, "bot", said) if state else None

    def merge(self, number: int, *, sha: str | None = None) -> Any:
        self.merged_sha = sha
        return self.pull(number)


def merge(forge: Forge, **options: Any) -> Any:
    made: Any = forge
    return merging.merge(made, 7, **options)


def test_it_waits_for_the_verdict_and_merges_what_was_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(merging.time, "sleep", lambda _: None)
    forge, news = Forge(None, "pending", "pending", "success"), list[str]()
    merge(forge, say=news.append)
    assert forge.merged_sha == "a" * 40
    assert news == ["gates: pending"]


def test_what_could_not_be_judged_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging.time, "sleep", lambda _: None)
    forge, news = Forge("error", "error", "pending", "success"), list[str]()
    merge(forge, say=news.append)
    assert forge.merged_sha == "a" * 40
    assert news == ["gates: error: the store does not answer", "gates: pending"]


def test_a_merged_one_needs_no_verdict() -> None:
    forge = Forge(None, merged=True)
    merge(forge)
    assert forge.merged_sha is None


@pytest.mark.parametrize(
    ("forge", "kind", "said"),
    [
        (Forge("failure"), merging.NotAllowed, "the gates refuse"),
        (Forge("error"), SlipwayError, "no verdict.*\n.*error: the store does not answer"),
        (Forge("pending"), SlipwayError, "no verdict"),
        (Forge(None, state="closed"), SlipwayError, "was closed"),
    ],
    ids=["failure", "error", "no_verdict", "closed"],
)
def test_it_does_not_merge(forge: Forge, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        merge(forge, timeout_s=-1)
    assert forge.merged_sha is None
