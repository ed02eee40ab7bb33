"""One open pull request a model and environment, whoever proposes what and how often."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slipway import attestation, digests, evidence, release, store, training
from slipway.errors import BadInput, SlipwayError
from slipway.evidence import Evidence
from slipway.forge import ForgeError, NotFound, PullRequest
from slipway.release import Approvals, Release, Rollout, Runtime
from slipway.steps import propose
from tests import samples
from tests.samples import IMAGE, KEY, Objects


class Forge:
    """Branches as mappings of path to content, pull requests, and what was said on them."""

    def __init__(self) -> None:
        self.branches: dict[str, dict[str, bytes]] = {"main": {}}
        self.opened: list[PullRequest] = []
        self.said: dict[int, str] = {}
        self.messages: list[str] = []
        self.unmerged: set[str] = set()

    def __enter__(self) -> Forge:
        return self

    def __exit__(self, *_: object) -> None: ...

    def read(self, path: str, ref: str = "main") -> bytes:
        try:
            return self.branches[ref.removeprefix("head of ")][path]
        except KeyError:
            raise NotFound(path) from None

    def write(self, branch: str, files: dict[str, bytes], message: str) -> str:
        self.messages.append(message)
        self.branches.setdefault(branch, dict(self.branches["main"])).update(files)
        return f"head of {branch}"

    def commit(self, ref: str = "main") -> str:
        return digests.of_files(self.branches[ref])

    def delete_branch(self, branch: str) -> None:
        self.branches.pop(branch, None)

    def pulls(self, state: str = "open") -> list[PullRequest]:
        return [p for p in reversed(self.opened) if p.state == state]

    def changed(self, number: int) -> list[str]:
        head, main = self.branches[self.opened[number - 1].head], self.branches["main"]
        return [path for path in head if head[path] != main.get(path)]

    def open(self, head: str, title: str, body: str) -> PullRequest:
        if head not in self.branches:
            raise ForgeError("no such branch", status=404)
        found = next((p for p in self.opened if (p.head, p.state) == (head, "open")), None)
        number = found.number if found else len(self.opened) + 1
        pull = PullRequest(
            number=number,
            url=f"http://forge/pulls/{number}",
            title=title,
            body=body,
            head=head,
            base="main",
            sha=f"head of {head}",
            state="open",
            merged=False,
            merge_sha=None,
        )
        self.opened[number - 1 : number] = [pull]
        return pull

    def close(self, number: int) -> None:
        self.opened[number - 1] = replace(self.opened[number - 1], state="closed")

    def comment(self, number: int, _marker: str, body: str) -> None:
        self.said[number] = body

    def merge(self, number: int) -> None:
        self.branches["main"] = self.branches[self.opened[number - 1].head]
        self.opened[number - 1] = replace(self.opened[number - 1], state="closed", merged=True)


PATH = "environments/dev/models/toy.yaml"


@pytest.fixture
def forge() -> Forge:
    return Forge()


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def run(forge: Forge, objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "public.pem").write_bytes(samples.public_pem())
    monkeypatch.setenv("SLIPWAY_EVIDENCE_KEYS", str(tmp_path / "public.pem"))
    monkeypatch.setattr(propose, "Store", lambda: objects)
    monkeypatch.setattr(propose, "from_environment", lambda: forge)
    monkeypatch.setattr(training, "is_merged", lambda _, commit: commit not in forge.unmerged)

    def step(
        document: Evidence | None = None, *, version: int = 3, image: str = IMAGE, **changes: str
    ) -> dict[str, str]:
        pins = {"version": version, "runtime": Runtime(image=image)}
        about = (document or samples.document()).model_copy(update=pins)
        arguments = {
            "environment": about.environment,
            "evidence": objects.put("evidence", attestation.sign(about, KEY)),
            "break_glass": "",
            "dry_run": "false",
            "requested_by": "",
        }
        return propose.run("toy", **{**arguments, **changes})

    return step


def on(forge: Forge, branch: str, env: str = "dev") -> Release:
    path = str(release.path(env, "toy"))
    return release.parse(forge.read(path, branch), path)


def against(champion: Release, **changes: Any) -> Evidence:
    """Evidence of another bento, against that champion."""
    found = samples.evaluation()
    pinned = evidence.Champion(
        version=champion.version,
        bento=champion.bento.digest,
        evidence=champion.evidence.digest,
        commit=champion.code.commit,
        data=champion.data.digest,
        predictions=found.predictions,
        metrics=found.metrics,
        parameters={},
    )
    values = {"champion": pinned, "bento": samples.bento("b0")}
    return samples.document(**{**values, **changes})


def test_the_first_release_is_proposed_once(forge: Forge, run: Any) -> None:
    made = run()
    assert made["pull-request"] == "1"
    assert run() == made
    (pull,) = forge.opened
    assert release.proposes(pull.head) == ("dev", "toy", 3)
    assert pull.title == "Release toy 3 to dev"
    proposed = on(forge, pull.head)
    assert proposed == samples.released(proof=proposed.evidence.digest)
    assert made["release"] == release.dumps(proposed)
    assert proposed.evidence.digest in pull.body
    assert len(pull.body) < 800


def test_the_commit_says_who_asked_for_it(forge: Forge, run: Any) -> None:
    run(requested_by="Ada\n<ada@example.org> ")
    assert forge.messages == [
        "Release toy 3 to dev\n\nRequested-by: Ada <ada@example.org>",
    ]
    run(version=4)
    assert forge.messages[1] == "Release toy 4 to dev"


def test_what_is_on_main_is_not_proposed(forge: Forge, run: Any) -> None:
    run()
    forge.merge(1)
    assert run()["pull-request"] == ""
    assert "has this bento and this runtime image" in run()["note"]
    again = run(against(on(forge, "main"), bento=samples.bento()), image=IMAGE[:-1] + "0")
    assert again["pull-request"] == "2"


def test_other_environments_have_branches_of_their_own(forge: Forge, run: Any) -> None:
    run()
    assert run(samples.document(environment="prod"))["pull-request"] == "2"
    dev, prod = forge.opened
    assert release.proposes(prod.head) == ("prod", "toy", 3)
    assert (dev.state, prod.state) == ("open", "open")
    assert on(forge, prod.head, "prod").approvals == Approvals(policy="production")
    assert on(forge, dev.head).approvals == Approvals(policy="none")


def test_how_it_rolls_out_and_who_approves_stays(forge: Forge, run: Any) -> None:
    settings: dict[str, Any] = {
        "rollout": Rollout(replicas=7),
        "approvals": Approvals(policy="production"),
    }
    champion = samples.released(**settings)
    forge.branches["main"][PATH] = release.dumps(champion).encode()
    run(against(champion))
    proposed = on(forge, forge.opened[0].head)
    assert (proposed.rollout, proposed.approvals) == tuple(settings.values())
    assert proposed.bento == samples.bento("b0")


def test_an_older_challenger_is_superseded(forge: Forge, run: Any) -> None:
    run(version=3)
    assert run(version=4)["pull-request"] == "2"
    assert [p.state for p in forge.opened] == ["closed", "open"]
    assert forge.said == {1: "Superseded by #2: Release toy 4 to dev."}
    assert forge.branches.keys() == {"main", forge.opened[1].head}


def test_a_newer_challenger_is_not_superseded(forge: Forge, run: Any) -> None:
    run(version=4)
    made = run(version=3)
    assert made["pull-request"] == ""
    assert "http://forge/pulls/1 (close that to propose version 3)" in made["note"]
    assert [p.state for p in forge.opened] == ["open"]


def test_other_content_is_another_pull_request(forge: Forge, run: Any) -> None:
    """What somebody has read is not exchanged under them; the forge may still remove its branch."""
    run()
    made = run(samples.document(created="2026-01-02T00:00:00Z"))
    assert made["pull-request"] == "2"
    former, pull = forge.opened
    assert (former.state, pull.state) == ("closed", "open")
    assert former.head != pull.head
    assert forge.said == {1: "Superseded by #2: Release toy 3 to dev."}
    assert on(forge, pull.head).evidence.digest in pull.body


def test_a_left_over_branch_does_not_drag_an_old_main_along(forge: Forge, run: Any) -> None:
    run()
    forge.close(1)
    forge.branches["main"]["other"] = b"new"
    run()
    assert "other" in forge.branches[forge.opened[1].head]


def test_what_a_branch_trained_closes_nobodys_pull_request(forge: Forge, run: Any) -> None:
    run(version=5)
    branches = set(forge.branches)
    tried = samples.document(evaluation=samples.evaluation(code="b7" * 20))
    forge.unmerged.add("b7" * 20)
    made = run(tried, version=6)
    assert made["pull-request"] == ""
    assert made["note"] == (
        "main does not have b7b7b7b7b7b7; merge it, and main's training proposes"
    )
    assert release.parse(made["release"], PATH).version == 6
    assert [p.state for p in forge.opened] == ["open"]
    assert (forge.said, set(forge.branches)) == ({}, branches)
    forge.unmerged.clear()
    assert run(tried, version=6)["pull-request"] == "2"


def test_the_bento_of_main_is_said_to_be_there_whoever_trained_it(forge: Forge, run: Any) -> None:
    run()
    forge.merge(1)
    forge.unmerged.add(samples.evaluation().code)
    assert "has this bento and this runtime image" in run()["note"]


def test_forks_and_other_models_are_let_alone(forge: Forge, run: Any) -> None:
    for head, fork in (("release/toy-2", True), ("release/toys-2", False), ("mine", False)):
        forge.branches[head] = {}
        pull = forge.open(head, "t", "b")
        forge.opened[-1] = replace(pull, fork=fork)
    run()
    assert {p.state for p in forge.opened} == {"open"}


def test_evidence_against_another_champion_is_refused(forge: Forge, run: Any) -> None:
    champion = samples.released(proof=samples.digest("aa"))
    forge.branches["main"][PATH] = release.dumps(champion).encode()
    stale = against(samples.released(proof=samples.digest("bb")))
    for document in (stale, samples.document(bento=samples.bento("b0"))):
        with pytest.raises(SlipwayError, match="changed on main since the evidence was written"):
            run(document)
    assert not forge.opened


@pytest.mark.parametrize("tried", [True, False])
def test_a_dry_run_only_says_what_it_would_write(forge: Forge, run: Any, tried: bool) -> None:
    made = run(dry_run="true" if tried else "false")
    assert release.parse(made["release"], PATH).version == 3
    assert bool(forge.opened) is not tried
    assert (len(forge.branches) == 1) is tried


GLASS = """\
who: somebody
why: the feed of staging is down and this fixes it
until: 2026-01-02T00:00:00Z
rules: [soak]
"""


def test_the_glass_is_broken_in_the_same_pull_request(forge: Forge, run: Any) -> None:
    run(break_glass=GLASS)
    path = "environments/dev/break-glass/toy.yaml"
    assert forge.read(path, forge.opened[0].head) == GLASS.encode()
    assert "breaks the glass" in forge.opened[0].body
    run()
    assert set(forge.branches[forge.opened[1].head]) == {PATH}
    assert [p.state for p in forge.opened] == ["closed", "open"]


def test_a_wrong_break_glass_file_is_named(forge: Forge, run: Any) -> None:
    with pytest.raises(BadInput, match=r"environments/dev/break-glass/toy\.yaml"):
        run(break_glass="who: me\n")
    assert not forge.opened


def test_evidence_must_be_signed_and_of_this_model_and_environment(
    forge: Forge, run: Any, objects: Objects
) -> None:
    with pytest.raises(attestation.Unverified):
        run(evidence=objects.put("evidence", evidence.dumps(samples.document())))
    with pytest.raises(BadInput, match="is of toy for dev, not of toy for prod"):
        run(environment="prod")
    with pytest.raises(store.Missing):
        run(evidence=samples.digest("00"))
    assert not forge.opened


def test_a_run_that_broke_off_is_finished_by_the_next(
    forge: Forge, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(version=2)
    with monkeypatch.context() as down:
        down.setattr(forge, "open", _refuse)
        with pytest.raises(ForgeError):
            run()
    assert [p.state for p in forge.opened] == ["open"]
    assert run()["pull-request"] == "2"
    assert [p.state for p in forge.opened] == ["closed", "open"]


def _refuse(*_: Any) -> None:
    raise ForgeError("no answer from the forge")
