"""A search space, `bentos/<model>/search.yaml`: which hyper-parameters are tried, and on what.

It is data beside the model: changing it trains nothing anew. Whoever asks for experiment 7 of a
space gets the same parameters, however many experiments there are and wherever it runs.
"""

from __future__ import annotations

import math
import random
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from slipway import documents
from slipway.bento import Folder, Parameter, number
from slipway.errors import BadInput, did_you_mean
from slipway.release import Strict
from slipway.tasks import LARGER_IS_BETTER, TASKS, MetricName

FILE = "search.yaml"
Number = Annotated[int | float, BeforeValidator(number)]


class Domain(Strict):
    """Where one parameter's values come from: some `values`, or all from `low` to `high`.

    Whole numbers give whole numbers. `log`: each power of ten is as likely as the next.
    """

    values: Annotated[list[Parameter] | None, Field(min_length=2)] = None
    low: Number | None = None
    high: Number | None = None
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        if (self.values is None) == (self.low is None and self.high is None):
            raise ValueError("give either values, or low and high")
        if self.values is not None:
            return self
        if self.low is None or self.high is None or self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"scale: log needs low above 0, not {self.low}")
        return self

    def draw(self, chance: random.Random) -> Parameter:
        """A value; `chance` decides which."""
        if self.values is not None:
            return chance.choice(self.values)
        low, high = float(self.low or 0), float(self.high or 0)
        if self.scale == "log":
            drawn = math.exp(chance.uniform(math.log(low), math.log(high)))
        else:
            drawn = chance.uniform(low, high)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return min(max(round(drawn), self.low), self.high)
        return float(f"{drawn:.4g}")  # more digits would only look exact


class Search(Strict):
    """`search.yaml`."""

    # Partitions of model.yaml's `split.train`, the last of them: settings are compared on these
    # after training on those before. The holdout judges what came of it and takes no part.
    validation: Annotated[list[str], Field(min_length=1)]
    metric: MetricName
    seed: int
    parameters: Annotated[dict[str, Domain], Field(min_length=1)]

    @property
    def larger_is_better(self) -> bool:
        return self.metric in LARGER_IS_BETTER

    def point(self, number: int) -> dict[str, Parameter]:
        """Parameters of an experiment. Number 0 changes none: it is what the others must beat."""
        if number == 0:
            return {}
        chance = random.Random(f"{self.seed} {number}")  # noqa: S311 -- no secret depends on it
        return {name: domain.draw(chance) for name, domain in self.parameters.items()}


def load(folder: Folder) -> Search:
    """The search space of a model.

    Raises:
        BadInput: it has none, or one that does not fit its model.yaml.
    """
    file = folder.path / FILE
    if not file.is_file():
        raise BadInput(
            "missing file",
            file=file,
            fix="write it: validation, metric, seed and parameters (slipway/search.py)",
        )
    search = documents.parse(Search, file.read_bytes(), file)
    metrics = TASKS[folder.config.task].metrics
    if search.metric not in metrics:
        raise BadInput(
            f"{search.metric} is no metric of {folder.config.task}",
            file=file,
            field="metric",
            fix=f"take one of {', '.join(metrics)}",
        )
    known = folder.config.parameters
    for name in search.parameters:
        if name not in known:
            raise BadInput(
                f"model.yaml has no parameter {name!r}",
                file=file,
                field=f"parameters.{name}",
                fix=did_you_mean(name, known),
            )
    months = folder.config.split.train
    for name in search.validation:
        if name not in months:
            raise BadInput(
                f"{name!r} is not in model.yaml's split.train",
                file=file,
                field="validation",
                fix="take the last of those; the holdout takes no part in a search",
            )
    if not trained_on(folder, search) or max(trained_on(folder, search)) > min(search.validation):
        raise BadInput(
            "nothing before it is left to train on, or what is comes later",
            file=file,
            field="validation",
            fix=f"take the last of {', '.join(months)}",
        )
    return search


def trained_on(folder: Folder, search: Search) -> list[str]:
    """The partitions that an experiment learns from."""
    return [name for name in folder.config.split.train if name not in search.validation]
