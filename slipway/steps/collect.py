"""Collect: the experiments of a search as one table, the best first; in MLflow under one run."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from slipway import search as spaces
from slipway.bento import Folder
from slipway.errors import SlipwayError
from slipway.search import Search
from slipway.steps import tracking

if TYPE_CHECKING:
    from mlflow.entities import Run


def run(folder: Folder, commit: str, search: str, real: str) -> dict[str, str]:
    """Outputs `results`, a JSON list with the best first, and `parent`, the run above them all.

    Args:
        real: how many experiments must have left a run. Simulated ones leave none.
    """
    mlflow, space = tracking.client(), spaces.load(folder)
    runs = tracking.experiments(mlflow, folder.config.name, search)
    results = ranked(space, {number(run): run for run in runs})
    print(table(space, results))
    parent = _parent(mlflow, folder, space, commit, search, results) if results else ""
    for result in results:
        mlflow.set_tag(result["run"], tracking.PARENT, parent)
    if len(results) < int(real):
        raise SlipwayError(
            f"{len(results)} of {real} experiments have left a run",
            fix="see the logs of those that failed",
        )
    return {"results": json.dumps(results), "parent": parent}


def number(run: Run) -> int:
    return int(run.data.tags[tracking.NUMBER])


def ranked(space: Search, runs: dict[int, Run]) -> list[dict[str, Any]]:
    """Number, parameters as MLflow has them (text), metrics and run of each; the best first.

    Of the metrics the first is that by which they are compared.
    """
    sign = -1 if space.larger_is_better else 1
    found = [
        {
            "number": number,
            "parameters": {name: run.data.params[name] for name in sorted(space.parameters)},
            "metrics": {space.metric: run.data.metrics[space.metric], **run.data.metrics},
            "run": str(run.info.run_id),
        }
        for number, run in runs.items()
    ]
    return sorted(found, key=lambda r: (sign * r["metrics"][space.metric], r["number"]))


def table(space: Search, results: list[dict[str, Any]]) -> str:
    """The results as text."""
    names = sorted(space.parameters)
    rows = [["experiment", space.metric, *names]]
    for result in results:
        value = f"{result['metrics'][space.metric]:.4f}"
        rows.append([str(result["number"]), value, *(result["parameters"][n] for n in names)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def _parent(
    mlflow: Any,
    folder: Folder,
    space: Search,
    commit: str,
    search: str,
    results: list[dict[str, Any]],
) -> str:
    found = tracking.experiments(mlflow, folder.config.name, search, tracking.WHOLE)
    if found:
        return str(found[0].info.run_id)
    best = results[0]
    tags = {
        tracking.SEARCH: search,
        tracking.NUMBER: tracking.WHOLE,
        "mlflow.source.git.commit": commit,
    }
    metrics = {f"best_{space.metric}": best["metrics"][space.metric], "experiments": len(results)}
    return tracking.log_experiment(
        mlflow, folder.config.name, search, tags, best["parameters"], metrics, time.time()
    )
