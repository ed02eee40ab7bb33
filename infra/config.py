"""The stack's configuration, typed: unknown keys and values that cannot work are refused here."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from infra.aws import config as eks
from slipway import attestation, authority, github, github_app, paths
from slipway.errors import BadInput, did_you_mean, from_validation
from slipway.people import Role
from slipway.release import REGISTRY_NAME

PROJECT = "slipway"
TOKEN, APP_KEY = f"{PROJECT}:forgeToken", f"{PROJECT}:forgeAppKey"
# Whose keys a stack may have: this program's, the two providers' and the engine's.
NAMESPACES = {PROJECT, "aws", "kubernetes", "pulumi"}
CPU = Annotated[str, Field(pattern=r"^\d+m?$", description="cores, or thousandths with m")]
Bytes = Annotated[str, Field(pattern=r"^[1-9]\d*(Ki|Mi|Gi|Ti)$", description="bytes, e.g. 512Mi")]
Environment = Literal["dev", "staging", "prod"]
Level = Literal["restricted", "privileged"]
Registry = Annotated[
    str,
    Field(
        pattern=f"^{REGISTRY_NAME}$",
        description="a registry, or a path in one, without a slash at its end",
    ),
]
# Namespaces of every platform, and of those parts that some have.
PLATFORM = ["argocd", "argo", "storage", "mlflow", "forge", "pipelines"]
NODE_PORTS = {"gitea": 30300, "argocd": 30080, "mlflow": 30500, "argo": 30746, "minio": 30900}
PROVISIONER, GPU_SOFTWARE, QUEUES = "local-path-storage", "gpu", "gpus"
_SCALE = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def size_in_bytes(text: str) -> int:
    """The number of bytes that a Kubernetes quantity such as 512Mi means."""
    return int(text[:-2]) * _SCALE[text[-2:]]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Size(_Model):
    """What a component asks for (cpu, memory) and the memory at which it is stopped (limit)."""

    cpu: CPU
    memory: Bytes
    limit: Bytes

    @model_validator(mode="after")
    def _limit_holds_request(self) -> Size:
        if size_in_bytes(self.limit) < size_in_bytes(self.memory):
            raise ValueError(f"limit {self.limit} is below memory {self.memory}: raise it")
        return self


# Requests are what a component uses at rest, so that a machine of two cores has room for training.
SIZES: dict[str, dict[str, str]] = {
    "postgres": {"cpu": "20m", "memory": "64Mi", "limit": "256Mi"},
    "minio": {"cpu": "20m", "memory": "128Mi", "limit": "512Mi"},
    "mlflow": {"cpu": "20m", "memory": "384Mi", "limit": "768Mi"},
    "gitea": {"cpu": "20m", "memory": "96Mi", "limit": "384Mi"},
    "argocdController": {"cpu": "30m", "memory": "128Mi", "limit": "512Mi"},
    "argocdRepoServer": {"cpu": "20m", "memory": "64Mi", "limit": "384Mi"},
    "argocdServer": {"cpu": "10m", "memory": "48Mi", "limit": "256Mi"},
    "argocdApplicationSets": {"cpu": "10m", "memory": "48Mi", "limit": "256Mi"},
    "redis": {"cpu": "5m", "memory": "16Mi", "limit": "64Mi"},
    "workflowController": {"cpu": "20m", "memory": "48Mi", "limit": "256Mi"},
    "argoServer": {"cpu": "10m", "memory": "48Mi", "limit": "256Mi"},
    "metricsServer": {"cpu": "10m", "memory": "32Mi", "limit": "128Mi"},
    "localPath": {"cpu": "5m", "memory": "32Mi", "limit": "128Mi"},
}


class Components(_Model):
    """A size for each component; a stack names only what differs from `SIZES`."""

    postgres: Size
    minio: Size
    mlflow: Size
    gitea: Size
    argocdController: Size
    argocdRepoServer: Size
    argocdServer: Size
    argocdApplicationSets: Size
    redis: Size
    workflowController: Size
    argoServer: Size
    metricsServer: Size
    localPath: Size

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        overrides = cast(dict[str, Any], given)
        merged: dict[str, Any] = dict(overrides)
        for name, size in SIZES.items():
            override = overrides.get(name, {})
            merged[name] = {**size, **override} if isinstance(override, dict) else override
        return merged


class Storage(_Model):
    """Sizes of persistent volumes. None can shrink; some storage classes let them grow."""

    postgres: Bytes = "2Gi"
    minio: Bytes = "10Gi"
    gitea: Bytes = "2Gi"


class Team(_Model):
    """Who shares the GPUs: of each pool `gpus` are its own, and idle ones of others on loan."""

    name: eks.Name
    gpus: dict[str, Annotated[int, Field(ge=0)]] = Field(min_length=1)
    borrow: bool = Field(default=True, description="use what other teams leave idle")


# Kubernetes' own, and those that EKS lets nobody be given: of some of them everybody is.
RESERVED = ("system:", "eks:", "aws:", "amazon:", "iam:")
Somebody = Annotated[
    str, Field(min_length=1, description="a name as the API server has it, e.g. data-scientists")
]


class Members(_Model):
    """Who has a role: users and groups, as the API server is told of them by whoever logs in."""

    users: list[Somebody] = []
    groups: list[Somebody] = []

    @field_validator("users", "groups")
    @classmethod
    def _are_of_people(cls, value: list[str]) -> list[str]:
        for name in value:
            if name.startswith(RESERVED):
                begin = name.partition(":")[0]
                raise ValueError(f"{name}: names that begin with {begin}: are no team's: name one")
            if value.count(name) > 1:
                raise ValueError(f"{name} is named twice: leave one out")
        return value

    @model_validator(mode="after")
    def _are_some(self) -> Members:
        if not (self.users or self.groups):
            raise ValueError("nobody: name users or groups, or leave the role out")
        return self


class People(_Model):
    """Who may use the platform without administering it; what each may do, slipway/people.py has.

    Promoters and labellers need not be named as viewers too.
    """

    viewers: Members | None = None
    promoters: Members | None = None
    labellers: Members | None = None

    @property
    def members(self) -> dict[Role, Members]:
        """Of the roles that somebody has."""
        found: dict[Role, Members | None] = {
            "viewer": self.viewers,
            "promoter": self.promoters,
            "labeller": self.labellers,
        }
        return {role: members for role, members in found.items() if members}


class Monitoring(_Model):
    """A Prometheus that is there already, run by its operator."""

    namespace: eks.Name = Field(description="where its pods are, which then reach metrics")
    labels: dict[str, str] = Field(
        default={}, description="by which it knows monitors and rules: those of its selectors"
    )


class Place(_Model):
    """Something outside the cluster: addresses, and TCP ports there."""

    cidr: str
    ports: list[Annotated[int, Field(ge=1, le=65535)]] = Field(default=[443], min_length=1)

    @field_validator("cidr")
    @classmethod
    def _is_one(cls, value: str) -> str:
        try:
            return str(ipaddress.ip_network(value))
        except ValueError as error:
            raise ValueError(f"{error}: write e.g. 203.0.113.0/24") from None


class App(_Model):
    """A GitHub App, which slipway:forgeAppKey is a key of, as it is installed on a repository."""

    id: int = Field(ge=1, description="its number: the app's settings, General, App ID")
    installation: int = Field(
        ge=1, description="the number that the address of what is installed ends in"
    )


class Forge(_Model):
    """A git forge that is there already, in the place of the platform's own."""

    kind: Literal["gitea", "github"]
    url: str = Field(
        default=github.SERVER, description="the forge's own address, e.g. https://git.example.com"
    )
    repository: str = Field(
        pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9_.][\w.-]*$", description="OWNER/NAME"
    )
    username: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][\w.-]*$",
        description="whose token slipway:forgeToken is, and as whom the platform proposes",
    )
    app: App | None = Field(default=None, description="in the place of a login and its token")
    ca: str = Field(
        default="",
        description="certificates (PEM) of the authority that the forge's is by; else of those "
        "that everybody knows",
    )
    places: list[Place] = Field(
        min_length=1,
        description="where the forge is, its archives included: [{cidr: 203.0.113.7/32}]. What "
        "GitHub's are, https://api.github.com/meta says: api, git and web",
    )
    gates: Literal["actions", "cluster"] = Field(
        default="cluster", description="who judges pull requests, and reports the required status"
    )

    @model_validator(mode="before")
    @classmethod
    def _as_its_kind_has_it(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("kind") == "github":
            return {"gates": "actions", **cast(dict[str, Any], given)}
        return given

    @field_validator("repository")
    @classmethod
    def _is_no_address(cls, value: str) -> str:
        if value.endswith(".git"):
            raise ValueError(f"write {value.removesuffix('.git')}: its address is made of it")
        return value

    @field_validator("url")
    @classmethod
    def _keeps_the_token(cls, value: str) -> str:
        """The token goes there with each request."""
        parts = urlsplit(value)
        host = parts.hostname or ""
        extra = parts.username or parts.password or parts.query or parts.fragment
        if parts.scheme not in ("http", "https") or not host or extra:
            raise ValueError("no address of a forge: write e.g. https://git.example.com")
        if parts.scheme == "http" and not _is_private(host):
            raise ValueError("not encrypted, and no private address: write https://…")
        return value.rstrip("/")

    @field_validator("ca")
    @classmethod
    def _are_certificates(cls, value: str) -> str:
        if value:
            authority.check(value)
        return value

    @model_validator(mode="after")
    def _is_somebody(self) -> Forge:
        if self.username and self.app:
            raise ValueError("username, app: as which of the two? remove one")
        if not self.username and not self.app:
            raise ValueError(
                "username: as whom? that of a login whose token forgeToken is; or, on GitHub, "
                "app: {id: …, installation: …}"
            )
        if self.app and self.kind != "github":
            raise ValueError("app: only GitHub has apps: write the username of a login")
        return self

    @model_validator(mode="after")
    def _can_be_told_from_others(self) -> Forge:
        if self.ca and not self.url.startswith("https:"):
            raise ValueError("ca: no certificate is asked for at http://: write https://…")
        if self.ca and ":" in (urlsplit(self.url).hostname or ""):
            # Argo CD looks for it by the host, in a map whose keys hold no colon.
            raise ValueError("ca: not with an address of IPv6 in url: write the forge's name")
        return self

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Forge:
        if self.kind == "gitea" and "url" not in self.model_fields_set:
            raise ValueError("url: a Gitea is somewhere: write e.g. url: https://git.example.com")
        if self.kind == "gitea" and self.gates == "actions":
            raise ValueError("gates: only GitHub has workflows here that judge: write cluster")
        return self


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False


DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
# What a stack says only where Slipway makes its nodes: on AWS, or simulated ones.
EKS = {
    *("aws", "network", "tags", "gpuPools", "teams", "karpenter", "stores", "domain", "oidc"),
    *("backend", "protection"),
}
SIMULATED = {"gpuPools", "teams"}
# What only a stack says where something is there already: a forge, or what collects metrics.
THERE = {"forge", "forgeToken", "forgeAppKey", "monitoring"}
ENCRYPT = "`slipway pulumi config set --secret forgeToken` asks for it and writes it"
ENCRYPT_KEY = "`slipway pulumi config set --secret forgeAppKey < FILE.pem` writes it"
# What a stack file holds encrypted only: what it is, how it comes there, and what if it was not.
ENCRYPTED = {
    TOKEN: ("a token", ENCRYPT, "revoke it on the forge"),
    APP_KEY: ("a private key", ENCRYPT_KEY, "delete it in the app's settings, and make another"),
}


class StackConfig(_Model):
    """environments/Pulumi.<stack>.yaml, or that of the folder which SLIPWAY_STACKS names."""

    cluster: Literal["embedded", "kubeconfig", "eks", "simulated"] = "embedded"
    environments: list[Environment] = Field(
        min_length=1, description="those that the stack hosts, e.g. [dev]"
    )
    nodePorts: bool = False
    pollSeconds: int = Field(default=60, ge=10, le=3600)
    storage: Storage = Storage()
    components: Components = Field(default_factory=lambda: Components.model_validate({}))
    images: dict[str, str] = {}
    registries: list[Registry] = Field(
        default=[],
        description="where the images of models may come from; by default the serving image's",
    )
    formerKeys: list[str] = Field(
        default=[],
        description="public keys (PEM) that evidence was signed with before, and is still trusted",
    )
    sources: list[Place] = Field(
        default=[],
        description="where the steps of workflows may get data outside the cluster; else nowhere",
    )
    people: People = Field(
        default=People(), description="who may use the platform without administering it"
    )
    forge: Forge | None = Field(
        default=None, description="a forge that is there; by default the platform makes a Gitea"
    )
    monitoring: Monitoring | None = Field(
        default=None, description="a Prometheus that is to watch the platform; by default none is"
    )
    forgeToken: SecretStr | None = None
    forgeAppKey: SecretStr | None = None
    aws: eks.Account | None = None
    network: eks.Network | None = None
    tags: eks.Tags | None = None
    gpuPools: list[eks.Pool] = []
    teams: list[Team] = []
    karpenter: bool = Field(default=True, description="false: GPU pools are managed node groups")
    protection: bool = Field(
        default=True, description="false: production may be deleted; a destroy needs it"
    )
    stores: eks.Stores = eks.Stores()
    domain: eks.Domain | None = None
    oidc: eks.Oidc | None = None
    backend: eks.Backend | None = None

    @property
    def embedded(self) -> bool:
        return self.cluster == "embedded"

    @property
    def namespaces(self) -> dict[str, Level]:
        """What the stack's are called, each with the strictest Pod Security level that its pods
        allow."""
        if self.cluster == "simulated":
            return {QUEUES: "restricted"}
        levels: dict[str, Level] = dict.fromkeys([*self.parts, *self.environments], "restricted")
        if self.embedded:
            # Its helper pods make folders on the node.
            levels[PROVISIONER] = "privileged"
        if self.gpuPools:
            # Device plugins talk to the kubelet through the node's disk.
            levels[GPU_SOFTWARE] = "privileged"
        if self.teams:
            levels[QUEUES] = "restricted"
        return levels

    @property
    def parts(self) -> list[str]:
        """Namespaces of the platform itself."""
        return [name for name in PLATFORM if name != "forge" or self.forge is None]

    @property
    def node_ports(self) -> dict[str, int]:
        """The consoles that are to have one."""
        if not self.nodePorts:
            return {}
        there = (name for name in NODE_PORTS if name != "gitea" or not self.forge)
        return {name: NODE_PORTS[name] for name in there}

    @property
    def protected(self) -> bool:
        """Whether production is here: more copies, and logs and old versions for longer."""
        return "prod" in self.environments

    @property
    def kept(self) -> bool:
        """Whether nothing that holds data or traffic may be deleted."""
        return self.protected and self.protection

    @field_validator("formerKeys")
    @classmethod
    def _keys_can_be_read(cls, value: list[str]) -> list[str]:
        for pem in value:
            try:
                attestation.load_keys(pem)
            except BadInput:
                shape = "PEM, -----BEGIN PUBLIC KEY-----"
                raise ValueError(f"no public key of Ed25519 in it: write {shape}") from None
        return value

    @field_validator("environments")
    @classmethod
    def _environments_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("an environment is named twice: leave one out")
        return value

    @model_validator(mode="after")
    def _node_ports_stay_local(self) -> StackConfig:
        if self.nodePorts and not self.embedded:
            # kube-proxy serves node ports on every address there, and MLflow asks for no login.
            raise ValueError(
                "nodePorts: true needs cluster: embedded, whose node ports are on 127.0.0.1 only; "
                "reach another cluster's consoles by `kubectl port-forward`"
            )
        return self

    @model_validator(mode="after")
    def _eks_has_what_it_needs(self) -> StackConfig:
        given = self.model_fields_set & EKS
        if self.cluster == "simulated":
            given -= SIMULATED
        if self.cluster != "eks":
            if given:
                raise ValueError(f"{', '.join(sorted(given))}: for cluster: eks only; remove it")
            return self
        missing = [name for name in ("aws", "network", "tags") if getattr(self, name) is None]
        if missing:
            raise ValueError(f"cluster: eks needs {', '.join(missing)} too")
        if len(self.environments) > 1:
            raise ValueError("cluster: eks hosts one environment: give each a stack of its own")
        for name, reference in self.images.items():
            if not DIGEST.search(reference):
                raise ValueError(
                    f"images.{name}: {reference} has no digest, and a tag can move: "
                    "write NAME@sha256:…"
                )
        if (self.domain is None) != (self.oidc is None):
            raise ValueError("domain and oidc need each other: consoles are reached after a login")
        return self

    @model_validator(mode="after")
    def _forge_has_its_token(self) -> StackConfig:
        if (self.forgeToken or self.forgeAppKey) and self.forge is None:
            given = "forgeToken" if self.forgeToken else "forgeAppKey"
            raise ValueError(f"{given}: of no forge: write forge too, or remove it")
        if self.forge and self.forge.app:
            if self.forgeToken:
                raise ValueError("forgeToken: forge names an app, which has none: remove it")
            if self.forgeAppKey is None:
                raise ValueError(f"forge.app needs forgeAppKey: {ENCRYPT_KEY}")
        elif self.forge:
            if self.forgeAppKey:
                raise ValueError("forgeAppKey: forge names no app: write app, or remove the key")
            if self.forgeToken is None:
                raise ValueError(f"forge needs forgeToken: {ENCRYPT}")
        if self.forge and self.cluster == "simulated":
            raise ValueError("forge: cluster: simulated has none of its own; remove it")
        return self

    @model_validator(mode="after")
    def _can_promote_from_another(self) -> StackConfig:
        if self.aws is None:
            return self
        for name in ("artifactsOf", "artifactReaders"):
            if getattr(self.aws, name) and self.stores.objects != "s3":
                raise ValueError(
                    f"aws.{name}: only S3 is read from another account: write objects: s3 under "
                    "stores, or leave this out"
                )
        if self.aws.artifactsOf:
            if "dev" in self.environments:
                raise ValueError("aws.artifactsOf: nothing comes before dev; remove it")
            if self.forge is None or self.forge.gates != "cluster":
                # Actions read one store, and know of one key.
                raise ValueError(
                    "aws.artifactsOf: releases come from a forge that the stacks share: write "
                    "forge, with gates: cluster"
                )
        return self

    @model_validator(mode="after")
    def _groups_have_roles(self) -> StackConfig:
        known = {group for found in self.people.members.values() for group in found.groups}
        for group in self.aws.groups if self.aws else ():
            if group not in known:
                raise ValueError(
                    f"aws.groups: {group} has no role: name it in people, or leave it out"
                )
        return self

    @model_validator(mode="after")
    def _can_be_simulated(self) -> StackConfig:
        if self.cluster != "simulated":
            return self
        if self.people.members:
            raise ValueError("people: cluster: simulated has nothing for them; remove it")
        if self.monitoring:
            raise ValueError("monitoring: cluster: simulated has nothing to watch; remove it")
        if not self.gpuPools:
            raise ValueError("cluster: simulated is nothing but its gpuPools: name some")
        for index, pool in enumerate(self.gpuPools):
            if pool.purchase == "capacity-block":
                fix = "take spot or on-demand"
                raise ValueError(f"gpuPools.{index}: no simulation of capacity blocks: {fix}")
            if pool.sharing.by != "none":
                fix = "leave sharing out"
                raise ValueError(f"gpuPools.{index}: no simulation of shared GPUs: {fix}")
        return self

    @model_validator(mode="after")
    def _teams_fit(self) -> StackConfig:
        names = [team.name for team in self.teams]
        pools = {pool.name: pool for pool in self.gpuPools}
        promised = dict.fromkeys(pools, 0)
        for index, team in enumerate(self.teams):
            if names.count(team.name) > 1:
                raise ValueError(f"teams: {team.name} is named twice: give each a name of its own")
            for name, gpus in team.gpus.items():
                where = f"teams.{index}.gpus.{name}"
                if name not in pools:
                    raise ValueError(f"{where}: no such pool: {did_you_mean(name, pools)}")
                promised[name] += gpus
                if promised[name] > pools[name].gpus:
                    raise ValueError(
                        f"{where}: with it teams are promised {promised[name]} GPUs of "
                        f"{pools[name].gpus} that {name} has at most: lower it, or raise the "
                        "pool's max"
                    )
        return self

    @model_validator(mode="after")
    def _pools_fit(self) -> StackConfig:
        names = [pool.name for pool in self.gpuPools]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"gpuPools: {name} is named twice: give each a name of its own")
            if name == eks.GENERAL:
                raise ValueError(
                    f"gpuPools: {name} is what the pool without GPUs is called: take another name"
                )
        taken = {eks.floor_name(pool.name): pool.name for pool in self.gpuPools if pool.min}
        for index, pool in enumerate(self.gpuPools):
            if self.karpenter and pool.name in taken:
                raise ValueError(
                    f"gpuPools.{index}.name: {pool.name} is what the nodes of {taken[pool.name]} "
                    "that are always there are called: give it another name"
                )
        if self.aws and self.network:
            zones = [("network.zones", zone) for zone in self.network.zones]
            for index, pool in enumerate(self.gpuPools):
                zones += [(f"gpuPools.{index}.zones", zone) for zone in pool.zones]
            for field, zone in zones:
                if eks.zone_region(zone) != self.aws.region:
                    raise ValueError(f"{field}: {zone} is not in {self.aws.region}: name one of it")
                if zone not in self.network.zones:
                    known = ", ".join(self.network.zones)
                    raise ValueError(f"{field}: {zone} has no subnet: it is one of {known}")
        if not self.karpenter:
            for index, pool in enumerate(self.gpuPools):
                if pool.purchase == "capacity-block":
                    raise ValueError(f"gpuPools.{index}: a capacity block needs karpenter: true")
                for field in ("ttl", "consolidation"):
                    if field in pool.model_fields_set:
                        raise ValueError(
                            f"gpuPools.{index}.{field}: a managed node group has none: remove it, "
                            "or leave out karpenter: false"
                        )
        return self

    @model_validator(mode="after")
    def _somebody_is_told(self) -> StackConfig:
        if self.gpuPools and self.aws and not self.aws.alarms:
            raise ValueError(
                "aws.alarms: pools have budgets, and nobody is told of them: name a mail address"
            )
        return self


def load(values: Mapping[str, str], stack: str, *, encrypted: Collection[str] = ()) -> StackConfig:
    """The typed configuration.

    Args:
        values: Pulumi's view of the stack file, "<project>:<key>" to string (JSON for objects).
        stack: name of the stack, for the errors.
        encrypted: keys whose values the engine has decrypted. A file by itself has what only the
            engine reads, `{secure: …}`, in their place.

    Raises:
        BadInput: a key is unknown or a value cannot work; the message names file, key and fix.
    """
    file = paths.told(paths.stack_file(stack))
    for key in values:
        if key.partition(":")[0] not in NAMESPACES or ":" not in key:
            known = [f"{PROJECT}:{name}" for name in StackConfig.model_fields]
            raise BadInput("unknown key", file=file, field=key, fix=did_you_mean(key, known))
    given = {
        key.removeprefix(f"{PROJECT}:"): _parse(value)
        for key, value in values.items()
        if key.startswith(f"{PROJECT}:")
    }
    # Pulumi fills in the project's defaults, which say nothing and yet count as given.
    given = {k: v for k, v in given.items() if k not in EKS or v not in ({}, [], "true")}
    given = {k: v for k, v in given.items() if k not in THERE or v not in ({}, "")}
    for key in ENCRYPTED:
        name = key.removeprefix(f"{PROJECT}:")
        if name in given:
            given[name] = _secret(key, given[name], file, encrypted=key in encrypted)
    try:
        return StackConfig.model_validate(given)
    except ValidationError as error:
        raise from_validation(error, StackConfig, file) from None


def _secret(key: str, value: Any, file: str, *, encrypted: bool) -> str:
    """What is secret, or where only the engine can read it what it is encrypted as."""
    match value:
        case {"secure": str(ciphertext)} if not encrypted:
            return ciphertext
        case str() if encrypted:
            if key == APP_KEY:
                github_app.load_key(value, key, file)
            return value
        case _:
            what, how, then = ENCRYPTED[key]
            fix = f"{how}; and where it has been committed, {then}"
            raise BadInput(f"{what} in plain text", file=file, field=key, fix=fix)


def _parse(value: str) -> Any:
    return json.loads(value) if value[:1] in ("{", "[") else value
