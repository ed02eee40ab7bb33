"""Secrets Manager keeps the platform's secrets; External Secrets brings them into the cluster.

Who reads one there is written down by AWS, and it outlives the cluster. Consumers know nothing of
it: they find the Kubernetes Secret that they find on every other stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
from pulumi_aws.iam.role_policy import RolePolicy
from pulumi_aws.secretsmanager.secret import Secret
from pulumi_aws.secretsmanager.secret_version import SecretVersion
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.aws.cluster import ROLE_LABEL
from infra.aws.component import AwsComponent, Context
from infra.aws.policy import Statement, document
from infra.platform import pods, upstream
from infra.platform.component import Resources, after, fingerprint
from infra.platform.rights import READ, Rule, cluster_rights, rights_in
from infra.platform.secrets import Values

NAME = "external-secrets"
NAMESPACE = "kube-system"
STORE = "secrets-manager"
USER = 65534
METRICS, HEALTH = 8080, 8082
RESOURCES = Resources(cpu="10m", memory="64Mi", limit="256Mi")
# Everything else that the operator can do is switched off, and its kinds are not installed.
KINDS = ("externalsecrets", "secretstores", "clustersecretstores", "generatorstates")
ARGUMENTS = [
    f"--metrics-addr=:{METRICS}",
    f"--live-addr=:{HEALTH}",
    "--enable-push-secret-reconciler=false",
    "--enable-cluster-push-secret-reconciler=false",
    "--enable-cluster-external-secret-reconciler=false",
    "--enable-generator-state=false",
]
# The one that its stores may name, of the thirty that it knows.
PROVIDER = "aws"
API, GENERATORS = "external-secrets.io", "generators.external-secrets.io"
WRITE = ["create", "update", "patch", "delete"]
# Not among them, though in its own chart: tokens of any service account, which are all rights.
RULES: list[Rule] = [
    (API, ["externalsecrets", "secretstores", "clustersecretstores"], READ),
    (
        API,
        [
            f"{kind}{part}"
            for kind in ("externalsecrets", "secretstores", "clustersecretstores")
            for part in ("", "/status", "/finalizers")
        ],
        ["update", "patch"],
    ),
    (GENERATORS, ["generatorstates"], READ),
    ("", ["namespaces"], READ),
    # It watches what it has made, and Kubernetes knows no narrower right to watch by a label.
    ("", ["secrets"], READ),
    ("", ["events"], ["create", "patch"]),
]
RULES_IN_PLACE: list[Rule] = [("", ["secrets"], WRITE)]


@dataclass(frozen=True)
class SecretsArgs:
    context: Context
    cluster_name: pulumi.Input[str]
    image: str
    manifests: Path
    """The folder with its CRDs."""
    namespaces: Mapping[str, pulumi.Input[str]]
    """Where it may make Secrets: name to its output."""


class Secrets(AwsComponent):
    """The operator, its store, and `keep`, by which a secret gets there."""

    def __init__(
        self, name: str, args: SecretsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Secrets", name, args.context, opts)
        context = args.context
        self._key = self.key("secrets", f"Secrets of {context.name}", self.lasting())
        decrypt = _decrypt(self._key.arn, context.region)
        self._role, identity = self.identity(NAME, args.cluster_name, NAMESPACE, NAME, [decrypt])
        self._store = self._operator(args, identity)
        self.register_outputs({})

    def keep(
        self,
        name: str,
        metadata: ObjectMetaArgs,
        values: Values,
        opts: pulumi.ResourceOptions,
    ) -> pulumi.Resource:
        """Stores `values` as one secret; returns what makes the Kubernetes Secret of it."""
        context = self.context
        kept = Secret(
            name,
            # A name is taken for weeks after its secret is gone: AWS adds what makes it another.
            name_prefix=f"{context.name}/{name}-",
            description=f"{name} of {context.name}",
            kms_key_id=self._key.arn,
            tags=context.tagged(name),
            opts=self.lasting(),
        )
        version = SecretVersion(
            name,
            secret_id=kept.id,
            secret_string=pulumi.Output.secret(pulumi.Output.json_dumps(dict(values))),
            opts=self.child(),
        )
        # One by one: the role reads those that there are, and no others.
        right = RolePolicy(
            f"{NAME}-{name}",
            role=self._role.id,
            policy=document([_read(kept.arn)]),
            opts=self.child(),
        )
        return CustomResource(
            name,
            api_version=f"{API}/v1",
            kind="ExternalSecret",
            metadata=ObjectMetaArgs(
                name=metadata.name,
                namespace=metadata.namespace,
                labels=metadata.labels,
                annotations={
                    "pulumi.com/waitFor": "condition=Ready",
                    # A change is fetched at once, not at the next refresh.
                    "slipway/settings": fingerprint(values),
                },
            ),
            spec={
                "refreshInterval": "1h0m0s",
                "secretStoreRef": {"kind": "ClusterSecretStore", "name": STORE},
                "target": {"name": metadata.name, "creationPolicy": "Owner"},
                "dataFrom": [{"extract": {"key": kept.arn}}],
            },
            opts=after(opts, version, right, self._store),
        )

    def _operator(self, args: SecretsArgs, identity: pulumi.Resource) -> pulumi.Resource:
        context = self.context
        files = [args.manifests / f"{_group(kind)}_{kind}.yaml" for kind in KINDS]
        definitions = [
            upstream.register(NAME, slim(manifest), self.child())
            for manifest in upstream.load(*files)
        ]
        pod = pods.template(
            NAME,
            [
                pods.container(
                    NAME,
                    args.image,
                    RESOURCES,
                    args=ARGUMENTS,
                    env={"AWS_REGION": context.region},
                    port=METRICS,
                    readiness=pods.http_probe("/healthz", HEALTH),
                    liveness=pods.http_probe("/healthz", HEALTH, period=30),
                )
            ],
            service_account=NAME,
            user=USER,
            node_selector={ROLE_LABEL: "platform"},
            priority_class="system-cluster-critical",
        )
        rights = cluster_rights(NAME, NAMESPACE, RULES, self.child())
        for place, namespace in args.namespaces.items():
            rights += rights_in(
                NAME,
                namespace,
                RULES_IN_PLACE,
                NAMESPACE,
                self.child(),
                resource=f"{place}-{NAME}",
            )
        ready = [identity, *definitions, *rights]
        operator = pods.deployment(NAME, NAMESPACE, pod, self.child(*ready), recreate=True)
        return upstream.register(
            NAME,
            {
                "apiVersion": f"{API}/v1",
                "kind": "ClusterSecretStore",
                "metadata": {"name": STORE},
                "spec": {
                    # Without `auth` it is the operator's own role that asks.
                    "provider": {PROVIDER: {"service": "SecretsManager", "region": context.region}},
                    "conditions": [{"namespaces": list(args.namespaces.values())}],
                },
            },
            self.child(operator),
        )


def _group(kind: str) -> str:
    return GENERATORS if kind == "generatorstates" else API


def _read(arn: pulumi.Input[str]) -> Statement:
    return Statement(
        "Read", ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"], [arn]
    )


def _decrypt(key: pulumi.Input[str], region: str) -> Statement:
    through = {"StringEquals": {"kms:ViaService": f"secretsmanager.{region}.amazonaws.com"}}
    return Statement("Key", ["kms:Decrypt"], [key], through)


def slim(definition: upstream.Manifest) -> upstream.Manifest:
    """A definition with its storage version alone, without prose, and of providers AWS alone."""
    spec = definition["spec"]
    [stored] = [version for version in spec["versions"] if version["storage"]]
    schema = _without_prose(stored["schema"])
    properties = schema["openAPIV3Schema"]["properties"]["spec"]["properties"]
    if "provider" in properties:
        known = properties["provider"]["properties"]
        properties["provider"] |= {
            "properties": {PROVIDER: known[PROVIDER]},
            "required": [PROVIDER],
        }
    return {**definition, "spec": {**spec, "versions": [{**stored, "schema": schema}]}}


def _without_prose(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: _without_prose(value)
            for key, value in schema.items()
            # A property may be called so too: its schema is no text.
            if not (key == "description" and isinstance(value, str))
        }
    return [_without_prose(item) for item in schema] if isinstance(schema, list) else schema
