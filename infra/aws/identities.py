"""Who a pod is to AWS: a role for each workload, by EKS Pod Identity, and no key anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi

from infra.aws.component import AwsComponent, Context
from infra.aws.policy import Statement


@dataclass(frozen=True)
class Workload:
    """A service account, and the users of the object store that its pods are."""

    namespace: str
    account: str
    users: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.namespace}-{self.account}"


def workloads(environments: Sequence[str]) -> list[Workload]:
    """Every workload that calls AWS. Controllers that AWS or Karpenter wrote have roles of theirs.

    Whoever runs a workflow's step also writes its logs and artifacts, so `workflows` is theirs too.
    """
    return [
        Workload("mlflow", "default", ("mlflow",)),
        Workload("argo", "argo-server", ("workflows",)),
        *(
            Workload("pipelines", account, ("pipelines", "workflows"))
            for account in ("workflow", "evidence", "dispatcher")
        ),
        *(Workload(e, "model", (f"models-{e}",)) for e in environments),
    ]


@dataclass(frozen=True)
class IdentitiesArgs:
    context: Context
    cluster_name: pulumi.Input[str]
    rights: Mapping[Workload, Sequence[Statement]]


class Identities(AwsComponent):
    """A role, its policy and its association for each workload."""

    def __init__(
        self, name: str, args: IdentitiesArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Identities", name, args.context, opts)
        for workload, statements in args.rights.items():
            self.identity(
                workload.name,
                args.cluster_name,
                workload.namespace,
                workload.account,
                statements,
            )
        self.register_outputs({})
