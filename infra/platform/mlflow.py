"""MLflow: runs and models in PostgreSQL, artifacts in S3 through MLflow's own proxy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.core.v1 import EnvVarSourceArgs

from infra.platform import pods, secrets
from infra.platform.component import Component, Resources, fingerprint

NAME = "mlflow"
PORT = 5000
MIGRATE = "migrate.py"


@dataclass(frozen=True)
class MlflowArgs:
    namespace: pulumi.Input[str]
    image: pulumi.Input[str]
    database_host: pulumi.Input[str]
    database_password: pulumi.Input[str]
    object_store: Mapping[str, pulumi.Input[str]]
    """Environment of the S3 client."""
    bucket: str
    resources: Resources
    node_port: int | None = None


class Mlflow(Component):
    """`url`: the tracking server, as clients in the cluster name it."""

    url: pulumi.Output[str]

    def __init__(
        self, name: str, args: MlflowArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Mlflow", name, opts)
        host = pulumi.Output.concat(NAME, ".", args.namespace, ".svc")
        self.url = pulumi.Output.concat("http://", host, f":{PORT}")
        login = pulumi.Output.concat("mlflow:", args.database_password)
        settings = {
            **args.object_store,
            "MLFLOW_BACKEND_STORE_URI": pulumi.Output.concat(
                "postgresql+psycopg2://", login, "@", args.database_host, "/mlflow"
            ),
        }
        secret = secrets.keep(
            NAME,
            pods.metadata(NAME, args.namespace),
            settings,
            self.child(),
        )
        scripts = {MIGRATE: (pods.SCRIPTS / MIGRATE).read_text()}
        config = k8s.core.v1.ConfigMap(
            NAME, metadata=pods.metadata(NAME, args.namespace), data=scripts, opts=self.child()
        )
        env: dict[str, pulumi.Input[str] | EnvVarSourceArgs] = {
            **{key: pods.from_secret(NAME, key) for key in settings},
            "HOME": "/tmp",  # noqa: S108
            # Jobs serve evaluation of language models; their workers cost 300 MiB.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MALLOC_ARENA_MAX": "2",
        }
        # Names that its clients use; a page elsewhere that rebinds its own name is refused.
        hosts = "mlflow,mlflow:*,mlflow.*,localhost:*,127.0.0.1:*"
        pod = pods.template(
            NAME,
            [
                pods.container(
                    NAME,
                    args.image,
                    args.resources,
                    command=["mlflow", "server"],
                    args=[
                        f"--artifacts-destination=s3://{args.bucket}",
                        "--serve-artifacts",
                        "--workers=1",
                        "--host=0.0.0.0",
                        f"--port={PORT}",
                        f"--allowed-hosts={hosts}",
                    ],
                    env=env,
                    port=PORT,
                    # The first start lays out the database, on a slow disk in minutes.
                    startup=pods.http_probe("/health", PORT, period=3, failures=100),
                    readiness=pods.http_probe("/health", PORT),
                    liveness=pods.http_probe("/health", PORT, period=30, timeout=10),
                )
            ],
            # A server refuses tables of an older MLflow: of before an upgrade, or of a backup.
            init=[
                pods.container(
                    "migrate",
                    args.image,
                    args.resources,
                    command=["python", f"/scripts/{MIGRATE}"],
                    env=env,
                    mounts={"/scripts": "scripts"},
                )
            ],
            volumes=[pods.volume("scripts", config_map=NAME)],
            annotations={"slipway/settings": fingerprint({**settings, **scripts})},
        )
        pods.deployment(NAME, args.namespace, pod, self.child(secret, config), recreate=True)
        pods.service(NAME, args.namespace, PORT, self.child(), node_port=args.node_port)
        self.register_outputs({"url": self.url})
