"""How a model is to be tried: on how much, with which parameters, against whom."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slipway.bento import Folder, Parameter
from slipway.errors import BadInput, did_you_mean
from slipway.evidence import Environment

if TYPE_CHECKING:
    import pandas as pd

    from slipway.bento import Array


@dataclass(frozen=True)
class Part:
    """How much of the training data to learn from: so many rows, or such a share; neither: all."""

    rows: int | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        if self.rows is not None and self.share is not None:
            raise BadInput("both say how much", field="--rows, --sample", fix="give one of them")
        if self.rows is not None and self.rows < 1:
            raise BadInput(f"{self.rows} rows", field="--rows", fix="give 1 or more")
        if self.share is not None and not 0 < self.share < 1:
            raise BadInput(f"{self.share:g} is no share", field="--sample", fix="give e.g. 0.1")

    def of(self, x: pd.DataFrame, y: Array) -> tuple[pd.DataFrame, Array]:
        """The same rows each time, in their order."""
        import numpy as np

        wanted = self.rows or math.ceil(len(x) * (self.share or 1))
        if wanted >= len(x):
            return x, y
        some = np.sort(np.random.default_rng(0).choice(len(x), wanted, replace=False))
        return x.iloc[some], y[some]


@dataclass(frozen=True)
class Wish:
    """`environment`: against whose champion and by whose gates. `fresh`: every step anew."""

    environment: Environment
    part: Part = Part()
    serve: bool = True
    fresh: bool = False


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


_READ: dict[type, tuple[Callable[[str], Parameter], str]] = {
    bool: (lambda text: {"true": True, "false": False}[text], "true or false"),
    int: (int, "a whole number"),
    float: (_finite, "a number"),
    str: (str, "text"),
}


def overridden(folder: Folder, given: Mapping[str, str]) -> tuple[Folder, dict[str, Parameter]]:
    """The folder as if model.yaml had these parameters, and those that differ from its own.

    Raises:
        BadInput: model.yaml has no such parameter, or one of another type.
    """
    known = folder.config.parameters
    values = {name: _typed(name, text, known) for name, text in given.items()}
    changed = {name: value for name, value in values.items() if value != known[name]}
    config = folder.config.model_copy(update={"parameters": {**known, **values}})
    return Folder(folder.path, config), changed


def _typed(name: str, text: str, known: Mapping[str, Parameter]) -> Parameter:
    """`text` as a value of the type that model.yaml has."""
    if name not in known:
        fix = did_you_mean(name, known) if known else "add it there first"
        raise BadInput(f"model.yaml has no parameter {name!r}", field="--param", fix=fix)
    read, what = _READ[type(known[name])]
    try:
        return read(text)
    except (ValueError, KeyError):
        fix = f"model.yaml has {known[name]}"
        raise BadInput(f"{text!r} is not {what}", field=f"--param {name}", fix=fix) from None
