"""The steps of a search, against the real store and the real MLflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slipway import bento, search
from slipway.bento import Folder
from slipway.errors import SlipwayError
from slipway.steps import collect, experiment, ingest, tracking

COMMIT = "c" * 40
SPACE = """validation: [part-2]
metric: brier
seed: 1
parameters:
  C: {low: 0.01, high: 10.0, scale: log}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A model that is trained in no time."""
    path = tmp_path_factory.mktemp("bentos") / "small"
    path.mkdir()
    for name in ("service.py", "example.json", "README.md"):
        (path / name).write_text("{}")
    (path / "model.yaml").write_text(
        "name: small\ndescription: Small enough for a test\nowner: tests\nservice: service:Small\n"
        "split: {train: [part-1, part-2], holdout: [part-3]}\nparameters: {C: 1.0, seed: 1}\n"
    )
    (path / "training.py").write_text(
        "import numpy as np\nimport pandas as pd\nfrom sklearn.linear_model import "
        "LogisticRegression\nSCHEMA = None\n"
        "def ingest():\n"
        "    for n in (1, 2, 3):\n"
        "        x = np.random.default_rng(n).normal(size=200)\n"
        "        yield f'part-{n}', pd.DataFrame({'x': x, 'y': (x + np.cos(9 * x) > 0) * 1.0})\n"
        "def target(rows): return rows['y'].to_numpy()\n"
        "def features(rows): return rows[['x']]\n"
        "def fit(x, y, parameters): return LogisticRegression(C=parameters['C']).fit(x, y)\n"
        "def baselines(x, y, holdout): return {}\n"
        "def export(model): return {}\n"
        "def predict(files, x): raise AssertionError('nothing is exported')\n"
    )
    (path / search.FILE).write_text(SPACE)
    return bento.load(path)


@pytest.fixture(scope="module")
def data(folder: Folder, minio: Path) -> str:
    return ingest.run(folder)["data"]


def test_a_search_ends_in_a_table_and_one_run_above_all(
    folder: Folder, data: str, mlflow_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {n: experiment.run(folder, data, COMMIT, "search-a", str(n))["run"] for n in range(3)}
    # What was stopped after it had been logged is not made again.
    assert experiment.run(folder, data, COMMIT, "search-a", "1")["run"] == runs[1]
    # Another search of the same points is another search.
    other = experiment.run(folder, data, COMMIT, "search-b", "1")["run"]
    capsys.readouterr()

    found = collect.run(folder, COMMIT, "search-a", "3")
    results = json.loads(found["results"])
    assert {r["number"]: r["run"] for r in results} == runs
    scores = [r["metrics"]["brier"] for r in results]
    assert scores == sorted(scores)
    assert next(r for r in results if r["number"] == 0)["parameters"] == {"C": "1.0"}
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["experiment", "brier", "C"]
    assert printed[1].split()[:2] == [str(results[0]["number"]), f"{scores[0]:.4f}"]

    mlflow = tracking.client()
    above = {n: mlflow.get_run(run).data.tags.get(tracking.PARENT) for n, run in runs.items()}
    assert set(above.values()) == {found["parent"]}
    assert tracking.PARENT not in mlflow.get_run(other).data.tags
    parent = mlflow.get_run(found["parent"])
    assert parent.data.metrics == {"best_brier": scores[0], "experiments": 3}
    assert parent.data.params == results[0]["parameters"]
    # Once more, as a retry would: there is one parent still.
    assert collect.run(folder, COMMIT, "search-a", "3") == found


def test_a_search_that_lacks_experiments_shows_what_there_is_and_fails(
    folder: Folder, data: str, mlflow_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment.run(folder, data, COMMIT, "search-c", "0")
    with pytest.raises(SlipwayError, match="1 of 2 experiments"):
        collect.run(folder, COMMIT, "search-c", "2")
    assert "brier" in capsys.readouterr().out


def test_a_search_of_simulated_experiments_alone_has_no_results(
    folder: Folder, mlflow_server: str
) -> None:
    assert collect.run(folder, COMMIT, "search-d", "0") == {"results": "[]", "parent": ""}
