import importlib.util
from typing import Any

import pytest
import yaml

from slipway import paths
from slipway.steps.__main__ import FLAGS, TRANSIENT

WORKFLOWS = sorted((paths.REPOSITORY / "workflows").glob("*.py"))


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, paths.REPOSITORY / f"workflows/{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("source", WORKFLOWS, ids=lambda p: p.stem)
def test_the_committed_yaml_is_what_the_source_generates(source: Any) -> None:
    committed = source.with_suffix(".yaml").read_text()
    assert committed == _module(source.stem).render(), f"run: python workflows/{source.name}"


@pytest.fixture(scope="module")
def train() -> dict[str, Any]:
    return yaml.safe_load((paths.REPOSITORY / "workflows" / "train.yaml").read_text())["spec"]


def test_each_template_gives_its_step_the_flags_that_it_takes(train: dict[str, Any]) -> None:
    steps = {t["name"]: t["container"] for t in train["templates"] if "container" in t}
    assert set(steps) == set(FLAGS)
    for name, container in steps.items():
        given = {arg.split("=")[0].removeprefix("--") for arg in container["args"]}
        assert given == {"model", "output-dir", *FLAGS[name]}


def test_every_pod_meets_restricted_pod_security(train: dict[str, Any]) -> None:
    assert train["securityContext"]["runAsNonRoot"] is True
    assert train["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for template in train["templates"]:
        if "container" in template:
            security = template["container"]["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["runAsUser"] == 10001


def test_only_what_may_pass_is_tried_again(train: dict[str, Any]) -> None:
    for template in train["templates"]:
        if "container" in template:
            expression = template["retryStrategy"]["expression"]
            assert f"'{TRANSIENT}'" in expression
            assert "'1'" not in expression
            assert "'2'" not in expression
