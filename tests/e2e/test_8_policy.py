"""The policy pack on the running platform's own stack: previews only, nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from slipway import paths

PACK = "policies/infrastructure"


def test_the_platform_holds_its_own_policy(slipway: Callable[..., str]) -> None:
    said = slipway(
        "pulumi", "preview", "--non-interactive", "--expect-no-changes", "--policy-pack", PACK
    )
    assert "slipway-infrastructure@" in said
    assert "[mandatory]" not in said
    assert "[advisory]" not in said


def test_a_stricter_policy_refuses_it(slipway: Callable[..., str], tmp_path: Path) -> None:
    """A pack whose images may only be one name: every workload breaks it, and the preview fails."""
    pack = tmp_path / "stricter"
    pack.mkdir()
    own = paths.REPOSITORY / PACK
    (pack / "PulumiPolicy.yaml").write_text((own / "PulumiPolicy.yaml").read_text())
    (pack / "__main__.py").write_text(
        "import sys\n"
        f"sys.path[0] = {json.dumps(str(paths.REPOSITORY))}\n"
        "import re\n"
        "from policies.infrastructure import pack\n"
        "from policies.infrastructure.rules import workloads\n"
        "workloads._BY_DIGEST = re.compile('never')\n"
        "pack.serve()\n"
    )
    said = slipway("pulumi", "preview", "--non-interactive", "--policy-pack", str(pack), code=None)
    assert "[mandatory]  images-versioned" in said
    assert "has no version" in said
    assert "preview failed" in said
