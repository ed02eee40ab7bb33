"""A stack file that is changed in one place."""

from __future__ import annotations

import pytest
import yaml

from slipway import documents
from slipway.errors import BadInput

TEXT = """# Ours.
config:
  slipway:cluster: kubeconfig  # kind
  slipway:forgeToken:
    secure: v1:old
  # Who trains.
  slipway:environments: [dev]
"""
NEW = {"secure": "v1:new"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            TEXT,
            TEXT.replace(
                "slipway:forgeToken:\n    secure: v1:old", "slipway:forgeToken: {secure: 'v1:new'}"
            ),
        ),
        (
            "config:\n    slipway:forgeToken: plain # ours\n",
            "config:\n    slipway:forgeToken: {secure: 'v1:new'} # ours\n",
        ),
        (
            "# Ours.\nconfig:\n  # One.\n  slipway:environments: [dev]\n",
            "# Ours.\nconfig:\n  # One.\n  slipway:forgeToken: {secure: 'v1:new'}\n"
            "  slipway:environments: [dev]\n",
        ),
    ],
    ids=["a block", "a line", "new"],
)
def test_all_else_stays_as_it_was(text: str, expected: str) -> None:
    found = documents.with_setting(text, "slipway:forgeToken", NEW, "stack.yaml")
    assert found == expected
    before, after = yaml.safe_load(text)["config"], yaml.safe_load(found)["config"]
    assert after == {**before, "slipway:forgeToken": NEW}


def test_a_config_on_one_line_is_told_how_to_be() -> None:
    with pytest.raises(BadInput, match=r"^stack.yaml: config: .*\n  fix: .*add slipway:forgeToken"):
        documents.with_setting("config: {a: b}\n", "slipway:forgeToken", NEW, "stack.yaml")
