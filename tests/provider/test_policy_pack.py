"""The policy pack under the real engine: what it stops, what it only says, what it leaves alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from provider.conftest import REPOSITORY
from provider.harness import Stack

pytestmark = pytest.mark.apiserver
PACK = str(REPOSITORY / "policies" / "infrastructure")
POD = """
    import os
    config = k8s.core.v1.ConfigMap("config", metadata={{"namespace": os.environ["NAMESPACE"]}})
    k8s.core.v1.Pod(
        "pod",
        metadata={{"namespace": os.environ["NAMESPACE"]}},
        spec={{
            "security_context": {{"run_as_non_root": True}},
            "containers": [{{
                "name": "main",
                "image": "{image}",
                "env": [{{"name": "UID", "value": config.metadata.uid}}],
                "security_context": {{"allow_privilege_escalation": False}},
                "resources": {{
                    "requests": {{"cpu": "1m", "memory": "1Mi"}}, "limits": {{"memory": "1Mi"}}
                }},
            }}],
        }},
    )
"""
PRICED = """
    from infra import config
    from infra.aws import price

    values = pulumi.runtime.config.CONFIG.get()
    price.tell(config.load(values, pulumi.get_stack()), pulumi.get_stack())
"""
GOOD = POD.format(image=f"r/x@sha256:{'a' * 64}")
BAD = POD.format(image="r/x:latest")


AWS = yaml.safe_load((REPOSITORY / "environments" / "Pulumi.dev.yaml").read_text())["config"]


@pytest.fixture
def hosting(stack: Stack, request: pytest.FixtureRequest) -> Stack:
    """A stack that hosts the environments that a test names."""
    stack.environment |= {"PYTHONPATH": str(REPOSITORY)}
    configure(stack, {"slipway:environments": request.param})
    return stack


def configure(stack: Stack, values: Mapping[str, Any]) -> None:
    file = stack.folder / "Pulumi.test.yaml"
    document = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**document, "config": dict(values)}))


@pytest.mark.parametrize("hosting", [["dev", "prod"]], indirect=True)
def test_mandatory_stops_before_anything_is_made(hosting: Stack) -> None:
    hosting.program(BAD)
    said = hosting.pulumi("preview", "--policy-pack", PACK, fails=True)
    assert "[mandatory]  images-versioned  (kubernetes:core/v1:Pod: pod)" in said
    assert "containers[main].image: r/x:latest has no version" in said
    # Values that only the update will tell are no reason to say that a rule cannot run.
    assert "can't run policy" not in said


@pytest.mark.parametrize("hosting", [["dev"]], indirect=True)
def test_advisory_is_said(hosting: Stack) -> None:
    hosting.program(POD.format(image="r/x:v1"))
    said = hosting.pulumi("preview", "--policy-pack", PACK)
    assert "[advisory]  images-pinned  (kubernetes:core/v1:Pod: pod)" in said


@pytest.mark.parametrize("hosting", [["prod"]], indirect=True)
def test_what_holds_says_nothing(hosting: Stack) -> None:
    hosting.program(GOOD)
    said = hosting.pulumi("preview", "--policy-pack", PACK)
    assert "slipway-infrastructure@v1.0.0" in said
    assert "[mandatory]" not in said
    assert "[advisory]" not in said


@pytest.mark.parametrize("hosting", [["live"]], indirect=True)
def test_an_environment_that_is_none(hosting: Stack) -> None:
    hosting.program(GOOD)
    said = hosting.pulumi("preview", "--policy-pack", PACK, fails=True)
    assert "unknown environment 'live'" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("hosting", [["dev"]], indirect=True)
def test_a_preview_says_what_the_stack_costs_and_what_changes(hosting: Stack) -> None:
    configure(hosting, AWS)
    hosting.program(PRICED)
    said = hosting.pulumi("preview")
    assert re.search(r"stack test: [\d,]+\.\d\d to [\d,]+\.\d\d USD a month, by prices of ", said)
    hosting.up()
    assert "a month" not in hosting.up()
    [pool] = AWS["slipway:gpuPools"]
    configure(hosting, {**AWS, "slipway:gpuPools": [{**pool, "max": pool["max"] + 1}]})
    assert re.search(r'~ ceiling: "[\d.]+" => "[\d.]+"', hosting.pulumi("preview", "--diff"))
