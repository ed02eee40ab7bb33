"""Going back: which release, what is verified before anything is pushed, and what is merged."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from slipway import attestation, digests, merging, paths, release, rollback, store
from slipway.cli import app
from slipway.endpoints import Cluster
from slipway.errors import BadInput, SlipwayError
from slipway.mirror import mirror
from slipway.release import Release
from slipway.rollback import Rollback
from tests import samples
from tests.gitforge import GitForge

PATH = str(release.path("prod", "toy"))


@dataclass
class World:
    """A forge, a store, and a model in prod that answers as what was merged last."""

    forge: GitForge
    store: samples.Objects
    answers: Callable[[], str]
    asked: list[str]

    def release(self, version: int, **changes: Any) -> Release:
        """A version of `toy`, its bento and evidence in the store, as a release of prod."""
        content = b"bento %d" % version
        digest = self.store.put("bentos", content)
        bento = release.Bento(digest=digest, uri=store.uri("bentos", digest), size=len(content))
        proof = samples.document(environment="prod", version=version, bento=bento)
        envelope = self.store.put("evidence", attestation.sign(proof, samples.KEY))
        return samples.released(proof, envelope, **changes)

    def merge(self, found: Release | None) -> bytes:
        """Puts a release file, or none, on main; its content."""
        content = release.dumps(found).encode() if found else None
        self.forge.write("change", {PATH: content}, "Release")
        self.forge.merge(self.forge.open("change", "Release", "").number)
        return content or b""

    def plan(self, version: int | None = None, *, settings: bool = False) -> Rollback:
        with mirror(self.forge) as (repository, tip):
            return rollback.plan(repository, tip, "prod", "toy", version, settings=settings)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    keys = tmp_path / "keys.pem"
    keys.write_bytes(samples.public_pem())
    monkeypatch.setenv("SLIPWAY_EVIDENCE_KEYS", str(keys))
    forge, objects, asked = GitForge(tmp_path / "forge.git"), samples.Objects(), []

    def present() -> str:
        return release.parse(forge.read(PATH), PATH).bento.digest

    made = World(forge, objects, present, asked)

    def api(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if "/proxy/" in request.url.path:
            return httpx.Response(200, headers={"x-slipway-bento": made.answers()})
        return httpx.Response(404, json={"message": "not found"})

    client = httpx.Client(base_url="https://api", transport=httpx.MockTransport(api))
    cluster = Cluster(client, embedded=True)
    monkeypatch.setattr(cluster, "forge", lambda: nullcontext(forge))
    monkeypatch.setattr(cluster, "store", lambda: nullcontext(objects))
    monkeypatch.setattr(Cluster, "connect", lambda: cluster)
    return made


def run(*more: str) -> Result:
    return CliRunner().invoke(app, ["rollback", "toy", "--env", "prod", *more])


# --- which release ------------------------------------------------------------------------------


def test_the_one_before_and_then_the_one_before_that(world: World) -> None:
    files = [world.merge(world.release(v)) for v in (1, 2, 3)]
    assert world.plan().former.content == files[1]
    world.merge(world.plan().target)
    # Not back to the third, which was abandoned, however new it is.
    assert world.plan().former.content == files[0]
    world.merge(world.plan().target)
    with pytest.raises(BadInput, match=r"no other release of toy before version 1\b"):
        world.plan()


def test_other_settings_of_the_same_release_are_not_another_release(world: World) -> None:
    first = world.merge(world.release(1))
    second = world.release(2)
    world.merge(second)
    world.merge(second.model_copy(update={"rollout": release.Rollout(replicas=3)}))
    assert world.plan().former.content == first


def sized(found: Release, memory: str) -> Release:
    rollout = release.Rollout(resources=release.Resources(memory=memory))
    return found.model_copy(update={"rollout": rollout})


def test_settings_go_back_and_the_release_stays(world: World) -> None:
    world.merge(world.release(1))
    second = world.release(2)
    files = [world.merge(sized(second, memory)) for memory in ("512Mi", "768Mi", "64Mi")]
    plan = world.plan(settings=True)
    assert plan.former.content == files[1]
    assert plan.title == "Roll back toy in prod to the settings that it had of 2"
    assert "Instead of version 2 with other settings" in plan.body
    world.merge(plan.target)
    # Not to those that were gone back from.
    assert world.plan(settings=True).former.content == files[0]
    world.merge(world.plan(settings=True).target)
    with pytest.raises(BadInput, match=r"no other settings .* of version 2\n.*--to VERSION"):
        world.plan(settings=True)
    # Without it, the release before; by its name, this one as it is.
    assert world.plan().target.version == 1
    assert world.plan(2).target == world.plan(2).present


def test_there_are_no_settings_of_what_is_not_there(world: World) -> None:
    world.merge(world.release(1))
    world.merge(None)
    with pytest.raises(BadInput, match="no other settings"):
        world.plan(settings=True)


def test_evidence_made_anew_is_no_other_setting(world: World) -> None:
    first = world.release(1)
    world.merge(sized(first, "768Mi"))
    world.merge(first)
    anew = first.evidence.model_copy(update={"summary": {"brier": 0.1}})
    world.merge(first.model_copy(update={"evidence": anew}))
    assert world.plan(settings=True).target == sized(first, "768Mi")


def test_a_named_version_is_its_newest_file_byte_for_byte(world: World) -> None:
    world.merge(world.release(1))
    # Written by hand, as a person may: what comes back is what stood, comments and all.
    by_hand = release.dumps(world.release(1)).encode() + b"# approved by the night shift\n"
    world.forge.write("main", {PATH: by_hand}, "A comment")
    for version in (2, 3):
        world.merge(world.release(version))
    assert world.plan(1).former.content == by_hand
    with pytest.raises(BadInput, match=r"version 7 of toy never stood in prod.*\n.*one of 3, 2, 1"):
        world.plan(7)


def test_what_stood_only_on_a_branch_never_was_a_release(world: World) -> None:
    first = world.merge(world.release(1))
    for version in (2, 3):
        content = release.dumps(world.release(version)).encode()
        world.forge.write("twice", {PATH: content}, f"Release {version}")
    world.forge.merge(world.forge.open("twice", "Release", "").number)
    assert world.plan().former.content == first
    with pytest.raises(BadInput, match="version 2 of toy never stood"):
        world.plan(2)


def test_a_removed_model_comes_back(world: World) -> None:
    first = world.merge(world.release(1))
    world.merge(None)
    plan = world.plan()
    assert (plan.former.content, plan.present) == (first, None)


def test_a_broken_present_file_is_no_obstacle_and_a_broken_former_one_is_named(
    world: World,
) -> None:
    first = world.merge(world.release(1))
    world.forge.write("main", {PATH: b"model: toy\n<<<<<<<\n"}, "A conflict, committed")
    assert world.plan().former.content == first
    world.merge(world.release(2))
    with pytest.raises(BadInput, match=r"cannot be read: .*not YAML") as refused:
        world.plan()
    assert "name a version that can be: 2, 1" in str(refused.value)
    assert world.plan(1).former.content == first


def test_a_model_that_never_was_there(world: World) -> None:
    with pytest.raises(BadInput, match="toy was never released to prod"):
        world.plan()


# --- what is verified first ---------------------------------------------------------------------


def broken(kind: str, world: World, found: Release) -> str:
    """Breaks one thing in the store; what is said of it."""
    bento, proof = found.bento.digest, found.evidence.digest
    if kind == "no bento":
        del world.store.content["bentos", bento]
        return f"{bento.removeprefix('sha256:')}: no such object"
    if kind == "altered bento":
        world.store.content["bentos", bento] = b"trojan"
        return "corrupt"
    if kind == "no evidence":
        del world.store.content["evidence", proof]
        return f"{proof.removeprefix('sha256:')}: no such object"
    world.store.content["evidence", proof] = b"{}"
    return "corrupt"


@pytest.mark.parametrize("kind", ["no bento", "altered bento", "no evidence", "altered evidence"])
def test_nothing_is_pushed_when_the_old_one_is_not_whole(world: World, kind: str) -> None:
    first = world.release(1)
    world.merge(first)
    world.merge(world.release(2))
    said, before = broken(kind, world, first), len(world.forge.asked)
    result = run()
    assert result.exit_code == 1
    assert "version 1 of toy cannot come back" in result.stderr
    assert said in result.stderr.replace("\n", "")
    assert len(world.forge.asked) == before


def test_evidence_that_a_stranger_signed_or_about_another_is_refused(world: World) -> None:
    unsigned = world.release(1)
    stranger = samples.Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    proof = samples.document(environment="prod", bento=unsigned.bento)
    forged = world.store.put("evidence", attestation.sign(proof, stranger))
    other = world.release(2).evidence
    cases = [(release.Evidence(digest=forged, summary=proof.summary()), "signed")]
    cases.append((other, "bento is"))
    for after, (evidence, said) in enumerate(cases, start=3):
        world.merge(unsigned.model_copy(update={"evidence": evidence}))
        world.merge(world.release(after))
        with pytest.raises(SlipwayError, match=said):
            rollback.verify(world.plan(), world.store, lambda: samples.KEYS)


# --- what is done -------------------------------------------------------------------------------


def test_from_broken_to_answering(world: World) -> None:
    first = world.merge(world.release(1))
    world.merge(world.release(2))
    world.asked.clear()
    result = run("-o", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["from"]["version"], found["to"]["version"]) == (2, 1)
    assert found["file"] == digests.of(first)
    assert found["merge"] == world.forge.commit()
    assert list(found["seconds"]) == ["verify", "propose", "gates", "merge", "answer"]
    assert world.forge.read(PATH) == first
    pull = world.forge.asked[-1]
    assert release.rolls_back(pull.head) == ("prod", "toy", 1)
    assert pull.title == "Roll back toy in prod to 1"
    assert pull.merged
    assert "answers after" in result.stderr
    # Again, by name: it is so already, and nothing is opened.
    result = run("--to", "1")
    assert result.exit_code == 0
    assert "version 1 is on main already" in result.stderr
    assert world.forge.asked[-1] == pull


def test_settings_are_put_back_and_not_said_to_answer(world: World) -> None:
    first = world.merge(world.release(1))
    world.merge(sized(world.release(1), "64Mi"))
    result = run("--settings")
    assert result.exit_code == 0, result.output
    assert "to former settings of version 1" in result.stderr
    assert world.forge.read(PATH) == first
    assert "slipway status says when it runs so" in result.stderr
    assert "answers after" not in result.stderr
    result = run("--settings", "--to", "1")
    assert (result.exit_code, "leave out --settings" in result.stderr) == (2, True)


def test_the_running_model_is_not_asked_before_the_merge(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.merge(world.release(1))
    world.merge(world.release(2))
    merge = world.forge.merge

    def merging(number: int, **options: Any) -> Any:
        assert not world.asked
        return merge(number, **options)

    monkeypatch.setattr(world.forge, "merge", merging)
    assert run("--no-wait").exit_code == 0
    assert not world.asked


def test_dry_run_shows_diff_and_verdict_and_pushes_nothing(world: World) -> None:
    world.merge(world.release(1))
    world.merge(world.release(2))
    folder = paths.REPOSITORY / "policies" / "promotion"
    policies = {f"policies/promotion/{f.name}": f.read_bytes() for f in folder.glob("*.yaml")}
    world.forge.write("main", policies, "Thresholds")
    before = (world.forge.commit(), len(world.forge.asked))
    result = run("--dry-run")
    assert result.exit_code == 0, result.output
    assert "-version: 2" in result.stdout
    assert "+version: 1" in result.stdout
    assert (world.forge.commit(), len(world.forge.asked)) == before


def test_gates_that_refuse_keep_it_open_and_a_second_try_takes_it_up(world: World) -> None:
    world.merge(world.release(1))
    world.merge(world.release(2))
    world.forge.verdict = "failure"
    result = run()
    assert result.exit_code == 1
    assert "the gates refuse pull request 3" in result.stderr
    pull = world.forge.pull(3)
    assert pull.state == "open"
    world.forge.set_status(pull.sha, "slipway/check", "success")
    assert run("--no-wait").exit_code == 0
    assert len(world.forge.asked) == 3
    assert world.forge.pull(3).merged


def test_a_store_that_is_down_while_the_gates_judge_refuses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They look again by themselves: going back waits for that, and for no longer than it may."""
    world.merge(world.release(1))
    world.merge(world.release(2))
    world.forge.verdict = "error"

    def time_passes(_: float) -> None:
        world.forge.set_status(world.forge.pull(3).sha, "slipway/check", "success")

    monkeypatch.setattr(merging.time, "sleep", time_passes)
    result = run("--no-wait")
    assert result.exit_code == 0, result.output
    assert "gates: error" in result.stderr
    assert world.forge.pull(3).merged


def test_one_that_would_conflict_begins_anew(world: World) -> None:
    world.merge(world.release(1))
    world.merge(world.release(2))
    world.forge.verdict = "failure"
    assert run().exit_code == 1
    world.forge.verdict = "success"
    world.merge(world.release(4))
    assert run("--to", "1", "--no-wait").exit_code == 0
    assert world.forge.pull(3).state == "closed"
    assert not world.forge.pull(3).merged
    assert world.forge.asked[-1].merged
    assert release.parse(world.forge.read(PATH), PATH).version == 1


def test_an_environment_that_does_not_take_it_is_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.merge(world.release(1))
    world.merge(world.release(2))
    world.answers = lambda: samples.digest("ff")

    def soon(*arguments: Any, **options: Any) -> None:
        raise SlipwayError("toy in prod does not answer")

    monkeypatch.setattr("slipway.serving.wait_until_answering", soon)
    result = run()
    assert result.exit_code == 1
    assert "does not answer" in result.stderr
    assert world.forge.asked[-1].merged
