"""What a `training.py` may return, and how what it may not is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from slipway import bento, contract, paths
from slipway.bento import Training
from slipway.errors import BadInput
from slipway.steps import dataset, ingest, train
from slipway.tasks import TaskName

MINIMAL = paths.REPOSITORY / "tests" / "fixtures" / "bentos" / "valid" / "minimal"
ROWS = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "y": [0.0, 1.0, 1.0, np.nan]})
GOOD = """
import numpy as np
import pandas as pd
SCHEMA = None
TABLE = pd.DataFrame({"x": [1.0]})
def ingest():
    yield "a", TABLE
    yield "b", TABLE
def target(rows): return rows["y"].to_numpy()
def features(rows): return rows[["x"]]
def fit(x, y, parameters):
    from sklearn.dummy import DummyClassifier
    return DummyClassifier().fit(x, y)
def baselines(x, y, holdout): return {"base_rate": np.full(len(holdout), 0.5)}
def export(model): return {"model.onnx": b"", "words/en.txt": b""}
def predict(files, x): return np.full(len(x), 0.5, dtype=np.float32)
"""
Make = Callable[..., Training]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A training.py that is right but for the code at its end, beside other files."""

    def written(code: str = "", **others: str) -> Training:
        folder = tmp_path / "minimal"
        folder.mkdir(exist_ok=True)
        shutil.copytree(MINIMAL, folder, dirs_exist_ok=True)
        for name, content in others.items():
            (folder / f"{name}.py").write_text(content)
        (folder / "training.py").write_text(GOOD + code)
        return bento.load(folder).training()

    return written


def use(training: Training, function: str, task: TaskName = "classification") -> Any:
    """Calls the function as a step does."""
    x, y = ROWS[["x"]], np.array([0.0, 1.0, 1.0, 0.0])
    calls: dict[str, Callable[[], Any]] = {
        "ingest": lambda: list(contract.ingest(training)),
        "target": lambda: train.known(training, ROWS, task),
        "features": lambda: train.known(training, ROWS, task),
        "derive": lambda: contract.derive(training, ROWS),
        "fit": lambda: contract.fit(training, task, x, y, {}),
        "export": lambda: contract.export(training, None),
        "predict": lambda: contract.predict(training, task, {}, x),
        "baselines": lambda: contract.baselines(training, task, x, y, x),
    }
    return calls[function]()


def test_what_is_right_comes_through(make: Make) -> None:
    training = make()
    assert [name for name, _ in use(training, "ingest")] == ["a", "b"]
    x, y, mask = use(training, "target")
    assert (len(x), list(y), list(mask)) == (3, [0, 1, 1], [True, True, True, False])
    assert use(training, "derive") is None
    assert hasattr(use(training, "fit"), "predict_proba")
    assert set(use(training, "export")) == {"model.onnx", "words/en.txt"}
    assert use(training, "predict").dtype == np.float64
    assert set(use(training, "baselines")) == {"base_rate"}


def test_true_and_false_are_outcomes_and_a_number_is_one_of_a_regressor(make: Make) -> None:
    training = make("def target(rows): return rows['x'].to_numpy() > 2\n")
    assert list(use(training, "target")[1]) == [0, 0, 1, 1]
    training = make("def target(rows): return rows['x'].to_numpy()\n")
    assert list(use(training, "target", "regression")[1]) == [1, 2, 3, 4]


WRONG = [
    ("def ingest(): return None", "returns None"),
    ("def ingest(): return {'a': TABLE}", "yields a str\n  fix: yield (name, table)"),
    ("def ingest(): return []", "yields no partition"),
    ("def ingest(): yield 'a', TABLE[:0]", "partition 'a' has no rows"),
    ("def ingest(): yield 'a', TABLE; yield 'a', TABLE", "partition 'a' comes twice"),
    ("def ingest(): yield 'b', TABLE; yield 'a', TABLE", "partition 'a' comes after 'b'"),
    ("def ingest(): yield 2019, TABLE", "partition 2019: its name is an int"),
    ("def ingest(): yield 'a', TABLE.to_numpy()", "partition 'a' is a ndarray"),
    ("def ingest(): yield 'a', TABLE.rename(columns={'x': 1})", "column name 1 is an int"),
    ("def ingest(): yield 'a', TABLE[['x', 'x']]", "column name 'x' stands twice"),
    ("def ingest(): yield 'a', TABLE.set_index('x')", "index ['x'] that would be lost"),
    ("def target(rows): return rows['y']", "a Series instead of a numpy array\n  fix: .to_numpy()"),
    ("def target(rows): return None", "None instead of a numpy array"),
    ("def target(rows): return rows[['y']].to_numpy()", "shape (4, 1) instead of (4,)"),
    ("def target(rows): return rows['y'].dropna().to_numpy()", "shape (3,) instead of (4,)"),
    ("def target(rows): return rows['y'].to_numpy(object)", "values of object instead of float64"),
    ("def target(rows): return rows['x'].to_numpy()", "3 of 4 outcomes are not 0 or 1"),
    ("def target(rows): return rows['x'].to_numpy() * np.nan", "no outcome is known of 4 rows"),
    ("def features(rows): return rows[['x']].to_numpy()", "returns a ndarray"),
    ("def features(rows): return rows[['x']][1:]", "returns 3 rows for 4"),
    ("def features(rows): return rows[['x']].set_index('x')", "returns its rows on another index"),
    ("def features(rows): return rows[['x']][::-1]", "returns its rows on another index"),
    ("def derive(rows): return rows[['x']][1:]", "returns 3 rows for 4"),
    ("def fit(x, y, parameters): return None", "returns None without predict_proba()"),
    ("def export(model): return b''", "returns a bytes"),
    ("def export(model): return {}", "returns no file"),
    ("def export(model): return {'m.json': '{}'}", "file 'm.json' is a str instead of bytes"),
    ("def export(model): return {'/m': b''}", "the name '/m' is no path within model/"),
    ("def export(model): return {'a/../../m': b''}", "the name 'a/../../m' is no path"),
    ("def export(model): return {1: b''}", "the name 1 is no path"),
    (
        "def predict(files, x): return np.full((4, 2), 0.5)",
        "shape (4, 2) instead of (4,)\n  fix: ta",
    ),
    ("def predict(files, x): return np.full(3, 0.5)", "shape (3,) instead of (4,)"),
    ("def predict(files, x): return x['x'].shift().to_numpy()", "1 of 4 answers are NaN"),
    ("def predict(files, x): return x['x'].to_numpy() - 3", "answers from -2 to 1 are not prob"),
    (
        "def predict(files, x): return x['x'].to_numpy()",
        "to 4 are not probabilities\n  fix: divide",
    ),
    ("def baselines(x, y, holdout): return [0.5]", "returns a list"),
    ("def baselines(x, y, holdout): return {}", "no 'base_rate' among []"),
    ("def baselines(x, y, holdout): return {'Base rate': 0.5}", "a baseline is called 'Base rate'"),
    ("def baselines(x, y, holdout): return {'base_rate': 0.5}", "'base_rate': a float instead of"),
    ("def baselines(x, y, holdout): return {'base_rate': y[1:]}", "'base_rate': shape (3,)"),
    ("def baselines(x, y, holdout): return {'base_rate': y * np.nan}", "4 of 4 answers are NaN"),
]


@pytest.mark.parametrize(
    ("code", "said"), WRONG, ids=[code.replace("def ", "") for code, _ in WRONG]
)
def test_what_is_wrong_names_the_function(make: Make, code: str, said: str) -> None:
    function = code.removeprefix("def ").partition("(")[0]
    with pytest.raises(BadInput) as raised:
        use(make(code), function)
    assert f"training.py: {function}: " in str(raised.value)
    assert said in str(raised.value)
    assert "\n  fix: " in str(raised.value)


def test_the_constant_baseline_of_a_regressor_is_the_mean(make: Make) -> None:
    with pytest.raises(BadInput, match="no 'mean' among \\['base_rate'\\]"):
        use(make(), "baselines", "regression")


def test_a_module_that_is_not_found_later_says_what_to_do(make: Make) -> None:
    late = "def features(rows):\n    import words\n    return rows\n"
    with pytest.raises(BadInput) as raised:
        use(make(late, words="WORDS = ()\n"), "features")
    assert "training.py: features: No module named 'words'" in str(raised.value)
    assert "fix: import words at the top of training.py" in str(raised.value)
    absent = "def ingest():\n    import lihgtgbm\n    yield 'a', TABLE\n"
    with pytest.raises(BadInput, match=r"ingest: No module named(.|\n)*requirements/training\.in"):
        use(make(absent), "ingest")


def test_what_is_not_python_says_where(make: Make) -> None:
    with pytest.raises(BadInput, match=r"words\.py:2: cannot be imported: SyntaxError: "):
        make("import words\n", words="\nWORDS = (\n")


KEPT = {
    "seconds": pd.Series(pd.to_datetime(["2024-01-01 10:00:01", None])).astype("datetime64[s]"),
    "zoned": pd.Series(pd.to_datetime(["2024-01-01 10:00:01.8", None])).dt.tz_localize("UTC"),
    "text": pd.Series(["a", None]),
    "category": pd.Series(["a", None], dtype="category"),
    "small": pd.Series([1, 2], dtype="int8"),
    "flag": pd.Series([True, False]),
    "nothing": pd.Series([None, None], dtype=object),
}
CHANGED = [
    (pd.Series(pd.to_datetime(["2024-01-01 10:00:01.8"])), "datetime64", "milliseconds as a numb"),
    (pd.Series(pd.to_datetime(["2024-01-01 10:00:01"])), "datetime64", '.astype("datetime64[s]")'),
    (pd.Series([1, None], dtype="Int64"), "Int64 come back as float64", '.astype("float64")'),
    (pd.Series([True, None], dtype="boolean"), "boolean come back as object", '.astype("float64")'),
    (pd.Series(["a", "b"], dtype=object), "object come back as str", '.astype("str")'),
    (pd.Series([[1, 2], [3]]), "object come back other", "one number"),
]


def test_what_comes_back_as_it_was_is_stored(make: Make) -> None:
    rows = pd.DataFrame(KEPT).iloc[::-1]  # whatever its numbers
    contract.stored(make(), "a", rows, dataset.decode(dataset.encode(rows)))


@pytest.mark.parametrize(("values", "said", "fix"), CHANGED, ids=lambda v: str(v)[:20])
def test_what_would_come_back_other_is_refused(
    make: Make, values: pd.Series[Any], said: str, fix: str
) -> None:
    rows = pd.DataFrame({"value": values})
    with pytest.raises(BadInput) as raised:
        contract.stored(make(), "a", rows, dataset.decode(dataset.encode(rows)))
    problem, way_out = str(raised.value).splitlines()
    assert "training.py: ingest: partition 'a', column 'value': values of " in problem
    assert said in problem
    assert fix in way_out


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("[1, 'a']", "partition 'a' cannot be written as Parquet: Could not convert 'a'"),
        ("np.array([1j, 2])", "partition 'a' cannot be written as Parquet: Unsupported numpy type"),
        ("pd.array([1, None], dtype='Int64')", "partition 'a', column 'v': values of Int64"),
    ],
)
def test_ingest_refuses_what_the_store_would_not_keep(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, column: str, said: str
) -> None:
    make(f"def ingest(): yield 'a', pd.DataFrame({{'v': {column}}})\n")
    monkeypatch.setattr(ingest, "Store", lambda: None)
    with pytest.raises(BadInput) as raised:
        ingest.run(bento.load(tmp_path / "minimal"))
    assert said in str(raised.value)
