"""The policy pack under the real engine: what it stops, what it only says, what it leaves alone."""

from __future__ import annotations

import pytest
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
GOOD = POD.format(image=f"r/x@sha256:{'a' * 64}")
BAD = POD.format(image="r/x:latest")


@pytest.fixture
def hosting(stack: Stack, request: pytest.FixtureRequest) -> Stack:
    """A stack that hosts the environments that a test names."""
    stack.environment |= {"PYTHONPATH": str(REPOSITORY)}
    stack.pulumi("config", "set", "slipway:environments", request.param)
    return stack


@pytest.mark.parametrize("hosting", ['["dev", "prod"]'], indirect=True)
def test_mandatory_stops_before_anything_is_made(hosting: Stack) -> None:
    hosting.program(BAD)
    said = hosting.pulumi("preview", "--policy-pack", PACK, fails=True)
    assert "[mandatory]  images-pinned  (kubernetes:core/v1:Pod: pod)" in said
    assert "containers[main].image: r/x:latest has no digest" in said
    # Values that only the update will tell are no reason to say that a rule cannot run.
    assert "can't run policy" not in said


@pytest.mark.parametrize("hosting", ['["dev"]'], indirect=True)
def test_advisory_is_said(hosting: Stack) -> None:
    hosting.program(BAD)
    said = hosting.pulumi("preview", "--policy-pack", PACK)
    assert "[advisory]  images-pinned  (kubernetes:core/v1:Pod: pod)" in said


@pytest.mark.parametrize("hosting", ['["prod"]'], indirect=True)
def test_what_holds_says_nothing(hosting: Stack) -> None:
    hosting.program(GOOD)
    said = hosting.pulumi("preview", "--policy-pack", PACK)
    assert "slipway-infrastructure@v1.0.0" in said
    assert "[mandatory]" not in said
    assert "[advisory]" not in said


@pytest.mark.parametrize("hosting", ['["live"]'], indirect=True)
def test_an_environment_that_is_none(hosting: Stack) -> None:
    hosting.program(GOOD)
    said = hosting.pulumi("preview", "--policy-pack", PACK, fails=True)
    assert "unknown environment 'live'" in said
    assert "Traceback" not in said
