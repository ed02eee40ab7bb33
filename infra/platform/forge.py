"""The git forge: what the platform needs of one, and one that is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from urllib.parse import urlsplit

import pulumi

from infra.platform.component import Component
from infra.platform.random_password import RandomPassword
from slipway import github

# Under which key Argo CD looks for the secret that a forge's events are signed with: Gitea signs
# as its ancestor does.
SIGNED_AS = {"gitea": "gogs", "github": "github"}
# Events, in the forge's words, of a push and of what happens to a pull request.
PUSHED = {"gitea": ["push"], "github": ["push"]}
PROPOSED = {"gitea": ["pull_request_only", "pull_request_sync"], "github": ["pull_request"]}


class Credentials(Protocol):
    """As whom the platform is on a forge."""

    @property
    def argo_cd(self) -> Mapping[str, pulumi.Input[str]]:
        """In the words of the Secret by which Argo CD reads a repository."""
        ...

    @property
    def steps(self) -> Mapping[str, pulumi.Input[str]]:
        """As steps find it in their environment; empty: what is there, another part brings."""
        ...


@dataclass(frozen=True)
class Login:
    """A login, and its password or a token."""

    username: str
    password: pulumi.Output[str]

    @property
    def argo_cd(self) -> Mapping[str, pulumi.Input[str]]:
        return {"username": self.username, "password": self.password}

    @property
    def steps(self) -> Mapping[str, pulumi.Input[str]]:
        # What an app that was there before has written stays where nothing takes its place.
        former = {"FORGE_LOGIN": ""}
        return {**former, "FORGE_USERNAME": self.username, "FORGE_PASSWORD": self.password}


@dataclass(frozen=True)
class App:
    """A GitHub App. Argo CD makes tokens of the key by itself; for steps `ForgeToken` does."""

    id: int
    installation: int
    key: pulumi.Output[str]
    api: str

    @property
    def argo_cd(self) -> Mapping[str, pulumi.Input[str]]:
        enterprise = {} if self.api == github.API else {"githubAppEnterpriseBaseUrl": self.api}
        return {
            "githubAppID": str(self.id),
            "githubAppInstallationID": str(self.installation),
            "githubAppPrivateKey": self.key,
            **enterprise,
        }

    @property
    def steps(self) -> Mapping[str, pulumi.Input[str]]:
        return {}


class Forge(Protocol):
    """What the platform needs of its own Gitea, or of another forge in its place."""

    kind: Literal["gitea", "github"]
    url: pulumi.Output[str]
    repository_url: pulumi.Output[str]
    """As git clones it."""
    credentials: Credentials
    authorities: Mapping[str, str]
    """Host to the certificates (PEM) that those of the forge there are by, if not by known ones."""
    webhook_secret: pulumi.Output[str]
    """Signs the forge's events."""

    @property
    def settings(self) -> Mapping[str, pulumi.Input[str]]:
        """Where and what it is, as steps read it from their environment."""
        ...


@dataclass(frozen=True)
class OutsideArgs:
    kind: Literal["gitea", "github"]
    url: str
    repository: str
    """OWNER/NAME"""
    credentials: Login | App
    gates: Literal["actions", "cluster"]
    """Who judges pull requests."""
    ca: str = ""
    """Certificates (PEM) of the authority that its own is by; "" for those that are known."""


class Outside(Component):
    """`Forge` that the platform finds: it makes no more of it than the secret of its webhooks."""

    kind: Literal["gitea", "github"]
    url: pulumi.Output[str]
    repository_url: pulumi.Output[str]
    credentials: Credentials
    authorities: Mapping[str, str]
    webhook_secret: pulumi.Output[str]

    def __init__(
        self, name: str, args: OutsideArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Forge", name, opts)
        self._args = args
        self.kind, self.credentials = args.kind, args.credentials
        self.authorities = {urlsplit(args.url).hostname or "": args.ca} if args.ca else {}
        self.url = pulumi.Output.from_input(args.url)
        self.repository_url = pulumi.Output.from_input(f"{args.url}/{args.repository}.git")
        self.webhook_secret = RandomPassword(f"{name}-webhook", opts=self.child()).result
        self.register_outputs({"url": self.url, "repository_url": self.repository_url})

    @property
    def settings(self) -> Mapping[str, pulumi.Input[str]]:
        args = self._args
        who = args.credentials
        judge = who.username if isinstance(who, Login) else ""
        judge = github.ACTIONS if args.gates == "actions" else judge
        return {
            "FORGE_KIND": args.kind,
            # Where it is asked: GitHub's API has an address of its own.
            "FORGE_URL": github.api_of(args.url) if args.kind == "github" else args.url,
            "FORGE_SERVER": args.url,
            "FORGE_REPOSITORY": args.repository,
            "FORGE_GATES": args.gates,
            **({"FORGE_JUDGE": judge} if judge else {}),
            **({"FORGE_CA": args.ca} if args.ca else {}),
            **({"FORGE_APP": str(who.id)} if isinstance(who, App) else {}),
        }


def webhooks(kind: str, argo_cd: str, argo: str) -> dict[str, Sequence[str]]:
    """Address to the events that a forge is to announce there.

    Args:
        argo_cd: where Argo CD's server is, for whoever is to call it.
        argo: where Argo Workflows' is.
    """
    return {
        f"{argo_cd}/api/webhook": PUSHED[kind],
        f"{argo}/api/v1/events/pipelines/forge": PROPOSED[kind],
    }
