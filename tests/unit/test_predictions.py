"""The prediction log, its labels, and what soak makes of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from slipway import predictions, soak
from slipway.errors import BadInput
from slipway.predictions import Label
from slipway.store import Corrupt, Store
from slipway.tasks import TaskName

FIXTURES = Path(__file__).parents[1] / "fixtures" / "labels"
BENTO, FORMER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 2, 1, tzinfo=UTC)


class Objects(Store):
    """A store in memory that remembers what was read."""

    def __init__(self) -> None:
        self.content: dict[tuple[str, str], bytes] = {}
        self.read_keys: list[str] = []

    def names(self, bucket: Any, prefix: str) -> list[str]:
        return sorted(key for b, key in self.content if b == bucket and key.startswith(prefix))

    def read(self, bucket: Any, key: str) -> bytes:
        self.read_keys.append(key)
        return self.content[bucket, key]

    def write(self, bucket: Any, key: str, data: bytes) -> None:
        self.content[bucket, key] = data


def identity(second: float, salt: int = 0) -> str:
    milliseconds = int((START + timedelta(seconds=second)).timestamp() * 1000)
    return f"{milliseconds:012x}{salt:016x}"


def entry(second: float, *values: Any, salt: int = 0) -> dict[str, Any]:
    """A line as bentos write it."""
    time = (START + timedelta(seconds=second)).isoformat(timespec="milliseconds")
    made: dict[str, Any] = {"time": time.replace("+00:00", "Z"), "id": identity(second, salt)}
    made |= {"bento": BENTO, "path": "/predict", "status": 200 if values else 400}
    return made | ({"prediction": list(values)} if values else {})


def segment(
    store: Objects,
    *entries: dict[str, Any],
    pod: str = "toy-1",
    bento: str = BENTO,
    env: str = "dev",
) -> str:
    """Stores a segment as ship_predictions.py does."""
    first = datetime.fromisoformat(entries[0]["time"]).strftime("%Y%m%dT%H%M%S")
    count = sum(len(e.get("prediction", ())) for e in entries)
    key = f"{env}/toy/{bento[7:]}/{first}-{pod}-{count}.jsonl"
    lines = [json.dumps(e, separators=(",", ":")) for e in entries]
    store.write("predictions", key, "".join(f"{line}\n" for line in lines).encode())
    return key


@pytest.fixture
def store() -> Objects:
    return Objects()


def label(second: float, outcome: int, *, of: str = "", salt: int = 0, day: int = 1) -> Label:
    return Label(identity(second, salt) + of, outcome, f"2026-01-{day:02}T00:00:00.000+00:00")


def test_nothing_served_is_nothing(store: Objects) -> None:
    assert soak.measure(store, "dev", "toy", BENTO) == soak.Soak((), 0, 0, None)


def test_soak_counts_what_this_bento_served_in_this_environment(store: Objects) -> None:
    segment(store, entry(-60))  # refused, and no more
    segment(store, entry(0.25, 0.9), entry(5, 0.1), entry(6))
    segment(store, entry(12, 0.5, 0.7), pod="toy-2")
    segment(store, entry(30.5, 0.5), bento=FORMER)
    segment(store, entry(40.5, 0.5), env="staging")
    predictions.write_labels(
        store, "dev", "toy", [label(0.25, 1), label(12, 0, of=".1"), label(5, 1)]
    )
    found = soak.measure(store, "dev", "toy", BENTO)
    assert found.times == (START, START + timedelta(seconds=12))
    assert (found.predictions, found.labelled) == (4, 3)
    assert found.squared_error == pytest.approx((0.1**2 + 0.7**2 + 0.9**2) / 3)


def test_the_latest_label_counts(store: Objects) -> None:
    segment(store, entry(0, 0.9))
    predictions.write_labels(store, "dev", "toy", [label(0, 0, day=2)])
    predictions.write_labels(store, "dev", "toy", [label(0, 1, day=3), label(1, 1)])
    predictions.write_labels(store, "dev", "toy", [label(0, 0, day=1)])
    found = soak.measure(store, "dev", "toy", BENTO)
    assert found.labelled == 1
    assert found.squared_error == pytest.approx(0.01)


def test_one_prediction_is_one_row_whichever_of_its_names_is_used(store: Objects) -> None:
    segment(store, entry(0, 0.9))
    predictions.write_labels(store, "dev", "toy", [label(0, 1), label(0, 1, of=".0")])
    assert soak.measure(store, "dev", "toy", BENTO).labelled == 1


def test_an_item_of_a_batch_is_labelled_by_its_number(store: Objects) -> None:
    segment(store, entry(0, 0.9, 0.8))
    predictions.write_labels(store, "dev", "toy", [label(0, 1), label(0, 1, of=".2")])
    assert soak.measure(store, "dev", "toy", BENTO).labelled == 0


def test_lines_that_are_no_predictions_are_left_out(store: Objects) -> None:
    none = (float("nan"), float("inf"), 10**400, "many", None)
    key = segment(store, entry(0, 0.9), *(entry(1, 0.5, value) for value in none))
    store.content["predictions", key] += b'{"id": "cut o\n\xff\xff\n{"id": 3}\n'
    found = predictions.segments(store, "dev", "toy", BENTO)
    assert [p.id for p in predictions.read(store, found[0])] == [identity(0)]


def test_only_what_can_hold_a_label_is_read(store: Objects) -> None:
    """A day of three replicas; labels of one minute of it."""
    for pod in ("toy-1", "toy-2", "toy-3"):
        for start in range(0, 86_400, 60):
            segment(store, entry(start, 0.5, salt=hash(pod) % 2**32), pod=pod)
    predictions.write_labels(store, "dev", "toy", [label(36_000, 1, salt=hash("toy-2") % 2**32)])
    found = soak.measure(store, "dev", "toy", BENTO)
    assert (found.predictions, found.labelled) == (3 * 1440, 1)
    logs = [key for key in store.read_keys if key.count("/") == 3]
    # Each replica's at that minute, and the one before for its clock.
    assert len(logs) <= 3 * 2


def test_a_replica_that_ships_late_is_found(store: Objects) -> None:
    """A segment holds everything from its first line on: the store was away for an hour."""
    segment(store, *(entry(second, 0.5, salt=second) for second in range(0, 3600, 600)))
    predictions.write_labels(store, "dev", "toy", [label(3000, 1, salt=3000)])
    assert soak.measure(store, "dev", "toy", BENTO).labelled == 1


def test_labels_that_are_none_are_named(store: Objects) -> None:
    segment(store, entry(0, 0.9))
    store.write("labels", "dev/toy/x.jsonl", b"[]\n")
    with pytest.raises(Corrupt, match=r"s3://labels/dev/toy/x\.jsonl: not labels"):
        soak.measure(store, "dev", "toy", BENTO)


def test_known_ids(store: Objects) -> None:
    segment(store, entry(0, 0.9), entry(1, 0.1, 0.2))
    log = predictions.segments(store, "dev", "toy")
    ids = [identity(0), identity(0) + ".0", identity(1) + ".1", identity(1), identity(9)]
    assert predictions.known(store, log, ids) == set(ids[:3])


def _task(file: Path) -> TaskName:
    return "regression" if "regression" in file.parts else "classification"


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("**/valid/*")), ids=lambda f: f.name)
def test_labels_are_read(file: Path) -> None:
    found = {one.id: one.outcome for one in predictions.parse_labels(file, NOW, _task(file))}
    second = -12.5 if _task(file) == "regression" else 0
    assert found == {"01a209ebcfc70630eadcd0023bbc": 1, "01a209ebd010984d2f3b0fdfc658.0": second}


@pytest.mark.parametrize(
    "file",
    [f for f in sorted(FIXTURES.glob("**/invalid/*")) if f.suffix != ".expected"],
    ids=lambda f: f.name,
)
def test_wrong_labels_are_refused_line_by_line(file: Path) -> None:
    with pytest.raises(BadInput) as refused:
        predictions.parse_labels(file, NOW, _task(file))
    assert file.with_suffix(".expected").read_text().strip() in str(refused.value)
    assert file.name in str(refused.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        predictions.parse_labels(tmp_path / "labels.csv", NOW, "classification")
