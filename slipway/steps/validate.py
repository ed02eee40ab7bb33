"""Validate: the whole dataset against the model's schema, before anything is learned from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from slipway import contract, evidence
from slipway.bento import Folder, Validation
from slipway.digests import Digest
from slipway.errors import SlipwayError
from slipway.steps import dataset
from slipway.store import Store
from slipway.tasks import TaskName

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas as pa

    from slipway.bento import Array


class InvalidData(SlipwayError):
    """The data breaks the model's schema or limits; the message is a table of violations."""


def run(folder: Folder, data: Digest) -> dict[str, str]:
    """Outputs `data` again, the digest that was found valid, and `validation`, what was checked."""
    store = Store()
    report = checked(folder, store, data)
    print(f"{report.rows:,} rows of {report.columns} columns valid")
    return {"data": data, "validation": store.put("evidence", evidence.dumps(report))}


def checked(folder: Folder, store: Store, data: Digest) -> evidence.Validation:
    """What was checked of the data and held; `InvalidData` where something did not."""
    training = folder.training()
    manifest = dataset.manifest(store, data)
    names = [partition.name for partition in manifest.partitions]
    rows = dataset.read(store, manifest, names)
    violations = schema_violations(training.SCHEMA, rows)
    limits = folder.config.validation
    target = contract.target(training, rows)
    violations += target_violations(folder.config.task, target)
    violations += limit_violations(limits, manifest, rows, np.isnan(target).mean())
    if violations:
        heading = ("column", "check", "rows", "example")
        table = _table([heading, *violations])
        raise InvalidData(
            f"the data is not valid: {len(violations)} violations\n{table}",
            fix=f"correct the source, or {folder.path.name}/schema.py and model.yaml where the "
            "data is right and they are not",
        )
    return evidence.Validation(
        rows=len(rows), columns=len(rows.columns), checks=checks(training.SCHEMA, limits)
    )


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


def target_violations(task: TaskName, target: Array) -> list[Violation]:
    """The same for what is to be learned."""
    wrong, what = contract.no_outcomes(task, target), contract.OUTCOMES[task]
    return [("(target)", what, f"{len(wrong):,}", f"{wrong[0]:g}")] if len(wrong) else []


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


def checks(schema: pa.DataFrameSchema, limits: Validation) -> list[str]:
    """Every check that the data has passed, one line a column and one a limit."""
    found: list[str] = []
    for name, column in schema.columns.items():
        rules = [str(column.dtype), "may be missing" if column.nullable else "never missing"]
        rules += [str(check.error or check.name) for check in column.checks]
        found.append(f"{name}: {', '.join(rules)}")
    if schema.unique:
        found.append(f"no two rows with the same {', '.join(schema.unique)}")
    if schema.strict:
        found.append("no other columns")
    found.append(f"each partition: at least {limits.minimum_rows_per_partition:,} rows")
    found.append(f"outcome: at most {limits.maximum_unknown_target:.1%} unknown")
    missing = limits.maximum_missing.items()
    return found + [f"{column}: at most {share:.1%} missing" for column, share in missing]


def _table(lines: list[Violation]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    rows = ("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(f"  {row.rstrip()}" for row in rows)
