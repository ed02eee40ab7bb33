"""What `make up` has still to build, on a machine where nothing has been built."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway import images, toolchain
from slipway.errors import SlipwayError


@pytest.fixture(autouse=True)
def nothing_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(toolchain, "binary", not_built)
    images.images.cache_clear()


def not_built(name: str) -> Path:
    raise SlipwayError(f"{name} has not been built")


def test_what_only_some_command_needs_is_not_missing() -> None:
    missing = images.missing()
    assert {"base", "gitea", "kube-apiserver"} <= set(missing)
    assert not {"kueue", "kwok", "karpenter-kwok"} & set(missing)
    assert {"kueue", "kwok", "karpenter-kwok"} <= set(images.images())
