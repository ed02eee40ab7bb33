"""Rescore: what the champion answers on the challenger's holdout, so that the two are paired."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from slipway import evidence, store
from slipway.digests import Digest
from slipway.errors import BadInput, SlipwayError
from slipway.evidence import Evaluation, Evidence
from slipway.forge import Gitea
from slipway.steps import dataset, predictions
from slipway.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from slipway.bento import Array

SECONDS = 600
# Where `package` puts the model's files inside the bento.
MODEL = "src/model/"
# What a data scientist's code is given of the environment: nothing that opens a door.
HARMLESS = ("PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR", "OMP_NUM_THREADS")
# Runs in the champion's bento folder, where its modules find each other by bare name.
PREDICT = """
import pathlib, sys
import numpy, pandas, training
rows, model, answer = map(pathlib.Path, sys.argv[1:])
files = {p.relative_to(model).as_posix(): p.read_bytes() for p in model.rglob("*") if p.is_file()}
found = training.predict(files, training.features(pandas.read_pickle(rows)))
numpy.save(answer, numpy.asarray(found, dtype=numpy.float64))
"""


def run(model: str, evaluation: Digest, champion: Digest) -> dict[str, str]:
    """Outputs `champion-predictions`, a digest in bucket evidence; empty without a champion.

    `champion` is the digest of the champion's evidence, or empty. What it says is not verified
    here, for nothing here is signed: `attest` verifies it.
    """
    if not champion:
        print("no champion")
        return {"champion-predictions": ""}
    objects = Store()
    ours = evidence.loads(
        Evaluation, objects.get("evidence", evaluation), store.uri("evidence", evaluation)
    )
    document = read_unverified(objects, champion)
    theirs = document.evaluation
    if theirs.holdout.digest == ours.holdout.digest and objects.has("evidence", theirs.predictions):
        print("the champion was evaluated on the same holdout")
        return {"champion-predictions": theirs.predictions}
    table = predictions.get(objects, ours.predictions)
    manifest = dataset.manifest(objects, ours.data.digest)
    rows = dataset.read(objects, manifest, ours.holdout.partitions).iloc[table["row"]]
    bento = store.untar(objects.get("bentos", document.bento.digest))
    files = {n.removeprefix(MODEL): data for n, data in bento.items() if n.startswith(MODEL)}
    with Gitea.from_environment() as forge:
        code = source(forge.archive(theirs.code), model, theirs.code)
    found = predict(code, files, model, rows)
    print(f"the champion's code of {theirs.code[:12]} answered for {len(found):,} rows")
    return {"champion-predictions": predictions.put(objects, table.assign(probability=found))}


def read_unverified(objects: Store, digest: Digest) -> Evidence:
    """The evidence in an envelope, whoever signed it."""
    name, envelope = store.uri("evidence", digest), objects.get("evidence", digest)
    try:
        predicate = json.loads(base64.b64decode(json.loads(envelope)["payload"]))["predicate"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"not an envelope of evidence: {error}", file=name) from None
    return evidence.loads(Evidence, json.dumps(predicate).encode(), name)


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
    code: dict[str, bytes], files: dict[str, bytes], model: str, rows: pd.DataFrame
) -> Array:
    """Probabilities of shape (rows,) by other code, in a process of its own without credentials.

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
            if found.shape != (len(rows),) or not ((found >= 0) & (found <= 1)).all():
                problem = f"not {len(rows)} probabilities but an array of shape {found.shape}"
    if problem:
        raise SlipwayError(
            f"the champion of {model} cannot be asked about the challenger's holdout:\n{problem}",
            fix="ingest must keep the columns that the champion's features read for as long as an "
            "environment runs it",
        )
    return found
