"""The words of errors: which file, which field, which fix."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from slipway.errors import BadInput, SlipwayError, did_you_mean, from_validation


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    replicas: Annotated[int, Field(ge=1)] = 1
    region: str = Field(default="", alias="awsRegion")


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    part: Part | None = None
    parts: list[Part] = []
    size: str | None = Field(default=None, pattern="^[0-9]+Gi$", description="e.g. 10Gi")
    plain: str = Field(default="a", pattern="^a+$")
    sizes: list[Annotated[str, Field(pattern="^[0-9]+Gi$", description="e.g. 20Gi")]] = Field(
        default=[], description="of all disks"
    )
    count: int = Field(default=1, description="how many")

    @field_validator("count")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("not odd")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Whole:
        if self.count > 2 and not self.part:
            raise ValueError("count above 2 needs part")
        return self


class Described(BaseModel):
    name: str = Field(description="what it is called")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "f.yaml: name: Field required"),
        ({"name": 7}, "f.yaml: name: Input should be a valid string (got 7)"),
        ({"name": "a", "nmae": "b"}, "f.yaml: nmae: unknown key\n  fix: did you mean 'name'?"),
        ({"name": "a", "zone": "b"}, "f.yaml: zone: unknown key\n  fix: known: count, name, part"),
        (
            {"name": "a", "part": {"replica": 2}},
            "f.yaml: part.replica: unknown key\n  fix: did you mean 'replicas'?",
        ),
        (
            {"name": "a", "parts": [{}, {"awsRegoin": "eu"}]},
            "f.yaml: parts.1.awsRegoin: unknown key\n  fix: did you mean 'awsRegion'?",
        ),
        (
            {"name": "a", "part": {"replicas": 0}},
            "f.yaml: part.replicas: Input should be greater than or equal to 1 (got 0)",
        ),
        ({"name": "a", "count": 2}, "f.yaml: count: not odd (got 2)"),
        ({"name": "a", "size": "10"}, "f.yaml: size: malformed (got '10')\n  fix: e.g. 10Gi"),
        ({"name": "a", "sizes": ["1Gi", "7"]}, "sizes.1: malformed (got '7')\n  fix: e.g. 20Gi"),
        ({"name": "a", "plain": "b"}, "plain: String should match pattern '^a+$' (got 'b')"),
        ({"name": ["long"] * 99}, f"(got {['long'] * 99!r:.80})"),
    ],
)
def test_the_field_is_named(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        Whole.model_validate(given)
    assert said in str(from_validation(error.value, Whole, "f.yaml"))


def test_what_is_wrong_with_the_whole_names_no_field() -> None:
    with pytest.raises(ValidationError) as error:
        Whole.model_validate({"name": "a", "count": 3})
    assert str(from_validation(error.value, Whole, "f.yaml")) == "f.yaml: count above 2 needs part"


def test_what_is_missing_is_described() -> None:
    with pytest.raises(ValidationError) as error:
        Described.model_validate({})
    said = str(from_validation(error.value, Described, "f.yaml"))
    assert said == "f.yaml: name: Field required\n  fix: what it is called"


def test_every_wrong_field_is_named() -> None:
    with pytest.raises(ValidationError) as error:
        Whole.model_validate({"owner": "me", "part": {"replicas": 0}})
    said = str(from_validation(error.value, Whole, "f.yaml"))
    assert [line.split(": ")[1] for line in said.splitlines() if line.startswith("f.yaml")] == [
        *("name", "part.replicas", "owner")
    ]


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (SlipwayError("it broke"), "it broke", 1),
        (SlipwayError("it broke", fix="mend it"), "it broke\n  fix: mend it", 1),
        (BadInput("is wrong"), "is wrong", 2),
        (BadInput("is wrong", file="f", field="a.b", fix="x"), "f: a.b: is wrong\n  fix: x", 2),
        (BadInput("is wrong", field="a.b"), "a.b: is wrong", 2),
    ],
)
def test_where_and_what_to_do(error: SlipwayError, said: str, code: int) -> None:
    assert str(error) == said
    assert error.exit_code == code


def test_a_near_word_or_all_of_them() -> None:
    assert did_you_mean("stagin", ["prod", "staging", "dev"]) == "did you mean 'staging'?"
    assert did_you_mean("qa", ["prod", "dev"]) == "known: dev, prod"
