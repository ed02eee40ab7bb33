"""The wiring: configuration to component arguments, and one component's outputs to the next."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pulumi

from infra.config import (
    GPU_SOFTWARE,
    NODE_PORTS,
    PROVISIONER,
    Level,
    Place,
    Size,
    StackConfig,
    load,
)
from infra.config import Forge as GivenForge
from infra.platform import kueue, secrets
from infra.platform.admission import Admission, AdmissionArgs
from infra.platform.applications import LOOK_SECONDS, Applications, ApplicationsArgs
from infra.platform.argo_cd import WORKLOADS, ArgoCd, ArgoCdArgs
from infra.platform.argo_workflows import ArgoWorkflows, ArgoWorkflowsArgs
from infra.platform.component import Resources, after, provider
from infra.platform.environment import Environment, EnvironmentArgs
from infra.platform.flows import GITEA, flows
from infra.platform.forge import SIGNED_AS, App, Forge, Login, Outside, OutsideArgs, webhooks
from infra.platform.forge_token import ForgeToken, ForgeTokenArgs
from infra.platform.gitea import Gitea, GiteaArgs
from infra.platform.metrics_server import MetricsServer, MetricsServerArgs
from infra.platform.minio import Minio, MinioArgs, ObjectStore, Rights
from infra.platform.mlflow import Mlflow, MlflowArgs
from infra.platform.monitoring import Monitoring, MonitoringArgs
from infra.platform.namespaces import Namespaces, NamespacesArgs
from infra.platform.network import Elsewhere, Network, Peer, api_server
from infra.platform.people import People, PeopleArgs
from infra.platform.pipelines import Pipelines, PipelinesArgs
from infra.platform.postgres import Databases, DatabasesArgs, Postgres, PostgresArgs, Tables
from infra.platform.queues import queueing
from infra.platform.signing import Signing, SigningArgs
from infra.platform.storage_class import StorageClass, StorageClassArgs
from infra.platform.volumes_gone import VolumesGone
from infra.simulation import stack as simulation
from slipway import github, images, merging, paths, toolchain
from slipway.errors import BadInput, did_you_mean

if TYPE_CHECKING:
    from infra.aws.stack import Cloud

REPOSITORY = "slipway/slipway"
BUCKETS = ["data", "bentos", "evidence", "predictions", "labels", "mlflow", "workflows"]
DATABASES = ["gitea", "mlflow", "argo"]
# Those that are behind single sign-on, where a stack has a domain: to where each says it is well.
CONSOLES = {"argocd": "/healthz", "mlflow": "/health", "argo": "/"}
# MLflow has no users: whoever reaches it may write. What its pages look up by POST:
READS = [
    *(f"/ajax-api/2.0/mlflow/{what}/search" for what in ("experiments", "runs", "logged-models")),
    "/ajax-api/2.0/mlflow/experiments/search-datasets",
    "/ajax-api/2.0/mlflow/registered-models/get-latest-versions",
    *(f"/ajax-api/3.0/mlflow/traces/{what}" for what in ("search", "metrics", "batchGetInfos")),
    "/ajax-api/3.0/mlflow/datasets/search",
    "/graphql",
]
# Where these two are to be told of what happens on the forge, from inside the cluster.
ARGO_CD, ARGO = "http://argocd-server.argocd.svc", "http://argo-server.argo.svc:2746"
IMAGES = {
    *("argo-controller", "argo-executor", "argo-workflows", "argocd", "busybox", "gitea"),
    *("local-path-provisioner", "metrics-server", "minio", "mlflow", "postgres", "redis"),
    *("serving", "training"),
}
# Namespaces that hold claims of volumes.
WITH_VOLUMES = ["storage", "forge"]
ARGO_CD_SIZES = {
    "argocd-application-controller": "argocdController",
    "argocd-applicationset-controller": "argocdApplicationSets",
    "argocd-redis": "redis",
    "argocd-repo-server": "argocdRepoServer",
    "argocd-server": "argocdServer",
}


def build() -> None:
    """Registers everything that the selected stack has.

    Raises:
        BadInput: the stack's configuration is wrong.
        SlipwayError: images or upstream manifests are missing.
    """
    values = pulumi.runtime.config.CONFIG.get()
    encrypted = {key for key in values if pulumi.runtime.is_config_secret(key)}
    config = load(values, pulumi.get_stack(), encrypted=encrypted)
    if config.cluster == "eks" and os.environ.get(images.ONLY_REGISTRY):
        from infra.aws.stack import registry_alone

        registry_alone(config, pulumi.get_stack())
        return
    references = _references(config)
    if config.cluster == "eks":
        # Heavy, and of no use to a stack that is elsewhere.
        from infra.aws import price
        from infra.aws.stack import Cloud

        price.tell(config, pulumi.get_stack())
        cloud = Cloud(config, pulumi.get_stack(), references, BUCKETS)
        Stack(config, references, cloud.platform, cloud).register()
        return
    if config.cluster == "simulated":
        simulation.build(config, references)
        return
    cluster = provider(str(paths.kubeconfig()) if config.embedded else None)
    Stack(config, references, pulumi.ResourceOptions(providers=[cluster])).register()


def _references(config: StackConfig) -> dict[str, str]:
    """Image name to reference: the stack's own where it names one."""
    simulated = config.cluster == "simulated"
    ours = config.embedded or simulated
    known = {**images.references(embedded=ours), **config.images}
    embedded_only = {"local-path-provisioner", "busybox", "metrics-server"}
    wanted = IMAGES if config.embedded else IMAGES - embedded_only
    if simulated:
        wanted = simulation.IMAGES
    elif config.teams:
        wanted = wanted | {kueue.NAME}
    if config.forge:
        wanted = wanted - {"gitea"}
    if config.cluster == "eks":
        from infra.aws import stack as aws

        known, wanted = {**aws.images(), **known}, wanted | aws.images().keys()
    file = paths.told(paths.stack_file(pulumi.get_stack()))
    for name in sorted(config.images.keys() - (IMAGES | wanted)):
        fix = did_you_mean(name, IMAGES | wanted)
        raise BadInput("no such image", file=file, field=f"images.{name}", fix=fix)
    for name in sorted(wanted - known.keys()):
        where = f"--stack {pulumi.get_stack()}" if config.cluster == "eks" else "REGISTRY"
        fix = f"`slipway push {where}` builds and pushes it, and prints what to write here"
        raise BadInput("only Slipway has this image", file=file, field=f"images.{name}", fix=fix)
    return known


def _resources(*parts: ObjectStore | Forge) -> list[pulumi.Resource]:
    """What is waited for."""
    return [part for part in parts if isinstance(part, pulumi.Resource)]


def _elsewhere(places: Sequence[Place]) -> list[Elsewhere]:
    return [Elsewhere(place.cidr, tuple(place.ports)) for place in places]


class Stack:
    """One call a component, in the order in which they need each other."""

    def __init__(
        self,
        config: StackConfig,
        references: dict[str, str],
        opts: pulumi.ResourceOptions,
        cloud: Cloud | None = None,
    ) -> None:
        self.config, self.images, self._opts = config, references, opts
        self._cloud = cloud

    def register(self) -> None:
        config = self.config
        levels = config.namespaces
        # What waits for volumes waits for the provisioner, so nothing else comes before it.
        first: dict[str, Level] = {n: levels.pop(n) for n in levels.keys() & {PROVISIONER}}
        namespaces = Namespaces("namespaces", NamespacesArgs(first), self._opts)
        self.names = namespaces.names
        base = self._cluster()
        for name, level in levels.items():
            namespaces.add(name, level, *base)
        # Nothing waits for it: rules take hold when they come, and pods outlive their absence.
        Network(
            "network",
            flows(
                self.names,
                config.environments,
                api=self._cloud.api if self._cloud else api_server(self._opts),
                consoles=self._consoles(),
                provisioner=config.embedded,
                queues=bool(config.teams),
                makes_tokens=bool(config.forge and config.forge.app),
                moved=self._moved(),
                sources=_elsewhere(config.sources),
                monitoring=config.monitoring.namespace if config.monitoring else None,
            ),
            self._opts,
        )
        with secrets.made_by(self._keeper()):
            self._platform(base)

    def _moved(self) -> list[tuple[Peer, list[Elsewhere]]]:
        """What other stacks have as pods, and this one elsewhere; and where."""
        forge = self.config.forge
        return [
            *(self._cloud.stores() if self._cloud else ()),
            *([(GITEA, _elsewhere(forge.places))] if forge else ()),
        ]

    def _keeper(self) -> secrets.Make | None:
        """What makes Secrets, in the namespaces that have some; None: Pulumi itself."""
        if self._cloud is None:
            return None
        places = [*self.config.parts, *(() if self._cloud.objects else self.config.environments)]
        return self._cloud.secrets({place: self.names[place] for place in places})

    def _platform(self, base: list[pulumi.Resource]) -> None:
        config = self.config
        postgres = self._postgres(base)
        store = self._objects(base)
        mlflow = self._mlflow(postgres, store)
        forge = self._forge(postgres)
        argo_cd = self._argo_cd(forge)
        workflows = self._argo_workflows(postgres, store, forge)
        admission = Admission("admission", AdmissionArgs(self._registries()), self._opts)
        pipelines = self._namespaces_content(store, mlflow, forge)
        tokens = self._forge_token(forge, pipelines)
        Applications(
            "applications",
            ApplicationsArgs(
                namespace=self.names["argocd"],
                repository_url=forge.repository_url,
                login=forge.credentials.argo_cd,
                environments={e: self.names[e] for e in config.environments},
                pipelines=self.names["pipelines"],
                # A forge of somebody's is asked no more often than was said.
                look_seconds=config.pollSeconds if config.forge else LOOK_SECONDS,
            ),
            self._after(argo_cd, workflows, admission, *_resources(forge), *tokens),
        )
        self._monitoring()
        self._export(store, mlflow, forge)
        if self._cloud:
            self._beyond(self._cloud)

    def _monitoring(self) -> None:
        if wanted := self.config.monitoring:
            Monitoring(
                "monitoring",
                MonitoringArgs(
                    environments={e: self.names[e] for e in self.config.environments},
                    argo_cd=self.names["argocd"],
                    argo=self.names["argo"],
                    labels=wanted.labels,
                ),
                self._opts,
            )

    def _beyond(self, cloud: Cloud) -> None:
        """What only a stack on AWS has: more nodes, and consoles that the world can find."""
        if self.config.gpuPools:
            cloud.pools(self.names[GPU_SOFTWARE])
        cloud.general_nodes()
        if self.config.teams:
            queueing(
                self.config,
                self._opts,
                namespace=self.names[kueue.NAMESPACE],
                queued=self.names["pipelines"],
                image=self.images["kueue"],
                kubeconfig=cloud.kubeconfig,
            )
        if self.config.domain and self.config.oidc:
            from infra.aws.ingress import Console

            consoles = {
                name: Console(NODE_PORTS[name], health, READS if name == "mlflow" else None)
                for name, health in CONSOLES.items()
            }
            ingress = cloud.ingress(self.config.domain, self.config.oidc, consoles)
            pulumi.export("consoles", ingress.addresses)

    def _after(self, *resources: pulumi.Resource) -> pulumi.ResourceOptions:
        return after(self._opts, *resources)

    def _own(self, name: str) -> pulumi.Input[str]:
        """The reference of an image that only Slipway has."""
        reference = self.images[name]
        return self._cloud.located(reference) if self._cloud else reference

    def _registries(self) -> list[pulumi.Input[str]]:
        """Where images of models may come from: as configured, else where the serving image is."""
        if self.config.registries:
            return [f"{name}/" for name in self.config.registries]
        serving = pulumi.Output.from_input(self._own("serving"))
        return [serving.apply(lambda reference: reference.partition("/")[0] + "/")]

    def _size(self, component: str) -> Resources:
        size: Size = getattr(self.config.components, component)
        return Resources(cpu=size.cpu, memory=size.memory, limit=size.limit)

    def _node_port(self, service: str) -> int | None:
        return NODE_PORTS[service] if service in self._consoles() else None

    def _databases(self) -> list[str]:
        return [name for name in DATABASES if name != "gitea" or self.config.forge is None]

    def _former(self) -> list[str]:
        """Databases of what a stack may have had before its forge was another."""
        return ["gitea"] if self.config.forge else []

    def _consoles(self) -> list[str]:
        """Consoles that are reached from outside: by node port, and there through a login."""
        if self.config.nodePorts:
            return list(self.config.node_ports)
        return list(CONSOLES) if self.config.domain else []

    def _cluster(self) -> list[pulumi.Resource]:
        """What a bare cluster lacks and a managed one brings."""
        if self._cloud:
            return [self._cloud.volumes]
        if not self.config.embedded:
            return []
        storage = StorageClass(
            "storage-class",
            StorageClassArgs(
                namespace=self.names[PROVISIONER],
                image=self.images["local-path-provisioner"],
                helper_image=self.images["busybox"],
                path=str(paths.data() / "volumes"),
                resources=self._size("localPath"),
            ),
            self._opts,
        )
        MetricsServer(
            "metrics-server",
            MetricsServerArgs(
                image=self.images["metrics-server"], resources=self._size("metricsServer")
            ),
            self._opts,
        )
        # Claims go with their namespaces, and only then their volumes, by the provisioner's hand.
        gone = VolumesGone(
            "volumes-gone",
            [n for n in WITH_VOLUMES if n in self.config.parts],
            pulumi.ResourceOptions(depends_on=[storage]),
        )
        return [storage, gone]

    def _postgres(self, base: list[pulumi.Resource]) -> Tables:
        if self._cloud and self._cloud.database:
            return Databases(
                "databases",
                DatabasesArgs(
                    namespace=self.names["storage"],
                    image=self.images["postgres"],
                    databases=self._databases(),
                    former=self._former(),
                    host=self._cloud.database.host,
                    password=self._cloud.database.password,
                ),
                self._opts,
            )
        return Postgres(
            "postgres",
            PostgresArgs(
                namespace=self.names["storage"],
                image=self.images["postgres"],
                databases=self._databases(),
                former=self._former(),
                storage=self.config.storage.postgres,
                resources=self._size("postgres"),
            ),
            self._after(*base),
        )

    def _users(self) -> dict[str, Rights]:
        """Clients of the object store, and what each may do there."""
        return {
            # What is named by its digest is never removed by the code that makes it.
            "pipelines": Rights(
                read=["predictions", "labels"], write=["data", "bentos", "evidence"]
            ),
            "mlflow": Rights(write=["mlflow"], delete=["mlflow"]),
            "workflows": Rights(write=["workflows"], delete=["workflows"]),
            # Whoever says how predictions turned out is not who made them.
            "labels": Rights(write=["labels"]),
            # People, who change nothing there.
            "reader": Rights(
                read=["data", "bentos", "evidence", "predictions", "labels", "workflows"]
            ),
            **{
                f"models-{e}": Rights(read=["bentos", "evidence"], put=[f"predictions/{e}/"])
                for e in self.config.environments
            },
        }

    def _objects(self, base: list[pulumi.Resource]) -> ObjectStore:
        if self._cloud and self._cloud.objects:
            self._cloud.identities(self._users())
            return self._cloud.objects
        return Minio(
            "minio",
            MinioArgs(
                namespace=self.names["storage"],
                image=self.images["minio"],
                setup_image=self._own("training"),
                buckets=BUCKETS,
                users=self._users(),
                storage=self.config.storage.minio,
                resources=self._size("minio"),
                node_port=self._node_port("minio"),
            ),
            self._after(*base),
        )

    def _mlflow(self, postgres: Tables, store: ObjectStore) -> Mlflow:
        return Mlflow(
            "mlflow",
            MlflowArgs(
                namespace=self.names["mlflow"],
                image=self._own("mlflow"),
                database_host=postgres.host,
                database_password=postgres.passwords["mlflow"],
                object_store=store.environment("mlflow"),
                bucket=store.bucket("mlflow"),
                resources=self._size("mlflow"),
                node_port=self._node_port("mlflow"),
            ),
            self._after(postgres, *_resources(store)),
        )

    def _forge(self, postgres: Tables) -> Forge:
        if forge := self.config.forge:
            return Outside(
                "forge",
                OutsideArgs(
                    kind=forge.kind,
                    url=forge.url,
                    repository=forge.repository,
                    credentials=self._credentials(forge),
                    gates=forge.gates,
                    ca=forge.ca,
                ),
                self._opts,
            )
        return Gitea(
            "gitea",
            GiteaArgs(
                namespace=self.names["forge"],
                image=self.images["gitea"],
                setup_image=self._own("training"),
                static_root="/usr/share/gitea" if self.config.embedded else None,
                database=postgres,
                database_host=postgres.host,
                database_password=postgres.passwords["gitea"],
                database_tls=postgres.tls,
                repository=REPOSITORY,
                webhooks=webhooks("gitea", ARGO_CD, ARGO),
                required_status=merging.CONTEXT,
                storage=self.config.storage.gitea,
                resources=self._size("gitea"),
                node_port=self._node_port("gitea"),
            ),
            self._opts,
        )

    def _credentials(self, forge: GivenForge) -> Login | App:
        """As whom the platform is on a forge outside. A secret is there for each: see `config`."""
        given = self.config.forgeAppKey if forge.app else self.config.forgeToken
        secret = pulumi.Output.secret(given.get_secret_value() if given else "")
        if forge.app:
            api = github.api_of(forge.url)
            return App(forge.app.id, forge.app.installation, secret, api)
        return Login(forge.username or "", secret)

    def _forge_token(self, forge: Forge, pipelines: Pipelines) -> list[pulumi.Resource]:
        """What keeps steps in tokens of an app; a login has its own."""
        outside, app = self.config.forge, forge.credentials
        if not outside or not isinstance(app, App):
            return []
        return [
            ForgeToken(
                "forge-token",
                ForgeTokenArgs(
                    namespace=self.names["argocd"],
                    pipelines=self.names["pipelines"],
                    image=self._own("training"),
                    app=app,
                    repository=outside.repository,
                    reports=outside.gates == "cluster",
                    ca=outside.ca,
                ),
                self._after(pipelines),
            )
        ]

    def _argo_cd(self, forge: Forge) -> ArgoCd:
        managed = ["pipelines", *self.config.environments]
        return ArgoCd(
            "argocd",
            ArgoCdArgs(
                namespace=self.names["argocd"],
                manifests=toolchain.files("argo-cd") / "manifests",
                image=self.images["argocd"],
                redis_image=self.images["redis"],
                resources={w: self._size(ARGO_CD_SIZES[w]) for w in WORKLOADS},
                poll_seconds=self.config.pollSeconds,
                webhook_secret=forge.webhook_secret,
                webhooks_of=forge.kind,
                managed_namespaces={name: self.names[name] for name in managed},
                url=f"https://argocd.{self.config.domain.name}"
                if self.config.domain
                else f"http://127.0.0.1:{NODE_PORTS['argocd']}",
                node_port=self._node_port("argocd"),
                authorities=forge.authorities,
            ),
            self._opts,
        )

    def _argo_workflows(self, postgres: Tables, store: ObjectStore, forge: Forge) -> ArgoWorkflows:
        return ArgoWorkflows(
            "argo",
            ArgoWorkflowsArgs(
                namespace=self.names["argo"],
                managed_namespace=self.names["pipelines"],
                manifests=toolchain.files("argo-workflows") / "manifests",
                controller_image=self.images["argo-controller"],
                server_image=self.images["argo-workflows"],
                executor_image=self.images["argo-executor"],
                database_host=postgres.host,
                database_password=postgres.passwords["argo"],
                artifacts=store,
                artifact_user="workflows",
                artifact_bucket="workflows",
                database_tls=postgres.tls,
                controller_resources=self._size("workflowController"),
                server_resources=self._size("argoServer"),
                stores=[postgres, *_resources(store)],
                node_port=self._node_port("argo"),
                authority=("platform", "FORGE_CA") if forge.authorities else None,
            ),
            self._opts,
        )

    def _namespaces_content(self, store: ObjectStore, mlflow: Mlflow, forge: Forge) -> Pipelines:
        pipelines = Pipelines(
            "pipelines",
            PipelinesArgs(
                namespace=self.names["pipelines"],
                object_store=store.environment("pipelines"),
                labels=store.environment("labels"),
                reader=store.environment("reader"),
                forge=forge.credentials.steps,
                settings={
                    "MLFLOW_TRACKING_URI": mlflow.url,
                    **forge.settings,
                    "TRAINING_IMAGE": self._own("training"),
                    "SERVING_IMAGE": self._own("serving"),
                    "ENVIRONMENTS": " ".join(self.config.environments),
                    **(self._cloud.settings if self._cloud else {}),
                },
                webhook_secret=forge.webhook_secret,
                training_at_once=4,
            ),
            self._opts,
        )
        signing = Signing(
            "signing",
            SigningArgs(
                pipelines=self.names["pipelines"],
                controllers=self.names["argo"],
                training=self._own("training"),
                readers={e: self.names[e] for e in self.config.environments},
                former=self.config.formerKeys,
                upstream=self._cloud.upstream_keys if self._cloud else None,
            ),
            self._opts,
        )
        if self._cloud:
            self._cloud.export_artifacts(signing.public)
        People(
            "people",
            PeopleArgs(
                namespaces=self.names,
                environments=self.config.environments,
                members=self.config.people.members,
            ),
            self._opts,
        )
        for environment in self.config.environments:
            Environment(
                environment,
                EnvironmentArgs(
                    namespace=self.names[environment],
                    object_store=store.environment(f"models-{environment}"),
                ),
                self._opts,
            )
        return pipelines

    def _webhooks(self, kind: str) -> dict[str, Sequence[str]]:
        """What a forge outside is to call: where this machine has the consoles, or the cluster."""
        if self.config.nodePorts:
            at = "http://127.0.0.1"
            return webhooks(kind, f"{at}:{NODE_PORTS['argocd']}", f"{at}:{NODE_PORTS['argo']}")
        return webhooks(kind, ARGO_CD, ARGO)

    def _export(self, store: ObjectStore, mlflow: Mlflow, forge: Forge) -> None:
        """Addresses, and where credentials are; never what they are."""
        inside = {
            "argocd": ARGO_CD,
            "argo": ARGO,
            "forge" if self.config.forge else "gitea": forge.url,
            "minio": store.url,
            "mlflow": mlflow.url,
        }
        pulumi.export("addresses", inside)
        if self.config.nodePorts:
            ports = self.config.node_ports.items()
            consoles = {name: f"http://127.0.0.1:{port}" for name, port in ports}
            pulumi.export("consoles", consoles)
        pulumi.export("repository", forge.repository_url)
        pulumi.export("environments", list(self.config.environments))
        secrets = {
            "argo": "argo/console-token",
            "argocd": "argocd/argocd-initial-admin-secret",
        }
        if isinstance(forge, Gitea):
            secrets["gitea"] = "forge/gitea-admin"
        else:
            secrets["webhooks"] = f"argocd/argocd-secret, webhook.{SIGNED_AS[forge.kind]}.secret"
            pulumi.export("webhooks", self._webhooks(forge.kind))
        if isinstance(store, Minio):
            secrets["minio"] = "storage/minio"
        pulumi.export("secrets", secrets)
