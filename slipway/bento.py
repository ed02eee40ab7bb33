"""A bento folder, `bentos/<model>/`: what a data scientist writes, checked before it is used.

A second model is a second folder. Everything that is particular to a model stands in its
`training.py` (functions, see `Training`), `service.py` and `model.yaml`.

A model that others have trained has no `training.py`: its `model.yaml` says `kind: pretrained` and
pins the weights. Such a folder is a `Pretrained`, and nothing here trains it.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Self, TypeVar, cast

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from slipway import digests, imports, paths
from slipway.digests import Digest
from slipway.errors import BadInput, did_you_mean, from_validation
from slipway.release import Commit, ModelName, Strict, parse_yaml
from slipway.tasks import TaskName

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pandera.pandas as pa

    Array = np.ndarray[Any, np.dtype[np.float64]]

SERVED = {
    "service.py": "the BentoML service",
    "example.json": "a body for /predict, which readiness sends through the model",
    "README.md": "the model card",
}
REQUIRED = {
    "model.yaml": "name, split, parameters and data validation (slipway/bento.py has the fields)",
    "training.py": "functions ingest, target, features, fit, baselines, export, predict; SCHEMA",
    **SERVED,
}
PRETRAINED = "pretrained"
# The training environment: the same code on other libraries is another model.
LOCK = paths.REPOSITORY / "requirements" / "training.txt"
BENTOS = paths.REPOSITORY / "bentos"
# All that a folder of a trained model may hold beside its modules: what decides a model, and only
# that, is in `Folder.code`, and what is nowhere in it would be changed without anybody's notice.
FILES = {*REQUIRED, "search.yaml"}
SUBFOLDERS = {"tests"}
_DATA = "data belong to the source that ingest reads, or into the files that export gives"
# Needed to train, not to serve: a change there must not make another bento of the same model.
TRAINING_ONLY = {"training.py", "schema.py"}
# What every service has around it.
ENVELOPE = BENTOS / "serving" / "envelope.py"
_NUMBER = re.compile(r"([+-]?)(?=\.?[0-9])([0-9]*)(\.?)([0-9]*)(?:[eE]([+-]?)([0-9]+))?")


def number(value: object) -> object:
    """`value`, but for text that was meant to be a number.

    YAML 1.1 takes `1e-3` for text, and a library would find out much later.
    """
    found = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    sign, whole, point, part, to, power = found.groups()
    meant = f"{sign}{whole}"
    if point or power:
        meant = f"{sign}{whole or 0}.{part or 0}" + (f"e{to or '+'}{power}" if power else "")
    raise PydanticCustomError(
        "slipway", "text that looks like a number", {"fix": f"write {meant} (no quotes)"}
    )


def _parameter(value: object) -> object:
    if not isinstance(value, bool | int | float | str):
        fix = "leave the key out and set it in training.py"
        fix = "put it in quotes" if isinstance(value, date) else fix
        raise PydanticCustomError("slipway", "neither number, text nor true/false", {"fix": fix})
    return number(value)


# Hyper-parameters, as MLflow logs them and as `fit` is given them.
Parameter = Annotated[bool | int | float | str, BeforeValidator(_parameter)]
Share = Annotated[float, Field(ge=0, le=1)]


class Training(Protocol):
    """The module `training.py` of a bento folder, as the workflow's steps use it.

    Tables are pandas, one row an example. Arrays are float64 of shape (rows,).

    The module may have two functions more. `derive(rows)`: a table of further columns, on the same
    index, which `slices` and `group` in `model.yaml` can name beside those of the data.
    `requests(rows)`: a list of dicts, for each row of the data the body for /predict that asks the
    service about it; with it the bento is held to what `predict` answered (`contract.bodies`).
    """

    SCHEMA: pa.DataFrameSchema

    def ingest(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """Partition name and rows, always in the same order and with the same content."""
        ...

    def target(self, rows: pd.DataFrame) -> Array:
        """1.0 or 0.0, of a regressor any number; NaN where the outcome is unknown."""
        ...

    def features(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The model's inputs, row by row; nothing in them is known only after the outcome."""
        ...

    def fit(self, x: pd.DataFrame, y: Array, parameters: Mapping[str, Parameter]) -> Any:
        """A scikit-learn classifier or regressor, the same for the same arguments."""
        ...

    def baselines(self, x: pd.DataFrame, y: Array, holdout: pd.DataFrame) -> dict[str, Array]:
        """Answers for the holdout by simpler means; one says the same of every row, and is called
        `base_rate` (classification) or `mean` (regression)."""
        ...

    def export(self, model: Any) -> dict[str, bytes]:
        """The files that the service loads from its folder `model/`, deterministic."""
        ...

    def predict(self, files: Mapping[str, bytes], x: pd.DataFrame) -> Array:
        """Answers of the exported files: what is evaluated is what is served."""
        ...


class Split(Strict):
    """Which partitions the model learns from, and which it is judged on: each named once."""

    train: Annotated[list[str], Field(min_length=1)]
    holdout: Annotated[list[str], Field(min_length=1)]

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        # Its rows would count so many times, and intervals would be narrower than they are.
        for name, times in Counter([*self.train, *self.holdout]).items():
            if times > 1:
                sides = (("train", self.train), ("holdout", self.holdout))
                where = " and ".join(side for side, names in sides if name in names)
                raise PydanticCustomError(
                    "slipway",
                    "{name} is named {times} times in {where}",
                    {"name": name, "times": times, "where": where},
                )
        return self

    @model_validator(mode="after")
    def _holdout_is_later(self) -> Self:
        if max(self.train) >= min(self.holdout):
            raise PydanticCustomError(
                "slipway",
                "holdout must come after train: {last} is not before {first}",
                {"last": max(self.train), "first": min(self.holdout)},
            )
        return self


class Validation(Strict):
    """Limits on the data that no single row can show."""

    minimum_rows_per_partition: Annotated[int, Field(ge=1)] = 1
    maximum_unknown_target: Share = 1.0
    maximum_missing: dict[str, Share] = Field(default={})


class Described(Strict):
    """What every `model.yaml` says."""

    name: ModelName
    description: Annotated[str, Field(min_length=10, max_length=200)]
    owner: Annotated[str, Field(min_length=1)]
    service: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*:[A-Za-z][A-Za-z0-9]*$")]


class ModelConfig(Described):
    """`model.yaml` of a model that is trained here."""

    kind: Literal["trained"] = "trained"
    # What it answers: the probability that something happens, or a number.
    task: TaskName = "classification"
    split: Split
    parameters: dict[str, Parameter]
    slices: list[str] = Field(default=[])
    # Rows that share a value here share their fate, and are not independent observations.
    group: str = ""
    # A probability from here on is taken for a yes, where fairness is measured.
    decision_threshold: Share = 0.5
    validation: Validation = Validation()


class Weights(Strict):
    """Files that others have trained, as a commit of a repository on Hugging Face has them."""

    repository: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]
    revision: Commit
    licence: Annotated[str, Field(min_length=2, description="SPDX identifier")]
    files: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]*(\.[\w-]+)+$")], Digest],
        Field(min_length=1),
    ]


class PretrainedConfig(Described):
    """`model.yaml` of a model that is fetched and not trained."""

    kind: Literal["pretrained"]
    weights: Weights
    # The service's own settings, which it knows and checks.
    engine: dict[str, Any] = Field(default={})


Config = TypeVar("Config", bound=Described)


@dataclass(frozen=True)
class Pretrained:
    """A checked folder of a model that is fetched and not trained."""

    path: Path
    config: PretrainedConfig

    @property
    def files(self) -> list[Path]:
        """What is served beside the weights, which lie in `model/`."""
        return [
            *sorted(self.path.glob("*.py")),
            self.path / "model.yaml",
            self.path / "example.json",
        ]


class Folder:
    """A bento folder that has been checked: its files are there and `model.yaml` is right."""

    def __init__(self, path: Path, config: ModelConfig) -> None:
        self.path, self.config = path, config

    @property
    def served(self) -> dict[str, Path]:
        """What lies in the bento beside the model's own files, by its name there."""
        own = [file for file in self.path.glob("*.py") if file.name not in TRAINING_ONLY]
        return {file.name: file for file in [*own, self.path / "example.json", ENVELOPE]}

    def code(self) -> Digest:
        """The digest of what decides a trained model besides the data: code, settings, libraries.

        Tests, prose and example.json are left out, so changing them does not train anew. Another
        example.json is served, and readiness sent it, from the next training on.
        """
        files = sorted([*self.path.glob("*.py"), self.path / "model.yaml"])
        contents = {file.name: file.read_bytes() for file in files}
        contents["requirements/training.txt"] = LOCK.read_bytes()
        return digests.of_files(contents)

    def training(self) -> Training:
        """Imports `training.py`. `BadInput` when it fails to import or lacks a function."""
        file = self.path / "training.py"
        # Siblings import each other by bare name (at their top), as they do inside the bento. Such
        # a name may be a library's too (`schema` is), so ours are gone again afterwards.
        names = {"training", *(p.stem for p in self.path.glob("*.py"))}
        others = {name: sys.modules.pop(name) for name in names & set(sys.modules)}
        sys.path.insert(0, str(self.path))
        # Python takes bytecode for that of any file as old, to the second, and as long.
        keeps_none, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:
            importlib.invalidate_caches()
            module = importlib.import_module("training")
        except Exception as error:
            raise imports.failed(error, file) from error
        finally:
            sys.dont_write_bytecode = keeps_none
            sys.path.remove(str(self.path))
            for name in names & set(sys.modules):
                del sys.modules[name]
            sys.modules.update(others)
        wanted = [n for n in (*Training.__annotations__, *vars(Training)) if not n.startswith("_")]
        if missing := [name for name in wanted if not hasattr(module, name)]:
            raise BadInput(
                f"missing: {', '.join(missing)}",
                file=file,
                fix="define them as slipway.bento.Training describes",
            )
        return cast("Training", module)


def load(path: Path) -> Folder:
    """Checks the bento folder at `path`; `BadInput` names file, field and fix.

    A folder whose model is pretrained is refused: there is nothing in it to train.
    """
    if is_pretrained(path):
        raise BadInput(
            f"{path.name} is pretrained, nothing is trained",
            file=path / "model.yaml",
            field="kind",
            fix=f"fetch its pinned weights: slipway fetch {path.name} --to FOLDER",
        )
    folder = Folder(path, _checked(path, ModelConfig, REQUIRED))
    if (own := path / ENVELOPE.name).exists():
        shared = ENVELOPE.relative_to(paths.REPOSITORY)
        raise BadInput(
            f"every bento is given {shared} by this name",
            file=own,
            fix="remove it, or give it another name",
        )
    _check_flat(path)
    return folder


def _check_flat(path: Path) -> None:
    """Refuses what neither `Folder.code` nor `Folder.served` would see."""
    for entry in sorted(path.iterdir()):
        if entry.name.startswith(".") or entry.name == "__pycache__":
            continue
        if entry.is_dir():
            if entry.name not in SUBFOLDERS:
                raise BadInput(
                    "a bento folder is flat: changing what is in here would train nothing, and "
                    "none of it would be served",
                    file=entry,
                    fix=f"move its modules beside service.py; {_DATA}",
                )
        elif entry.suffix != ".py" and entry.name not in FILES:
            raise BadInput(
                "no file of a bento folder: changing it would train nothing, and it would not be "
                "served",
                file=entry,
                fix=f"remove it, or move it to tests/; {_DATA}",
            )


def load_pretrained(path: Path) -> Pretrained:
    """Checks the folder of a model that is fetched; `BadInput` names file, field and fix."""
    if not is_pretrained(path):
        raise BadInput(
            f"{path.name} is trained here, no weights are fetched",
            file=path / "model.yaml",
            field="kind",
            fix=f"train it: slipway train {path.name}",
        )
    return Pretrained(path, _checked(path, PretrainedConfig, SERVED))


def is_pretrained(path: Path) -> bool:
    """Whether the folder's model.yaml says `kind: pretrained`; `BadInput` if there is none."""
    file = _file(path, "model.yaml", REQUIRED["model.yaml"])
    return says_pretrained(file.read_bytes(), file)


def says_pretrained(text: bytes, file: Path | str) -> bool:
    """The same of a model.yaml's text, wherever it comes from."""
    return parse_yaml(text, file).get("kind") == PRETRAINED


def _file(path: Path, name: str, what: str) -> Path:
    if not path.is_dir():
        known = [p.parent.name for p in path.parent.glob("*/model.yaml")]
        raise BadInput("no such bento folder", file=path, fix=did_you_mean(path.name, known))
    if not (path / name).is_file():
        raise BadInput("missing file", file=path / name, fix=f"write it: {what}")
    return path / name


def _checked(path: Path, model: type[Config], required: Mapping[str, str]) -> Config:
    for name, what in required.items():
        _file(path, name, what)
    file = path / "model.yaml"
    document = parse_yaml(file.read_bytes(), file)
    try:
        config = model.model_validate(document)
    except ValidationError as error:
        raise from_validation(error, model, file) from None
    if config.name != path.name:
        raise BadInput(
            f"{config.name!r} in folder {path.name}",
            file=file,
            field="name",
            fix=f"call it {path.name}, as the folder is called",
        )
    return config


def find(model: str) -> Folder:
    """The folder of the model of that name in this repository."""
    return load(BENTOS / model)
