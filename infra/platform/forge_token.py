"""Keeps steps in tokens of a GitHub App: each lasts for an hour, and a Secret holds one at a time.

Steps, and what fetches their source, find a token where that of a login would be. The app's private
key stays where no workflow runs: whoever may start one there can read that namespace's Secrets.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.core.v1 import (
    ConfigMapVolumeSourceArgs,
    ExecActionArgs,
    KeyToPathArgs,
    ProbeArgs,
    VolumeArgs,
)

from infra.platform import pods, secrets
from infra.platform.component import Component, fingerprint
from infra.platform.forge import App
from infra.platform.rights import Rule, rights_in
from slipway import github_app, paths

NAME, KEY = "forge-token", "forge-app"
MOUNTED = f"/etc/{KEY}"
# The Secret that steps read.
SECRET = "forge"  # noqa: S105 -- its name
SCRIPT, READY = "forge_token.py", "/tmp/ready"  # noqa: S108 -- on a volume of the pod's own
# What the script is made of, beside itself.
MODULES = ("__init__", "authority", "credentials", "errors", "github_app")
RIGHTS: list[Rule] = [("", ["secrets"], ["patch"], [SECRET])]


@dataclass(frozen=True)
class ForgeTokenArgs:
    namespace: pulumi.Input[str]
    """Argo CD's, which has the key already."""
    pipelines: pulumi.Input[str]
    """Where steps run."""
    image: pulumi.Input[str]
    """An image with Python, and what `slipway.github_app` imports."""
    app: App
    repository: str
    """OWNER/NAME"""
    reports: bool
    """Whether steps report the status without which nobody merges."""
    ca: str = ""


class ForgeToken(Component):
    """Ready when Secret `forge` in pipelines has a token; where there is none, its log says why."""

    def __init__(
        self, name: str, args: ForgeTokenArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ForgeToken", name, opts)
        key = secrets.keep(
            KEY, pods.metadata(KEY, args.namespace), {"key.pem": args.app.key}, self.child()
        )
        files = _files(args)
        config = k8s.core.v1.ConfigMap(
            NAME, metadata=pods.metadata(NAME, args.namespace), data=files, opts=self.child()
        )
        account = k8s.core.v1.ServiceAccount(
            NAME, metadata=pods.metadata(NAME, args.namespace), opts=self.child()
        )
        rights = rights_in(NAME, args.pipelines, RIGHTS, args.namespace, self.child())
        pods.deployment(
            NAME,
            args.namespace,
            pods.template(
                NAME,
                [
                    pods.container(
                        NAME,
                        args.image,
                        pods.SETUP,
                        command=["python", f"/scripts/{SCRIPT}"],
                        env={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"},
                        mounts={"/scripts": "scripts", MOUNTED: "key"},
                        readiness=ProbeArgs(
                            exec_=ExecActionArgs(command=["test", "-e", READY]), period_seconds=5
                        ),
                    )
                ],
                service_account=NAME,
                volumes=[_scripts(), pods.volume("key", secret=KEY)],
                annotations={"slipway/settings": fingerprint({**files, "key": args.app.key})},
            ),
            self.child(key, config, account, *rights),
            recreate=True,
        )
        self.register_outputs({})


def _files(args: ForgeTokenArgs) -> dict[str, pulumi.Input[str]]:
    """By key of the ConfigMap, which holds no slash."""
    permissions = github_app.PERMISSIONS | (github_app.REPORTS if args.reports else {})
    settings = {
        "id": args.app.id,
        "installation": args.app.installation,
        "api": args.app.api,
        "repository": args.repository,
        "permissions": permissions,
        "ca": args.ca,
        "key": f"{MOUNTED}/key.pem",
        "account": "/var/run/secrets/kubernetes.io/serviceaccount",
        "secret": pulumi.Output.concat("/api/v1/namespaces/", args.pipelines, "/secrets/", SECRET),
    }
    package = paths.REPOSITORY / "slipway"
    return {
        SCRIPT: (pods.SCRIPTS / SCRIPT).read_text(),
        "settings.json": pulumi.Output.json_dumps(settings),
        **{f"slipway.{module}.py": (package / f"{module}.py").read_text() for module in MODULES},
    }


def _scripts() -> VolumeArgs:
    """The script, and the package that it imports, as folders."""
    files = [SCRIPT, "settings.json"]
    items = [
        *(KeyToPathArgs(key=file, path=file) for file in files),
        *(KeyToPathArgs(key=f"slipway.{m}.py", path=f"slipway/{m}.py") for m in MODULES),
    ]
    return VolumeArgs(name="scripts", config_map=ConfigMapVolumeSourceArgs(name=NAME, items=items))
