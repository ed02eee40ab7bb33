"""What builds are given of this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from slipway import images


def test_uv_is_the_virtual_environments_whatever_the_path_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    builder = images._Builder(lambda *_: None)
    builder._work = tmp_path
    builder._machine()
    own = Path(sys.executable).with_name("uv")
    assert (tmp_path / "host" / "uv" / "uv").read_bytes() == own.read_bytes()
