"""Thresholds: what is accepted, what is refused and in which words; those that are committed."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from slipway import gates, paths
from slipway.comparison import EvidencePolicy
from slipway.errors import BadInput
from slipway.gates import Policy, load_policy, reader
from slipway.release import ENVIRONMENTS, Strict

FIXTURES = paths.REPOSITORY / "tests" / "fixtures" / "policies"
APPROVALS = FIXTURES / "valid" / "approvals_two_groups.yaml"


def read(file: Path) -> object:
    """Reads a fixture as what its name says that it is."""
    if file.stem.startswith("break_glass_"):
        return gates.parse_break_glass(file.read_bytes(), file)
    if file.stem.startswith("approvals_"):
        return gates.load_approvals(lambda _: file.read_bytes())
    return policy(file)


def policy(file: Path, model: str = "toy") -> Policy:
    both = {"policies/promotion/prod.yaml": file, "policies/promotion/approvals.yaml": APPROVALS}
    return load_policy(lambda path: both[path].read_bytes(), "prod", model)


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("valid/*.yaml")), ids=lambda f: f.stem)
def test_valid(file: Path) -> None:
    assert read(file)


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("invalid/*.yaml")), ids=lambda f: f.stem)
def test_invalid(file: Path) -> None:
    with pytest.raises(BadInput) as refused:
        read(file)
    assert file.with_suffix(".expected").read_text().strip() in str(refused.value)
    assert ".yaml" in str(refused.value)


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_those_committed_hold_and_fit_the_schema(env: str) -> None:
    found = load_policy(reader(paths.REPOSITORY), env, "flight_delay")
    assert found.limits.keys() | found.skip.keys() == gates.rules().keys()
    file = paths.REPOSITORY / gates.FOLDER / f"{env}.yaml"
    document = json.loads(json.dumps(yaml.safe_load(file.read_bytes()), default=str))
    jsonschema.validate(document, json.loads(gates.SCHEMA.read_bytes()))


def test_prod_is_stricter_than_staging_and_staging_than_dev() -> None:
    def margins(env: str) -> dict[str, float]:
        return dict(load_policy(reader(paths.REPOSITORY), env, "flight_delay").evidence.margins)

    dev, staging, prod = map(margins, ENVIRONMENTS)
    assert all(prod[name] <= staging[name] <= dev[name] for name in dev)


def test_the_schema_is_the_code_s() -> None:
    assert json.loads(gates.SCHEMA.read_bytes()) == gates.schema(), "python -m slipway.gates"


def test_the_readme_tells_of_every_rule() -> None:
    text = (paths.REPOSITORY / gates.FOLDER / "README.md").read_text()
    for name, rule in gates.rules().items():
        assert f"`{name}`" in text
        for info in rule.limits.model_fields.items():
            assert f"`{info[1].alias or info[0]}`" in text, (name, info[0])


def test_the_digest_is_of_what_is_said_not_how(tmp_path: Path) -> None:
    strict = FIXTURES / "valid" / "strict.yaml"
    file = tmp_path / "prod.yaml"
    file.write_text("# another comment\n" + strict.read_text().replace("{}", "{ }"))
    assert policy(file).digest == policy(strict).digest
    file.write_text(strict.read_text().replace("maximum_error: 0.03", "maximum_error: 0.04"))
    assert policy(file).digest != policy(strict).digest


def test_an_exception_is_one_model_s_alone() -> None:
    lenient = FIXTURES / "valid" / "lenient.yaml"
    toy, other = policy(lenient), policy(lenient, "other")
    assert list(toy.limits) == ["evidence", "approvals", "calibration"]
    assert "calibration" not in toy.skip
    assert "calibration" in other.skip
    assert toy.digest != other.digest
    assert other.evidence == EvidencePolicy()


@pytest.mark.parametrize("name", ["prod.yaml", "approvals.yaml"])
def test_without_thresholds_nothing_is_released(name: str) -> None:
    whole = reader(paths.REPOSITORY)
    with pytest.raises(BadInput, match=f"promotion/{name}: no such file"):
        load_policy(lambda path: None if path.endswith(name) else whole(path), "prod", "toy")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("def", "SyntaxError"),
        ("import nothing_like_it", "No module named 'nothing_like_it'"),
        ("class Limits: pass", "has no attribute 'check'"),
    ],
)
def test_a_broken_rule_names_its_file(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(BadInput, match=problem) as refused:
        gates.rules(tmp_path)
    assert str(tmp_path / "mine.py") in str(refused.value)


def test_a_rule_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from slipway.release import Strict\n"
        "class Limits(Strict):\n    at_most: int\n"
        "def check(subject, limits):\n    return []\n"
    )
    assert list(gates.rules(tmp_path)) == ["mine"]
    assert issubclass(gates.rules(tmp_path)["mine"].limits, Strict)
    (tmp_path / "skip.py").write_bytes((tmp_path / "mine.py").read_bytes())
    with pytest.raises(BadInput, match="no rule may be called skip"):
        gates.rules.__wrapped__(tmp_path)
