"""The release file: what is accepted, what is refused and in which words, and how it is written."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from slipway import release
from slipway.errors import BadInput

FIXTURES = Path(__file__).parents[1] / "fixtures" / "releases"
VALID = sorted((FIXTURES / "valid").glob("*.yaml"))
INVALID = sorted((FIXTURES / "invalid").glob("*.yaml"))


@pytest.mark.parametrize("file", VALID, ids=lambda f: f.stem)
def test_valid_reads_back_as_written(file: Path) -> None:
    read = release.load(file)
    written = release.dumps(read)
    assert release.parse(written, file) == read
    assert release.dumps(release.parse(written, file)) == written


@pytest.mark.parametrize("file", INVALID, ids=lambda f: f.stem)
def test_invalid_is_refused_with_file_field_and_fix(file: Path) -> None:
    with pytest.raises(BadInput) as refused:
        release.load(file)
    assert file.with_suffix(".expected").read_text().strip() in str(refused.value)
    assert file.name in str(refused.value)
    assert refused.value.exit_code == 2


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such release file"):
        release.load(tmp_path / "flight_delay.yaml")


def test_every_wrong_field_is_named_at_once() -> None:
    text = VALID[0].read_text().replace("version: 3", "version: x").replace("commit: ", "commit: 0")
    with pytest.raises(BadInput) as refused:
        release.parse(text, VALID[0])
    assert "version" in str(refused.value)
    assert "code.commit" in str(refused.value)


@pytest.mark.parametrize("commit", ["1" * 40, "1" * 20 + "e" + "2" * 19])
def test_digits_stay_text(commit: str) -> None:
    """Helm would read such a commit as a number."""
    read = release.load(FIXTURES / "valid" / "flight_delay.yaml")
    read = read.model_copy(update={"code": release.Code(commit=commit)})
    assert f'"{commit}"' in release.dumps(read)


def test_keys_keep_their_order() -> None:
    text = release.dumps(release.load(FIXTURES / "valid" / "flight_delay.yaml"))
    keys = [line.partition(":")[0] for line in text.splitlines() if line[0] not in " #"]
    assert keys == list(release.Release.model_fields)


def test_path() -> None:
    expected = PurePosixPath("environments/dev/models/flight_delay.yaml")
    assert release.path("dev", "flight_delay") == expected


def test_unknown_environment() -> None:
    with pytest.raises(BadInput, match="did you mean 'staging'"):
        release.check_environment("stagin")


@pytest.mark.parametrize("name", ["a", "Upper", "with-dash", "1st", "a__b", "a_", "x" * 41, "a\n"])
def test_model_names_refused(name: str) -> None:
    with pytest.raises(BadInput, match="a model's name is"):
        release.check_model_name(name)


@pytest.mark.parametrize(
    ("branch", "found"),
    [
        ("release/toy-3", ("dev", "toy", 3)),
        ("release/staging-toy-12", ("staging", "toy", 12)),
        ("release/staging-toy-12-0123abcd", ("staging", "toy", 12)),
        ("release/toy-3-0123abc", None),
        ("release/staging-3", ("dev", "staging", 3)),
        ("release/prod-staging-3", ("prod", "staging", 3)),
        ("rollback/prod-toy-3", None),
        ("release/toy", None),
        ("release/test-toy-3", None),
    ],
)
def test_a_branch_says_what_it_proposes(branch: str, found: tuple[str, str, int] | None) -> None:
    assert release.proposes(branch) == found
    if found:
        env, model, version = found
        mark = branch.rpartition("-")[2] if branch.endswith("abcd") else ""
        assert release.branch(model, version, env, mark=mark) == branch
