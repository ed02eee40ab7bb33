"""The platform's connections, by name: who needs whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi

from infra.platform import kueue
from infra.platform.network import Api, Elsewhere, Flow, NetworkArgs, Peer
from infra.platform.pods import NAME


def _pods(namespace: str, name: str) -> Peer:
    return Peer(namespace, name, {NAME: name})


POSTGRES = _pods("storage", "postgres")
MINIO = _pods("storage", "minio")
MINIO_SETUP = _pods("storage", "minio-buckets")
MLFLOW = _pods("mlflow", "mlflow")
GITEA = _pods("forge", "gitea")
ARGOCD = Peer("argocd", "argocd")
APPLICATIONS = _pods("argocd", "argocd-application-controller")
ARGOCD_SERVER = _pods("argocd", "argocd-server")
FORGE_TOKEN = _pods("argocd", "forge-token")
REPO_SERVER = _pods("argocd", "argocd-repo-server")
CONTROLLER = Peer("argo", "workflow-controller", {"app": "workflow-controller"})
ARGO_SERVER = Peer("argo", "argo-server", {"app": "argo-server"})
STEPS = Peer("pipelines", "steps")
KUEUE = _pods(kueue.NAMESPACE, kueue.NAME)
# Where a model's pods answer, as the serving chart has it.
PREDICTS = 3000
# And where the platform's own parts tell how they are.
MEASURED = [(APPLICATIONS, 8082), (CONTROLLER, 9090)]
FLOWS = [
    Flow(_pods("storage", "postgres-databases"), POSTGRES, (5432,)),
    Flow(MINIO_SETUP, MINIO, (9000,)),
    Flow(MLFLOW, POSTGRES, (5432,)),
    Flow(MLFLOW, MINIO, (9000,)),
    Flow(GITEA, POSTGRES, (5432,)),
    Flow(GITEA, ARGOCD_SERVER, (8080,)),
    Flow(GITEA, ARGO_SERVER, (2746,)),
    Flow(_pods("forge", "gitea-setup"), POSTGRES, (5432,)),
    Flow(_pods("forge", "gitea-setup"), GITEA, (3000,)),
    Flow(REPO_SERVER, GITEA, (3000,)),
    Flow(ARGOCD, REPO_SERVER, (8081,)),
    Flow(ARGOCD, _pods("argocd", "argocd-redis"), (6379,)),
    Flow(CONTROLLER, POSTGRES, (5432,)),
    Flow(ARGO_SERVER, POSTGRES, (5432,)),
    Flow(ARGO_SERVER, MINIO, (9000,)),
    Flow(STEPS, MINIO, (9000,)),
    Flow(STEPS, MLFLOW, (5000,)),
    Flow(STEPS, GITEA, (3000,)),
]
API_CLIENTS = [
    ARGOCD_SERVER,
    APPLICATIONS,
    _pods("argocd", "argocd-applicationset-controller"),
    CONTROLLER,
    ARGO_SERVER,
    STEPS,
]
CONSOLES = {
    "gitea": (GITEA, 3000),
    "argocd": (ARGOCD_SERVER, 8080),
    "mlflow": (MLFLOW, 5000),
    "argo": (ARGO_SERVER, 2746),
    "minio": (MINIO, 9000),
}


def flows(
    namespaces: Mapping[str, pulumi.Input[str]],
    environments: Sequence[str],
    *,
    api: Api,
    consoles: Sequence[str],
    provisioner: bool,
    queues: bool = False,
    makes_tokens: bool = False,
    moved: Sequence[tuple[Peer, Sequence[Elsewhere]]] = (),
    sources: Sequence[Elsewhere] = (),
    monitoring: str | None = None,
) -> NetworkArgs:
    """Every connection of a stack.

    Args:
        namespaces: name to its output.
        api: where the API servers are.
        environments: those whose models fetch bentos.
        consoles: those that node ports lead to.
        provisioner: the embedded cluster's storage class needs the API.
        queues: the API server asks Kueue about what names a queue.
        makes_tokens: a pod makes those by which steps are on the forge.
        sources: where steps get data outside the cluster.
        monitoring: namespace of whatever collects metrics.
        moved: MINIO, POSTGRES or GITEA, and where it is, when it is no pod of ours.
    """
    places = {peer.key: found for peer, found in moved}
    models = [Peer(e, f"{e}-models") for e in environments]
    all_flows = [
        *FLOWS,
        *(Flow(of, MINIO, (9000,)) for of in models),
        # Which bento answers?
        *(Flow(STEPS, of, (PREDICTS,)) for of in models),
        *([Flow(FORGE_TOKEN, GITEA, (3000,))] if makes_tokens else []),
    ]
    if MINIO.key in places:
        all_flows = [f for f in all_flows if f.source != MINIO_SETUP]
    if GITEA.key in places:
        # What it calls, it calls from outside, as whoever comes by a node port.
        all_flows = [f for f in all_flows if f.source.namespace != GITEA.namespace]
    storage_class = [_pods("local-path-storage", "local-path")] if provisioner else []
    return NetworkArgs(
        namespaces=namespaces,
        flows=[f for f in all_flows if f.target.key not in places],
        api=api,
        api_clients=[
            *API_CLIENTS,
            *storage_class,
            *([KUEUE] if queues else []),
            *([FORGE_TOKEN] if makes_tokens else []),
        ],
        from_outside=[
            *(CONSOLES[name] for name in consoles),
            *([(KUEUE, kueue.WEBHOOKS)] if queues else []),
        ],
        # Commands ask models so, whoever else a release lets call them.
        from_api=[CONSOLES["mlflow"], *((of, PREDICTS) for of in models)],
        from_others=[
            (monitoring, of, port)
            for of, port in [*((of, PREDICTS) for of in models), *MEASURED]
            if monitoring
        ],
        elsewhere=[
            *((f.source, place) for f in all_flows for place in places.get(f.target.key, ())),
            *((STEPS, source) for source in sources),
        ],
    )
