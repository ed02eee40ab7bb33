"""`slipway env`"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import typer

from slipway import endpoints, toolchain

TOOLS = ("kubectl", "argocd", "argo", "helm")


def command() -> None:
    """Variables for your shell: `eval "$(slipway env)"`, then kubectl, argocd, pulumi work."""
    tools = [toolchain.binary(name).parent for name in TOOLS]
    # Among them `pulumi` as `slipway pulumi`: by itself it knows neither state nor passphrase.
    ours = [toolchain.SHELL, *tools, Path(sys.executable).parent]
    # In that order, however often it is typed.
    folders = dict.fromkeys([*map(str, ours), *os.environ.get("PATH", "").split(":")])
    variables = {
        "PATH": ":".join(folders),
        # MLflow would send clients to the object store by a name that only the cluster knows.
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
        "KUBECONFIG": str(endpoints.kubeconfig()),
    }
    for key, value in variables.items():
        if os.environ.get(key) != value:
            typer.echo(f"export {key}={shlex.quote(value)}")
