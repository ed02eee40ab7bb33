"""What people read of a try: complete, and with nothing in it that is somebody else's markup."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console, RenderableType

from slipway import evidence
from slipway.evidence import Estimate, Fairness
from slipway.gates import Finding
from slipway.trial import show
from slipway.trial.document import Before, Step, Trial, dump
from tests import samples
from tests.unit.check.place import of_champion, paired

BEFORE = Before(
    created="2026-01-01T10:00:00Z",
    bento=samples.digest("b0"),
    parameters={"max_iter": 200},
    metrics={"brier": Estimate(value=0.16, low=0.15, high=0.17)},
    part="5 of 10 rows",
    tests=[paired("brier", 0.01), paired("brier", -0.01, column="hour", value="<21>")],
)


def trial(**changes: Any) -> Trial:
    values: dict[str, Any] = {
        "created": "2026-01-01T12:00:00Z",
        "model": "toy",
        "environment": "dev",
        "changed": True,
        "libraries": "",
        "part": "",
        "overridden": {"max_iter": 300},
        "steps": [Step(name="train", seconds=1.5, again=False)],
        "bento": samples.bento(),
        "evaluation": samples.evaluation(
            fairness=[
                Fairness(
                    column="kind",
                    threshold=0.5,
                    differences={"demographic_parity": 0.123},
                    worst_group="odd",
                )
            ]
        ),
        "serving": samples.serving(),
        "champion": None,
        "champion_unknown": "",
        "comparison": None,
        "before": None,
        "findings": [Finding("calibration", "pass", "well"), Finding("soak", "unknown", "later")],
        "notes": ["a | note"],
    }
    return Trial(**values | changes)


def compared(**changes: Any) -> Trial:
    champion = of_champion(
        samples.released(version=7, bento=samples.bento("c0")), parameters={"max_iter": 100}
    )
    tests = [
        paired("brier", 0.004),
        *(paired("brier", -n / 1000, column="kind", value=str(n)) for n in range(1, 8)),
    ]
    comparison = evidence.Comparison(
        tests=tests, yardstick=[], signature=[], drift=[], dependencies=[]
    )
    return trial(**{"champion": champion, "comparison": comparison} | changes)


def plain(found: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(found)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_alone() -> None:
    for said in (plain(show.text(trial())), show.markdown(trial())):
        for words in (
            "toy at d4d4d4d4d4d4, with changes that no commit has",
            "instead of model.yaml's: max",
            samples.digest("be"),
            "makes the same bento",
            "champion: dev serves none",
            "0.1500 [0.1400, 0.1600]",
            "0.123",
            "not known here: later",
            "✅ 1 of 1 gates of dev would pass; 1 cannot be judged here",
        ):
            assert words in said.replace("\\", "")
    assert "a \\| note" in show.markdown(trial())


def test_against_the_champion() -> None:
    said = plain(show.text(compared(before=BEFORE.model_copy(update={"tests": []}))))
    for words in (
        *("champion (7)", "last try", "this try", "gain", "+0.0040"),
        "another than version 7, which dev serves",
        "slices worse than the champion: 7",
        "and 2 more",
        "The last try is of 2026-01-01T10:00:00Z, which learned from 5 of 10 rows",
        "Since then max_iter 200 → 300",
        "Against the champion max_iter 100 → 300",
    ):
        assert words in said
    assert "non-inferior" not in said
    text = show.markdown(compared())
    assert "| champion (7) | this try | gain | test |" in text
    assert "✅ non-inferior" in text
    assert "**7 of 7 slices got worse**" in text
    same = compared(bento=samples.bento("c0"))
    assert "the same as version 7" in plain(show.text(same))


def test_against_the_last_try() -> None:
    said = plain(show.text(trial(before=BEFORE)))
    assert "slices worse than the last try: 1" in said
    assert "hour <21>" in said
    assert "hour &lt;21&gt;" in show.markdown(trial(before=BEFORE))
    again = BEFORE.model_copy(update={"bento": samples.digest("be")})
    assert "it made this very bento" in plain(show.text(trial(before=again)))


def test_what_cannot_be_said() -> None:
    part = trial(part="5 of 10 rows", findings=[], serving=None)
    said = plain(show.text(part))
    assert "learned from 5 of 10 rows alone" in said
    assert "no gate is claimed to pass" in said
    assert "same bento" not in said
    assert "served" not in said.replace("dev serve", "")
    other = plain(show.text(trial(libraries="numpy 0.1 (locked: 2.0)")))
    assert "may make another bento of this: here numpy 0.1" in other
    unknown = trial(champion_unknown="version 1 is not to be had here")
    assert "champion: version 1 is not to be had" in plain(show.text(unknown))


def test_a_refusal() -> None:
    found = [Finding("slices", "fail", "worse", "look"), Finding("slices", "fail", "worse too")]
    refused = trial(findings=[*found, Finding("calibration", "pass", "well")])
    assert refused.exit_code == 1
    assert refused.headline == "❌ 1 of 2 gates of dev refuses: slices"
    assert "→ look" in plain(show.text(refused))
    assert dump(refused)["exit_code"] == 1


def test_history() -> None:
    said = plain(show.history([trial(), trial(part="5 of 10 rows", overridden={})]))
    assert "max_iter 300" in said
    assert "5 of 10 rows" in said
    assert "BRIER" in said
