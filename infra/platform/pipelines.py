"""What workflow pods find in their namespace: credentials, settings, and accounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.platform import pods, secrets, signing
from infra.platform.argo_workflows import (
    ACCOUNT,
    EVENTS,
    EXECUTOR,
    WEBHOOK_CLIENTS,
    token_of,
)
from infra.platform.component import Component
from infra.platform.rights import Rule, rights_in
from slipway import people

DISPATCHED = "dispatched"
ARGO = "argoproj.io"
ACCOUNTS: dict[str, list[Rule]] = {
    ACCOUNT: [],
    # Another name: admission tells who may sign by it.
    signing.ACCOUNT: [],
    EXECUTOR: [(ARGO, ["workflowtaskresults"], ["create", "patch"])],
    "dispatcher": [
        (ARGO, ["workflows"], ["create", "get", "list"]),
        (ARGO, ["workflowtemplates"], ["get"]),
        ("", ["configmaps"], ["get", "patch"], [DISPATCHED]),
    ],
    EVENTS: [
        (ARGO, ["workfloweventbindings"], ["list"]),
        (ARGO, ["workflowtemplates"], ["get"]),
        (ARGO, ["workflows"], ["create"]),
    ],
}


@dataclass(frozen=True)
class PipelinesArgs:
    namespace: pulumi.Input[str]
    object_store: Mapping[str, pulumi.Input[str]]
    """Environment of the S3 client."""
    labels: Mapping[str, pulumi.Input[str]]
    """The same, for who says how predictions turned out. No step is given it."""
    reader: Mapping[str, pulumi.Input[str]]
    """The same, for people, who only read."""
    forge: Mapping[str, pulumi.Input[str]]
    """Environment of the forge's client; empty: another part of the platform brings it."""
    settings: Mapping[str, pulumi.Input[str]]
    """Addresses and images, for steps and as workflow parameters."""
    webhook_secret: pulumi.Input[str]
    """Signs the forge's events."""
    training_at_once: int
    """Workflows that train at a time; those that judge or follow are not counted."""


class Pipelines(Component):
    """Secrets for steps and for people, ConfigMap `platform`, and the pods' accounts."""

    def __init__(
        self, name: str, args: PipelinesArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Pipelines", name, opts)
        given = {
            "object-store": args.object_store,
            people.LABELS: args.labels,
            people.READER: args.reader,
            "forge": args.forge,
        }
        for secret, data in given.items():
            secrets.keep(
                f"pipelines-{secret}",
                pods.metadata(secret, args.namespace),
                data,
                self.child(),
            )
        k8s.core.v1.ConfigMap(
            "pipelines-platform",
            metadata=ObjectMetaArgs(
                name="platform",
                namespace=args.namespace,
                # Workflow parameters may be read from config maps that say so.
                labels={"workflows.argoproj.io/configmap-type": "Parameter"},
            ),
            data=args.settings,
            opts=self.child(),
        )
        # Only the step that dispatches writes it; what is in it is that step's own.
        k8s.core.v1.ConfigMap(
            f"pipelines-{DISPATCHED}",
            metadata=pods.metadata(DISPATCHED, args.namespace),
            opts=self.child(),
        )
        k8s.core.v1.ConfigMap(
            "pipelines-limits",
            metadata=pods.metadata("limits", args.namespace),
            data={"training": str(args.training_at_once)},
            opts=self.child(),
        )
        accounts: dict[str, k8s.core.v1.ServiceAccount] = {}
        for account, rules in ACCOUNTS.items():
            accounts[account] = k8s.core.v1.ServiceAccount(
                account, metadata=pods.metadata(account, args.namespace), opts=self.child()
            )
            if rules:
                rights_in(account, args.namespace, rules, args.namespace, self.child())
        for account in (EXECUTOR, EVENTS):
            self._token(args, account, accounts[account])
        client = pulumi.Output.json_dumps({"type": "github", "secret": args.webhook_secret})
        # Argo's server takes an event whose signature is right for an account's as its own.
        secrets.keep(
            WEBHOOK_CLIENTS,
            pods.metadata(WEBHOOK_CLIENTS, args.namespace),
            {EVENTS: client},
            self.child(),
        )
        self.register_outputs({})

    def _token(self, args: PipelinesArgs, name: str, account: k8s.core.v1.ServiceAccount) -> None:
        """A Secret with an account's token, called as Argo looks for it."""
        secret = token_of(name)
        k8s.core.v1.Secret(
            secret,
            metadata=pods.metadata(
                secret, args.namespace, **{"kubernetes.io/service-account.name": name}
            ),
            type="kubernetes.io/service-account-token",
            # A token of an account that is not there yet is deleted.
            opts=self.child(account),
        )
