"""MinIO: the S3 API of the platform, with a user of its own for each client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pulumi

from infra.platform import pods, secrets
from infra.platform.component import Component, Resources
from infra.platform.random_password import RandomPassword

NAME = "minio"
PORT = 9000
REGION = "us-east-1"
USERS = "minio-buckets"


@dataclass(frozen=True)
class Rights:
    """Buckets that a user may read, add to and overwrite, and delete from.

    `put`: beginnings of objects' names, BUCKET/PREFIX, to which it may write and nothing else.
    """

    read: Sequence[str] = ()
    write: Sequence[str] = ()
    delete: Sequence[str] = ()
    put: Sequence[str] = ()


@dataclass(frozen=True)
class Credentials:
    access_key: str
    secret_key: pulumi.Output[str]


class ObjectStore(Protocol):
    """What the platform needs of MinIO, or of S3 in its place."""

    endpoint: pulumi.Output[str]
    url: pulumi.Output[str]
    region: str

    @property
    def insecure(self) -> bool:
        """Whether it speaks HTTP without TLS."""
        ...

    def bucket(self, name: str) -> str:
        """What one of the platform's buckets is called there."""
        ...

    def environment(self, user: str) -> dict[str, pulumi.Input[str]]:
        """What an S3 client of `user` reads from its environment; names as the AWS SDKs have."""
        ...

    def login(self, user: str) -> Credentials | None:
        """The key of `user`; None where the store knows its clients without."""
        ...


@dataclass(frozen=True)
class MinioArgs:
    namespace: pulumi.Input[str]
    image: pulumi.Input[str]
    setup_image: pulumi.Input[str]
    """An image with Python and the `minio` package."""
    buckets: Sequence[str]
    users: Mapping[str, Rights]
    storage: pulumi.Input[str]
    resources: Resources
    node_port: int | None = field(default=None)


class Minio(Component):
    """`endpoint` (host:port), `url`, and the `credentials` of each user."""

    endpoint: pulumi.Output[str]
    url: pulumi.Output[str]
    region = REGION
    insecure = True
    credentials: dict[str, Credentials]

    def __init__(
        self, name: str, args: MinioArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Minio", name, opts)
        root = RandomPassword(f"{NAME}-root", opts=self.child())
        self.credentials = {
            user: Credentials(user, RandomPassword(f"{NAME}-{user}", opts=self.child()).result)
            for user in args.users
        }
        self.endpoint = pulumi.Output.concat(NAME, ".", args.namespace, f".svc:{PORT}")
        self.url = pulumi.Output.concat("http://", self.endpoint)
        secret = secrets.keep(
            NAME,
            pods.metadata(NAME, args.namespace),
            {"username": "slipway-root", "password": root.result},
            self.child(),
        )
        users = secrets.keep(
            USERS,
            pods.metadata(USERS, args.namespace),
            {user: c.secret_key for user, c in self.credentials.items()},
            self.child(),
        )
        service = pods.service(NAME, args.namespace, PORT, self.child(), node_port=args.node_port)
        credentials = {
            "MINIO_ROOT_USER": pods.from_secret(NAME, "username"),
            "MINIO_ROOT_PASSWORD": pods.from_secret(NAME, "password"),
        }
        server = pods.stateful_set(
            NAME,
            args.namespace,
            pods.template(
                NAME,
                [
                    pods.container(
                        NAME,
                        args.image,
                        args.resources,
                        command=["minio", "server", "/data"],
                        env={
                            **credentials,
                            "HOME": "/tmp",  # noqa: S108
                            "MINIO_BROWSER": "off",
                            "MINIO_UPDATE": "off",
                            # Objects are few and named by their digest: nothing to look for.
                            "MINIO_SCANNER_SPEED": "slowest",
                        },
                        port=PORT,
                        mounts={"/data": "data"},
                        startup=pods.http_probe("/minio/health/ready", PORT, period=2, failures=60),
                        readiness=pods.http_probe("/minio/health/ready", PORT),
                        liveness=pods.http_probe("/minio/health/live", PORT, period=30),
                    )
                ],
            ),
            args.storage,
            self.child(secret),
        )
        pods.setup_job(
            pods.Setup(
                name=USERS,
                namespace=args.namespace,
                image=args.setup_image,
                script="buckets.py",
                command=["python"],
                settings={
                    "endpoint": f"{NAME}:{PORT}",
                    "secrets": pods.SECRETS,
                    "buckets": list(args.buckets),
                    "users": {
                        user: {
                            "read": list(rights.read),
                            "write": list(rights.write),
                            "delete": list(rights.delete),
                            "put": list(rights.put),
                        }
                        for user, rights in args.users.items()
                    },
                },
                env=credentials,
                secret=USERS,
            ),
            self.child(server, service, users),
            self.child(),
        )
        self.register_outputs({"endpoint": self.endpoint, "url": self.url})

    def bucket(self, name: str) -> str:
        return name

    def environment(self, user: str) -> dict[str, pulumi.Input[str]]:
        credentials = self.credentials[user]
        return {
            "AWS_ACCESS_KEY_ID": credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": REGION,
        }

    def login(self, user: str) -> Credentials | None:
        return self.credentials[user]
