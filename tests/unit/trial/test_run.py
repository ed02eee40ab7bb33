"""What a try does, does again, and does not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from slipway import attestation, digests, gates, paths, release
from slipway.errors import BadInput, SlipwayError
from slipway.release import Bento
from slipway.repository import Repository
from slipway.steps import attest
from slipway.steps.serving_only import SERVING
from slipway.trial import champion, history, run
from slipway.trial.blame import Failed
from slipway.trial.document import Trial
from slipway.trial.objects import Local
from slipway.trial.wish import Part, overridden
from tests import samples
from tests.unit.trial.conftest import FIXTURES, World

ALL = ["ingest", "validate", "train", "evaluate", "package"]
# A line of the valid training.py, and what is there in its place; beside it what is said of that.
INVALID = sorted((FIXTURES / "invalid").glob("*.replaced"))


@pytest.mark.usefixtures("quick")
def test_only_what_differs_is_done_again(world: World) -> None:
    first = world.attempt()
    assert world.done == ALL
    again = world.attempt(first)
    assert world.done == []
    assert again.bento == first.bento
    assert again.evaluation == first.evaluation
    world.attempt(parameters={"C": "0.01"})
    assert world.done == ["train", "evaluate", "package"]
    # What fit does is nothing to ingest and validate.
    world.replace("training.py", "LogisticRegression(**parameters)", "LogisticRegression(C=0.02)")
    world.attempt()
    assert world.done == ["train", "evaluate", "package"]
    world.replace("training.py", "y.mean()", "0.5")
    world.attempt()
    assert world.done == ["evaluate"]
    world.replace("service.py", "probability: float", "probability: float  # of above")
    world.attempt()
    assert world.done == ["package"]
    world.replace("training.py", "ROWS = 1200", "ROWS = 1100")
    world.attempt()
    assert world.done == ALL
    world.attempt(fresh=True)
    assert world.done == ALL


@pytest.mark.usefixtures("quick")
def test_what_ingest_imports_is_ingests(world: World) -> None:
    world.attempt()
    world.replace("shapes.py", "x / 2", "x / 3")
    world.attempt()
    assert world.done[0] == "ingest"


@pytest.mark.usefixtures("quick")
def test_a_part_claims_no_gate(world: World) -> None:
    whole = world.attempt()
    trial = world.attempt(part=Part(rows=100))
    assert trial.part == "100 of 2,400 rows"
    assert trial.findings == []
    assert trial.exit_code == 0
    assert "no gate is claimed" in trial.headline
    assert trial.bento != whole.bento
    assert world.attempt(part=Part(share=0.1)).part == "240 of 2,400 rows"
    # More than there is are all.
    assert world.attempt(part=Part(rows=5000)).bento == whole.bento


@pytest.mark.usefixtures("quick")
def test_gates_are_judged_as_far_as_is_known(world: World) -> None:
    trial = world.attempt()
    states = {finding.rule: finding.state for finding in trial.findings}
    assert states.keys() >= {"evidence", "latency", "size", "calibration", "approvals"}
    unknown = {rule for rule, state in states.items() if state == "unknown"}
    # Nobody is there who knows what dev serves.
    assert {"evidence", "fresh", "approvals", "latency", "non_inferior", "signature"} <= unknown
    assert states["calibration"] == "pass"
    assert trial.champion is None
    assert "whether dev serves one is not known" in trial.champion_unknown
    assert trial.exit_code == 0


@pytest.mark.usefixtures("quick")
def test_a_gate_that_refuses_is_a_failure(world: World) -> None:
    world.replace("training.py", "1 / (1 +", "0.7 + 0.3 / (1 +")
    trial = world.attempt()
    assert trial.exit_code == 1
    assert "1 of" in trial.headline
    assert "calibration" in trial.headline


@pytest.mark.usefixtures("quick")
def test_the_last_try_is_what_there_is_to_compare_with(world: World) -> None:
    first = world.attempt()
    second = world.attempt(first, parameters={"C": "0.0001"})
    assert second.before
    assert second.before.bento == first.bento.digest
    gains = {t.metric: t.difference for t in second.before.tests if not t.column}
    assert gains["brier"].high < 0
    assert {t.value for t in second.before.tests if t.column} == {"odd", "even"}
    # Nothing has changed: there is nothing to test.
    assert world.attempt(second, parameters={"C": "0.0001"}).before == second.as_before()


@pytest.mark.slow
def test_the_champion_is_what_a_try_is_compared_with(world: World) -> None:
    """By its signed evidence, on the same holdout and, by its code, on another one."""
    first = world.attempt(serve=True)
    assert first.serving
    assert first.serving.compared == 200
    _released(world, first)
    second = world.attempt(first)
    assert second.is_champion
    assert {f.state for f in second.findings if f.rule == "non_inferior"} == {"pass"}
    worse = world.attempt(second, parameters={"C": "0.0001"})
    assert worse.champion
    assert worse.champion.version == 1
    assert worse.exit_code == 1
    assert "non_inferior" in worse.headline
    assert {f.state for f in worse.findings if f.rule == "latency"} == {"unknown"}
    world.replace("model.yaml", "holdout: [c]", "holdout: [d]")
    other = world.attempt()
    assert other.is_champion
    assert other.champion
    assert other.comparison
    mine, theirs = other.evaluation.metrics["brier"], other.champion.metrics["brier"]
    assert mine.value == theirs.value, "the champion's code and files answered on this holdout"


def _released(world: World, trial: Trial) -> None:
    """Puts what was tried on main, as the platform would have."""
    objects = Local(world.home / "objects")
    policy = gates.load_policy(gates.reader(paths.REPOSITORY), "dev", "tiny")
    assert trial.serving
    document = attest.write(
        objects,
        policy=policy,
        challenger=trial.evaluation,
        serving=trial.serving,
        dependencies=run.dependencies.collect(SERVING),
        version=1,
        bento=Bento(**trial.bento.model_dump()),
        runtime=release.Runtime(image=samples.IMAGE),
        champion=None,
        champion_predictions="",
        now=run.datetime.now(run.UTC),
    )
    digest = world.source.objects.put("evidence", attestation.sign(document, samples.KEY))
    pins = samples.released(document, digest)
    path = str(release.path("dev", "tiny"))
    world.forge.write("main", {path: release.dumps(pins).encode()}, "Release tiny 1 to dev")


@pytest.mark.usefixtures("quick")
def test_a_champion_without_evidence_is_said(world: World) -> None:
    first = world.attempt()
    path = str(release.path("dev", "tiny"))
    pins = samples.released(model="tiny")
    world.forge.write("main", {path: release.dumps(pins).encode()}, "Release tiny")
    trial = world.attempt(first)
    assert "the evidence of version" in trial.champion_unknown
    assert {f.state for f in trial.findings if f.rule == "non_inferior"} == {"unknown"}
    assert trial.exit_code == 0


@pytest.mark.usefixtures("quick")
def test_what_is_known_of_releases_without_a_platform(world: World) -> None:
    def known() -> str:
        with Repository(world.forge.folder) as repository:
            found = champion.find(repository, world.connect, world.source, "tiny", "dev")
        return found.unknown or found.note

    assert known() == "whether dev serves one is not known"
    # A clone has what its forge had.
    git = f"--git-dir={world.forge.folder}"
    subprocess.run(["git", git, "update-ref", "refs/remotes/origin/main", "main"], check=True)
    assert known().startswith("as refs/remotes/origin/main of this clone has it, not the forge")
    # Or the platform's was fetched while it ran.
    path = str(release.path("dev", "tiny"))
    content = release.dumps(samples.released(model="tiny")).encode()
    world.forge.write("forge", {path: content}, "Release tiny")
    subprocess.run(["git", git, "update-ref", "refs/slipway/main", "forge"], check=True)
    assert "the evidence of version" in known()
    # A release that is wrong is not none.
    world.forge.write("main", {path: b"model: tiny"}, "Spoil it")
    subprocess.run(["git", git, "update-ref", "-d", "refs/remotes/origin/main"], check=True)
    assert "what dev serves is not known" in known()


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("case", INVALID, ids=lambda p: p.stem)
def test_what_is_wrong_is_named(world: World, case: Path) -> None:
    world.replace("training.py", *case.read_text().splitlines())
    code, *said = case.with_suffix(".expected").read_text().splitlines()
    code, first = code.split(" ", 1)
    with pytest.raises(SlipwayError) as raised:
        world.attempt()
    for words in (first, *said):
        assert words in str(raised.value)
    assert raised.value.exit_code == int(code)


@pytest.mark.usefixtures("quick")
def test_a_failure_keeps_what_was_done(world: World) -> None:
    world.replace("training.py", "return LogisticRegression", "print(1 / 0) or LogisticRegression")
    with pytest.raises(Failed, match="ZeroDivisionError"):
        world.attempt()
    world.replace("training.py", "print(1 / 0) or LogisticRegression", "return LogisticRegression")
    world.attempt()
    assert world.done == ["train", "evaluate", "package"]


def test_an_error_of_ours_stays_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(run.ingest, "parts", fails)
    with pytest.raises(KeyError, match="ours"):
        world.attempt()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_itr": "3"}, r"--param: model.yaml has no parameter 'max_itr'\n.*'max_iter'"),
        ({"max_iter": "2.5"}, r"--param max_iter: '2.5' is not a whole number\n.*has 100"),
        ({"C": "much"}, "'much' is not a number"),
        ({"C": "inf"}, "'inf' is not a number"),
        ({"fit_intercept": "no"}, "'no' is not true or false"),
    ],
)
def test_parameters_that_are_none(world: World, given: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        overridden(world.folder(), given)


def test_parameters_have_the_types_of_model_yaml(world: World) -> None:
    given = {"C": "1e-3", "max_iter": "7", "fit_intercept": "false", "solver": "1"}
    folder, changed = overridden(world.folder(), given)
    wanted = {"C": 0.001, "max_iter": 7, "fit_intercept": False, "solver": "1"}
    assert folder.config.parameters == changed == wanted
    assert overridden(world.folder(), {"max_iter": "100"})[1] == {}


@pytest.mark.parametrize(
    ("rows", "share", "said"), [(1, 0.5, "both"), (0, None, "--rows"), (None, 1.0, "--sample")]
)
def test_parts_that_are_none(rows: int | None, share: float | None, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Part(rows, share)


# --- what stays -------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_tries_are_kept_and_the_oldest_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEPT", 2)
    trial = world.attempt()
    for second in range(3):
        created = f"2026-01-01T00:00:0{second}Z"
        history.keep(world.home, trial.model_copy(update={"created": created}))
    kept = history.newest(world.home, "tiny")
    assert [k.created[-3:-1] for k in kept] == ["02", "01"]
    assert kept[0].model_copy(update={"created": trial.created}) == trial
    (world.home / "results" / "tiny" / "9.json").write_text("{}")
    assert len(history.newest(world.home, "tiny")) == 2
    assert history.newest(world.home, "other") == []


def test_tries_change_nothing_of_the_folder(world: World, quick: None) -> None:
    def content() -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in Path(world.path).iterdir() if p.is_file()}

    before = content()
    world.attempt(parameters={"C": "2.0"})
    assert digests.of_files(content()) == digests.of_files(before)
