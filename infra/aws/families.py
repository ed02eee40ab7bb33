"""The GPU instance families that pools may ask for: what is in them, and what they cost."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

FILE = Path(__file__).with_name("families.yaml")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Gpu(_Model):
    name: str
    product: str = Field(description="the label nvidia.com/gpu.product of nodes that have it")
    memoryGiB: int
    mig: list[str] = Field(default=[], description="profiles into which it can be divided")


class Size(_Model):
    gpus: int = Field(gt=0)
    vcpus: int = Field(gt=0)
    memoryGiB: int = Field(gt=0)
    price: float = Field(gt=0, description="US dollars an hour, on demand")


class Family(_Model):
    """`efa`: the sizes that have an Elastic Fabric Adapter."""

    gpu: Gpu
    efa: list[str] = []
    sizes: dict[str, Size]


class Catalogue(_Model):
    date: datetime.date
    source: str
    families: dict[str, Family]


@functools.cache
def catalogue() -> Catalogue:
    return Catalogue.model_validate(yaml.safe_load(FILE.read_text()))


def sizes(families: Sequence[str], wanted: Sequence[str] = ()) -> dict[str, Size]:
    """Instance type, e.g. g6.xlarge, to what it is; all sizes of the families, or the `wanted`."""
    return {
        f"{name}.{size}": what
        for name in families
        for size, what in catalogue().families[name].sizes.items()
        if not wanted or size in wanted
    }


def with_efa(families: Sequence[str], wanted: Sequence[str] = ()) -> list[str]:
    """The instance types among these that have an Elastic Fabric Adapter."""
    return [
        name
        for name in sizes(families, wanted)
        if name.partition(".")[2] in catalogue().families[name.partition(".")[0]].efa
    ]
