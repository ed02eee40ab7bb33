import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from slipway import bento, contract, paths
from slipway.errors import BadInput

FIXTURES = paths.REPOSITORY / "tests" / "fixtures" / "bentos"


def whole(folder: Path) -> bento.Folder | bento.Pretrained:
    """The folder, with all that is in it loaded."""
    if bento.is_pretrained(folder):
        return bento.load_pretrained(folder)
    loaded = bento.load(folder)
    assert loaded.training().SCHEMA is not None
    return loaded


@pytest.mark.parametrize("folder", sorted(FIXTURES.glob("valid/*/")), ids=lambda p: p.name)
def test_valid_folders_load(folder: Path) -> None:
    assert whole(folder).config.name == folder.name


@pytest.mark.parametrize(
    "expected", sorted(FIXTURES.glob("invalid/*.expected")), ids=lambda p: p.stem
)
def test_invalid_folders_say_what_to_do(expected: Path) -> None:
    with pytest.raises(BadInput) as raised:
        whole(expected.with_suffix(""))
    for line in expected.read_text().splitlines():
        assert line in str(raised.value)


def test_every_bento_of_the_repository_is_valid() -> None:
    folders = [path.parent for path in bento.BENTOS.glob("*/model.yaml")]
    assert folders
    for folder in folders:
        whole(folder)


def test_what_is_fetched_is_not_trained_and_the_other_way_round() -> None:
    with pytest.raises(BadInput, match="slipway fetch qwen_chat"):
        bento.find("qwen_chat")
    with pytest.raises(BadInput, match="slipway train flight_delay"):
        bento.load_pretrained(bento.BENTOS / "flight_delay")


def test_an_unknown_model_is_compared_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="did you mean 'flight_delay'"):
        bento.find("flight_dellay")


def test_folders_do_not_see_each_others_modules() -> None:
    first, second = (bento.load(FIXTURES / "valid" / name) for name in ("minimal", "second"))
    assert first.training().WHO == "minimal"  # pyright: ignore
    assert second.training().WHO == "second"  # pyright: ignore
    assert "names" not in sys.modules


def test_prose_and_tests_are_no_part_of_the_code_digest(tmp_path: Path) -> None:
    copy = tmp_path / "minimal"
    shutil.copytree(FIXTURES / "valid" / "minimal", copy)
    before = bento.load(copy).code()
    (copy / "README.md").write_text("other")
    (copy / "tests").mkdir()
    (copy / "__pycache__").mkdir(exist_ok=True)
    (copy / "search.yaml").write_text("")
    assert bento.load(copy).code() == before
    (copy / "training.py").write_text((copy / "training.py").read_text() + "\n# other\n")
    assert bento.load(copy).code() != before


def test_code_changed_within_a_second_is_the_changed_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    copy = tmp_path / "minimal"
    shutil.copytree(FIXTURES / "valid" / "minimal", copy, ignore=shutil.ignore_patterns("__py*"))
    file = copy / "names.py"
    assert bento.load(copy).training().WHO == "minimal"  # pyright: ignore
    then = file.stat()
    file.write_text(file.read_text().replace("minimal", "nominal"))
    os.utime(file, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert bento.load(copy).training().WHO == "nominal"  # pyright: ignore


def test_requests_are_json_with_null_for_what_lacks() -> None:
    rows = pd.DataFrame(
        {
            "name": ["a", None],
            "size": [1.5, float("nan")],
            "count": [1, 2],
            "at": pd.to_datetime(["2013-12-20T18:30:00", None]).astype("datetime64[s]"),
        }
    )
    training: Any = SimpleNamespace(requests=lambda r: [{"one": o} for o in r.to_dict("records")])
    assert [json.loads(body) for body in contract.bodies(training, rows) or []] == [
        {"one": {"name": "a", "size": 1.5, "count": 1, "at": "2013-12-20T18:30:00"}},
        {"one": {"name": None, "size": None, "count": 2, "at": None}},
    ]
    assert contract.bodies(cast("Any", SimpleNamespace()), rows) is None
    training.requests = lambda _: []
    with pytest.raises(BadInput, match="0 bodies for 2 rows"):
        contract.bodies(training, rows)
    training.requests = lambda r: [{"one": np.array([1.5, np.nan])}, {"one": np.inf}][: len(r)]
    assert contract.bodies(training, rows[:1]) == [b'{"one": [1.5, null]}']
    with pytest.raises(BadInput, match="not JSON: Out of range"):
        contract.bodies(training, rows)
