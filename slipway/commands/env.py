"""`slipway env`"""

from __future__ import annotations

import os
import shlex

import typer

from slipway import endpoints, pulumi, toolchain


def command() -> None:
    """Variables for your shell: `eval "$(slipway env)"`, then kubectl, argocd, pulumi work."""
    variables = pulumi.environment()
    tools = [str(toolchain.binary(name).parent) for name in ("kubectl", "argocd", "argo", "helm")]
    variables["PATH"] = ":".join([*tools, variables["PATH"]])
    # MLflow would send clients to the object store by a name that only the cluster knows.
    variables["MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"] = "false"
    variables["KUBECONFIG"] = str(endpoints.kubeconfig())
    del variables["PYTHONPATH"], variables["PYTHONDONTWRITEBYTECODE"]
    for key, value in variables.items():
        if os.environ.get(key) != value:
            typer.echo(f"export {key}={shlex.quote(value)}")
