"""What models really predicted, and how it turned out: the prediction log and its labels.

A replica ships its log in segments, `<env>/<model>/<bento>/<time>-<pod>-<n>.jsonl` in the bucket
predictions: the time of the first line and the number of predictions, so that a listing counts
them. Labels are `<env>/<model>/<sha256>.jsonl` in the bucket labels, which no model may write. A
prediction's id begins with its time, which leads from a label to the segments that can hold it.
"""

from __future__ import annotations

import bisect
import csv
import io
import json
import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from slipway import digests
from slipway.digests import Digest
from slipway.errors import BadInput
from slipway.store import Corrupt, Store
from slipway.tasks import TaskName

_KEY = re.compile(r".*/([0-9a-f]{64})/(\d{8}T\d{6})-(.+)-(\d+)\.jsonl")
_ID = re.compile(r"([0-9a-f]{12})[0-9a-f]{16}(?:\.(0|[1-9]\d{0,3}))?")
_OUTCOMES = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0}
# Workers of a replica write each their own lines, and names of segments are of whole seconds.
_SLACK = timedelta(seconds=5)
_READERS = 16
_SHOWN = 10


@dataclass(frozen=True)
class Segment:
    """A piece of one replica's log. `first` is when its first prediction was made."""

    key: str
    bento: Digest
    first: datetime
    pod: str
    predictions: int


@dataclass(frozen=True)
class Label:
    """What came true of one prediction, as a number; of several labels the latest counts.

    `id` is the response's `x-slipway-prediction`; the n-th of a batch, from 0, is `<id>.<n>`.
    """

    id: str
    outcome: float
    time: str


@dataclass(frozen=True)
class Prediction:
    """One answered request: a number for each of its items. `time` is ISO 8601, UTC."""

    id: str
    time: datetime
    values: tuple[float, ...]

    def named(self) -> Iterator[tuple[str, float]]:
        """Each number by the id that its label has."""
        for index, value in enumerate(self.values):
            yield f"{self.id}.{index}", value
        if len(self.values) == 1:
            yield self.id, self.values[0]


def segments(store: Store, env: str, model: str, bento: Digest | None = None) -> list[Segment]:
    """The log of a model in an environment, oldest first; of one bento if given."""
    prefix = f"{env}/{model}/" + (f"{bento.removeprefix('sha256:')}/" if bento else "")
    found = [_segment(key) for key in store.names("predictions", prefix)]
    return sorted((s for s in found if s), key=lambda s: (s.first, s.key))


def _segment(key: str) -> Segment | None:
    named = _KEY.fullmatch(key)
    if not named:
        return None
    digits, when, pod, count = named.groups()
    first = datetime.strptime(when, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return Segment(key, f"sha256:{digits}", first, pod, int(count))


def read(store: Store, segment: Segment, ids: Collection[str] | None = None) -> list[Prediction]:
    """A segment's predictions; only those whose ids are in `ids`, if given.

    Lines that are no predictions (refused requests, a line cut off by a full disk) are left out.
    """
    found: list[Prediction] = []
    for line in store.read("predictions", segment.key).splitlines():
        if (
            ids is not None
            and line.partition(b'"id":"')[2][:28].decode("ascii", "replace") not in ids
        ):
            continue
        try:
            entry = json.loads(line)
            made = Prediction(
                entry["id"],
                datetime.fromisoformat(entry["time"]),
                tuple(map(float, entry["prediction"])),
            )
        except (ValueError, KeyError, TypeError, OverflowError):
            continue
        if all(map(math.isfinite, made.values)):
            found.append(made)
    return found


def outcomes(
    store: Store, of: Iterable[Segment], labels: Mapping[str, Label]
) -> dict[str, tuple[float, float]]:
    """Label id to prediction and outcome, for every label whose prediction is in `of`.

    Reads those segments alone that can hold one.
    """
    ids = {label.partition(".")[0] for label in labels}
    wanted = holding(of, ids)
    joined: dict[str, tuple[float, float]] = {}
    for made in _each(store, wanted, ids):
        for name, value in made.named():
            if label := labels.get(name):
                # One prediction is one row, by whichever of its two names it is labelled.
                row = name if len(made.values) > 1 else made.id
                joined[row] = (value, label.outcome)
    return joined


def known(store: Store, of: Iterable[Segment], ids: Iterable[str]) -> set[str]:
    """Those of the label ids whose predictions are in `of`."""
    asked = set(ids)
    bare = {one.partition(".")[0] for one in asked}
    names = {name for made in _each(store, holding(of, bare), bare) for name, _ in made.named()}
    return asked & names


def holding(of: Iterable[Segment], ids: Iterable[str]) -> list[Segment]:
    """The segments that were being written when predictions with these ids were made."""
    times = sorted({_made(one) for one in ids})
    by_replica: dict[tuple[str, str], list[Segment]] = defaultdict(list)
    for segment in sorted(of, key=lambda s: s.first):
        by_replica[segment.bento, segment.pod].append(segment)
    held: list[Segment] = []
    for row in by_replica.values():
        ends = [s.first for s in row[1:]] + [datetime.max.replace(tzinfo=UTC) - _SLACK]
        for segment, end in zip(row, ends, strict=True):
            at = bisect.bisect_left(times, segment.first - _SLACK)
            if at < len(times) and times[at] <= end + _SLACK:
                held.append(segment)
    return held


def _made(identity: str) -> datetime:
    return datetime.fromtimestamp(int(identity[:12], 16) / 1000, UTC)


def _each(store: Store, of: list[Segment], ids: Collection[str]) -> Iterator[Prediction]:
    def one(segment: Segment) -> list[Prediction]:
        return read(store, segment, ids)

    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        for found in pool.map(one, of):
            yield from found


def read_labels(store: Store, env: str, model: str) -> dict[str, Label]:
    """Every label of a model in an environment, the latest of each id."""

    def one(key: str) -> list[Label]:
        try:
            return [Label(**json.loads(line)) for line in store.read("labels", key).splitlines()]
        except (ValueError, TypeError) as error:
            raise Corrupt(f"s3://labels/{key}: not labels: {error}", fix="delete it") from None

    found: dict[str, Label] = {}
    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        for labels in pool.map(one, store.names("labels", f"{env}/{model}/")):
            for label in labels:
                if label.id not in found or found[label.id].time <= label.time:
                    found[label.id] = label
    return found


def write_labels(store: Store, env: str, model: str, labels: Collection[Label]) -> str:
    """Stores labels as one object; gives its URI."""
    data = b"".join(digests.canonical_json(vars(label)) + b"\n" for label in labels)
    key = f"{env}/{model}/{digests.of(data).removeprefix('sha256:')}.jsonl"
    store.write("labels", key, data)
    return f"s3://labels/{key}"


def parse_labels(file: Path, now: datetime, task: TaskName) -> list[Label]:
    """Labels from a CSV file with the columns `id` and `outcome`, or JSON lines with these keys.

    Outcomes are 0 or 1 for classification, and any finite number for regression.

    Raises:
        BadInput: not such a file; names every wrong line, up to ten.
    """
    readers = {".csv": _from_csv, ".jsonl": _from_json}
    reader = readers.get(file.suffix)
    if reader is None:
        raise BadInput("its name ends with neither .csv nor .jsonl", file=file, field="--file")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", file=file) from None
    except UnicodeDecodeError as error:
        raise BadInput(f"not UTF-8: {error.reason}", file=file) from None
    time = now.astimezone(UTC).isoformat(timespec="milliseconds")
    found: dict[str, Label] = {}
    wrong: list[str] = []
    for number, row in reader(text, file):
        try:
            label = _label(row, time, task)
            if label.id in found and found[label.id] != label:
                raise ValueError(f"{label.id} stands there already, with another outcome")
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
        else:
            found[label.id] = label
    if wrong:
        more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        raise BadInput("\n  ".join(["wrong labels:", *wrong[:_SHOWN], *more]), file=file)
    if not found:
        raise BadInput("no labels in it", file=file)
    return list(found.values())


Row = Mapping[Any, Any]


def _from_csv(text: str, file: Path) -> Iterator[tuple[int, Row | str]]:
    rows = csv.DictReader(io.StringIO(text))
    missing = {"id", "outcome"} - set(rows.fieldnames or [])
    if missing:
        fix = "begin the file with the line: id,outcome"
        raise BadInput(f"no column {' and no column '.join(sorted(missing))}", file=file, fix=fix)
    for row in rows:
        yield rows.line_num, row


def _from_json(text: str, file: Path) -> Iterator[tuple[int, Row | str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            yield number, f"not JSON: {error}"
        else:
            yield number, cast("Row", row) if isinstance(row, dict) else "not a JSON object"


def _label(row: Row | str, time: str, task: TaskName) -> Label:
    if isinstance(row, str):
        raise ValueError(row)
    if unknown := sorted(str(key) for key in row.keys() - {"id", "outcome"}):
        raise ValueError(f"more than id and outcome: {', '.join(unknown)}")
    identity, outcome = str(row.get("id", "")).strip(), str(row.get("outcome", "")).strip().lower()
    if not _ID.fullmatch(identity):
        raise ValueError(
            f"{identity!r} is not a prediction's id: 28 hex digits, as in x-slipway-prediction, "
            "and .0, .1, … for the items of a batch"
        )
    return Label(identity, _outcome(outcome, task), time)


def _outcome(text: str, task: TaskName) -> float:
    if task == "classification":
        if text not in _OUTCOMES:
            raise ValueError(f"outcome {text!r} is neither 0 nor 1")
        return _OUTCOMES[text]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"outcome {text!r} is no number")
    return value
