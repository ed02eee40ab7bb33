"""The steps on a small sample, against the real store and the real MLflow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from slipway import bento, digests, evidence, paths
from slipway.bento import Folder
from slipway.errors import BadInput
from slipway.evidence import Evaluation
from slipway.forge import NotFound
from slipway.release import parse
from slipway.steps import (
    dataset,
    evaluate,
    ingest,
    package,
    propose,
    tracking,
    train,
    validate,
)
from slipway.steps.__main__ import TRANSIENT, main
from slipway.store import Corrupt, Store

COMMIT = "c" * 40
IMAGE = "localhost:5000/slipway/serving@sha256:" + "d" * 64


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """flight_delay on 250 flights a month and with few trees, so that a test takes seconds."""
    path = tmp_path_factory.mktemp("bentos") / "flight_delay"
    path.mkdir()
    real = bento.BENTOS / "flight_delay"
    for source in [*real.glob("*.py"), real / "example.json", real / "README.md"]:
        (path / source.name).write_bytes(source.read_bytes())
    settings = (real / "model.yaml").read_text()
    for old, new in (
        ("max_iter: 300", "max_iter: 20"),
        ("min_samples_leaf: 200", "min_samples_leaf: 20"),
        ("minimum_rows_per_partition: 20000", "minimum_rows_per_partition: 200"),
    ):
        assert old in settings
        settings = settings.replace(old, new)
    (path / "model.yaml").write_text(settings)
    code = (path / "training.py").read_text()
    old = 'yield f"2013-{month:02}", rows[list(SCHEMA.columns)].reset_index(drop=True)'
    assert old in code
    new = old.replace("rows[list", "rows.iloc[::100][list")
    (path / "training.py").write_text(code.replace(old, new))
    return bento.load(path)


@pytest.fixture(scope="session")
def data(folder: Folder, minio: Path) -> str:
    return ingest.run(folder)["data"]


@pytest.fixture(scope="session")
def trained(folder: Folder, data: str, mlflow_server: str) -> dict[str, str]:
    return train.run(folder, data, COMMIT)


def test_ingest_again_gives_the_same_digest_and_sends_nothing(
    folder: Folder, data: str, minio: Path
) -> None:
    def written() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in (minio / "data").rglob("xl.meta")}

    before = written()
    assert ingest.run(folder)["data"] == data
    assert written() == before


def test_a_corrupt_partition_is_named(folder: Folder, data: str, store: Store) -> None:
    partition = dataset.manifest(store, data).partitions[3]
    key, right = partition.digest.replace(":", "/"), store.get("data", partition.digest)
    store._s3.put_object(Bucket="data", Key=key, Body=right[:-8] + b"12345678")
    with pytest.raises(Corrupt, match=key):
        validate.run(folder, data)
    ingest.run(folder)
    assert validate.run(folder, data) == {"data": data}


def test_invalid_data_is_a_table_of_violations(
    folder: Folder, data: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = dataset.manifest(store, data)
    names = [p.name for p in manifest.partitions]
    rows = dataset.read(store, manifest, names)
    rows.loc[:4, "origin"] = "XXX"
    rows["temperature_f"] = float("nan")
    monkeypatch.setattr(dataset, "read", lambda *_: rows)
    with pytest.raises(validate.InvalidData) as raised:
        validate.run(folder, data)
    message = str(raised.value)
    assert "origin" in message
    assert "XXX" in message
    assert "at most 5.0% missing" in message
    assert "100.0%" in message


def test_an_unknown_partition_in_the_split_is_named(store: Store, data: str) -> None:
    manifest = dataset.manifest(store, data)
    with pytest.raises(BadInput, match=r"model.yaml: split: no partition 2014-01"):
        dataset.read(store, manifest, ["2014-01"])


@pytest.mark.slow
def test_the_same_inputs_are_not_trained_twice(
    folder: Folder, data: str, trained: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "_train", None)
    assert train.run(folder, data, "e" * 40) == trained


@pytest.mark.slow
def test_training_is_logged(folder: Folder, data: str, trained: dict[str, str]) -> None:
    mlflow = tracking.client()
    run = mlflow.get_run(trained["run"])
    assert run.data.params["max_iter"] == "20"
    assert run.data.tags["mlflow.source.git.commit"] == COMMIT
    assert run.inputs.dataset_inputs[0].dataset.digest == data[7:][:36]
    version = mlflow.get_model_version("flight_delay", trained["version"])
    assert version.tags[tracking.MODEL] == trained["model-digest"]
    logged = mlflow.get_run(trained["run"]).outputs.model_outputs
    assert [output.model_id for output in logged] == [run.data.tags[tracking.LOGGED]]
    model = mlflow.get_logged_model(logged[0].model_id)
    assert str(version.source) == str(model.artifact_location)


@pytest.mark.slow
def test_training_twice_gives_the_same_model(folder: Folder, data: str, store: Store) -> None:
    """In two processes, with other hash seeds and numbers of threads."""
    manifest = dataset.manifest(store, data)
    rows = dataset.read(store, manifest, folder.config.split.train)
    program = (
        "import sys, pathlib; from slipway import bento, digests; from slipway.steps import train\n"
        "import pandas as pd; folder = bento.load(pathlib.Path(sys.argv[1]))\n"
        "training = folder.training(); rows = pd.read_pickle(sys.argv[2])\n"
        "x, y, _ = train.known(training, rows)\n"
        "model = training.fit(x, y, folder.config.parameters)\n"
        "print(digests.of_files(training.export(model)))"
    )
    pickle = folder.path.parent / "rows.pickle"
    rows.to_pickle(pickle)
    found = [
        subprocess.check_output(
            [sys.executable, "-c", program, str(folder.path), str(pickle)],
            env=os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": seed},
            cwd=paths.REPOSITORY,
            text=True,
        )
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]
    assert found[0].startswith("sha256:")


@pytest.fixture(scope="session")
def packaged(folder: Folder, data: str, trained: dict[str, str]) -> dict[str, str]:
    model, run = trained["model-digest"], trained["run"]
    evaluation = evaluate.run(folder, data, COMMIT, model, run)["evaluation"]
    found = evidence.loads(Evaluation, Store().get("evidence", evaluation), "")
    assert set(found.metrics) == set(evaluate.METRICS)
    assert "origin" in {s.column for s in found.slices}  # carriers here are too few to say
    assert tracking.client().get_run(run).data.metrics["holdout_roc_auc"] > 0.5
    return package.run(folder, evaluation)


@pytest.mark.slow
def test_the_bento_is_the_same_bytes_each_time(
    folder: Folder, trained: dict[str, str], packaged: dict[str, str], store: Store
) -> None:
    again = package.build(folder, store.get_files("bentos", trained["model-digest"]))
    assert digests.of(again) == packaged["bento"]


@pytest.mark.slow
def test_the_version_names_bento_and_evidence(packaged: dict[str, str], store: Store) -> None:
    version = tracking.client().get_model_version("flight_delay", packaged["version"])
    assert version.tags[tracking.BENTO] == packaged["bento"]
    assert version.tags[tracking.EVIDENCE] == packaged["evidence"]
    evidence.check_about(propose.read(store, packaged["evidence"]), packaged["bento"])


class FakeForge:
    """Remembers; slipway.forge has the tests of the real one."""

    def __init__(self) -> None:
        self.main: dict[str, bytes] = {}
        self.opened: dict[str, Any] = {}
        self.written: dict[str, Any] = {}

    def read(self, path: str, ref: str = "main") -> bytes:
        if path not in self.main:
            raise NotFound(path)
        return self.main[path]

    def write(self, branch: str, files: dict[str, bytes], message: str) -> str:
        self.written[branch] = files
        return "f" * 40

    def open(self, head: str, title: str, body: str) -> Any:
        self.opened[head] = (title, body)
        return type("Pull", (), {"url": f"http://forge/{head}"})


@pytest.mark.slow
def test_a_release_is_proposed_once(packaged: dict[str, str], store: Store) -> None:
    document, forge = propose.read(store, packaged["evidence"]), FakeForge()
    arguments: Any = (forge, document, packaged["evidence"], 3, "dev", IMAGE)
    url = propose.propose(*arguments)
    assert propose.propose(*arguments) == url
    assert list(forge.opened) == ["release/flight_delay-3"]
    path = "environments/dev/models/flight_delay.yaml"
    content = forge.written["release/flight_delay-3"][path]
    release = parse(content, path)
    assert release.bento.digest == packaged["bento"]
    assert release.evidence.summary["roc_auc"] > 0.5
    body = forge.opened["release/flight_delay-3"][1]
    assert packaged["evidence"] in body
    assert "Brier skill over base_rate" in body
    forge.main[path] = content
    assert propose.propose(*arguments) == ""


def test_a_step_writes_its_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Folder, data: str
) -> None:
    monkeypatch.setattr(bento, "find", lambda _: folder)
    command = ["validate", "--model", "flight_delay", "--data", data, "--output-dir"]
    assert main([*command, str(tmp_path)]) == 0
    assert (tmp_path / "data").read_text() == data


def test_exit_codes_tell_a_retry_from_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--data", "sha256:" + "0" * 64, "--output-dir", str(tmp_path)]
    assert main(["validate", "--model", "nothing", *command]) == 2
    assert "no such bento folder" in capsys.readouterr().err
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert main(["validate", "--model", "flight_delay", *command]) == TRANSIENT
