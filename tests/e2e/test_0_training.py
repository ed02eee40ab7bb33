"""What serves is what this checkout makes, and making it twice changes nothing."""

from __future__ import annotations

from collections.abc import Callable

from slipway.endpoints import Cluster
from slipway.forge import Gitea

from .conftest import ENV, MODEL, merge, number_in


def test_the_same_inputs_give_the_same_bento(
    platform: Cluster, forge: Gitea, slipway: Callable[..., str]
) -> None:
    """Trains what the checkout holds; a platform from an older checkout gets it merged first."""
    output = slipway("train", MODEL, "--wait")
    if "/pulls/" in output:
        merge(forge, platform, number_in(output), ENV)
        output = slipway("train", MODEL, "--wait")
    assert "nothing to propose" in output
