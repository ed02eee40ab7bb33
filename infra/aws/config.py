"""The part of a stack's configuration that only AWS has, typed. No provider is called here."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from infra.aws import families
from slipway.errors import did_you_mean

# Of the cluster's services: no network of ours may lie in it.
SERVICES = ipaddress.ip_network("172.20.0.0/16")
ZONES = 3
# The pool of Karpenter's nodes without GPUs.
GENERAL = "general"
Zone = Annotated[
    str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d[a-z]$", description="e.g. eu-central-1a")
]
Arn = Annotated[
    str,
    Field(
        pattern=r"^arn:aws(-[a-z]+)*:iam::\d{12}:(role|user)/[A-Za-z0-9_+=,.@/-]+$",
        description="a role or user, arn:aws:iam::111111111111:role/NAME",
    ),
]
AccountId = Annotated[str, Field(pattern=r"^\d{12}$", description="12 digits, in quotes")]
StackName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", description="e.g. dev")]
Duration = Annotated[str, Field(pattern=r"^[1-9]\d*(s|m|h)$", description="e.g. 30s, 10m, 336h")]
Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z][a-z0-9-]{0,30}[a-z0-9]$",
        description="2 to 32 of a-z, 0-9 and -, a letter first, no - at the end",
    ),
]
Url = Annotated[
    str, Field(pattern=r"^https://[^\s/]+\.[^\s/]+(/\S*)?$", description="an address, https://…")
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tags(_Model):
    """Who owns what a stack makes, and who pays for it: on every resource."""

    owner: str = Field(
        pattern=r"^[A-Za-z0-9 _.@+-]{2,64}$", description="who answers for it: a team or an address"
    )
    costCentre: str = Field(
        pattern=r"^[A-Za-z0-9 _.-]{1,32}$", description='who pays for it, e.g. "4711"'
    )


class Nodes(_Model):
    """Nodes without GPUs: `min` are always there, and the platform runs on them. As many more as
    pods ask for, up to `max`, Karpenter makes; without it they are whoever's who scales the group.
    """

    types: list[
        Annotated[str, Field(pattern=r"^[a-z0-9-]+\.\d*x?large$", description="e.g. m7i.large")]
    ] = Field(default=["m7i.large", "m6i.large"], min_length=1)
    min: int = Field(default=3, ge=1, le=30)
    max: int = Field(default=6, ge=1, le=30)

    @property
    def cores(self) -> int:
        """Of its largest type. AWS's sizes are multiples: a large has two, an xlarge four."""

        def of(size: str) -> int:
            times = size.removesuffix("xlarge")
            return 2 if size == "large" else 4 * int(times or 1)

        return max(of(name.partition(".")[2]) for name in self.types)

    @model_validator(mode="after")
    def _ordered(self) -> Nodes:
        if self.min > self.max:
            raise ValueError(_order(self.min, self.max))
        return self


class Account(_Model):
    """Where the stack is, and who may work on it."""

    account: AccountId
    region: str = Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", description="e.g. eu-central-1")
    deployRole: Arn = Field(
        description="assumed by `pulumi up`: arn:aws:iam::111111111111:role/NAME"
    )
    admins: list[Arn] = Field(default=[], description="who else administers the cluster")
    groups: dict[str, list[Arn]] = Field(
        default={},
        description="who is of a group that slipway:people names: {GROUP: [arn:aws:iam::…]}",
    )
    endpointCidrs: list[str] = Field(
        default=[], description="from where the cluster's API is reached; none: from the VPC only"
    )
    registryReaders: list[AccountId] = Field(
        default=[], description="accounts of other stacks that pull this one's images"
    )
    registryOf: StackName | None = Field(
        default=None,
        description="the stack whose registry has the images that only Slipway has; none: this one",
    )
    artifactReaders: list[AccountId] = Field(
        default=[], description="accounts of stacks that come after, and read what this one made"
    )
    artifactsOf: list[StackName] = Field(
        default=[], description="the stacks whose environments come before: [dev], [dev, staging]"
    )
    alarms: str | None = Field(
        default=None,
        pattern=r"^\S+@\S+\.\S+$",
        description="a mail address, which is told when a budget is near",
    )
    nodes: Nodes = Nodes()
    amiVersion: str = Field(
        default="v20251108",
        pattern=r"^v\d{8}$",
        description="of Amazon Linux 2023 for EKS, on nodes that Karpenter makes, e.g. v20251108",
    )

    @property
    def stacks(self) -> list[str]:
        """Others, of which this one has something."""
        return sorted({*self.artifactsOf, *([self.registryOf] if self.registryOf else ())})

    @property
    def members(self) -> dict[str, list[str]]:
        """The groups of each principal that is no administrator."""
        found: dict[str, list[str]] = {}
        for group, principals in self.groups.items():
            for principal in principals:
                found.setdefault(principal, []).append(group)
        return found

    @field_validator("artifactsOf")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("a stack is named twice: name each once")
        return value

    @field_validator("endpointCidrs")
    @classmethod
    def _narrow(cls, value: list[str]) -> list[str]:
        for text in value:
            try:
                network = ipaddress.ip_network(text)
            except ValueError as error:
                raise ValueError(f"{error}: write a network such as 198.51.100.0/24") from None
            if network.prefixlen < 16:
                raise ValueError(f"{text} is open to half the world: name your own networks")
        return value

    @model_validator(mode="after")
    def _role_is_of_the_account(self) -> Account:
        if self.deployRole.split(":")[4] != self.account:
            raise ValueError(f"deployRole is not of the account {self.account}: name a role of it")
        return self

    @model_validator(mode="after")
    def _admins_differ(self) -> Account:
        admins = [self.deployRole, *self.admins]
        names = [arn.rpartition("/")[2] for arn in admins]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"admins: two are called {name} (deployRole is one unnamed): leave one out, or "
                    "name a role that is called otherwise"
                )
        for principal in self.members:
            if (name := principal.rpartition("/")[2]) in names:
                raise ValueError(
                    f"groups: {principal} is called as another, or administers the cluster: leave "
                    "one out, or name a role that is called otherwise"
                )
            names.append(name)
        return self


class Network(_Model):
    """The VPC: a private, a public and an isolated subnet in each of three zones."""

    cidr: str
    zones: list[Zone] = Field(min_length=ZONES, max_length=ZONES)
    nat: Literal["one", "zone"] = Field(
        default="zone", description="one: cheaper, and all zones lose the way out with its zone"
    )

    @field_validator("cidr")
    @classmethod
    def _fits(cls, value: str) -> str:
        try:
            network = ipaddress.IPv4Network(value)
        except ValueError as error:
            raise ValueError(f"{error}: write a network such as 10.16.0.0/16") from None
        if not 16 <= network.prefixlen <= 20:
            raise ValueError(
                f"a /{network.prefixlen} does not do: every pod has an address of its own and AWS "
                "allows a /16 at most; write a /16 to /20"
            )
        if not network.is_private:
            raise ValueError(f"{value} is not private: take one of 10.0.0.0/8")
        if network.overlaps(SERVICES):
            raise ValueError(f"{value} overlaps the services' {SERVICES}: take one of 10.0.0.0/8")
        return value

    @field_validator("zones")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("a zone is named twice: name three different ones")
        return value

    def _carve(self, prefix: int, first: int) -> list[str]:
        """Three consecutive blocks that are 2**prefix times smaller than the VPC."""
        network = ipaddress.IPv4Network(self.cidr)
        blocks = list(network.subnets(prefixlen_diff=prefix))
        return [str(block) for block in blocks[first : first + ZONES]]

    @property
    def private(self) -> list[str]:
        """Three quarters of the network: nodes and pods."""
        return self._carve(2, 0)

    @property
    def public(self) -> list[str]:
        """Load balancers and NAT."""
        return self._carve(6, 48)

    @property
    def isolated(self) -> list[str]:
        """Databases and the control plane's side of the cluster: without any way out."""
        return self._carve(6, 52)


class Taint(_Model):
    key: str = Field(pattern=r"^[a-z0-9.-]+(/[A-Za-z0-9._-]+)?$", description="e.g. nvidia.com/gpu")
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"


class Sharing(_Model):
    """How pods share a GPU: `replicas` take turns on it, or it is divided by a MIG `profile`."""

    by: Literal["none", "time-slicing", "mig"] = "none"
    replicas: int | None = Field(default=None, ge=2, le=48)
    profile: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Sharing:
        wanted = {"none": None, "time-slicing": "replicas", "mig": "profile"}[self.by]
        for field in ("replicas", "profile"):
            given = getattr(self, field) is not None
            if given != (field == wanted):
                verb = "takes no" if given else "needs"
                raise ValueError(f"by: {self.by} {verb} {field}")
        return self


class Consolidation(_Model):
    """When nodes go: once empty (or also when fuller ones would do) for this long."""

    when: Literal["empty", "underutilized"] = "empty"
    after: Duration = "10m"


class Pool(_Model):
    """GPU nodes of one kind. Four lines of a stack file make one."""

    name: Name
    families: list[str] = Field(min_length=1)
    sizes: list[str] = Field(default=[], description="of the families; none: every one")
    purchase: Literal["on-demand", "spot", "capacity-block"] = "on-demand"
    reservations: list[Annotated[str, Field(pattern=r"^cr-[0-9a-z]+$", description="cr-…")]] = []
    zones: list[Zone] = Field(default=[], description="none: all of the network's")
    min: int = Field(default=0, ge=0, le=64)
    max: int = Field(ge=1, le=64)
    sharing: Sharing = Sharing()
    taints: list[Taint] = Field(default=[Taint(key="nvidia.com/gpu", value="true")], min_length=1)
    consolidation: Consolidation = Consolidation()
    ttl: Duration = Field(default="336h", description="an older node is replaced, e.g. 336h")
    budget: float = Field(gt=0, description="US dollars a month at which somebody is told")
    diskGiB: int = Field(default=200, ge=50, le=16000)

    @field_validator("families")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        known = families.catalogue().families
        for family in value:
            if family not in known:
                raise ValueError(f"no family {family!r}: {did_you_mean(family, known)}")
        return value

    @model_validator(mode="after")
    def _works(self) -> Pool:
        if self.min > self.max:
            raise ValueError(_order(self.min, self.max))
        if (self.purchase == "capacity-block") != bool(self.reservations):
            raise ValueError("purchase: capacity-block and reservations need each other")
        for size in self.sizes:
            for family in self.families:
                known = families.catalogue().families[family].sizes
                if size not in known:
                    raise ValueError(f"{family} has no size {size}: {did_you_mean(size, known)}")
        if self.sharing.profile:
            for family in self.families:
                gpu = families.catalogue().families[family].gpu
                if self.sharing.profile not in gpu.mig:
                    fix = (
                        did_you_mean(self.sharing.profile, gpu.mig)
                        if gpu.mig
                        else ("share it by time-slicing, or take a family with A100, H100 or H200")
                    )
                    profile = f"{family} has no MIG profile {self.sharing.profile}"
                    raise ValueError(f"the {gpu.name} of {profile}: {fix}")
        name, cheapest = min(self.types.items(), key=lambda item: item[1].price)
        if self.budget < cheapest.price:
            raise ValueError(
                f"budget {self.budget:g} does not pay one hour of {name} ({cheapest.price:g} USD): "
                "raise it, or take a cheaper family"
            )
        return self

    @property
    def types(self) -> dict[str, families.Size]:
        """Instance type to what it is."""
        return families.sizes(self.families, self.sizes)

    @property
    def most(self) -> families.Size:
        """The largest of its types."""
        return max(self.types.values(), key=lambda size: (size.gpus, size.vcpus, size.memoryGiB))

    @property
    def shares(self) -> int:
        """As how many GPUs each of its GPUs is offered."""
        if self.sharing.profile:
            return 7 // int(self.sharing.profile[0])
        return self.sharing.replicas or 1

    @property
    def gpus(self) -> int:
        """What pods may ask for when there are as many nodes as there may be; shares count."""
        return self.max * self.most.gpus * self.shares


class Database(_Model):
    type: str = Field(
        default="db.t4g.medium",
        pattern=r"^db\.[a-z0-9]+\.[a-z0-9]+$",
        description="e.g. db.t4g.medium",
    )
    storageGiB: int = Field(default=20, ge=20, le=65536)
    backupDays: int = Field(default=7, ge=1, le=35)


class Stores(_Model):
    """Where objects and tables are: AWS's services, or pods of ours."""

    objects: Literal["s3", "minio"] = "s3"
    postgres: Literal["rds", "pod"] = "rds"
    database: Database = Database()


class Domain(_Model):
    """The name under which the consoles are reached: mlflow.<name>, argocd.<name>, argo.<name>."""

    name: str = Field(pattern=r"^([a-z0-9-]+\.)+[a-z]{2,}$", description="e.g. ml.example.com")
    zone: str = Field(pattern=r"^Z[A-Z0-9]{6,31}$", description="id of its Route 53 zone, Z…")
    openTo: list[str] = Field(default=["0.0.0.0/0"], min_length=1)


class Oidc(_Model):
    """Single sign-on in front of the consoles. The client's secret is in Secrets Manager."""

    issuer: Url
    authorizationEndpoint: Url
    tokenEndpoint: Url
    userInfoEndpoint: Url
    clientId: str = Field(min_length=1)
    clientSecret: str = Field(
        pattern=r"^[A-Za-z0-9/_+=.@-]{1,100}$", description="name of a secret in Secrets Manager"
    )


class Backend(_Model):
    """Where the stack's state is, for everybody who works on it; `slipway pulumi` reads it."""

    url: str = Field(
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9/_-]+)?(\?[a-z0-9=&-]+)?$",
        description="a bucket, e.g. s3://our-pulumi-state?region=eu-central-1",
    )
    secretsProvider: str = Field(
        pattern=r"^awskms://[A-Za-z0-9/:_-]+(\?[a-z0-9=&-]+)?$",
        description="a key of KMS, e.g. awskms://alias/pulumi?region=eu-central-1",
    )


def _order(low: int, high: int) -> str:
    return f"min {low} is above max {high}: lower one, or raise the other"


def floor_name(pool: str) -> str:
    """The NodePool of those nodes of a pool that are always there."""
    return f"{pool}-floor"


def zone_region(zone: str) -> str:
    """The region that a zone's name begins with."""
    return re.sub(r"[a-z]$", "", zone)
