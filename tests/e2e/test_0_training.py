"""What serves is what this checkout makes, and making it twice changes nothing."""

from __future__ import annotations

from collections.abc import Callable

from slipway import release, serving
from slipway.endpoints import Cluster
from slipway.forge import Gitea

from .conftest import ENV, MODEL


def test_the_same_inputs_give_the_same_bento(
    platform: Cluster, forge: Gitea, slipway: Callable[..., str]
) -> None:
    """Trains what the checkout holds; a platform from an older checkout gets it merged first."""
    output = slipway("train", MODEL, "--wait")
    if "/pulls/" in output:
        forge.merge(int(output.split("/pulls/")[1].split()[0]))
        path = release.path(ENV, MODEL)
        digest = release.parse(forge.read(str(path)), path).bento.digest
        serving.wait_until_answering(platform, ENV, MODEL, digest)
        output = slipway("train", MODEL, "--wait")
    assert "nothing to propose" in output
