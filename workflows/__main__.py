"""Writes every workflow as YAML beside its source: `python -m workflows`."""

from __future__ import annotations

import importlib
from pathlib import Path

FOLDER = Path(__file__).parent
SHARED = ("__main__", "steps")


def render() -> dict[Path, str]:
    """File to content, of each workflow here."""
    return {
        source.with_suffix(".yaml"): importlib.import_module(f"workflows.{source.stem}").render()
        for source in sorted(FOLDER.glob("*.py"))
        if source.stem not in SHARED
    }


if __name__ == "__main__":
    for file, content in render().items():
        file.write_text(content)
