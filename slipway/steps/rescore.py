"""Rescore: what the champion answers on the challenger's holdout, so that the two are paired."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from slipway import attestation, comparison, contract, evidence, store
from slipway.digests import Digest
from slipway.errors import SlipwayError
from slipway.evidence import Evaluation, Evidence
from slipway.forge import from_environment
from slipway.steps import champion, dataset, predictions
from slipway.store import Store
from slipway.tasks import TaskName

if TYPE_CHECKING:
    import pandas as pd

    from slipway.bento import Array

SECONDS = 600
# Where `package` puts the model's files inside the bento.
MODEL = "src/model/"
# What a data scientist's code is given of the environment: nothing that opens a door.
HARMLESS = ("PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR", "OMP_NUM_THREADS")
# Runs in the champion's bento folder, where its modules find each other by bare name.
#
# Of the same user, it could read the environment of this step, and of what started the container,
# in /proc. Who lives by Landlock's rules may look at no process outside of them; those here forbid
# block devices, and with them come no renames to another folder. A kernel without Landlock goes
# without.
PREDICT = """
import ctypes, pathlib, sys
libc, rules = ctypes.CDLL(None), ctypes.c_uint64(1 << 11)
ruleset = libc.syscall(444, ctypes.byref(rules), 8, 0)
if ruleset >= 0:
    libc.prctl(38, 1, 0, 0, 0)
    libc.syscall(446, ruleset, 0)
import numpy, pandas, training
rows, model, answer = map(pathlib.Path, sys.argv[1:])
files = {p.relative_to(model).as_posix(): p.read_bytes() for p in model.rglob("*") if p.is_file()}
found = training.predict(files, training.features(pandas.read_pickle(rows)))
numpy.save(answer, numpy.asarray(found, dtype=numpy.float64))
"""


def run(model: str, environment: str, evaluation: Digest) -> dict[str, str]:
    """Outputs `champion`, the digest of its evidence, and `champion-predictions`, in the store.

    Both are empty where the environment has no champion.
    """
    objects = Store()
    found = champion.find(
        objects, attestation.keys_from_environment(environment), model, environment
    )
    if found is None:
        print(f"no champion: {environment} serves no {model}")
        return {"champion": "", "champion-predictions": ""}
    answers = predicted(objects, found.evidence, evaluation)
    return {"champion": found.release.evidence.digest, "champion-predictions": answers}


# A model and a commit to the files of its bento folder there.
CodeAt = Callable[[str, str], dict[str, bytes]]


def from_forge(model: str, commit: str) -> dict[str, bytes]:
    """The bento folder at a commit, by the forge of the environment's variables."""
    with from_environment() as forge:
        return source(forge.archive(commit), model, commit)


def predicted(
    objects: Store, champion: Evidence, evaluation: Digest, code_at: CodeAt = from_forge
) -> Digest:
    """The champion's predictions for the rows that an evaluation is of."""
    ours = evidence.loads(
        Evaluation, objects.get("evidence", evaluation), store.uri("evidence", evaluation)
    )
    theirs, model = champion.evaluation, champion.evaluation.model
    comparison.check_task(ours, theirs)
    if theirs.holdout.digest == ours.holdout.digest and objects.has("evidence", theirs.predictions):
        print("the champion was evaluated on the same holdout")
        return theirs.predictions
    table = predictions.get(objects, ours.predictions, ours.task)
    manifest = dataset.manifest(objects, ours.data.digest)
    rows = dataset.read(objects, manifest, ours.holdout.partitions).iloc[table["row"]]
    bento = store.untar(objects.get("bentos", champion.bento.digest))
    files = {n.removeprefix(MODEL): data for n, data in bento.items() if n.startswith(MODEL)}
    found = predict(code_at(model, theirs.code), files, model, rows, ours.task)
    print(f"the champion's code of {theirs.code[:12]} answered for {len(found):,} rows")
    return predictions.put(objects, table.assign(prediction=found))


def source(archive: Iterable[bytes], model: str, commit: str) -> dict[str, bytes]:
    """The files of the bento folder in a repository's .tar.gz, by their path within the folder."""
    found: dict[str, bytes] = {}
    for name, content in store.untar(b"".join(archive)).items():
        parts = PurePosixPath(name).parts  # the forge puts all of it into one folder
        if parts[1:3] == ("bentos", model) and ".." not in parts:
            found["/".join(parts[3:])] = content
    if "training.py" not in found:
        raise SlipwayError(
            f"commit {commit} has no bentos/{model}/training.py, which trained the champion",
            fix="see that the release file names the commit that trained it",
        )
    return found


def predict(
    code: dict[str, bytes],
    files: dict[str, bytes],
    model: str,
    rows: pd.DataFrame,
    task: TaskName,
) -> Array:
    """Answers of shape (rows,) by other code, in a process of its own without credentials.

    Raises:
        SlipwayError: it fails, takes too long, or answers something else.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder, weights = Path(scratch, "bento"), Path(scratch, "model")
        for base, contents in ((folder, code), (weights, files)):
            for name, content in contents.items():
                (base / name).parent.mkdir(parents=True, exist_ok=True)
                (base / name).write_bytes(content)
        table, answer = Path(scratch, "rows.pickle"), Path(scratch, "answer.npy")
        rows.to_pickle(table)
        environment = {name: os.environ[name] for name in HARMLESS if name in os.environ}
        try:
            done = subprocess.run(
                [sys.executable, "-c", PREDICT, str(table), str(weights), str(answer)],
                env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
            problem = done.stderr[-2000:] if done.returncode else ""
        except subprocess.TimeoutExpired:
            problem = f"no answer after {SECONDS} s"
        found: Any = None
        if not problem:
            found = np.load(io.BytesIO(answer.read_bytes()), allow_pickle=False)
            if found.shape != (len(rows),) or not contract.fits(task, found):
                problem = f"not {len(rows)} {contract.ANSWERS[task]}: shape {found.shape}"
    if problem:
        raise SlipwayError(
            f"the champion of {model} cannot be asked about the challenger's holdout:\n{problem}",
            fix="ingest must keep the columns that the champion's features read for as long as an "
            "environment runs it",
        )
    return found
