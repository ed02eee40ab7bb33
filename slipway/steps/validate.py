"""Validate: the whole dataset against the model's schema, before anything is learned from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from slipway.bento import Folder, Validation
from slipway.digests import Digest
from slipway.errors import SlipwayError
from slipway.steps import dataset
from slipway.store import Store

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas as pa


class InvalidData(SlipwayError):
    """The data breaks the model's schema or limits; the message is a table of violations."""


def run(folder: Folder, data: Digest) -> dict[str, str]:
    """Outputs `data` again: the digest that was found valid."""
    store, training = Store(), folder.training()
    manifest = dataset.manifest(store, data)
    names = [partition.name for partition in manifest.partitions]
    rows = dataset.read(store, manifest, names)
    violations = schema_violations(training.SCHEMA, rows)
    limits = folder.config.validation
    violations += limit_violations(limits, manifest, rows, np.isnan(training.target(rows)).mean())
    if violations:
        heading = ("column", "check", "rows", "example")
        table = _table([heading, *violations])
        raise InvalidData(
            f"the data is not valid: {len(violations)} violations\n{table}",
            fix=f"correct the source, or {folder.path.name}/schema.py and model.yaml where the "
            "data is right and they are not",
        )
    print(f"{len(rows):,} rows of {len(rows.columns)} columns valid")
    return {"data": data}


Violation = tuple[str, str, str, str]


def schema_violations(schema: pa.DataFrameSchema, rows: pd.DataFrame) -> list[Violation]:
    """Column, check, number of rows and an example of each broken check."""
    from pandera.errors import SchemaErrors

    try:
        schema.validate(rows, lazy=True)
    except SchemaErrors as error:
        cases = error.failure_cases
        groups = cases.groupby(["column", "check"], dropna=False, sort=False)
        return [
            (str(column), str(check), f"{len(group):,}", str(group["failure_case"].iloc[0])[:40])
            for (column, check), group in groups
        ]
    return []


def limit_violations(
    limits: Validation, manifest: dataset.Manifest, rows: pd.DataFrame, unknown: float
) -> list[Violation]:
    """The same for the limits of `model.yaml`, on partitions and on shares of all rows."""
    found: list[Violation] = []
    least = limits.minimum_rows_per_partition
    for partition in manifest.partitions:
        if partition.rows < least:
            found.append((partition.name, f"at least {least:,} rows", f"{partition.rows:,}", ""))
    if unknown > limits.maximum_unknown_target:
        share = f"at most {limits.maximum_unknown_target:.1%} unknown"
        found.append(("(target)", share, f"{unknown:.1%}", ""))
    for column, most in limits.maximum_missing.items():
        missing = float(rows[column].isna().to_numpy().mean()) if column in rows else 1.0
        if missing > most:
            found.append((column, f"at most {most:.1%} missing", f"{missing:.1%}", ""))
    return found


def _table(lines: list[Violation]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    rows = ("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(f"  {row.rstrip()}" for row in rows)
