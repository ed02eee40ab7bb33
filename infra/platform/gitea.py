"""Gitea: the cluster's git forge, with the organisation, repository, bot and webhooks in it.

Where a stack names a forge of its own, there is none: see `infra.platform.forge`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pulumi
import pulumi_kubernetes as k8s

from infra.platform import pods, secrets
from infra.platform.component import Component, Resources, fingerprint
from infra.platform.forge import Credentials, Login
from infra.platform.random_password import RandomPassword
from slipway import protection

NAME = "gitea"
PORT = 3000
SETUP = "gitea-setup"
ADMIN_LOGIN = "gitea-admin"
ADMIN, BOT = "slipway-admin", "slipway-bot"
CONFIG = "/etc/gitea/app.ini"


@dataclass(frozen=True)
class GiteaArgs:
    namespace: pulumi.Input[str]
    image: pulumi.Input[str]
    setup_image: pulumi.Input[str]
    """An image with Python and the `httpx` package."""
    static_root: str | None
    """Folder of templates in the image; None where the binary holds them."""
    database_host: pulumi.Input[str]
    database_password: pulumi.Input[str]
    repository: str
    """organisation/repository"""
    webhooks: Mapping[str, Sequence[str]]
    """Addresses, and the events that each is told of."""
    required_status: str
    """Context of the commit status without which nobody merges into main."""
    storage: pulumi.Input[str]
    resources: Resources
    database: pulumi.Resource
    """Must be ready before the server starts; all else is made meanwhile."""
    node_port: int | None = None
    database_tls: bool = False


class Gitea(Component):
    """`url`, the bot's `credentials`, and the `webhook_secret` that signs pushes."""

    kind: Literal["gitea", "github"] = NAME
    url: pulumi.Output[str]
    repository_url: pulumi.Output[str]
    credentials: Credentials
    authorities: Mapping[str, str]
    webhook_secret: pulumi.Output[str]

    def __init__(
        self, name: str, args: GiteaArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Gitea", name, opts)
        admin = RandomPassword(f"{NAME}-admin", opts=self.child())
        bot = RandomPassword(f"{NAME}-bot", opts=self.child())
        webhook = RandomPassword(f"{NAME}-webhook", opts=self.child())
        self.credentials, self.webhook_secret = Login(BOT, bot.result), webhook.result
        self.authorities = {}
        self.url = pulumi.Output.concat("http://", NAME, ".", args.namespace, f".svc:{PORT}")
        self.repository_url = pulumi.Output.concat(self.url, "/", args.repository, ".git")
        credentials = secrets.keep(
            ADMIN_LOGIN,
            pods.metadata(ADMIN_LOGIN, args.namespace),
            {"username": ADMIN, "password": admin.result},
            self.child(),
        )
        setup = secrets.keep(
            SETUP,
            pods.metadata(SETUP, args.namespace),
            {"bot": bot.result, "webhook": webhook.result},
            self.child(),
        )
        settings = {"app.ini": self._ini(args)}
        config = secrets.keep(
            NAME,
            pods.metadata(NAME, args.namespace),
            settings,
            self.child(),
        )
        volume = k8s.core.v1.PersistentVolumeClaim(
            NAME,
            metadata=pods.metadata(NAME, args.namespace),
            spec=pods.claim(args.storage).spec,
            opts=self.child(),
        )
        server = pods.deployment(
            NAME,
            args.namespace,
            self._pod(args, settings),
            self.child(config, volume, args.database),
            recreate=True,
        )
        service = pods.service(NAME, args.namespace, PORT, self.child(), node_port=args.node_port)
        self._repository = args.repository
        self._setup(args, [server, service, credentials, setup])
        self.register_outputs({"url": self.url, "repository_url": self.repository_url})

    @property
    def settings(self) -> Mapping[str, pulumi.Input[str]]:
        return {
            "FORGE_URL": self.url,
            "FORGE_REPOSITORY": self._repository,
            "FORGE_JUDGE": BOT,
        }

    def _ini(self, args: GiteaArgs) -> pulumi.Output[str]:
        keys = {
            key: RandomPassword(f"{NAME}-{key}", length, opts=self.child()).result
            for key, length in {"secret-key": 64, "internal-token": 64, "jwt-secret": 43}.items()
        }
        return pulumi.Output.all(
            url=self.url, host=args.database_host, password=args.database_password, **keys
        ).apply(lambda known: _app_ini(known, args.static_root, tls=args.database_tls))

    def _pod(
        self, args: GiteaArgs, settings: dict[str, pulumi.Output[str]]
    ) -> pods.PodTemplateSpecArgs:
        return pods.template(
            NAME,
            [
                pods.container(
                    NAME,
                    args.image,
                    args.resources,
                    command=["gitea", "web", "--config", CONFIG],
                    env={"HOME": "/data/home", "GITEA_WORK_DIR": "/data", "USER": "git"},
                    port=PORT,
                    mounts={"/data": "data", "/etc/gitea": "config"},
                    startup=pods.http_probe("/api/healthz", PORT, period=2, failures=150),
                    readiness=pods.http_probe("/api/healthz", PORT),
                    liveness=pods.http_probe("/api/healthz", PORT, period=30, timeout=10),
                )
            ],
            volumes=[
                pods.volume("data", claim=NAME),
                pods.volume("config", secret=NAME),
            ],
            annotations={"slipway/settings": fingerprint(settings)},
        )

    def _setup(self, args: GiteaArgs, after: Sequence[pulumi.Resource]) -> None:
        admin = {
            "ADMIN_USERNAME": pods.from_secret(ADMIN_LOGIN, "username"),
            "ADMIN_PASSWORD": pods.from_secret(ADMIN_LOGIN, "password"),
        }
        # The first administrator can be made by the command line only.
        user = f"gitea --config {CONFIG} admin user"
        script = (
            f'{user} list --admin | grep -qw "$ADMIN_USERNAME" || '
            f'{user} create --admin --username "$ADMIN_USERNAME" --password "$ADMIN_PASSWORD" '
            '--email "$ADMIN_USERNAME@slipway.invalid" --must-change-password=false'
        )
        pods.setup_job(
            pods.Setup(
                name=SETUP,
                namespace=args.namespace,
                image=args.setup_image,
                script="forge.py",
                command=["python"],
                settings={
                    "url": f"http://{NAME}:{PORT}",
                    "repository": args.repository,
                    "bot": BOT,
                    "webhooks": {url: list(events) for url, events in args.webhooks.items()},
                    # `make up` mirrors a checkout as this user.
                    "protection": protection.gitea(args.required_status, pushers=[ADMIN]),
                    "merges": dict(protection.GITEA_MERGES),
                },
                env={
                    **admin,
                    "BOT_PASSWORD": pods.from_secret(SETUP, "bot"),
                    "WEBHOOK_SECRET": pods.from_secret(SETUP, "webhook"),
                },
                init=[
                    pods.container(
                        "administrator",
                        args.image,
                        pods.SETUP,
                        command=["sh", "-c", script],
                        env={
                            **admin,
                            "HOME": "/data/home",
                            "GITEA_WORK_DIR": "/data",
                            "USER": "git",
                        },
                        mounts={"/data": "data", "/etc/gitea": "config"},
                    )
                ],
                volumes=[
                    pods.volume("data"),
                    pods.volume("config", secret=NAME),
                ],
            ),
            self.child(*after),
            self.child(),
        )


def _app_ini(known: dict[str, str], static_root: str | None, *, tls: bool) -> str:
    sections: dict[str, dict[str, object]] = {
        "": {"APP_NAME": "Slipway", "RUN_MODE": "prod", "WORK_PATH": "/data"},
        "server": {
            "PROTOCOL": "http",
            "HTTP_ADDR": "0.0.0.0",  # noqa: S104
            "HTTP_PORT": PORT,
            # As Argo CD names it: webhooks are matched to applications by this address.
            "ROOT_URL": f"{known['url']}/",
            "APP_DATA_PATH": "/data",
            "DISABLE_SSH": True,
            "OFFLINE_MODE": True,
            "LFS_START_SERVER": False,
            **({"STATIC_ROOT_PATH": static_root} if static_root else {}),
        },
        "database": {
            "DB_TYPE": "postgres",
            "HOST": f"{known['host']}:5432",
            "NAME": NAME,
            "USER": NAME,
            "PASSWD": known["password"],
            "SSL_MODE": "require" if tls else "disable",
            "MAX_OPEN_CONNS": 10,
        },
        "security": {
            "INSTALL_LOCK": True,
            "SECRET_KEY": known["secret-key"],
            "INTERNAL_TOKEN": known["internal-token"],
            "DISABLE_GIT_HOOKS": True,
        },
        "oauth2": {"ENABLED": False, "JWT_SECRET": known["jwt-secret"]},
        "service": {"DISABLE_REGISTRATION": True, "REQUIRE_SIGNIN_VIEW": True},
        "webhook": {"ALLOWED_HOST_LIST": "*.svc", "DELIVER_TIMEOUT": 5},
        "repository": {"ROOT": "/data/repositories", "DEFAULT_BRANCH": "main"},
        "indexer": {"ISSUE_INDEXER_TYPE": "db", "REPO_INDEXER_ENABLED": False},
        "queue": {"TYPE": "level", "DATADIR": "/data/queues", "MAX_WORKERS": 2},
        "session": {"PROVIDER": "db"},
        "cache": {"ADAPTER": "memory", "INTERVAL": 300},
        "log": {"MODE": "console", "LEVEL": "Warn"},
        # The plot in the gates' comment.
        "attachment": {"ENABLED": True, "ALLOWED_TYPES": ".png", "MAX_SIZE": 4},
        "actions": {"ENABLED": False},
        "packages": {"ENABLED": False},
        "picture": {"DISABLE_GRAVATAR": True},
        "cron.update_checker": {"ENABLED": False},
        "other": {"SHOW_FOOTER_VERSION": False},
    }
    lines: list[str] = []
    for section, keys in sections.items():
        lines += [f"[{section}]"] if section else []
        lines += [
            f"{key} = {str(value).lower() if isinstance(value, bool) else value}"
            for key, value in keys.items()
        ]
    return "\n".join(lines) + "\n"
