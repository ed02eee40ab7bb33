"""`slipway fetch`"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import httpx
import typer

from slipway import bento, release, weights
from slipway.commands import Model, out, say


def command(
    model: Model,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Made if it is not there.")],
) -> None:
    """Fetch a pretrained model's pinned weights, verified, into a folder that can be served."""
    release.check_model_name(model)
    folder = bento.load_pretrained(bento.BENTOS / model)
    token = os.environ.get("HF_TOKEN")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=weights.HUB, headers=headers, timeout=60) as client:
        out.print(weights.fetch(folder, to, client, say), markup=False, soft_wrap=True)
    say(f"on a machine with a GPU: bentoml serve {to}")
