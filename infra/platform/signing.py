"""Who may sign evidence: one key, one account, and admission rules that keep it to one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.admissionregistration.v1 import NamedRuleWithOperationsArgs

from infra.platform import pods, secrets
from infra.platform.argo_workflows import CONTROLLER_ACCOUNT
from infra.platform.component import Component
from infra.platform.signing_key import SigningKey
from infra.platform.validation import validating

ACCOUNT = "evidence"
PRIVATE, PUBLIC = "evidence-key", "evidence-keys"
COMMAND = ["python", "-m", "slipway.steps", "attest"]
# Parameters of workflow templates that decide which code runs, and in what.
FIXED = ["forge-repository", "forge-url", "serving-image", "training-image"]
# That of the one template which signs nothing and runs a former image.
IMAGE = "image"
# What a Workflow may say beside the template that it runs.
WORKFLOW_FIELDS = ["arguments", "shutdown", "suspend", "workflowTemplateRef"]


@dataclass(frozen=True)
class SigningArgs:
    pipelines: pulumi.Input[str]
    """Namespace where workflows run."""
    controllers: pulumi.Input[str]
    """Namespace of the workflow controller."""
    training: pulumi.Input[str]
    """The image that trains, by digest: a workflow may choose a former one of that name."""
    readers: Mapping[str, pulumi.Input[str]]
    """Further namespaces that get the public keys: name to its output."""
    former: Sequence[str] = ()
    """Public keys (PEM) of before: what they have signed still counts."""
    upstream: pulumi.Input[Mapping[str, str]] | None = None
    """File to public keys (PEM) of other stacks, each for an environment that one of them hosts."""


class Signing(Component):
    """Secret `evidence-key` in pipelines, and ConfigMap `evidence-keys` wherever evidence is read.

    `public`: the keys that this stack's evidence is verified by. A model's pod is given no others.

    Whoever can make a pod in a namespace can mount its Secrets, so admission says which pod may:
    the one of the step `attest`, made by the workflow controller, from a template on main.
    """

    def __init__(
        self, name: str, args: SigningArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Signing", name, opts)
        rules = [*self._pods(args), *self._workflows(args)]
        key = SigningKey(PRIVATE, opts=self.child())
        secrets.keep(
            PRIVATE,
            pods.metadata(PRIVATE, args.pipelines),
            {"private.pem": key.private},
            # The rules first: the key is never there without them.
            self.child(*rules),
        )
        former = [f"{pem.strip()}\n" for pem in args.former]
        self.public = pulumi.Output.concat(key.public, *former)
        own = {"public.pem": self.public}
        for where, namespace in {"pipelines": args.pipelines, **args.readers}.items():
            k8s.core.v1.ConfigMap(
                f"{where}-{PUBLIC}",
                metadata=pods.metadata(PUBLIC, namespace),
                data=_joined(own, args.upstream) if where == "pipelines" else own,
                opts=self.child(),
            )
        self.register_outputs({})

    def _pods(self, args: SigningArgs) -> list[pulumi.Resource]:
        containers = ["containers", "initContainers", "ephemeralContainers"]
        mentions = " || ".join(["variables.mounts", *map(_reads, containers)])
        length = len(COMMAND)
        # Argo's executor comes before the step's own command, and ends with this.
        command = ["--", *COMMAND]
        runs = " && ".join(
            f"c.command[size(c.command) - {len(command) - index}] == '{word}'"
            for index, word in enumerate(command)
        )
        return validating(
            self,
            "evidence-key",
            args.pipelines,
            NamedRuleWithOperationsArgs(
                api_groups=[""],
                api_versions=["v1"],
                resources=["pods", "pods/ephemeralcontainers"],
                operations=["CREATE", "UPDATE"],
            ),
            variables={
                "unchanged": "oldObject != null && object.spec == oldObject.spec",
                "signs": f"object.spec.?serviceAccountName.orValue('') == '{ACCOUNT}'",
                "mounts": (
                    "object.spec.?volumes.orValue([]).exists(v, "
                    f"v.?secret.?secretName.orValue('') == '{PRIVATE}' || "
                    "v.?projected.?sources.orValue([]).exists(s, "
                    f"s.?secret.?name.orValue('') == '{PRIVATE}'))"
                ),
                "mentions": mentions,
            },
            validations=[
                (
                    "variables.signs || !variables.mentions",
                    f"Secret {PRIVATE} is for pods of ServiceAccount {ACCOUNT} only",
                ),
                (
                    pulumi.Output.concat(
                        "!variables.signs || variables.unchanged || ", _is_controller(args)
                    ),
                    f"pods of ServiceAccount {ACCOUNT} are the workflow controller's to make",
                ),
                (
                    "!variables.signs || variables.unchanged || ("
                    "size(object.spec.?ephemeralContainers.orValue([])) == 0 && "
                    "object.spec.containers.all(c, c.name == 'wait' || c.name == 'main' && "
                    f"size(c.?command.orValue([])) > {length} && {runs}))",
                    f"ServiceAccount {ACCOUNT} runs `{' '.join(COMMAND)}` and nothing else",
                ),
            ],
        )

    def _workflows(self, args: SigningArgs) -> list[pulumi.Resource]:
        fields, fixed = (", ".join(f"'{n}'" for n in ns) for ns in (WORKFLOW_FIELDS, FIXED))
        trains = pulumi.Output.from_input(args.training).apply(
            lambda image: image.partition("@")[0]
        )
        return validating(
            self,
            "workflows-from-main",
            args.pipelines,
            NamedRuleWithOperationsArgs(
                api_groups=["argoproj.io"],
                api_versions=["*"],
                resources=["workflows"],
                operations=["CREATE", "UPDATE"],
            ),
            variables={
                # The controller writes a workflow's status by updating all of it.
                "unchanged": "oldObject != null && object.spec == oldObject.spec",
                "parameters": "object.spec.?arguments.?parameters.orValue([])",
                "status": "object.?status.orValue({})",
            },
            validations=[
                # What the controller finds there it goes on with, steps and templates included.
                (
                    pulumi.Output.concat(
                        "(oldObject == null ? variables.status.all(k, variables.status[k] == null)"
                        " : variables.status == oldObject.?status.orValue({})) || ",
                        _is_controller(args),
                    ),
                    "what became of a workflow is the controller's to say",
                ),
                (
                    "variables.unchanged || has(object.spec.workflowTemplateRef) && "
                    "!object.spec.workflowTemplateRef.?clusterScope.orValue(false) && "
                    f"object.spec.all(field, field in [{fields}])",
                    "a workflow runs a WorkflowTemplate of this namespace, which is on main, and "
                    "says nothing beside its arguments",
                ),
                (
                    f"variables.unchanged || variables.parameters.all(p, !(p.name in [{fixed}]))",
                    f"not a workflow's to choose: {', '.join(FIXED)}",
                ),
                (
                    pulumi.Output.concat(
                        f"variables.unchanged || variables.parameters.all(p, p.name != '{IMAGE}' "
                        "|| p.?value.orValue('').startsWith('",
                        trains,
                        "@sha256:'))",
                    ),
                    "a workflow's image is one that trained here, by its digest",
                ),
            ],
        )


def _joined(
    own: Mapping[str, pulumi.Input[str]], more: pulumi.Input[Mapping[str, str]] | None
) -> pulumi.Input[Mapping[str, pulumi.Input[str]]]:
    if more is None:
        return own
    return pulumi.Output.all(own, more).apply(lambda both: {**both[0], **both[1]})


def _is_controller(args: SigningArgs) -> pulumi.Output[str]:
    """CEL: whether it is the workflow controller who asks."""
    account = pulumi.Output.concat(args.controllers, f":{CONTROLLER_ACCOUNT}")
    return pulumi.Output.concat(
        "request.userInfo.username == 'system:serviceaccount:", account, "'"
    )


def _reads(containers: str) -> str:
    """CEL: whether one of a pod's containers takes the key into its environment."""
    return (
        f"object.spec.?{containers}.orValue([]).exists(c, c.?env.orValue([]).exists(e, "
        f"e.?valueFrom.?secretKeyRef.?name.orValue('') == '{PRIVATE}') || "
        f"c.?envFrom.orValue([]).exists(e, e.?secretRef.?name.orValue('') == '{PRIVATE}'))"
    )
