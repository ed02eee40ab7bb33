"""The wiring of what is beneath the platform on AWS, and of what the platform gets from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pulumi
import yaml
from pulumi_aws.provider import Provider
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs
from pulumi_kubernetes.storage.v1 import StorageClass

from infra.aws.cluster import Cluster, ClusterArgs
from infra.aws.component import Context
from infra.aws.config import SERVICES, Account, Domain, Oidc, Tags
from infra.aws.config import Network as NetworkSettings
from infra.aws.database import PORT, Database, DatabaseArgs
from infra.aws.general_nodes import GeneralNodes, GeneralNodesArgs
from infra.aws.gpu_pools import GpuPools, GpuPoolsArgs
from infra.aws.gpu_software import GpuSoftware, GpuSoftwareArgs
from infra.aws.identities import Identities, IdentitiesArgs, workloads
from infra.aws.ingress import Console, Ingress, IngressArgs
from infra.aws.karpenter import Karpenter, KarpenterArgs
from infra.aws.network import ANYWHERE, Network, NetworkArgs
from infra.aws.objects import Objects, ObjectsArgs
from infra.aws.registry import Registry, RegistryArgs
from infra.aws.secrets import Secrets, SecretsArgs
from infra.aws.teardown import Gone
from infra.aws.upstream import Artifacts, evidence_keys, prefixes
from infra.config import StackConfig
from infra.platform import flows
from infra.platform.component import after, provider
from infra.platform.minio import Rights
from infra.platform.network import Api, Elsewhere, Peer
from infra.platform.secrets import Make
from slipway import toolchain
from slipway.store import UPSTREAM

IMAGES_FILE = Path(__file__).with_name("images.yaml")
# Where EKS tells a pod who it is.
POD_IDENTITY_AGENT = Elsewhere("169.254.170.23/32", (80,))


def images() -> dict[str, str]:
    """Official images that only clusters on AWS run: name to reference."""
    return yaml.safe_load(IMAGES_FILE.read_text())


@dataclass(frozen=True)
class Settings:
    """The stack's configuration, with what every stack on AWS has."""

    config: StackConfig
    account: Account
    network: NetworkSettings
    tags: Tags

    @classmethod
    def of(cls, config: StackConfig) -> Settings:
        """The parts that `StackConfig` has made sure of."""
        if not (config.aws and config.network and config.tags):
            raise ValueError("no stack on AWS")
        return cls(config, config.aws, config.network, config.tags)

    def context(self, stack: str) -> Context:
        return Context(
            name=f"slipway-{stack}",
            account=self.account.account,
            region=self.account.region,
            tags={
                "slipway:stack": stack,
                "environment": self.config.environments[0],
                "owner": self.tags.owner,
                "cost-centre": self.tags.costCentre,
                "managed-by": "pulumi",
            },
            protected=self.config.protected,
            kept=self.config.kept,
        )

    def provider(self, stack: str) -> Provider:
        """AWS, as the role that deploys."""
        return Provider(
            "aws",
            region=self.account.region,
            # Of another account, nothing is touched.
            allowed_account_ids=[self.account.account],
            assume_roles=[
                {"role_arn": self.account.deployRole, "session_name": f"slipway-{stack}"}
            ],
        )

    def registry(self, context: Context, opts: pulumi.ResourceOptions) -> Registry:
        """The registry, whose address other stacks ask for."""
        args = RegistryArgs(context, self.account.registryReaders)
        made = Registry("registry", args, opts)
        pulumi.export("registry", made.address)
        return made


def registry_alone(config: StackConfig, stack: str) -> None:
    """The registry of a stack that has nothing else yet: its pods pull what is pushed there."""
    settings = Settings.of(config)
    opts = pulumi.ResourceOptions(providers=[settings.provider(stack)])
    settings.registry(settings.context(stack), opts)


class Cloud:
    """What the platform stands on.

    Attributes:
        platform: options for everything on the cluster; it goes before anything that it needs.
        volumes: what makes a volume of a claim.
        objects: S3; None where the platform runs MinIO.
        database: RDS; None where PostgreSQL is a pod.
        kubeconfig: of the cluster; it holds no secret.
    """

    platform: pulumi.ResourceOptions
    volumes: pulumi.Resource
    objects: Objects | None
    database: Database | None
    kubeconfig: pulumi.Output[str]

    def __init__(
        self,
        config: StackConfig,
        stack: str,
        references: Mapping[str, str],
        buckets: Sequence[str],
    ) -> None:
        self._settings = settings = Settings.of(config)
        self.context = context = settings.context(stack)
        self._references = references
        # The same program's, in the same backend: what they say, not what we think they are.
        self._stacks = {
            name: pulumi.StackReference(f"organization/{pulumi.get_project()}/{name}")
            for name in settings.account.stacks
        }
        self._version = minor(toolchain.tool("kubernetes").version)
        aws = settings.provider(stack)
        self._aws = pulumi.ResourceOptions(providers=[aws])
        self._network = Network("network", NetworkArgs(context, settings.network), self._aws)
        self._cluster = Cluster(
            "cluster",
            ClusterArgs(
                context=context,
                version=self._version,
                account=settings.account,
                karpenter=config.karpenter,
                subnets=self._network.private,
                control_plane=self._network.isolated,
                ways=self._network.ways,
            ),
            self._aws,
        )
        self.kubeconfig = self._cluster.kubeconfig
        kubernetes = provider(
            self.kubeconfig, pulumi.ResourceOptions(depends_on=self._cluster.serving)
        )
        self._both = pulumi.ResourceOptions(providers=[aws, kubernetes])
        self._karpenter = self._make_karpenter() if config.karpenter else None
        ends = [self._cluster, *([self._karpenter] if self._karpenter else [])]
        self._gone = Gone(
            "gone",
            cluster=context.name,
            region=context.region,
            role=settings.account.deployRole,
            opts=pulumi.ResourceOptions(depends_on=ends),
        )
        self.platform = pulumi.ResourceOptions(providers=[kubernetes], depends_on=[self._gone])
        # The driver's own default leaves them as the account has them.
        self.volumes = StorageClass(
            "encrypted",
            metadata=ObjectMetaArgs(
                name="encrypted",
                annotations={"storageclass.kubernetes.io/is-default-class": "true"},
            ),
            provisioner="ebs.csi.aws.com",
            parameters={"type": "gp3", "encrypted": "true"},
            volume_binding_mode="WaitForFirstConsumer",
            reclaim_policy="Delete",
            allow_volume_expansion=True,
            opts=self.platform,
        )
        self.registry = settings.registry(context, self._aws)
        self._upstream = [
            Artifacts.of(self._stacks[name], config.environments)
            for name in settings.account.artifactsOf
        ]
        stores = config.stores
        self.objects = (
            Objects(
                "objects",
                ObjectsArgs(context, buckets, settings.account.artifactReaders, self._upstream),
                self._aws,
            )
            if stores.objects == "s3"
            else None
        )
        self.database = (
            Database(
                "database",
                DatabaseArgs(
                    context=context,
                    settings=stores.database,
                    vpc_id=self._network.vpc_id,
                    subnets=self._network.isolated,
                    clients=self._cluster.security_group,
                ),
                self._aws,
            )
            if stores.postgres == "rds"
            else None
        )
        pulumi.export("cluster", self._cluster.cluster_name)
        self._images_from = self._registry_of(settings.account.registryOf)

    def _registry_of(self, stack: str | None) -> pulumi.Output[str]:
        if stack is None:
            return pulumi.Output.from_input(self.registry.address)
        return self._stacks[stack].require_output("registry")

    def located(self, reference: str) -> pulumi.Input[str]:
        """An image's reference; one without a registry is in `registryOf`'s."""
        registry, slash, _ = reference.partition("/")
        named = bool(slash) and ("." in registry or ":" in registry or registry == "localhost")
        return reference if named else pulumi.Output.concat(self._images_from, "/", reference)

    @property
    def settings(self) -> dict[str, pulumi.Input[str]]:
        """What steps read of stacks that come before."""
        return {UPSTREAM: prefixes(self._upstream)} if self._upstream else {}

    @property
    def upstream_keys(self) -> pulumi.Output[dict[str, str]] | None:
        """File to public keys, for evidence of environments on other stacks; None where all are
        here."""
        return evidence_keys(self._upstream) if self._upstream else None

    def export_artifacts(self, keys: pulumi.Output[str]) -> None:
        """Says to stacks that come after where what this one makes is, and by what `keys` its
        evidence is verified."""
        if self.objects:
            hosted: list[str] = [*self._settings.config.environments]
            environments = pulumi.Output.from_input(hosted)
            Artifacts(*self.objects.artifacts, environments, keys).export()

    def _make_karpenter(self) -> Karpenter:
        cluster = self._cluster
        return Karpenter(
            "karpenter",
            KarpenterArgs(
                context=self.context,
                cluster_name=cluster.cluster_name,
                endpoint=cluster.endpoint,
                node_role=cluster.node_role,
                node_role_name=cluster.node_role_name,
                image=self._references["karpenter"],
                manifests=toolchain.files("karpenter") / "pkg" / "apis" / "crds",
            ),
            self._both,
        )

    @property
    def api(self) -> Api:
        """Its servers are where no pod is; its Service has the first of the services' addresses."""
        servers = [Elsewhere(cidr, (443,)) for cidr in self._settings.network.isolated]
        return Api(servers=servers, service=[Elsewhere(f"{SERVICES[1]}/32", (443,))])

    def stores(self) -> list[tuple[Peer, list[Elsewhere]]]:
        """Of the platform's stores, those that are no pods, and where they are."""
        result: list[tuple[Peer, list[Elsewhere]]] = []
        if self.objects:
            # S3's addresses are the whole region's; what a pod may do there, its role says.
            result.append((flows.MINIO, [Elsewhere(ANYWHERE, (443,)), POD_IDENTITY_AGENT]))
        if self.database:
            subnets = self._settings.network.isolated
            result.append((flows.POSTGRES, [Elsewhere(cidr, (PORT,)) for cidr in subnets]))
        return result

    def secrets(self, namespaces: Mapping[str, pulumi.Input[str]]) -> Make:
        """What keeps secrets in Secrets Manager, and makes Secrets of them in `namespaces`."""
        return Secrets(
            "secrets",
            SecretsArgs(
                context=self.context,
                cluster_name=self._cluster.cluster_name,
                image=self._references["external-secrets"],
                manifests=toolchain.files("external-secrets") / "config" / "crds" / "bases",
                namespaces=namespaces,
            ),
            after(self._both, self._gone),
        ).keep

    def identities(self, users: Mapping[str, Rights]) -> None:
        """Roles for the workloads that use S3.

        Args:
            users: of the object store, with what each may do there.
        """
        if not self.objects:
            return
        objects = self.objects
        Identities(
            "identities",
            IdentitiesArgs(
                context=self.context,
                cluster_name=self._cluster.cluster_name,
                rights={
                    workload: objects.statements({user: users[user] for user in workload.users})
                    for workload in workloads(self._settings.config.environments)
                },
            ),
            # EKS gives a pod its role when the pod is made, and never later: who waits for the
            # objects waits for these too.
            pulumi.ResourceOptions.merge(self._aws, pulumi.ResourceOptions(parent=objects)),
        )

    def pools(self, namespace: pulumi.Input[str]) -> None:
        """GPU nodes, and the software on them in `namespace`."""
        settings = self._settings
        opts = after(self._both, self._gone)
        zones = settings.network.zones
        pools = GpuPools(
            "gpu-pools",
            GpuPoolsArgs(
                context=self.context,
                pools=settings.config.gpuPools,
                cluster_name=self._cluster.cluster_name,
                version=self._version,
                zones=zones,
                subnets=dict(zip(zones, self._network.private, strict=True)),
                node_role=self._cluster.node_role,
                ami=settings.account.amiVersion,
                instance_profile=self._karpenter.instance_profile if self._karpenter else None,
                mail=settings.account.alarms,
            ),
            opts,
        )
        GpuSoftware(
            "gpu-software",
            GpuSoftwareArgs(
                context=self.context,
                pools=settings.config.gpuPools,
                namespace=namespace,
                images=self._references,
                karpenter=settings.config.karpenter,
            ),
            # On destroy it goes first: its pods keep no node.
            after(opts, pools),
        )

    def general_nodes(self) -> None:
        """More nodes without GPUs, where Karpenter makes them and the stack may have more."""
        account = self._settings.account
        if self._karpenter is None or account.nodes.max == account.nodes.min:
            return
        GeneralNodes(
            "general-nodes",
            GeneralNodesArgs(
                context=self.context,
                nodes=account.nodes,
                zones=self._settings.network.zones,
                ami=account.amiVersion,
                instance_profile=self._karpenter.instance_profile,
            ),
            after(self._both, self._gone),
        )

    def ingress(self, domain: Domain, oidc: Oidc, consoles: Mapping[str, Console]) -> Ingress:
        """The consoles under the stack's domain."""
        return Ingress(
            "ingress",
            IngressArgs(
                context=self.context,
                domain=domain,
                oidc=oidc,
                vpc_id=self._network.vpc_id,
                subnets=self._network.public,
                ways=self._network.ways,
                nodes=self._cluster.security_group,
                group=self._cluster.group_name,
                consoles=consoles,
            ),
            self._aws,
        )


def minor(version: str) -> str:
    """1.34 of v1.34.2."""
    return ".".join(version.lstrip("v").split(".")[:2])
