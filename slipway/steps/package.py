"""Package: the evaluated model files and the service as one bento, equal inputs in equal bytes.

The bento is served here once, so that its evidence says what it costs to run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from slipway import contract, dependencies, digests, evidence, store
from slipway.bento import Folder
from slipway.digests import Digest
from slipway.errors import SlipwayError
from slipway.evidence import Evaluation, Serving
from slipway.steps import dataset, measure, predictions, serving_only, tracking
from slipway.steps.measure import Question
from slipway.store import Store

LOCK = serving_only.SERVING
# Holdout rows that the bento is asked about. Its answers are those evaluated but for rounding, in
# probabilities or in the outcome's deviations.
QUESTIONS = 200
TOLERANCE = 1e-4
# Any date will do, as long as it is always the same.
EPOCH = "1980-01-01T00:00:00+00:00"


def run(folder: Folder, evaluation: Digest) -> dict[str, str]:
    """Outputs the digests `bento`, `serving` and `dependencies`, `bento-size` and `version`.

    `bento-size` is in bytes, `version` MLflow's of the registered model.
    """
    objects, name = Store(), folder.config.name
    found = evidence.loads(
        Evaluation, objects.get("evidence", evaluation), store.uri("evidence", evaluation)
    )
    bundle = build(folder, objects.get_files("bentos", found.model_digest))
    digest = objects.put("bentos", bundle)
    mlflow = tracking.client()
    version = tracking.version(mlflow, name, found.model_digest)
    if version is None:
        raise SlipwayError(
            f"MLflow has no version of {name} with model digest {found.model_digest}",
            fix="run the train step again, which registers it",
        )
    mlflow.set_model_version_tag(name, str(version), tracking.BENTO, digest)
    print(f"bento of {len(bundle):,} bytes at {store.uri('bentos', digest)}")
    served = measured(folder, objects, found, bundle)
    print(
        f"ready in {served.start_seconds:.1f} s, p50 {served.latency_p50_ms:.1f} ms, "
        f"p99 {served.latency_p99_ms:.1f} ms, {served.memory_mib:.0f} MiB"
    )
    if served.compared:
        print(f"{served.compared} answers are those that were evaluated")
    else:
        print("answers not compared with those evaluated: training.py has no requests()")
    locked = dependencies.collect(LOCK)
    print(f"{len(locked.packages)} dependencies")
    return {
        "bento": digest,
        "bento-size": str(len(bundle)),
        "serving": objects.put("evidence", evidence.dumps(served)),
        "dependencies": objects.put("evidence", evidence.dumps(locked)),
        "version": str(version),
    }


def measured(folder: Folder, objects: Store, found: Evaluation, bundle: bytes) -> Serving:
    """What the bento costs to run, once its answers are found to be those evaluated."""
    return measure.measure(
        bundle,
        (folder.path / "example.json").read_bytes(),
        questions(folder, objects, found),
        TOLERANCE * max(1, found.holdout.deviation),
    )


def questions(folder: Folder, objects: Store, found: Evaluation) -> list[Question]:
    """Rows of the holdout, from all of it, as requests, and what `predict` answered; [] where
    training.py has no `requests`."""
    table = predictions.get(objects, found.predictions, found.task)
    some = table.iloc[np.linspace(0, len(table) - 1, min(QUESTIONS, len(table))).astype(int)]
    manifest = dataset.manifest(objects, found.data.digest)
    rows = dataset.read(objects, manifest, found.holdout.partitions).iloc[some["row"]]
    bodies = contract.bodies(folder.training(), rows.reset_index(drop=True))
    if bodies is None:
        return []
    return [Question(*pair) for pair in zip(bodies, some["prediction"].tolist(), strict=True)]


def build(folder: Folder, model: Mapping[str, bytes]) -> bytes:
    """The bento as a tar: `bento.yaml` at its root, the service and `model/` under `src/`."""
    with tempfile.TemporaryDirectory() as scratch:
        context, home = Path(scratch, "context"), Path(scratch, "home")
        (context / "model").mkdir(parents=True)
        for name, source in folder.served.items():
            shutil.copy(source, context / name)
        for name, content in model.items():
            file = context / "model" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        pins = [line.removesuffix(" \\") for line in LOCK.read_text().splitlines() if "==" in line]
        (context / "requirements.txt").write_text("".join(f"{pin}\n" for pin in pins))
        contents = {
            p.relative_to(context).as_posix(): p.read_bytes()
            for p in context.rglob("*")
            if p.is_file()
        }
        # BentoML's own version names the content too, instead of the moment of the build.
        version = digests.of_files(contents).removeprefix("sha256:")[:16]
        bentofile = {
            "service": folder.config.service,
            "name": folder.config.name,
            "include": sorted(contents),
            "python": {"requirements_txt": "requirements.txt", "lock_packages": False},
        }
        (context / "bentofile.yaml").write_text(yaml.safe_dump(bentofile))
        _bentoml_build(context, home, version)
        made = home / "bentos" / folder.config.name / version
        description = made / "bento.yaml"
        text, times = re.subn(
            r"^creation_time: .*$",
            f"creation_time: '{EPOCH}'",
            description.read_text(),
            flags=re.MULTILINE,
        )
        if times != 1:
            raise SlipwayError(f"{description.name} has {times} creation times, expected one")
        description.write_text(text)
        return store.tar_folder(made)


def _bentoml_build(context: Path, home: Path, version: str) -> None:
    environment = os.environ | {
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        "PYTHONDONTWRITEBYTECODE": "1",
        **serving_only.environment(file.name for file in context.glob("*.py")),
    }
    # A process of its own: BentoML imports the service, and its modules are called as training's.
    command = [sys.executable, "-m", "bentoml", "build", "--version", version, str(context)]
    done = subprocess.run(
        command, env=environment, cwd=context, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr or done.stdout
        raise serving_only.missing(said) or SlipwayError(
            f"bentoml build failed\n{said[-3000:]}",
            fix="see that service.py can be imported with requirements/serving.txt alone",
        )
