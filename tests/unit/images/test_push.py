"""`slipway push`: what a cluster that exists needs of us, in a registry of the user's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.stub import Stubber
from click.testing import Result
from typer.testing import CliRunner

from slipway import aws, doctor, ecr, images, paths, pulumi, toolchain
from slipway.cli import app
from slipway.errors import SlipwayError
from slipway.pulumi import Known
from tests.manifests import program
from tests.unit.aws.stacks import stack

OURS = ["mlflow", "serving", "training"]
DIGEST = f"sha256:{'a' * 64}"


@pytest.fixture
def pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was built and pushed, by root on Debian."""
    done: list[str] = []
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(doctor, "on_debian", lambda: True)
    monkeypatch.setattr(doctor, "missing_packages", list)
    monkeypatch.setattr(
        images, "build", lambda names, **_: done.extend(f"build {n}" for n in names)
    )
    monkeypatch.setattr(images.Image, "built", True)
    monkeypatch.setattr(images.Image, "digest", DIGEST)

    def push(image: images.Image, to: str, _: object, login: Path | None) -> None:
        token = json.loads(login.read_text())["auths"][to]["auth"] if login else ""
        done.append(f"push {image.name} {to} {token}".strip())

    monkeypatch.setattr(images, "_push", push)
    return done


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_it_prints_what_the_stack_file_takes(pushed: list[str]) -> None:
    result = run("push", "registry.example.com/ml")
    assert result.exit_code == 0, result.output
    assert pushed[:3] == [f"build {name}" for name in OURS]
    assert sorted(pushed[3:]) == [f"push {name} registry.example.com/ml" for name in OURS]
    printed = yaml.safe_load(f"config:\n{result.stdout}")
    assert printed["config"]["slipway:images"] == {
        name: f"registry.example.com/ml/slipway/{name}@{DIGEST}" for name in OURS
    }
    assert "environments/Pulumi.local.yaml" in result.stderr
    # The embedded cluster's own references stay what they are.
    assert not paths.images_file().exists()


def not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def not_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "on_debian", lambda: False)


@pytest.mark.parametrize("fault", [not_root, not_debian])
def test_it_needs_root_on_debian(
    pushed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[pytest.MonkeyPatch], None],
) -> None:
    fault(monkeypatch)
    result = run("push", "registry.example.com")
    assert result.exit_code == 2
    assert "by root on Debian or Ubuntu only" in result.stderr
    assert pushed == []


@pytest.mark.parametrize("registry", ["https://registry.example.com", "registry/", "Registry", ""])
def test_what_is_no_registry(pushed: list[str], registry: str) -> None:
    result = run("push", registry)
    assert result.exit_code == 2
    assert "REGISTRY: no registry" in result.stderr
    assert pushed == []


def test_a_registry_that_refuses(monkeypatch: pytest.MonkeyPatch, pushed: list[str]) -> None:
    def refused(*_: object, **__: object) -> None:
        raise SlipwayError("image mlflow: pushing failed", fix="`skopeo login registry`")

    monkeypatch.setattr(images, "_push", refused)
    result = run("push", "registry")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "skopeo login" in result.stderr


# --- what a registry has already --------------------------------------------------------------


SKOPEO = """#!/bin/sh
echo "$*" >>"$0.log"
[ "$1" != inspect ] || [ ! -e "$0.has" ] || cat "$0.has"
"""


@pytest.fixture
def skopeo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One in name only."""
    file = tmp_path / "bin" / "skopeo"
    file.parent.mkdir()
    file.write_text(SKOPEO)
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{file.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(images.Image, "digest", DIGEST)
    monkeypatch.setattr(images.Image, "built", True)
    return file


def test_what_is_there_is_not_written_again(skopeo: Path, tmp_path: Path) -> None:
    """A registry whose tags are written once, as ECR's here are, would refuse it."""
    login, said = tmp_path / "auth.json", dict[str, str]()
    images.deliver("r.example.com", ["mlflow"], login=login)
    image = f"docker://r.example.com/slipway/mlflow:{images.images()['mlflow'].tag}"
    asked, copied = Path(f"{skopeo}.log").read_text().splitlines()
    assert asked == f"inspect --no-tags --format={{{{.Digest}}}} --authfile={login} {image}"
    assert copied.startswith(f"copy --quiet --preserve-digests --authfile={login} oci:")
    assert copied.endswith(f" {image}")
    Path(f"{skopeo}.has").write_text(f"{DIGEST}\n")
    images.deliver("r.example.com", ["mlflow"], progress=said.__setitem__)
    assert said == {"mlflow": "pushed before"}
    assert len(Path(f"{skopeo}.log").read_text().splitlines()) == 3


# --- the registry of a stack on AWS -----------------------------------------------------------


ECR = "111111111111.dkr.ecr.eu-central-1.amazonaws.com"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[str, ...], dict[str, str]]]:
    """How the engine is called; AWS gives a token."""
    calls: list[tuple[tuple[str, ...], dict[str, str]]] = []

    def follow(*arguments: str, variables: dict[str, str], log: Path, **_: object) -> int:
        calls.append((arguments, variables))
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("Diagnostics:\n  error: no such role")
        return 0

    def clients(_: object) -> Callable[[str], Any]:
        made = boto3.client("ecr", "eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
        stub = Stubber(made)
        answer = {"authorizationData": [{"authorizationToken": "QVdTOng="}]}
        stub.add_response("get_authorization_token", answer)
        stub.activate()
        return lambda service: {"ecr": made}[service]

    monkeypatch.setattr(pulumi, "follow", follow)
    monkeypatch.setattr(toolchain, "build", lambda *_, **__: None)
    monkeypatch.setattr(pulumi, "known", lambda _: Known(frozenset(), frozenset()))
    monkeypatch.setattr(aws, "clients", clients)
    return calls


def test_a_stack_on_aws_gets_its_registry_and_then_the_images(
    pushed: list[str], engine: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run("push", "--stack", "dev")
    assert result.exit_code == 0, result.output
    [(arguments, variables)] = engine
    assert arguments[:2] == ("dev", "up")
    assert variables == {images.ONLY_REGISTRY: "1"}
    assert [a for w, a in pairwise(arguments) if w == "--target"] == [*ecr.TARGETS]
    assert sorted(pushed[3:]) == [f"push {name} {ECR} QVdTOng=" for name in OURS]
    printed = yaml.safe_load(f"config:\n{result.stdout}")["config"]["slipway:images"]
    # As environments/Pulumi.dev.yaml has them, and as staging and prod name them too.
    assert printed == {name: f"slipway/{name}@{DIGEST}" for name in OURS}
    assert "environments/Pulumi.dev.yaml" in result.stderr
    ids = frozenset(f"slipway/{name}" for name in OURS)
    monkeypatch.setattr(pulumi, "known", lambda _: Known(ids, frozenset()))
    assert run("push", "--stack", "dev").exit_code == 0
    assert len(engine) == 1


def test_the_registry_alone_is_what_the_whole_stack_has_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before any image is named; and what the engine is told to make is all that there is."""
    file = program.ROOT / "environments" / "Pulumi.dev.yaml"
    config = {k: v for k, v in program.settings(file).items() if k != "slipway:images"}
    monkeypatch.setenv(images.ONLY_REGISTRY, "1")
    alone = program.run(config, "dev")
    whole = stack("dev").by_urn
    kinds = {r.token.rpartition(":")[2] for r in alone.resources}
    assert kinds == {"aws", "Registry", "Repository", "LifecyclePolicy", "RepositoryPolicy"}
    found = {r.name: r.inputs for r in alone.resources if r.token.endswith(":Repository")}
    assert found.keys() == set(OURS)
    for urn, request in alone.requests:
        # The mocks name the stack in a URN, which the engine does not.
        known = urn.replace("pulumi:pulumi:Stack$", "")
        assert any(fnmatch(known, target.replace("**", "*")) for target in ecr.TARGETS)
        assert request.provider.rpartition("::")[0] == whole[urn].provider.rpartition("::")[0]
        assert request.parent == whole[urn].parent
    for name, inputs in found.items():
        assert inputs == whole_inputs(name)
    assert alone.outputs == {"registry": ECR}


def whole_inputs(name: str) -> dict[str, Any]:
    return stack("dev").one("ecr/repository:Repository", name).inputs


@pytest.mark.parametrize(
    ("arguments", "field", "fix"),
    [
        ((), "slipway:cluster", "name one: slipway push REGISTRY --stack local"),
        (("--stack", "prod"), "slipway:aws.registryOf", "slipway push --stack dev"),
        (("--stack", "dve"), "no such stack: dve", "did you mean 'dev'?"),
    ],
)
def test_a_stack_whose_registry_is_none_of_ours(
    pushed: list[str], arguments: tuple[str, ...], field: str, fix: str
) -> None:
    result = run("push", *arguments)
    assert result.exit_code == 2
    assert field in result.stderr
    assert f"fix: {fix}" in result.stderr
    assert pushed == []


def test_a_registry_that_cannot_be_made(
    pushed: list[str], engine: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = pulumi.follow
    monkeypatch.setattr(pulumi, "follow", lambda *a, **k: done(*a, **k) + 1)
    result = run("push", "--stack", "dev")
    assert result.exit_code == 1
    assert "pulumi up failed\nerror: no such role" in result.stderr
    assert "push " not in " ".join(pushed)
