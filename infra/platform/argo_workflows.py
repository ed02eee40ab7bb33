"""Argo Workflows, from its own manifests: it manages one namespace and has rights there only."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import yaml

from infra.platform import pods, secrets, upstream
from infra.platform.component import NO_WAIT, Component, Resources
from infra.platform.minio import ObjectStore
from infra.platform.rights import READ, Rule, rights_in

PATCHES = Path(__file__).parent / "patches" / "argo-workflows.yaml"
DATABASE_LOGIN = "argo-postgres"
ARTIFACT_LOGIN = "argo-artifacts"
ACCOUNT = "workflow"
# Whose token Argo's own containers of such a pod have, to report how its step went. The step has
# none: who may report for one may report for all, and the trained commit's code could put what it
# likes in the place of what main's has found.
EXECUTOR = "executor"
# The controller's own account, as the manifests call it.
CONTROLLER_ACCOUNT = "argo"
# Whom Argo's server takes the forge for, and where it looks up how the forge signs.
EVENTS = "forge-events"
WEBHOOK_CLIENTS = "argo-workflows-webhook-clients"
CONSOLE, CONSOLE_TOKEN = "console", "console-token"
CONSOLE_RULES: list[Rule] = [
    (
        "argoproj.io",
        ["cronworkflows", "workfloweventbindings", "workflows", "workflowtemplates"],
        READ,
    ),
    ("", ["events", "pods", "pods/log"], READ),
]


def token_of(account: str) -> str:
    """The Secret where Argo looks for an account's token."""
    return f"{account}.service-account-token"


# Relative to the module's folder `manifests`; CRDs without schema, as its own install has them.
FILES = [
    "base/crds/minimal/*.yaml",
    "base/workflow-controller/*.yaml",
    "base/argo-server/*.yaml",
    "namespace-install/workflow-controller-rbac/*.yaml",
    "namespace-install/argo-server-rbac/*.yaml",
]
# What the two Roles keep in Argo's own namespace; the whole Role holds in the managed one.
OWN_NAMESPACE = {
    "argo-role": {"leases", "configmaps", "secrets", "events"},
    "argo-server-role": {"configmaps", "secrets", "events", "serviceaccounts"},
}
# And the Secrets that they may read in the managed one, where there are others.
MANAGED_SECRETS = {
    "argo-role": [ARTIFACT_LOGIN],
    "argo-server-role": [ARTIFACT_LOGIN, WEBHOOK_CLIENTS, token_of(EVENTS)],
}
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True)
class ArgoWorkflowsArgs:
    namespace: pulumi.Input[str]
    managed_namespace: pulumi.Input[str]
    manifests: Path
    """The module's folder `manifests`."""
    controller_image: str
    server_image: str
    executor_image: str
    database_host: pulumi.Input[str]
    database_password: pulumi.Input[str]
    artifacts: ObjectStore
    artifact_user: str
    artifact_bucket: str
    controller_resources: Resources
    server_resources: Resources
    stores: Sequence[pulumi.Resource]
    """What its programs find there when they start; nothing else waits for these."""
    node_port: int | None = None
    database_tls: bool = False
    authority: tuple[str, str] | None = None
    """ConfigMap in the managed namespace, and key there: certificates (PEM) of an authority that a
    pod's artifacts may come by, beside those that are known."""


class ArgoWorkflows(Component):
    """Outputs nothing but its readiness."""

    def __init__(
        self, name: str, args: ArgoWorkflowsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ArgoWorkflows", name, opts)
        secrets = self._secrets(args)
        self._console(args)
        upstream.register_all(name, self._objects(args), self.child, [*secrets, *args.stores])
        self.register_outputs({})

    def _objects(self, args: ArgoWorkflowsArgs) -> list[upstream.Manifest]:
        files = [f for pattern in FILES for f in sorted(args.manifests.glob(pattern))]
        loaded = upstream.load(*(f for f in files if f.name != "kustomization.yaml"))
        patched = upstream.patch(loaded, [*upstream.load_list(PATCHES), *self._patches(args)])
        images = {
            "quay.io/argoproj/workflow-controller": args.controller_image,
            "quay.io/argoproj/argocli": args.server_image,
        }
        placed = upstream.in_namespace(upstream.with_images(patched, images), args.namespace)
        managed = [
            self._placed(manifest, args.managed_namespace)
            for manifest in placed
            if manifest["kind"] in ("Role", "RoleBinding")
        ]
        for manifest in managed:
            if manifest["kind"] == "Role":
                names = MANAGED_SECRETS[manifest["metadata"]["name"].removesuffix("-managed")]
                manifest["rules"] = [_only(rule, names) for rule in manifest["rules"]]
        for manifest in placed:
            if manifest["kind"] == "Role":
                keep = OWN_NAMESPACE[manifest["metadata"]["name"]]
                manifest["rules"] = [r for r in manifest["rules"] if keep & set(r["resources"])]
        return placed + managed

    def _console(self, args: ArgoWorkflowsArgs) -> None:
        """An account that may look, and its token: what one logs in to the console with."""
        account = k8s.core.v1.ServiceAccount(
            f"argo-{CONSOLE}",
            metadata=pods.metadata(CONSOLE, args.namespace),
            automount_service_account_token=False,
            opts=self.child(),
        )
        k8s.core.v1.Secret(
            f"argo-{CONSOLE_TOKEN}",
            metadata=pods.metadata(
                CONSOLE_TOKEN, args.namespace, **{"kubernetes.io/service-account.name": CONSOLE}
            ),
            type="kubernetes.io/service-account-token",
            opts=self.child(account),
        )
        rights_in(
            CONSOLE,
            args.managed_namespace,
            CONSOLE_RULES,
            args.namespace,
            self.child(),
            resource=f"argo-{CONSOLE}",
        )

    @staticmethod
    def _placed(manifest: upstream.Manifest, namespace: pulumi.Input[str]) -> upstream.Manifest:
        placed = copy.copy(manifest)
        placed["metadata"] = {
            **manifest["metadata"],
            "name": f"{manifest['metadata']['name']}-managed",
            "namespace": namespace,
        }
        if "roleRef" in placed:
            role = manifest["roleRef"]
            placed["roleRef"] = {**role, "name": f"{role['name']}-managed"}
        return placed

    def _patches(self, args: ArgoWorkflowsArgs) -> list[upstream.Manifest]:
        scope = ["--namespaced", "--managed-namespace", args.managed_namespace]
        arguments = {
            "workflow-controller": (
                [
                    *("--executor-image", args.executor_image),
                    *("--executor-image-pull-policy", "IfNotPresent"),
                    *("--workflow-workers", "4", "--workflow-ttl-workers", "1"),
                    *("--pod-cleanup-workers", "2", "--workflow-archive-workers", "1"),
                    *("--cron-workflow-workers", "1", "--qps", "50", "--burst", "100"),
                    *scope,
                ],
                args.controller_resources,
            ),
            "argo-server": (
                # Every request says who it is; the forge's events, by their signature.
                ["server", "--secure=false", "--auth-mode=client", *scope],
                args.server_resources,
            ),
        }
        patches: list[upstream.Manifest] = [
            {"kind": "Service", "metadata": {"name": "*", "annotations": NO_WAIT}}
        ]
        for workload, (words, resources) in arguments.items():
            container = {
                "name": workload,
                "args": words,
                "resources": {
                    "requests": {"cpu": resources.cpu, "memory": resources.memory},
                    "limits": {"memory": resources.limit},
                },
            }
            pod = {"spec": {"containers": [container]}}
            patches.append(
                {"kind": "Deployment", "metadata": {"name": workload}, "spec": {"template": pod}}
            )
        patches.append(
            {
                "kind": "ConfigMap",
                "metadata": {"name": "workflow-controller-configmap"},
                "data": self._configuration(args),
            }
        )
        if args.node_port:
            port = {"name": "web", "nodePort": args.node_port}
            spec = {"type": "NodePort", "ports": [port]}
            patches.append({"kind": "Service", "metadata": {"name": "argo-server"}, "spec": spec})
        return patches

    def _configuration(self, args: ArgoWorkflowsArgs) -> dict[str, pulumi.Input[str]]:
        """The controller's configuration: a YAML text for each key."""

        def reference(secret: str, key: str) -> dict[str, str]:
            return {"name": secret, "key": key}

        def artifact_repository(endpoint: str) -> str:
            login: dict[str, Any] = {
                "accessKeySecret": reference(ARTIFACT_LOGIN, "accesskey"),
                "secretKeySecret": reference(ARTIFACT_LOGIN, "secretkey"),
            }
            s3 = {
                "endpoint": endpoint,
                "insecure": args.artifacts.insecure,
                "bucket": args.artifacts.bucket(args.artifact_bucket),
                "region": args.artifacts.region,
                "keyFormat": "{{workflow.name}}/{{pod.name}}",
                **(login if args.artifacts.login(args.artifact_user) else {"useSDKCreds": True}),
            }
            return yaml.safe_dump({"archiveLogs": True, "s3": s3})

        def persistence(host: str) -> str:
            return yaml.safe_dump(
                {
                    "archive": True,
                    "archiveTTL": "180d",
                    # Of a sweep every minute nobody asks in half a year.
                    "archiveLabelSelector": {
                        "matchExpressions": [
                            {
                                "key": "workflows.argoproj.io/cron-workflow",
                                "operator": "DoesNotExist",
                            }
                        ]
                    },
                    "nodeStatusOffLoad": False,
                    "connectionPool": {"maxIdleConns": 2, "maxOpenConns": 5},
                    "postgresql": {
                        "host": host,
                        "port": 5432,
                        "database": "argo",
                        "tableName": "argo_workflows",
                        "userNameSecret": reference(DATABASE_LOGIN, "username"),
                        "passwordSecret": reference(DATABASE_LOGIN, "password"),
                        **({"ssl": True, "sslMode": "require"} if args.database_tls else {}),
                    },
                }
            )

        fixed: dict[str, Any] = {
            "executor": {
                "resources": {
                    "requests": {"cpu": "10m", "memory": "32Mi"},
                    "limits": {"memory": "256Mi"},
                },
                "securityContext": {**RESTRICTED, "readOnlyRootFilesystem": True},
            },
            "mainContainer": {"securityContext": RESTRICTED, "imagePullPolicy": "IfNotPresent"},
            "workflowDefaults": {
                "spec": {
                    "serviceAccountName": ACCOUNT,
                    "automountServiceAccountToken": False,
                    "executor": {"serviceAccountName": EXECUTOR},
                    "podGC": {"strategy": "OnPodCompletion"},
                    # The archive in PostgreSQL keeps them longer.
                    "ttlStrategy": {"secondsAfterSuccess": 86400, "secondsAfterFailure": 604800},
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": pods.USER,
                        "runAsGroup": pods.USER,
                        "fsGroup": pods.USER,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    **_trusting(args.authority),
                }
            },
        }
        return {
            # Training has a limit of its own, so that what judges does not wait for it.
            "parallelism": "20",
            "workflowRestrictions": yaml.safe_dump({"templateReferencing": "Strict"}),
            **{key: yaml.safe_dump(value) for key, value in fixed.items()},
            "artifactRepository": args.artifacts.endpoint.apply(artifact_repository),
            "persistence": pulumi.Output.from_input(args.database_host).apply(persistence),
        }

    def _secrets(self, args: ArgoWorkflowsArgs) -> list[pulumi.Resource]:
        database = {"username": "argo", "password": args.database_password}
        login = args.artifacts.login(args.artifact_user)
        artifacts: Mapping[str, pulumi.Input[str]] = (
            {"accesskey": login.access_key, "secretkey": login.secret_key} if login else {}
        )
        # The console reads logs with the first, workflow pods write them with the second.
        return [
            secrets.keep(
                f"{place}-{name}",
                pods.metadata(name, namespace),
                data,
                self.child(),
            )
            for place, namespace, name, data in (
                ("argo", args.namespace, DATABASE_LOGIN, database),
                ("argo", args.namespace, ARTIFACT_LOGIN, artifacts),
                ("managed", args.managed_namespace, ARTIFACT_LOGIN, artifacts),
            )
            if data
        ]


def _trusting(authority: tuple[str, str] | None) -> dict[str, str]:
    """What of every workflow lets the container that brings artifacts know an authority."""
    if authority is None:
        return {}
    config, key = authority
    mounted = {"name": "authority", "mountPath": "/authority", "readOnly": True}
    # Beside the image's own file of those that are known, Go reads this folder.
    trusts = {"name": "SSL_CERT_DIR", "value": "/authority"}
    volume = {"name": config, "items": [{"key": key, "path": "ca.crt"}]}
    patch = {
        "initContainers": [{"name": "init", "env": [trusts], "volumeMounts": [mounted]}],
        "volumes": [{"name": "authority", "configMap": volume}],
    }
    return {"podSpecPatch": json.dumps(patch)}


def _only(rule: upstream.Manifest, secrets: list[str]) -> upstream.Manifest:
    """The rule; one on Secrets reads those that are named."""
    if "secrets" not in rule["resources"]:
        return rule
    return {**rule, "resources": ["secrets"], "resourceNames": secrets, "verbs": ["get"]}
