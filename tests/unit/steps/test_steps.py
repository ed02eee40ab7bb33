"""The steps on a small sample, against the real store and the real MLflow."""

from __future__ import annotations

import contextlib
import ctypes
import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from slipway import attestation, bento, digests, evidence, interface, paths
from slipway.bento import Folder
from slipway.endpoints import Cluster, ClusterError
from slipway.errors import BadInput, SlipwayError
from slipway.evidence import Dependencies, Evaluation, Evidence, Serving
from slipway.release import Bento
from slipway.repository import Repository
from slipway.sources import Platform
from slipway.steps import (
    attest,
    dataset,
    evaluate,
    ingest,
    measure,
    package,
    predictions,
    rescore,
    serving_only,
    tracking,
    train,
    validate,
)
from slipway.steps.__main__ import TRANSIENT, main
from slipway.store import Corrupt, Missing, Store, StoreError, tar, untar, uri
from slipway.tasks import TASKS
from slipway.trial.run import Run, Surroundings
from slipway.trial.wish import Wish
from tests import samples
from tests.unit.steps.conftest import BUCKETS

COMMIT = "c" * 40


@pytest.fixture(scope="package")
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


@pytest.fixture(scope="package")
def data(folder: Folder, minio: Path) -> str:
    return ingest.run(folder)["data"]


@pytest.fixture(scope="package")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where steps find what evidence is verified with."""
    file = tmp_path_factory.mktemp("keys") / "public.pem"
    file.write_bytes(samples.public_pem())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIPWAY_EVIDENCE_KEYS", str(file))
        yield


@pytest.fixture(scope="package")
def trained(folder: Folder, data: str, mlflow_server: str, keys: None) -> dict[str, str]:
    return train.run(folder, data, COMMIT)


def test_ingest_again_gives_the_same_digest_and_sends_nothing(
    folder: Folder, data: str, minio: Path
) -> None:
    def written() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in (minio / f"{BUCKETS}data").rglob("xl.meta")}

    before = written()
    assert ingest.run(folder)["data"] == data
    assert written() == before


def test_a_corrupt_partition_is_named(folder: Folder, data: str, store: Store) -> None:
    partition = dataset.manifest(store, data).partitions[3]
    key, right = partition.digest.replace(":", "/"), store.get("data", partition.digest)
    store._s3.put_object(Bucket=f"{BUCKETS}data", Key=key, Body=right[:-8] + b"12345678")
    with pytest.raises(Corrupt, match=rf"partition {partition.name}: s3://data/{key}: corrupt"):
        validate.run(folder, data)
    store.put("data", right)
    assert validate.run(folder, data)["data"] == data


@pytest.mark.parametrize("kind", [Missing, Corrupt])
def test_whoever_reads_of_a_bad_partition_can_mend_it(
    kind: type[StoreError], monkeypatch: pytest.MonkeyPatch
) -> None:
    digests_ = [f"sha256:{digit * 64}" for digit in "ab"]
    document = dataset.Manifest(
        model="toy",
        partitions=[
            dataset.Partition(name=f"2013-0{n}", digest=digest, rows=1, size=1)
            for n, digest in enumerate(digests_, 1)
        ],
    )
    good = dataset.encode(pd.DataFrame({"a": [1]}))

    def get(_self: Store, _bucket: str, digest: str) -> bytes:
        if digest == digests_[0]:
            return good
        raise kind(f"s3://data/{digest[7:]}: bad", fix="as the store says")

    monkeypatch.setattr(Store, "get", get)
    assert len(dataset.read(Store(), document, ["2013-01"])) == 1
    with pytest.raises(kind) as raised:
        dataset.read(Store(), document, ["2013-01", "2013-02"])
    problem, fix = str(raised.value).splitlines()
    assert problem == f"toy, partition 2013-02: s3://data/{'b' * 64}: bad"
    assert "`slipway train toy`" in fix


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
def test_what_a_commit_has_trained_it_does_not_train_twice(
    folder: Folder,
    data: str,
    trained: dict[str, str],
    evaluated: str,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once there is signed evidence of it; another's word does not do."""
    monkeypatch.setattr(train, "_train", lambda *_: ("", "anew", ""))
    monkeypatch.setattr(tracking, "register", lambda *_: int(trained["version"]))
    assert train.run(folder, data, COMMIT)["run"] == "anew"
    found = evidence.loads(Evaluation, store.get("evidence", evaluated), "")
    document = samples.document(version=int(trained["version"]), evaluation=found)
    envelope = attestation.sign(document, samples.KEY)
    store.put("evidence", envelope)
    attest.record(tracking.client(), document, envelope)
    assert train.run(folder, data, COMMIT) == trained
    assert train.run(folder, data, "e" * 40)["run"] == "anew"


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
def test_training_twice_gives_the_same_model(
    folder: Folder, data: str, trained: dict[str, str], store: Store
) -> None:
    """Here and in another process, with another hash seed and number of threads."""
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
    threads = "2" if os.environ.get("OMP_NUM_THREADS") == "1" else "1"
    again = subprocess.check_output(
        [sys.executable, "-c", program, str(folder.path), str(pickle)],
        env=os.environ | {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": threads},
        cwd=paths.REPOSITORY,
        text=True,
    )
    here = store.get_files("bentos", trained["model-digest"])
    assert again.strip() == digests.of_files(here)


@pytest.fixture(scope="package")
def evaluated(folder: Folder, data: str, trained: dict[str, str]) -> str:
    validation = validate.run(folder, data)["validation"]
    model, run = trained["model-digest"], trained["run"]
    return evaluate.run(folder, data, COMMIT, model, run, validation)["evaluation"]


@pytest.fixture(scope="package")
def packaged(folder: Folder, evaluated: str) -> dict[str, str]:
    return package.run(folder, evaluated)


@pytest.mark.slow
def test_an_evaluation_says_it_all(
    folder: Folder, evaluated: str, trained: dict[str, str], store: Store
) -> None:
    found = evidence.loads(Evaluation, store.get("evidence", evaluated), "")
    assert set(found.metrics) == set(TASKS["classification"].metrics)
    logged = tracking.client().get_run(trained["run"]).data.metrics
    assert logged["holdout_roc_auc"] == found.metrics["roc_auc"].value > 0.5
    assert found.parameters["max_iter"] == 20
    assert found.data.train == folder.config.split.train
    assert set(found.by_period) == {"2013-11", "2013-12"}
    assert sum(b.rows for b in found.reliability) == found.holdout.rows
    assert list(found.holdout.outcomes) == found.holdout.partitions
    assert len(set(found.holdout.outcomes.values())) == 2
    assert (found.slice_columns, found.decision_threshold) == (folder.config.slices, 0.5)
    assert "origin" in {s.column for s in found.slices}  # carriers here are too few to say
    assert {f.column for f in found.fairness} <= {"origin", "carrier", "hour"}
    assert any(c.startswith("origin: ") and "EWR" in c for c in found.validation.checks)
    # The signature is that of MLflow: what may be missing in training may be missing later.
    inputs = {c.name: c for c in found.signature.inputs}
    assert inputs["carrier"].type == "string"
    assert inputs["carrier"].required
    assert not inputs["wind_gust_mph"].required
    (output,) = found.signature.outputs
    assert output.type == "float64(-1, 2)"


@pytest.mark.slow
def test_predictions_give_the_metrics_again(
    folder: Folder, evaluated: str, trained: dict[str, str], store: Store
) -> None:
    found = evidence.loads(Evaluation, store.get("evidence", evaluated), "")
    table = predictions.get(store, found.predictions, "classification")
    assert list(table) == [
        *("row", "outcome", "prediction", "slice:carrier", "slice:origin", "slice:hour"),
        *("period", "group"),
    ]
    assert len(table) == found.holdout.rows
    assert table["group"].nunique() == 61
    again = predictions.scores(table, "classification").metrics()
    assert {name: value[0] for name, value in again.items()} == pytest.approx(
        {name: e.value for name, e in found.metrics.items()}
    )
    manifest = dataset.manifest(store, found.data.digest)
    rows = dataset.read(store, manifest, found.holdout.partitions).iloc[table["row"]]
    late = folder.training().target(rows)
    assert (late == table["outcome"]).all()
    assert (rows["scheduled_departure"].dt.strftime("%H") == table["slice:hour"].to_numpy()).all()


@pytest.mark.slow
def test_the_holdout_is_named_by_its_rows_and_outcomes(data: str, store: Store) -> None:
    manifest = dataset.manifest(store, data)
    y = np.array([0.0, 1.0, np.nan])
    for task, other in (("classification", 1.0), ("regression", 0.5)):
        digest = partial(evaluate.holdout_digest, task, manifest)
        one = digest(["2013-11"], y)
        assert digest(["2013-11"], y.copy()) == one
        assert digest(["2013-12"], y) != one
        assert digest(["2013-11"], np.array([0.0, 1.0, other])) != one


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"slices": ["hours"]}, "model.yaml: slices: no column 'hours'(.|\n)*did you mean 'hour'"),
        ({"group": "dya"}, "model.yaml: group: no column 'dya'(.|\n)*did you mean 'day'"),
    ],
)
def test_an_unknown_column_is_named(
    folder: Folder, data: str, store: Store, changes: dict[str, Any], said: str
) -> None:
    other = Folder(folder.path, folder.config.model_copy(update=changes))
    rows = dataset.read(store, dataset.manifest(store, data), ["2013-11"])
    y = np.zeros(len(rows))
    with pytest.raises(BadInput, match=said):
        predictions.table(other, folder.training(), rows, np.repeat("x", len(rows)), y, y)


@pytest.mark.slow
def test_something_else_is_no_predictions_table(store: Store, data: str) -> None:
    other = store.put("evidence", b"{}")
    with pytest.raises(BadInput, match="not a predictions table"):
        predictions.get(store, other, "classification")
    rows = predictions.put(store, pd.DataFrame({"outcome": [1.0], "prediction": [1.5]}))
    with pytest.raises(BadInput, match="prediction: not probabilities"):
        predictions.get(store, rows, "classification")
    assert len(predictions.get(store, rows, "regression")) == 1
    rows = predictions.put(store, pd.DataFrame({"outcome": [1.0], "prediction": [np.inf]}))
    with pytest.raises(BadInput, match="prediction: not finite numbers"):
        predictions.get(store, rows, "regression")


@pytest.fixture
def champion(evaluated: str, packaged: dict[str, str], store: Store) -> Evidence:
    """The same model as champion, whose evaluation was on another holdout."""
    ours = evidence.loads(Evaluation, store.get("evidence", evaluated), "")
    other = ours.holdout.model_copy(update={"digest": samples.digest("aa")})
    digest, size = packaged["bento"], int(packaged["bento-size"])
    return samples.document(
        evaluation=ours.model_copy(update={"holdout": other}),
        bento=Bento(digest=digest, uri=uri("bentos", digest), size=size),
    )


@pytest.fixture
def forge(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A forge with the bento folder at every commit, to be changed by its path in the archive."""
    files = {
        f"slipway/bentos/flight_delay/{p.name}": p.read_bytes()
        for p in folder.path.iterdir()
        if p.is_file()
    }

    class Forge:
        def __enter__(self) -> Forge:
            return self

        def __exit__(self, *_: object) -> None: ...

        def archive(self, ref: str) -> Iterator[bytes]:
            assert ref == COMMIT
            yield gzip.compress(tar(files))

    monkeypatch.setattr(rescore, "from_environment", Forge)
    return files


def rescored(store: Store, evaluated: str, champion: Evidence) -> pd.DataFrame:
    answers = rescore.predicted(store, champion, evaluated)
    return predictions.get(store, answers, "classification")


@pytest.mark.slow
def test_the_champions_code_answers_on_our_holdout(
    store: Store, evaluated: str, champion: Evidence, forge: dict[str, bytes]
) -> None:
    ours = evidence.loads(Evaluation, store.get("evidence", evaluated), "")
    table = predictions.get(store, ours.predictions, "classification")
    # The same code and the same files: the same answers.
    pd.testing.assert_frame_equal(rescored(store, evaluated, champion), table)
    forge["slipway/bentos/flight_delay/training.py"] += (
        b"\nimport os\nassert not [name for name in os.environ if 'SECRET' in name], 'credentials'"
        b"\npredict = lambda files, x: np.full(len(x), len(files) / 4)\n"
    )
    assert set(rescored(store, evaluated, champion)["prediction"]) == {0.25}


@pytest.mark.slow
def test_on_the_same_holdout_nothing_is_asked(store: Store, evaluated: str) -> None:
    ours = evidence.loads(Evaluation, store.get("evidence", evaluated), "")
    found = rescore.predicted(store, samples.document(evaluation=ours), evaluated)
    assert found == ours.predictions


@pytest.mark.slow
def test_a_champion_whose_columns_are_gone_says_so(
    store: Store, evaluated: str, champion: Evidence, forge: dict[str, bytes]
) -> None:
    code = b"\nfeatures = lambda rows: rows['gone']\n"
    forge["slipway/bentos/flight_delay/training.py"] += code
    with pytest.raises(SlipwayError, match=r"KeyError(.|\n)*ingest must keep the columns"):
        rescore.predicted(store, champion, evaluated)


NOSY = """
import os, pathlib
import numpy
def features(rows):
    return rows
def predict(files, rows):
    read = []
    for process in (os.getpid(), os.getppid(), *map(int, os.environ["HOME"].split())):
        try:
            read.append(bool(pathlib.Path(f"/proc/{process}/environ").read_bytes()))
        except PermissionError:
            read.append(False)
    assert read == [True, False, False], read
    return numpy.full(2, 0.5)
"""


def test_the_champions_code_reads_nobody_s_environment() -> None:
    """Neither the step's, nor that of what started it: both are of its user."""
    libc = ctypes.CDLL(None)
    if libc.syscall(444, None, 0, 1) < 0:
        pytest.skip("a kernel without Landlock")

    def as_in_a_pod() -> None:
        for capability in range(64):
            libc.prctl(24, capability, 0, 0, 0)

    program = """
import sys, pandas
from slipway.steps import rescore
code = {"training.py": sys.argv[1].encode()}
rescore.predict(code, {}, "toy", pandas.DataFrame({"a": [1, 2]}), "classification")
"""
    with subprocess.Popen(["sleep", "60"], preexec_fn=as_in_a_pod) as started:
        done = subprocess.run(
            [sys.executable, "-c", program, NOSY],
            env={**os.environ, "HOME": str(started.pid)},
            preexec_fn=as_in_a_pod,
            capture_output=True,
            text=True,
        )
        started.kill()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("numpy.full(3, 0.5)", r"not 2 probabilities: shape \(3,\)"),
        ("numpy.full(2, 1.5)", "not 2 probabilities"),
        ("numpy.full(2, numpy.nan)", "not 2 probabilities"),
        ("numpy.full(2, numpy.inf)", "not 2 finite numbers"),
    ],
)
def test_an_answer_that_is_none_is_refused(answer: str, said: str) -> None:
    task = "regression" if "finite" in said else "classification"
    code = f"import numpy\nfeatures = list\npredict = lambda files, x: {answer}\n"
    rows = pd.DataFrame({"x": [1, 2]})
    with pytest.raises(SlipwayError, match=said):
        rescore.predict({"training.py": code.encode()}, {}, "toy", rows, task)


@pytest.mark.slow
def test_a_champion_whose_code_is_gone(
    store: Store, evaluated: str, champion: Evidence, forge: dict[str, bytes]
) -> None:
    del forge["slipway/bentos/flight_delay/training.py"]
    with pytest.raises(SlipwayError, match=f"commit {COMMIT} has no bentos/flight_delay"):
        rescore.predicted(store, champion, evaluated)


@pytest.mark.slow
def test_a_try_comes_to_what_the_steps_come_to(
    folder: Folder,
    data: str,
    evaluated: str,
    packaged: dict[str, str],
    store: Store,
    tmp_path: Path,
) -> None:
    """Without a store, MLflow or a forge."""

    def connect() -> Cluster:
        raise ClusterError("no cluster")

    with Repository(paths.REPOSITORY) as repository:
        around = Surroundings(
            repository,
            connect,
            Platform(connect),
            tmp_path,
            lambda _: contextlib.nullcontext(),
            lambda _: None,
        )
        trial, _ = Run(folder, Wish("dev", serve=False), around)()
    ours = evidence.loads(Evaluation, store.get("evidence", evaluated), "")
    assert trial.bento.digest == packaged["bento"]
    assert trial.evaluation.data.digest == data
    elsewhere = {"run": ours.run, "code": ours.code, "evaluated": ours.evaluated}
    assert trial.evaluation.model_copy(update=elsewhere) == ours


@pytest.mark.slow
def test_the_bento_is_the_same_bytes_each_time(
    folder: Folder, trained: dict[str, str], packaged: dict[str, str], store: Store
) -> None:
    again = package.build(folder, store.get_files("bentos", trained["model-digest"]))
    assert digests.of(again) == packaged["bento"]
    sources = {name.removeprefix("src/") for name in untar(again) if name.endswith(".py")}
    assert sources == {"service.py", "features.py", "envelope.py"}
    offered = interface.read(again, "")
    seats = offered["/predict flight.plane_seats"]
    assert (str(seats), seats.required) == ("number or null", True)
    assert str(offered["/predict_batch flights[].scheduled_departure"]) == "string date-time"
    assert {n for n in offered if n.startswith("output ")} == {
        *("output /predict", "output /predict probability_late"),
        *("output /predict_batch", "output /predict_batch []"),
        "output /predict_batch [].probability_late",
    }
    assert {name.split()[0] for name in offered} == {"/predict", "/predict_batch", "output"}


@pytest.mark.slow
def test_a_version_names_its_bento(packaged: dict[str, str]) -> None:
    version = tracking.client().get_model_version("flight_delay", packaged["version"])
    assert version.tags[tracking.BENTO] == packaged["bento"]


@pytest.mark.slow
def test_what_a_bento_costs_is_measured(packaged: dict[str, str], store: Store) -> None:
    served = evidence.loads(Serving, store.get("evidence", packaged["serving"]), "")
    assert 0 < served.latency_p50_ms <= served.latency_p99_ms < 1000
    assert 50 < served.memory_mib < 4000
    assert 0.5 < served.start_seconds < 60
    size = len(store.get("bentos", packaged["bento"]))
    assert served.bento_bytes == size == int(packaged["bento-size"])
    assert served.compared == package.QUESTIONS
    locked = evidence.loads(Dependencies, store.get("evidence", packaged["dependencies"]), "")
    assert "bentoml" in {p.name for p in locked.packages}
    assert locked.vulnerabilities == "not checked"


@pytest.mark.slow
def test_a_bento_that_refuses_its_example_has_no_latency(
    packaged: dict[str, str], store: Store
) -> None:
    bundle = store.get("bentos", packaged["bento"])
    with pytest.raises(SlipwayError, match=r"refuses its own example.json: 400(.|\n)*carrier"):
        measure.measure(bundle, b'{"flight": {}}')
    broken = tar(untar(bundle) | {"src/service.py": b"import nothing_of_that_name"})
    with pytest.raises(SlipwayError, match=r"does not become ready(.|\n)*nothing_of_that_name"):
        measure.measure(broken, b"{}")


@pytest.mark.slow
def test_what_pods_do_not_have_is_not_there_when_a_bento_is_made(
    packaged: dict[str, str], store: Store, folder: Folder, tmp_path: Path
) -> None:
    said = r"the service imports sklearn, which requirements/serving.txt does not lock"
    files = untar(store.get("bentos", packaged["bento"]))
    lazy = files["src/service.py"].replace(
        b"        return Prediction(", b"        import sklearn.base\n        return Prediction(", 1
    )
    assert lazy != files["src/service.py"]
    with pytest.raises(SlipwayError, match=said):
        measure.measure(tar(files | {"src/service.py": lazy}), files["src/example.json"])
    shutil.copytree(folder.path, tmp_path / "flight_delay")
    service = tmp_path / "flight_delay" / "service.py"
    service.write_text(
        "import sklearn.base\n"
        + service.read_text().replace("from __future__ import annotations", "")
    )
    with pytest.raises(SlipwayError, match=f"{said}(.|\n)*fix: lock it there"):
        package.build(bento.load(tmp_path / "flight_delay"), {"model.onnx": b""})


@pytest.mark.slow
def test_a_bento_that_answers_otherwise_than_evaluated_is_refused(
    folder: Folder, evaluated: str, packaged: dict[str, str], store: Store
) -> None:
    found = evidence.loads(Evaluation, store.get("evidence", evaluated), "")
    questions = package.questions(folder, store, found)
    files = untar(store.get("bentos", packaged["bento"]))
    service = files["src/service.py"].replace(b"[:, 1]", b"[:, 0]")
    assert service != files["src/service.py"]
    with pytest.raises(SlipwayError, match=r'otherwise(.|\n)*request: \{"flight": \{"carrier'):
        measure.measure(
            tar(files | {"src/service.py": service}), files["src/example.json"], questions, 1e-4
        )


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, b'{"probability": 0.7, "other": 0.3}'),
        (200, b'{"probability": 0.3002}'),
        (200, b'{"probability": NaN}'),
        (200, b'{"probability": null}'),
        (200, b"{}"),
        (200, b"0.3"),
        (200, b"no JSON"),
        (400, b'{"probability": 0.3}'),
    ],
)
def test_an_answer_is_compared_by_its_first_field(status: int, answer: bytes) -> None:
    asked: list[bytes] = []

    def post(body: bytes) -> tuple[int, bytes]:
        asked.append(body)
        return (200, b'{"p": 0.30005, "q": 9}') if body == b"1" else (status, answer)

    questions = [measure.Question(body, 0.3) for body in (b"1", b"2")]
    measure.compare(post, questions[:1], 1e-4)
    said = re.escape(f"request: 2\n  answer: {status} {answer.decode()}\n  expected: 0.3 ")
    with pytest.raises(SlipwayError, match=said):
        measure.compare(post, questions, 1e-4)
    assert asked == [b"1", b"1", b"2"]


def test_hidden_modules_are_as_good_as_not_installed(tmp_path: Path) -> None:
    """And what else starts with the interpreter still does."""
    (tmp_path / "sitecustomize.py").write_text("print('the other one')")
    hidden = serving_only.environment(["onnx.py", "service.py"])
    program = """
import importlib.util
for name in ("pandas", "sklearn", "onnx", "yaml", "google", "google.protobuf"):
    print(name, importlib.util.find_spec(name) is not None)
import pandas.api
"""
    path = os.pathsep.join([hidden["PYTHONPATH"], str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | hidden | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [
        *("the other one", "pandas False", "sklearn False", "onnx True"),
        *("yaml True", "google True", "google.protobuf True"),
    ]
    assert str(serving_only.missing(done.stderr)).startswith("the service imports pandas, which")
    assert serving_only.missing("ModuleNotFoundError: No module named 'nothing_of_that'") is None


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
