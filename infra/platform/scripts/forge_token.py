"""Keeps a token of a GitHub App in a Secret: made anew while the one before still counts for long.

What fails ends it, and it is started again; the Secret keeps what it has.
"""

import json
import os
import time
from pathlib import Path

import httpx

from slipway.errors import SlipwayError
from slipway.github_app import STACK, App, Installation, load_key

# A pod that starts has what was there then, for as long as it may run: a step has 20 minutes.
RESERVE_S = 1800
# Of a forge whose tokens last for no longer than that, not in a loop without a pause.
LEAST_S = 60
READY = Path("/tmp/ready")  # noqa: S108 -- on a volume of the pod's own
ACCOUNT = Path(os.environ.get("ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
KEY = Path(os.environ.get("KEY", "/etc/forge-app/key.pem"))


def main() -> None:
    settings = json.loads(Path(__file__).with_name("settings.json").read_text())
    key = load_key(KEY.read_text(), STACK[2])
    app = App(settings["id"], settings["installation"], key, STACK)
    ca, permissions = settings["ca"], settings["permissions"]
    login = Installation(
        app, settings["api"], settings["repository"], permissions=permissions, ca=ca
    )
    where = f"/api/v1/namespaces/{settings['namespace']}/secrets/{settings['secret']}"
    while True:
        token = login.token(RESERVE_S)
        found = {
            "FORGE_USERNAME": login.username,
            "FORGE_PASSWORD": token,
            "FORGE_LOGIN": login.login,
        }
        keep(where, found)
        READY.touch()
        print(f"{login.login}: its token counts for {login.seconds / 60:.0f} minutes")
        time.sleep(max(LEAST_S, login.seconds - RESERVE_S))


def keep(where: str, values: dict[str, str]) -> None:
    """Writes them into the Secret at an API path."""
    host, port = (os.environ[f"KUBERNETES_SERVICE_{name}"] for name in ("HOST", "PORT"))
    with httpx.Client(
        base_url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"},
        verify=str(ACCOUNT / "ca.crt"),
        timeout=30,
        trust_env=False,
    ) as api:
        merge = {"Content-Type": "application/merge-patch+json"}
        answer = api.patch(where, json={"stringData": values}, headers=merge)
    if answer.is_error:
        raise SystemExit(f"PATCH {where}: {answer.status_code} {answer.text}")


if __name__ == "__main__":
    try:
        main()
    except (SlipwayError, httpx.TransportError) as error:
        raise SystemExit(f"no token: {error}") from None
