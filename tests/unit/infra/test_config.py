"""Stack files: what is accepted, and what is refused with which words."""

import json
import re
from pathlib import Path

import pytest
import yaml

from infra import config
from slipway.errors import BadInput
from tests.manifests import program
from tests.tls import Authority

HERE = Path(__file__).parent
# What to do: a fix of its own, or an instruction in the message, or what a value should be.
FIX = re.compile(
    r"\n  fix: .|did you mean|should (?:be|have)|needs? \w+|[:;,?] (?:or )?"
    r"(?:write|name|take|remove|lower|raise|give|leave|share|it is one of|that of|PEM)\b"
)


@pytest.mark.parametrize("file", sorted(HERE.glob("valid/*.yaml")), ids=lambda f: f.stem)
def test_valid(file: Path) -> None:
    assert config.load(program.settings(file), "local").environments


@pytest.mark.parametrize("file", sorted(HERE.glob("invalid/*.yaml")), ids=lambda f: f.stem)
def test_invalid(file: Path) -> None:
    with pytest.raises(BadInput) as error:
        config.load(program.settings(file), "local")
    said = str(error.value)
    assert file.with_suffix(".expected").read_text().strip() in said
    assert said.startswith("environments/Pulumi.local.yaml: ")
    # Each problem names a field by a key of the stack file, known or as it was written.
    keys = {
        key.rpartition(":")[2]
        for key in (*program.settings(file), *config.StackConfig.model_fields)
    }
    for problem in said.split("\nenvironments/Pulumi.local.yaml: "):
        field = re.match(r"(?:[a-z/A-Z.]+yaml: )?(?:[a-z]+:)?(\w+)", problem)
        assert field
        assert field[1] in keys
        assert FIX.search(problem), "and says what to do"


@pytest.mark.parametrize(
    "file", sorted(program.ROOT.glob("environments/Pulumi.*.yaml")), ids=lambda f: f.stem
)
def test_stacks_of_this_repository(file: Path) -> None:
    assert config.load(program.settings(file), file.stem.removeprefix("Pulumi."))


def test_project_file_and_model_name_the_same_keys() -> None:
    project = program.read_yaml(program.ROOT / "Pulumi.yaml")
    declared = {key.removeprefix("slipway:") for key in project["config"]}
    assert declared == set(config.StackConfig.model_fields)
    assert all(entry["description"] for entry in project["config"].values())


def test_a_stack_may_leave_out_everything_that_the_project_file_has_a_default_for() -> None:
    """The engine refuses a stack without a value for a key that has no default."""
    project = program.read_yaml(program.ROOT / "Pulumi.yaml")["config"]
    given = program.read_yaml(program.ROOT / "environments/Pulumi.local.yaml")["config"]
    filled = {key: entry["default"] for key, entry in project.items() if "default" in entry}
    assert set(project) <= set(filled) | set(given)
    values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in (filled | given).items()}
    assert config.load(values, "local").embedded


def test_a_size_names_only_what_differs() -> None:
    given = {"slipway:environments": '["dev"]', "slipway:components": '{"minio": {"cpu": "1"}}'}
    size = config.load(given, "local").components.minio
    assert (size.cpu, size.memory) == ("1", config.SIZES["minio"]["memory"])


def test_consoles_that_are_made_have_ports_where_the_stack_says_so() -> None:
    given = {"slipway:environments": '["dev"]'}
    assert config.load(given, "local").node_ports == {}
    given["slipway:nodePorts"] = "true"
    assert config.load(given, "local").node_ports == config.NODE_PORTS
    outside = program.settings(HERE / "valid" / "forge_gitea_inside.yaml")
    assert config.NODE_PORTS.keys() - config.load(outside, "local").node_ports == {"gitea"}


SHOWN = re.findall(
    r"^```yaml\n(  slipway:forge:\n.*?)^```",
    (program.ROOT / "docs/forge.md").read_text(),
    re.M | re.S,
)


@pytest.mark.parametrize("block", SHOWN)
def test_a_forge_as_documented(block: str) -> None:
    forge = yaml.safe_load(block)["slipway:forge"]
    if "ca" in forge:
        forge["ca"] = Authority.make("Acme root").pem
    secret = "forgeAppKey" if "app" in forge else "forgeToken"
    given = {"slipway:environments": '["dev"]', "slipway:forge": json.dumps(forge)}
    found = config.load(given | {f"slipway:{secret}": '{"secure": "v1:x"}'}, "local").forge
    assert found
    assert found.repository == "acme/models"


def test_monitoring_as_documented() -> None:
    document = (program.ROOT / "docs/serve.md").read_text()
    [block] = re.findall(r"^```yaml\n(  slipway:monitoring:.*?)^```", document, re.M | re.S)
    given = json.dumps(yaml.safe_load(block)["slipway:monitoring"])
    found = config.load({"slipway:environments": '["dev"]', "slipway:monitoring": given}, "local")
    assert found.monitoring
    assert config.load({"slipway:environments": '["dev"]', "slipway:monitoring": "{}"}, "local")


def test_the_document_shows_a_login_an_app_and_an_authority() -> None:
    assert [
        sorted({"username", "app", "ca"} & yaml.safe_load(b)["slipway:forge"].keys()) for b in SHOWN
    ] == [
        ["username"],
        ["app"],
        ["ca", "username"],
    ]
