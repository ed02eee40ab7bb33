"""Predictions in the store: what two models answered on the same rows can be compared at any time.

Columns `row`, its position in the holdout's partitions together; `outcome` (0 or 1, or a value) and
`prediction` (a probability, or a value), both float64; `slice:<column>` for each slice column and
`period` (the partition), text; `group` (text) where `model.yaml` names one. One row for each of the
holdout's rows whose outcome is known, in the dataset's order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from slipway import contract
from slipway.digests import Digest
from slipway.errors import BadInput, did_you_mean
from slipway.steps import dataset
from slipway.store import Store, uri
from slipway.tasks import TaskName

if TYPE_CHECKING:
    import pandas as pd

    from slipway.bento import Array, Folder, Training
    from slipway.statistics import Codes, Scores

SLICE = "slice:"


def table(
    folder: Folder, training: Training, rows: pd.DataFrame, periods: Any, y: Array, p: Array
) -> pd.DataFrame:
    """The predictions table of the holdout's `rows`, of which each has its period.

    `y` has NaN where the outcome is unknown; `p` is of the other rows alone.

    Raises:
        BadInput: `model.yaml` names a column that the rows lack.
    """
    import pandas as pd

    config, labelled = folder.config, np.logical_not(np.isnan(y))
    derived = contract.derive(training, rows)
    known = rows if derived is None else pd.concat([rows, derived], axis=1)

    def text(column: str, field: str) -> Any:
        if column not in known:
            raise BadInput(
                f"no column {column!r} in the data",
                file=folder.path / "model.yaml",
                field=field,
                fix=f"{did_you_mean(column, map(str, known.columns))} (training.py's function "
                "derive may add columns)",
            )
        values: Any = known[column]
        return values.astype(str).where(values.notna(), "missing").to_numpy()[labelled]

    columns: dict[str, object] = {
        "row": np.flatnonzero(labelled),
        "outcome": y[labelled],
        "prediction": p.astype(np.float64),
    }
    columns |= {SLICE + column: text(column, "slices") for column in config.slices}
    columns["period"] = periods[labelled]
    if config.group:
        columns["group"] = text(config.group, "group")
    return pd.DataFrame(columns)


def put(store: Store, predictions: pd.DataFrame) -> Digest:
    """Stores the table; equal tables have equal digests."""
    return store.put("evidence", dataset.encode(predictions))


def get(store: Store, digest: Digest, task: TaskName) -> pd.DataFrame:
    """The verified table of a digest; `BadInput` when the object is something else."""
    name, data = uri("evidence", digest), store.get("evidence", digest)
    try:
        found = dataset.decode(data)
    except (ValueError, OSError) as error:
        raise BadInput(f"not a predictions table: {error}", file=name) from None
    for column in ("outcome", "prediction"):
        values = found.get(column)
        if (
            values is None
            or values.dtype != np.float64
            or not contract.fits(task, values.to_numpy())
        ):
            raise BadInput(f"not {contract.ANSWERS[task]}, or not there", file=name, field=column)
    return found


def scores(predictions: pd.DataFrame, task: TaskName) -> Scores:
    """The table's answers, ready to be measured."""
    from slipway import statistics

    y, p = (predictions[name].to_numpy() for name in ("outcome", "prediction"))
    return statistics.scores(task, y, p, groups(predictions))


def slices(predictions: pd.DataFrame) -> dict[str, Any]:
    """The slice columns by their names: arrays of text, of shape (rows,)."""
    named = [str(c) for c in predictions.columns if str(c).startswith(SLICE)]
    return {column.removeprefix(SLICE): predictions[column].to_numpy() for column in named}


def groups(predictions: pd.DataFrame) -> Codes | None:
    """The group of each row as a code; None where every row stands for itself."""
    import pandas as pd

    return pd.factorize(predictions["group"])[0] if "group" in predictions else None
