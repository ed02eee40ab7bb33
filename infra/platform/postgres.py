"""PostgreSQL: one server, a database and a role of the same name for each service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.core.v1 import (
    ContainerArgs,
    EnvVarSourceArgs,
    ExecActionArgs,
    ProbeArgs,
)

from infra.platform import pods, secrets
from infra.platform.component import Component, Resources
from infra.platform.random_password import RandomPassword

NAME = "postgres"
PORT = 5432
DATABASES = "postgres-databases"
# Three small databases: memory that PostgreSQL would take by default serves nobody here.
SETTINGS = {
    "shared_buffers": "48MB",
    "max_connections": "60",
    "work_mem": "2MB",
    "maintenance_work_mem": "32MB",
    "max_parallel_workers": "0",
    "jit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "autovacuum_naptime": "5min",
}


@dataclass(frozen=True)
class PostgresArgs:
    namespace: pulumi.Input[str]
    image: pulumi.Input[str]
    databases: Sequence[str]
    storage: pulumi.Input[str]
    resources: Resources
    former: Sequence[str] = ()
    """Databases that are dropped, where there are such."""


@dataclass(frozen=True)
class DatabasesArgs:
    namespace: pulumi.Input[str]
    image: pulumi.Input[str]
    """An image with PostgreSQL's client."""
    databases: Sequence[str]
    host: pulumi.Input[str]
    password: pulumi.Input[str]
    """Of the user `postgres`."""
    former: Sequence[str] = ()
    """Databases that are dropped, where there are such."""


class Tables(Component):
    """`host`, `tls` (whether the server takes nothing else), and `passwords` by database."""

    host: pulumi.Output[str]
    tls: bool
    passwords: dict[str, pulumi.Output[str]]

    def _contents(self, args: PostgresArgs | DatabasesArgs, *server: pulumi.Resource) -> None:
        """A role and a database of the same name for each service, once the server is there."""
        databases = secrets.keep(
            DATABASES,
            pods.metadata(DATABASES, args.namespace),
            self.passwords,
            self.child(),
        )
        login: dict[str, pulumi.Input[str] | EnvVarSourceArgs] = {
            "PGHOST": self.host,
            "PGUSER": "postgres",
            "PGPASSWORD": pods.from_secret(NAME, "password"),
        }
        pods.setup_job(
            pods.Setup(
                name=DATABASES,
                namespace=args.namespace,
                image=args.image,
                script="databases.sh",
                command=["sh"],
                settings={"databases": list(args.databases)},
                env={"DATABASES": " ".join(args.databases), **login},
                secret=DATABASES,
                init=[_dropping(args, login)] if args.former else (),
            ),
            self.child(*server, databases),
            self.child(),
        )

    def _passwords(self, databases: Sequence[str]) -> dict[str, pulumi.Output[str]]:
        return {
            database: RandomPassword(f"{NAME}-{database}", opts=self.child()).result
            for database in databases
        }

    def _superuser(
        self, namespace: pulumi.Input[str], password: pulumi.Input[str]
    ) -> pulumi.Resource:
        return secrets.keep(
            NAME,
            pods.metadata(NAME, namespace),
            {"password": password},
            self.child(),
        )


def drops(name: str) -> tuple[str, str]:
    """Statements by which a database and its role go, for who has made them."""
    return f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'DROP ROLE IF EXISTS "{name}"'


def _dropping(
    args: PostgresArgs | DatabasesArgs,
    login: Mapping[str, pulumi.Input[str] | EnvVarSourceArgs],
) -> ContainerArgs:
    """Drops the former databases, whoever is still connected, and the roles of their names."""
    statements = [statement for name in args.former for statement in drops(name)]
    return pods.container(
        "former",
        args.image,
        pods.SETUP,
        command=["psql", "--set", "ON_ERROR_STOP=1", *(f"--command={s}" for s in statements)],
        env=login,
    )


class Databases(Tables):
    """The platform's databases on a server that something else runs, which speaks TLS only."""

    tls = True

    def __init__(
        self, name: str, args: DatabasesArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Databases", name, opts)
        self.passwords = self._passwords(args.databases)
        self.host = pulumi.Output.from_input(args.host)
        self._contents(args, self._superuser(args.namespace, args.password))
        self.register_outputs({"host": self.host, "port": PORT})


class Postgres(Tables):
    """The server as a pod."""

    tls = False

    def __init__(
        self, name: str, args: PostgresArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Postgres", name, opts)
        superuser = RandomPassword(f"{NAME}-superuser", opts=self.child())
        self.passwords = self._passwords(args.databases)
        self.host = pulumi.Output.concat(NAME, ".", args.namespace, ".svc")
        secret = self._superuser(args.namespace, superuser.result)
        service = pods.service(NAME, args.namespace, PORT, self.child())
        self._contents(args, self._server(args, secret), service)
        self.register_outputs({"host": self.host, "port": PORT})

    def _server(self, args: PostgresArgs, secret: pulumi.Resource) -> k8s.apps.v1.StatefulSet:
        ready = ExecActionArgs(command=["pg_isready", "--quiet", "--username", "postgres"])
        return pods.stateful_set(
            NAME,
            args.namespace,
            pods.template(
                NAME,
                [
                    pods.container(
                        NAME,
                        args.image,
                        args.resources,
                        args=[
                            NAME,
                            *(a for k, v in SETTINGS.items() for a in ("-c", f"{k}={v}")),
                        ],
                        env={
                            "POSTGRES_PASSWORD_FILE": "/etc/postgres/password",
                            "PGDATA": "/var/lib/postgresql/data/pgdata",
                        },
                        port=PORT,
                        mounts={
                            "/var/lib/postgresql/data": "data",
                            "/var/run/postgresql": "run",
                            "/etc/postgres": "password",
                        },
                        startup=ProbeArgs(exec_=ready, period_seconds=2, failure_threshold=150),
                        readiness=ProbeArgs(exec_=ready, period_seconds=10, timeout_seconds=5),
                        liveness=ProbeArgs(
                            exec_=ready,
                            period_seconds=30,
                            timeout_seconds=10,
                            failure_threshold=5,
                        ),
                    )
                ],
                volumes=[
                    pods.volume("run"),
                    pods.volume("password", secret=NAME),
                ],
                grace_seconds=60,
            ),
            args.storage,
            self.child(secret),
        )
