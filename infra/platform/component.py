"""What every component of the platform has in common."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

# A service is ready when a pod behind it is, which is waited for by itself. Waiting here as well
# would take the places of Pulumi's few parallel operations, and leave none to make the pods.
NO_WAIT = {"pulumi.com/skipAwait": "true"}


@dataclass(frozen=True)
class Resources:
    """CPU and memory that a container asks for, and the memory at which it is stopped."""

    cpu: pulumi.Input[str]
    memory: pulumi.Input[str]
    limit: pulumi.Input[str]


class Component(pulumi.ComponentResource):
    """A component resource whose children wait for what the component depends on."""

    package = "platform"

    def __init__(self, kind: str, name: str, opts: pulumi.ResourceOptions | None) -> None:
        super().__init__(f"slipway:{self.package}:{kind}", name, None, opts)
        # Pulumi itself does not hand a component's depends_on down to its children.
        self._depends_on = opts.depends_on if opts and opts.depends_on else []

    def child(
        self,
        *after: pulumi.Resource,
        delete_before_replace: bool | None = None,
        aliases: Sequence[pulumi.Alias] | None = None,
    ) -> pulumi.ResourceOptions:
        """Options for a child: made after what the component depends on, and after `after`."""
        own = pulumi.ResourceOptions(
            parent=self,
            depends_on=list(after),
            delete_before_replace=delete_before_replace,
            aliases=aliases,
        )
        return pulumi.ResourceOptions.merge(
            pulumi.ResourceOptions(depends_on=self._depends_on), own
        )


def after(opts: pulumi.ResourceOptions, *resources: pulumi.Resource) -> pulumi.ResourceOptions:
    """The same options, for what is made after `resources`, and on destroy goes before them."""
    return pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=list(resources)))


def provider(
    kubeconfig: pulumi.Input[str] | None, opts: pulumi.ResourceOptions | None = None
) -> k8s.Provider:
    """The cluster, as all components are made there; None: the one that the environment names."""
    return k8s.Provider(
        "kubernetes",
        kubeconfig=kubeconfig,
        enable_server_side_apply=True,
        # Updated in place: Argo CD keeps keys of its own in the Secret that we share with it.
        enable_config_map_mutable=True,
        enable_secret_mutable=True,
        opts=opts,
    )


def fingerprint(values: Mapping[str, pulumi.Input[str]]) -> pulumi.Output[str]:
    """A digest of what pods read at their start only; in their template, it restarts them."""
    text = pulumi.Output.json_dumps(dict(values), sort_keys=True)
    digest = text.apply(lambda known: hashlib.sha256(known.encode()).hexdigest())
    # It tells nothing of the secrets among them, each of which is long and random.
    return pulumi.Output.unsecret(digest)


def secret_data(values: Mapping[str, pulumi.Input[str]]) -> dict[str, pulumi.Output[str]]:
    """`data` of a Kubernetes Secret, encrypted in Pulumi's state.

    Not `stringData`: that is write-only, so neither drift nor ownership of it can be seen.
    """
    return {
        key: pulumi.Output.secret(value).apply(
            lambda text: base64.b64encode(text.encode()).decode()
        )
        for key, value in values.items()
    }
