"""Search spaces: read, refused, and drawn from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from slipway import bento, paths, search
from slipway.bento import Folder, ModelConfig, Split
from slipway.errors import BadInput
from slipway.search import Domain, Search

FIXTURES = paths.REPOSITORY / "tests" / "fixtures" / "search"
CONFIG = ModelConfig(
    name="toy",
    description="A model with two parameters",
    owner="tests",
    service="service:Toy",
    split=Split(train=["part-0", "part-1"], holdout=["part-2"]),
    parameters={"depth": 3, "rate": 0.1},
)


def load(file: Path, folder: Path) -> Search:
    shutil.copy(file, folder / search.FILE)
    return search.load(Folder(folder, CONFIG))


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("valid/*.yaml")), ids=lambda f: f.stem)
def test_valid_ones_load(file: Path, tmp_path: Path) -> None:
    space = load(file, tmp_path)
    assert space.point(0) == {}
    assert set(space.point(1)) == set(space.parameters)


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("invalid/*.yaml")), ids=lambda f: f.stem)
def test_invalid_ones_say_what_to_do(file: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as raised:
        load(file, tmp_path)
    for line in file.with_suffix(".expected").read_text().splitlines():
        assert line in str(raised.value)


def test_a_model_without_one_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"search\.yaml: missing file"):
        search.load(Folder(tmp_path, CONFIG))


def test_each_one_of_the_repository_fits_its_model() -> None:
    found = [file.parent for file in bento.BENTOS.glob(f"*/{search.FILE}")]
    assert found
    for folder in found:
        search.load(bento.load(folder))


def test_a_search_space_is_no_part_of_the_code_digest() -> None:
    folder = bento.find("flight_delay")
    assert search.FILE not in [file.name for file in folder.path.glob("*.py")]
    assert search.load(folder).validation == ["2013-10"]


def test_a_point_is_the_same_whoever_asks_and_no_two_are_equal() -> None:
    space = search.load(bento.find("flight_delay"))
    points = [space.point(number) for number in range(1, 200)]
    assert points == [space.point(number) for number in range(1, 200)]
    assert len({str(point) for point in points}) == len(points)


def test_draws_stay_within_and_keep_their_kind() -> None:
    space = search.load(bento.find("flight_delay"))
    for number in range(1, 300):
        point = space.point(number)
        assert isinstance(point["max_iter"], int)
        assert 50 <= point["max_iter"] <= 400
        assert isinstance(point["learning_rate"], float)
        assert 0.02 <= point["learning_rate"] <= 0.2
        assert point["max_leaf_nodes"] in (7, 15, 31, 63)


def test_log_makes_each_power_of_ten_as_likely() -> None:
    import random

    domain, chance = Domain(low=0.001, high=1.0, scale="log"), random.Random(0)
    drawn = [float(domain.draw(chance)) for _ in range(3000)]
    shares = [sum(low <= x < low * 10 for x in drawn) / 3000 for low in (0.001, 0.01, 0.1)]
    assert all(0.3 < share < 0.37 for share in shares)
