"""Keeps a token of a GitHub App in a Secret: made anew while the one before still counts for long.

What fails ends it, and it is started again; the Secret keeps what it has.
"""

import json
import os
import ssl
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from slipway.errors import SlipwayError
from slipway.github_app import STACK, App, Installation, load_key

# A pod that starts has what was there then, for as long as it may run: a step has 20 minutes.
RESERVE_S = 1800
# Where tokens last for no longer than that, there is a pause between them all the same.
LEAST_S = 60


def main(settings: dict[str, Any]) -> None:
    key = load_key(Path(settings["key"]).read_text(), STACK[2])
    login = Installation(
        App(settings["id"], settings["installation"], key, STACK),
        settings["api"],
        settings["repository"],
        permissions=settings["permissions"],
        ca=settings["ca"],
    )
    while True:
        token = login.token(RESERVE_S)
        values = {"USERNAME": login.username, "PASSWORD": token, "LOGIN": login.login}
        keep(settings, {f"FORGE_{name}": value for name, value in values.items()})
        Path(tempfile.gettempdir(), "ready").touch()
        print(f"{login.login}: its token counts for {login.seconds / 60:.0f} minutes")
        time.sleep(max(LEAST_S, login.seconds - RESERVE_S))


def keep(settings: dict[str, Any], values: dict[str, str]) -> None:
    """Writes them into the Secret, as this pod's account."""
    account, where = Path(settings["account"]), settings["secret"]
    host, port = (os.environ[f"KUBERNETES_SERVICE_{name}"] for name in ("HOST", "PORT"))
    with httpx.Client(
        base_url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        headers={"Authorization": f"Bearer {(account / 'token').read_text()}"},
        verify=ssl.create_default_context(cafile=str(account / "ca.crt")),
        timeout=30,
        trust_env=False,
    ) as api:
        merge = {"Content-Type": "application/merge-patch+json"}
        answer = api.patch(where, json={"stringData": values}, headers=merge)
    if answer.is_error:
        raise SystemExit(f"PATCH {where}: {answer.status_code} {answer.text}")


if __name__ == "__main__":
    try:
        main(json.loads(Path(__file__).with_name("settings.json").read_text()))
    except (SlipwayError, httpx.TransportError) as error:
        raise SystemExit(f"no token: {error}") from None
