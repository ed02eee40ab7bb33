"""The functions of a `training.py`, called and held to what `slipway.bento.Training` says of them.

Each function here calls the one of its name. What it returns is checked before anything is made of
it, so that an error names the function that is wrong and not the code that came upon it later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from slipway import imports
from slipway.errors import BadInput
from slipway.tasks import TASKS, TaskName

if TYPE_CHECKING:
    import pandas as pd

    from slipway.bento import Array, Parameter, Training

ANSWERS: dict[TaskName, str] = {"classification": "probabilities", "regression": "finite numbers"}
OUTCOMES: dict[TaskName, str] = {
    "classification": "0 or 1 (else: task: regression)",
    "regression": "finite",
}
# As evidence names metrics and baselines.
NAME = r"[a-z][a-z0-9_]*"
_END = object()


def ingest(training: Training) -> Iterator[tuple[str, pd.DataFrame]]:
    """Partition name and rows, at least one and in the order of their names.

    Raises:
        BadInput: a partition is none, is empty, or stands where it must not.
    """
    import pandas as pd

    wrong = _Wrong(training, "ingest")
    with wrong.modules():
        found: Any = training.ingest()
        if not hasattr(found, "__iter__"):
            raise wrong(f"returns {_kind(found)}", "yield (name, table) for each partition")
        found = iter(found)
    before: str | None = None
    while True:
        with wrong.modules():
            item: Any = next(found, _END)
        if item is _END:
            break
        if not isinstance(item, tuple) or len(item) != 2:
            raise wrong(f"yields {_kind(item)}", "yield (name, table) for each partition")
        name, rows = item
        if not isinstance(name, str) or not name:
            raise wrong(
                f"partition {name!r}: its name is {_kind(name)}",
                'give it text, e.g. f"{year}-{month:02}"',
            )
        if not isinstance(rows, pd.DataFrame):
            raise wrong(f"partition {name!r} is {_kind(rows)}", "yield a pandas DataFrame")
        _check_table(wrong, name, rows)
        if before is not None and name <= before:
            problem = "comes twice" if name == before else f"comes after {before!r}"
            raise wrong(
                f"partition {name!r} {problem}",
                "yield each name once, in the order of the names",
            )
        before = name
        yield name, rows
    if before is None:
        raise wrong("yields no partition", "yield at least one, as (name, table)")


def stored(training: Training, name: str, rows: pd.DataFrame, again: pd.DataFrame) -> None:
    """`BadInput` where a partition does not come back from the store as it went in."""
    wrong = _Wrong(training, "ingest")
    for column in rows.columns:
        went, came = rows[column], again[str(column)]
        try:
            same = went.dtype == came.dtype and bool(went.array.equals(came.array))
        except (ValueError, TypeError):  # cells that are arrays
            same = False
        if not same:
            becomes = (
                f"come back as {came.dtype}" if went.dtype != came.dtype else "come back other"
            )
            raise wrong(
                f"partition {name!r}, column {column!r}: values of {went.dtype} {becomes} from the "
                "store",
                _storable(went, came),
            )


def not_stored(training: Training, name: str, error: Exception) -> BadInput:
    """A partition that cannot be stored at all, for what pyarrow says of it."""
    said = " ".join(str(part) for part in error.args)
    return _Wrong(training, "ingest")(
        f"partition {name!r} cannot be written as Parquet: {said}",
        "give each column values of one type: numbers, text, times or true/false",
    )


def target(training: Training, rows: pd.DataFrame) -> Array:
    """The outcome of each row, as float64; its values are not looked at."""
    wrong = _Wrong(training, "target")
    return _numbers(wrong, "", wrong.call(rows), len(rows))


def no_outcomes(task: TaskName, values: Array) -> Array:
    """Those of the known outcomes that are none of this task's."""
    known = values[~np.isnan(values)]
    if task == "classification":
        return known[(known != 0) & (known != 1)]
    return known[~np.isfinite(known)]


def known_target(training: Training, rows: pd.DataFrame, task: TaskName | None) -> Array:
    """`target`, where some outcome is known and each is one of the task, if that is given."""
    found, wrong = target(training, rows), _Wrong(training, "target")
    if np.isnan(found).all():
        raise wrong(
            f"no outcome is known of {len(rows):,} rows",
            "see whether NaN is right, or split the data elsewhere in model.yaml",
        )
    if task and len(others := no_outcomes(task, found)):
        raise wrong(
            f"{len(others):,} of {len(rows):,} outcomes are not {OUTCOMES[task]}: {others[0]:g}",
            "return that, and NaN where the outcome is unknown",
        )
    return found


def features(training: Training, rows: pd.DataFrame) -> pd.DataFrame:
    """The model's inputs, a row for each of `rows` and on its index."""
    return _beside(_Wrong(training, "features"), rows)


def derive(training: Training, rows: pd.DataFrame) -> pd.DataFrame | None:
    """The further columns, a row for each of `rows`; None where the module has no such function."""
    return _beside(_Wrong(training, "derive"), rows) if hasattr(training, "derive") else None


def fit(
    training: Training,
    task: TaskName,
    x: pd.DataFrame,
    y: Array,
    parameters: Mapping[str, Parameter],
) -> Any:
    """A model that answers as scikit-learn's of this task do."""
    wrong = _Wrong(training, "fit")
    model = wrong.call(x, y, parameters)
    if not hasattr(model, answering(task)):
        raise wrong(
            f"returns {_kind(model)} without {answering(task)}(), which is asked for {task}",
            f"return the fitted model, of scikit-learn's for {task}",
        )
    return model


def answering(task: TaskName) -> str:
    """The method by which a scikit-learn model of this task answers."""
    return "predict_proba" if task == "classification" else "predict"


def export(training: Training, model: Any) -> dict[str, bytes]:
    """The model's files by their names within the bento's folder `model/`."""
    wrong = _Wrong(training, "export")
    files = wrong.call(model)
    if not isinstance(files, dict) or not files:
        problem = "no file" if files == {} else _kind(files)
        raise wrong(f"returns {problem}", "return {name: bytes} of what the service loads")
    for name, content in files.items():
        path = PurePosixPath(name) if isinstance(name, str) else None
        if (
            path is None
            or path.is_absolute()
            or ".." in path.parts
            or str(path) != name
            or (name == "." or "\\" in name)
        ):
            raise wrong(
                f"the name {name!r} is no path within model/",
                'name files as the service opens them there, e.g. "model.onnx"',
            )
        if not isinstance(content, bytes):
            raise wrong(
                f"file {name!r} is {_kind(content)} instead of bytes",
                ".encode() makes bytes of text" if isinstance(content, str) else "return bytes",
            )
    return files


def predict(
    training: Training, task: TaskName, files: Mapping[str, bytes], x: pd.DataFrame
) -> Array:
    """What the exported files answer for each row of `x`."""
    wrong = _Wrong(training, "predict")
    return _answers(wrong, "", task, wrong.call(files, x), len(x))


def baselines(
    training: Training, task: TaskName, x: pd.DataFrame, y: Array, holdout: pd.DataFrame
) -> dict[str, Array]:
    """Answers for each row of `holdout` by simpler means, the constant one among them."""
    wrong, constant = _Wrong(training, "baselines"), TASKS[task].constant
    found = wrong.call(x, y, holdout)
    if not isinstance(found, dict):
        raise wrong(f"returns {_kind(found)}", "return {name: array}")
    for name in found:
        if not isinstance(name, str) or not re.fullmatch(NAME, name):
            raise wrong(
                f"a baseline is called {name!r}",
                "a name has the characters a-z, 0-9 and _, and begins with a letter",
            )
    if constant not in found:
        raise wrong(
            f"no {constant!r} among {list(found)}, which says the same of every row",
            f'add "{constant}": np.full(len(holdout), y.mean())',
        )
    return {
        name: _answers(wrong, f"{name!r}: ", task, values, len(holdout))
        for name, values in found.items()
    }


def bodies(training: Training, rows: pd.DataFrame) -> list[bytes] | None:
    """`requests` of the rows as JSON, where NaN and the like are null; None without `requests`."""
    if not hasattr(training, "requests"):
        return None
    wrong = _Wrong(training, "requests")
    made: list[Any] = list(wrong.call(rows))
    if len(made) != len(rows):
        raise wrong(
            f"gives {len(made)} bodies for {len(rows)} rows", "give one a row, in their order"
        )
    try:
        return [json.dumps(_plain(body), allow_nan=False).encode() for body in made]
    except (TypeError, ValueError) as error:
        raise wrong(
            f"gives what is not JSON: {error}", "give what JSON has: null for what is not finite"
        ) from None


def fits(task: TaskName, values: Array) -> bool:
    """Whether these are what a model of the task answers."""
    if task == "classification":
        return bool(((values >= 0) & (values <= 1)).all())
    return bool(np.isfinite(values).all())


class _Wrong:
    """Makes the errors of one function of a `training.py`."""

    def __init__(self, training: Training, function: str) -> None:
        self._training, self._function = training, function
        self._file = Path(getattr(training, "__file__", None) or "training.py")

    def __call__(self, problem: str, fix: str) -> BadInput:
        return BadInput(problem, file=self._file, field=self._function, fix=fix)

    def call(self, *arguments: Any) -> Any:
        """What the function returns."""
        with self.modules():
            return getattr(self._training, self._function)(*arguments)

    @contextmanager
    def modules(self) -> Generator[None]:
        """Says of a module that is not found within what can be done about it."""
        try:
            yield
        except ModuleNotFoundError as error:
            raise self(str(error), imports.missing(error, self._file)) from error


def _plain(value: Any) -> Any:
    """What JSON has for a value of a table: times as ISO 8601 writes them, null for what lacks."""
    import pandas as pd

    if hasattr(value, "tolist"):  # NumPy's, of which JSON knows none
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in cast("list[Any]", value)]
    if value is None or pd.isna(value):
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value


def _kind(value: Any) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _check_table(wrong: _Wrong, name: str, rows: pd.DataFrame) -> None:
    if not len(rows):
        raise wrong(f"partition {name!r} has no rows", "yield only partitions that have some")
    columns: list[Any] = list(rows.columns)
    for column in columns:
        if not isinstance(column, str) or columns.count(column) > 1:
            problem = "stands twice" if isinstance(column, str) else f"is {_kind(column)}"
            raise wrong(
                f"partition {name!r}: the column name {column!r} {problem}",
                "give each column a text of its own as name",
            )
    if any(part is not None for part in rows.index.names) or rows.index.dtype.kind not in "iu":
        raise wrong(
            f"partition {name!r} has an index {rows.index.names} that would be lost",
            "make columns of it: .reset_index()",
        )


def _storable(went: Any, came: Any) -> str:
    kind = str(went.dtype)
    if kind.startswith("datetime64"):
        if went.equals(went.astype("datetime64[s]").astype(went.dtype)):
            return '.astype("datetime64[s]") in ingest: times are kept to the second'
        return (
            "times are kept to the second: keep a difference or the milliseconds as a number of "
            "its own in ingest"
        )
    if kind[0].isupper() or kind == "boolean":  # pandas' own that may lack values
        return '.astype("float64") in ingest, where a missing value is NaN'
    if kind == str(came.dtype):
        return "give each cell one number, text, time or true/false in ingest"
    return f'.astype("{came.dtype}") in ingest'


def _beside(wrong: _Wrong, rows: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    found = wrong.call(rows)
    if not isinstance(found, pd.DataFrame):
        raise wrong(
            f"returns {_kind(found)}",
            "return a pandas DataFrame: pd.DataFrame(values, columns=…, index=rows.index)",
        )
    if len(found) != len(rows):
        raise wrong(
            f"returns {len(found):,} rows for {len(rows):,}",
            "return a row for each: rows are left out by NaN in target, or in ingest",
        )
    if not found.index.equals(rows.index):
        raise wrong(
            "returns its rows on another index",
            "keep the rows' order and index: neither sort nor reset_index",
        )
    return found


def _numbers(wrong: _Wrong, what: str, values: Any, rows: int) -> Array:
    shape = f"return an array of shape ({rows},), a number for each row"
    if not isinstance(values, np.ndarray):
        made = ".to_numpy() makes one of a column" if hasattr(values, "to_numpy") else shape
        raise wrong(f"{what}{_kind(values)} instead of a numpy array", made)
    if values.ndim == 2 and len(values) == rows and values.shape[1] in (1, 2):
        last = values.shape[1] - 1
        raise wrong(
            f"{what}shape {values.shape} instead of ({rows},)", f"take a column: [:, {last}]"
        )
    if values.shape != (rows,):
        raise wrong(f"{what}shape {values.shape} instead of ({rows},)", shape)
    if values.dtype.kind not in "biuf":
        raise wrong(f"{what}values of {values.dtype} instead of float64", "make numbers of them")
    return values.astype(np.float64)


def _answers(wrong: _Wrong, what: str, task: TaskName, values: Any, rows: int) -> Array:
    found = _numbers(wrong, what, values, rows)
    if fits(task, found):
        return found
    if bad := int((~np.isfinite(found)).sum()):
        raise wrong(f"{what}{bad:,} of {rows:,} answers are NaN or infinite", "answer every row")
    low, high = found.min(), found.max()
    fix = "answer probabilities, predict_proba(x)[:, 1], or say task: regression in model.yaml"
    if low >= 0 and high <= 100:
        fix = f"divide percents by 100; otherwise {fix}"
    outside = f"{what}answers from {low:.4g} to {high:.4g} are not {ANSWERS[task]}"
    raise wrong(outside, fix)
