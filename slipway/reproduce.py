"""Reproduction: a release made once more from its pins, and the first thing that differs, if any.

The workflow `reproduce` trains on the release's data with the release's code and packages; it knows
nothing else of the release. Here its digests are compared with the pins, in the order in which one
follows from another, so that the first difference is the cause. It takes the data from their source
once more, too: what that gives by now is told, and is no difference.
"""

from __future__ import annotations

import difflib
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slipway import bento, digests, store, training
from slipway.endpoints import part
from slipway.errors import SlipwayError
from slipway.evidence import Evidence
from slipway.forge import NotFound
from slipway.lineage import code_at
from slipway.release import Release
from slipway.steps import tracking
from slipway.store import StoreError

if TYPE_CHECKING:
    from slipway.endpoints import Cluster
    from slipway.forge import Forge
    from slipway.lineage import MLflow
    from slipway.store import Store
    from slipway.training import Workflow

TEMPLATE = "reproduce"
# Of a difference in text a reader wants its beginning.
LINES = 40


@dataclass(frozen=True)
class Difference:
    """The first thing that is not as it was. `detail`: several lines of explanation, or ""."""

    what: str
    released: str
    found: str
    detail: str = ""


@dataclass(frozen=True)
class Pins:
    """What a release was made of and came to; `image`, of the run, is "" where nothing tells."""

    data: str
    image: str
    code: str
    model: str
    bento: str


def begin(cluster: Cluster, pins: Release, environment: str, image: str) -> tuple[Workflow, bool]:
    """The workflow that makes the release once more, in `image`, and whether it is a new one."""
    labels = {"model": pins.model, "reproduces": environment, "commit": pins.code.commit}
    running = next((w for w in training.newest(cluster, labels) if not w.ended), None)
    if running:
        return running, False
    values = {"model": pins.model, "commit": pins.code.commit, "data": pins.data.digest}
    return training.submit(cluster, TEMPLATE, values | {"image": image}, labels), True


def image_for(pins: Pins, present: str) -> str:
    """What to train in: the image that it was trained in, where the platform has that still.

    Args:
        present: what the platform trains in now. Of another name no image is let in: `slipway up`
            somewhere else has made it.
    """
    same = pins.image.partition("@")[0] == present.partition("@")[0]
    return pins.image if same else present


def pins_of(forge: Forge, mlflow: MLflow, pins: Release, document: Evidence) -> Pins:
    """The digests to compare with: the release's, its verified evidence's, its code's.

    Raises:
        SlipwayError: the forge has lost its commit.
    """
    return Pins(
        data=pins.data.digest,
        image=_image(mlflow, pins),
        code=code_at(forge, pins.model, pins.code.commit),
        model=document.evaluation.model_digest,
        bento=pins.bento.digest,
    )


def _image(mlflow: MLflow, pins: Release) -> str:
    """The image that the run says it was trained in. It explains; it need not be there."""
    try:
        run = mlflow.get("runs/get", run_id=pins.mlflow.run)
    except SlipwayError:
        return ""
    tags = part(run, "run", "data", "tags") or []
    return next((str(tag["value"]) for tag in tags if tag["key"] == tracking.IMAGE), "")


def outcome(cluster: Cluster, workflow: Workflow) -> Mapping[str, str]:
    """The digests `code`, `model-digest` and `bento` that it came to, and the source's `data`.

    Raises:
        SlipwayError: a step failed; the message has the end of its log.
    """
    if workflow.phase != training.SUCCEEDED:
        raise SlipwayError(
            training.failure(cluster, workflow),
            fix="a commit from before a step was changed may not run in today's workflow; its own "
            "is workflows/ at that commit",
        )
    return workflow.outputs


def first_difference(
    pins: Pins, found: Mapping[str, str], image: str, forge: Forge, commit: str, objects: Store
) -> Difference | None:
    """Why it is not the same bento; None where it is, whatever else differs.

    Args:
        image: what it was trained in this time.
        commit: of the release; its libraries are compared with main's where images differ.
    """
    if found["bento"] == pins.bento:
        return None
    if found["code"] != pins.code:
        return Difference("code", pins.code, found["code"])
    # Equal code and data in another image: that is the cause, or there is none to be seen.
    if pins.image and image != pins.image:
        return Difference("training image", pins.image, image, _libraries(forge, commit))
    if found["model-digest"] != pins.model:
        detail = _objects(objects, pins.model, found["model-digest"])
        return Difference("model files", pins.model, found["model-digest"], detail)
    detail = _objects(objects, pins.bento, found["bento"])
    return Difference("bento", pins.bento, found["bento"], detail)


def source(pins: Pins, found: Mapping[str, str], objects: Store) -> str:
    """What the data's source gives by now, if not what the release was made of; "" if that."""
    now = found.get("data")
    if not now:
        return "the source of the data did not give them again: see the log of the step ingest"
    if now == pins.data:
        return ""
    return f"the source of the data gives others by now:\n{_partitions(objects, pins.data, now)}"


def _partitions(objects: Store, old: str, new: str) -> str:
    from slipway.steps import dataset

    try:
        sides = [dataset.manifest(objects, digest) for digest in (old, new)]
    except SlipwayError as error:
        return f"cannot be compared: {error}"
    theirs, ours = ({p.name: p for p in side.partitions} for side in sides)
    lines: list[str] = []
    for name in sorted(theirs.keys() | ours.keys()):
        before, after = theirs.get(name), ours.get(name)
        if before != after:
            rows = [f"{p.rows:,} rows" if p else "not there" for p in (before, after)]
            lines.append(f"partition {name}: {rows[0]}, now {rows[1]}")
    return _short(lines)


def _libraries(forge: Forge, commit: str) -> str:
    """The lock at the release's commit against main's, which today's image was built from."""
    path = bento.LOCK.relative_to(bento.BENTOS.parent).as_posix()
    try:
        before, after = (_pins(forge.read(path, ref)) for ref in (commit, "main"))
    except NotFound as error:
        return f"locks cannot be compared: {error}"
    lines = [
        f"{name} {before.get(name, '-')} -> {after.get(name, '-')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    return _short(lines) if lines else f"{path} is the same: another build of the same libraries"


def _pins(lock: bytes) -> dict[str, str]:
    named = (line.partition("==") for line in lock.decode().splitlines() if "==" in line)
    return {
        name.strip(): version.removesuffix("\\").strip()
        for name, _, version in named
        if not name.startswith(("#", " "))
    }


def _objects(objects: Store, old: str, new: str) -> str:
    """How two tars in bucket bentos differ: the first member that does."""
    try:
        before, after = (store.untar(objects.get("bentos", digest)) for digest in (old, new))
    except (StoreError, tarfile.TarError) as error:
        return f"cannot be compared: {error}"
    return _short(list(first_member(before, after)))


def first_member(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> Iterator[str]:
    """Lines about the first file, by name, that only one has or that differs between the two."""
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if old is None or new is None:
            yield f"{name}: {'only in the new one' if old is None else 'only in the released one'}"
            return
        try:
            text = (old.decode().splitlines(), new.decode().splitlines())
        except UnicodeDecodeError:
            at = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), None)
            where = "one is the beginning of the other" if at is None else f"from byte {at:,} on"
            yield f"{name}: {len(old):,} bytes {digests.of(old)[:19]}, {where}"
            yield f"{name}: {len(new):,} bytes {digests.of(new)[:19]}"
            return
        names = f"released/{name}", f"found/{name}"
        yield from difflib.unified_diff(text[0], text[1], *names, lineterm="")
        return
    yield "the same files, packed otherwise"


def _short(lines: list[str]) -> str:
    more = [f"… and {len(lines) - LINES} lines more"] if len(lines) > LINES else []
    return "\n".join([*lines[:LINES], *more])
