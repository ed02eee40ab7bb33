"""The stack of simulated GPUs: the pools of AWS, quotas that they can hold, and its order."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
import yaml
from cryptography import x509

from infra.aws import node_pools
from infra.aws.config import Pool
from infra.config import Team, load
from infra.platform import queues
from infra.platform.certificate import ServingCertificateProvider
from infra.platform.drained import DrainedProvider
from infra.simulation import machines
from policies.infrastructure import limits
from policies.infrastructure.resources import Resource
from policies.infrastructure.resources import Stack as Judged
from policies.infrastructure.rules import RULES
from tests.manifests import program
from tests.manifests.program import Program, containers
from tests.unit.aws import stacks
from tests.unit.aws.stacks import Stack

FILE = program.ROOT / "environments" / "Pulumi.simulated.yaml"
CONFIG = load(program.settings(FILE), "simulated")
GPU = "nvidia.com/gpu"


@pytest.fixture(scope="module")
def made() -> Stack:
    return stacks.stack("simulated")


@pytest.fixture(scope="module")
def ran(made: Stack) -> Program:
    return made.program


def pool(**changes: Any) -> Pool:
    return Pool.model_validate(
        {
            "name": "mine",
            "families": ["g6"],
            "sizes": ["48xlarge"],
            "max": 2,
            "budget": 99,
            **changes,
        }
    )


def test_policy_refuses_nothing(made: Stack) -> None:
    found = limits.load(["prod"], frozenset(RULES))
    resources = [
        Resource(r.token, r.name, r.inputs, r.urn, r.ids, r.refers) for r in made.resources
    ]
    said = [
        f"{rule.name}: {resource.name}: {what}"
        for rule in RULES.values()
        for resource, what in rule.judge(Judged(resources), found)
    ]
    assert said == []


def test_pods_are_restricted_pinned_and_bounded(ran: Program) -> None:
    assert {name for _, name, _ in ran.pods()} == {"karpenter", "kueue", "kwok"}
    for namespace, _, pod in ran.pods():
        assert namespace == "gpus"
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert re.search(r"@sha256:[0-9a-f]{64}$", container["image"])
            assert "memory" in container["resources"]["limits"]
            assert "readinessProbe" in container
    labels = ran.one("Namespace", "gpus")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_nobody_is_reached_but_the_webhooks(ran: Program) -> None:
    policies = {p["metadata"]["name"]: p["spec"] for p in ran.all("NetworkPolicy")}
    assert policies.keys() == {"default", "karpenter", "kueue", "kwok"}
    open_to = {name: spec.get("ingress") for name, spec in policies.items() if "ingress" in spec}
    assert open_to == {"kueue": [{"ports": [{"port": 9443, "protocol": "TCP"}]}]}


def test_no_account_reads_secrets_or_changes_pods_that_are_not_queued(ran: Program) -> None:
    for role in ran.all("ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert "secrets" not in rule["resources"]
    kueue = ran.one("ClusterRole", "kueue")["rules"]
    assert [r["verbs"] for r in kueue if "pods" in r["resources"]] == [["get", "list", "watch"]]
    assert ran.one("Role", "kueue")["metadata"]["namespace"] == "pipelines"


def test_only_pods_that_name_a_queue_wait_for_kueue(ran: Program) -> None:
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        webhooks = ran.one(kind, "kueue")["webhooks"]
        assert len({w["name"] for w in webhooks}) == len(webhooks)
        for webhook in webhooks:
            [rule] = webhook["rules"]
            if rule["apiGroups"] == ["kueue.x-k8s.io"]:
                continue
            assert rule["resources"] == ["pods"]
            assert webhook["namespaceSelector"] == {
                "matchLabels": {"kubernetes.io/metadata.name": "pipelines"}
            }
            named = {"key": "kueue.x-k8s.io/queue-name", "operator": "Exists"}
            assert webhook["objectSelector"] == {"matchExpressions": [named]}


def test_who_asks_for_an_interface_beside_gpus_is_not_kept_waiting(ran: Program) -> None:
    """Kueue starts nothing that asks for what no queue has a quota of, unless it overlooks it."""
    settings = yaml.safe_load(ran.one("ConfigMap", "kueue")["data"]["config.yaml"])
    overlooked = tuple(settings["resources"]["excludeResourcePrefixes"])
    assert "vpc.amazonaws.com/efa".startswith(overlooked)
    assert not GPU.startswith(overlooked)


# Machines and pools


def test_pools_are_those_of_aws_but_for_the_class_of_machines(ran: Program) -> None:
    for asked in CONFIG.gpuPools:
        [on_aws] = node_pools.node_pools(asked, machines.ZONES)
        spec = copy.deepcopy(ran.one("NodePool", asked.name)["spec"])
        ours, theirs = (s["template"]["spec"].pop("nodeClassRef") for s in (spec, on_aws["spec"]))
        assert (ours["kind"], theirs["kind"]) == ("KWOKNodeClass", "EC2NodeClass")
        assert json.loads(json.dumps(spec)) == on_aws["spec"]


def test_sixty_four_nodes_of_eight_gpus_of_three_kinds() -> None:
    assert sum(p.max for p in CONFIG.gpuPools) == 64
    assert {size.gpus for p in CONFIG.gpuPools for size in p.types.values()} == {8}
    products = {o["nvidia.com/gpu.product"] for o in offered().values()}
    assert products == {"NVIDIA-L4", "NVIDIA-A100-SXM4-40GB", "NVIDIA-H100-80GB-HBM3"}


def offered() -> dict[str, dict[str, str]]:
    """Instance type to the labels of its first offering."""
    return {
        kind["name"]: {r["key"]: r["values"][0] for r in kind["offerings"][0]["Requirements"]}
        for kind in machines.instance_types(CONFIG.gpuPools)
    }


def test_the_table_has_what_every_pool_may_ask_for(ran: Program) -> None:
    [table] = ran.one("ConfigMap", "instance-types")["data"].values()
    known = {kind["name"]: kind for kind in json.loads(table)}
    assert known.keys() == {name for p in CONFIG.gpuPools for name in p.types}
    for asked in ran.all("NodePool"):
        wanted = {
            r["key"]: set(r["values"]) for r in asked["spec"]["template"]["spec"]["requirements"]
        }
        for name in wanted["node.kubernetes.io/instance-type"]:
            offers = [
                {r["key"]: r["values"][0] for r in o["Requirements"]}
                for o in known[name]["offerings"]
            ]
            for key in ("karpenter.sh/capacity-type", "topology.kubernetes.io/zone"):
                assert wanted[key] <= {o[key] for o in offers}
            assert offers[0]["nvidia.com/gpu.count"] == known[name]["resources"][GPU] == "8"


def test_a_zone_of_a_pool_is_in_the_table() -> None:
    [kind] = machines.instance_types([pool(zones=["us-east-1f"])])
    zones = {
        r["values"][0] for o in kind["offerings"] for r in o["Requirements"] if "zone" in r["key"]
    }
    assert zones == {*machines.ZONES, "us-east-1f"}


# Queues


def quotas(queue: dict[str, Any], resource: str = GPU) -> dict[str, int]:
    [group] = queue["spec"]["resourceGroups"]
    assert group["coveredResources"] == [GPU, "cpu", "memory"]
    return {
        flavor["name"]: int(r["nominalQuota"])
        for flavor in group["flavors"]
        for r in flavor["resources"]
        if r["name"] == resource
    }


def test_a_flavor_leads_to_the_nodes_of_its_pool(ran: Program) -> None:
    for asked in CONFIG.gpuPools:
        flavor = ran.one("ResourceFlavor", asked.name)["spec"]
        labels = ran.one("NodePool", asked.name)["spec"]["template"]["metadata"]["labels"]
        assert flavor["nodeLabels"].items() <= labels.items()
        assert {t["key"] for t in flavor["tolerations"]} == {t.key for t in asked.taints}


def test_a_taint_without_a_value_is_tolerated_by_its_key() -> None:
    tainted = pool(taints=[{"key": "slipway/training", "effect": "NoExecute"}])
    assert queues.flavor(tainted)["spec"]["tolerations"] == [
        {"key": "slipway/training", "effect": "NoExecute", "operator": "Exists"}
    ]


def test_each_team_has_a_queue_of_its_name_and_its_own_gpus(ran: Program) -> None:
    for team in CONFIG.teams:
        queue = ran.one("ClusterQueue", team.name)
        assert quotas(queue).items() >= team.gpus.items()
        assert queue["spec"]["cohort"] == "slipway"
        local = ran.one("LocalQueue", team.name)
        assert local["metadata"]["namespace"] == "pipelines"
        assert local["spec"] == {"clusterQueue": team.name}
    values = {p["metadata"]["name"]: p["value"] for p in ran.all("WorkloadPriorityClass")}
    assert values == {"experiment": 100, "training": 1000, "production": 10000}


def test_who_borrows_may_use_every_pool_and_who_does_not_its_own_alone() -> None:
    pools = [pool(), pool(name="other")]
    borrows = queues.cluster_queue(Team(name="team", gpus={"mine": 3}), pools, "pipelines")
    alone = queues.cluster_queue(
        Team(name="team", gpus={"mine": 3}, borrow=False), pools, "pipelines"
    )
    assert (quotas(borrows), quotas(alone)) == ({"mine": 3, "other": 0}, {"mine": 3})
    assert quotas(alone, "cpu") == {"mine": 2 * 192}
    [flavor] = alone["spec"]["resourceGroups"][0]["flavors"]
    assert {r["borrowingLimit"] for r in flavor["resources"]} == {"0"}
    assert "borrowingLimit" not in json.dumps(borrows)


@pytest.mark.parametrize(
    ("sharing", "gpus"),
    [
        ({"by": "none"}, 16),
        ({"by": "time-slicing", "replicas": 4}, 64),
        ({"by": "mig", "profile": "3g.20gb"}, 32),
    ],
)
def test_a_pool_holds_what_its_nodes_share(sharing: dict[str, Any], gpus: int) -> None:
    shared = {"families": ["p4d"], "sizes": [], "sharing": sharing}
    assert pool(**shared).gpus == gpus


# Order


def test_on_destroy_queues_are_emptied_first_and_definitions_go_last(made: Stack) -> None:
    drained = made.one(":Drained", "queues")
    for queue in made.of(":LocalQueue", ":ClusterQueue", ":ResourceFlavor"):
        assert made.goes_before(drained, queue)
        for part in made.of(":Deployment"):
            if part.name == "kueue":
                assert made.goes_before(queue, part)
    # Else what is ended would be made again, and held on to by nobody.
    for webhook in made.of("WebhookConfiguration"):
        assert made.goes_before(webhook, drained)
    for nodes in made.of(":NodePool"):
        for part in made.of(":Deployment"):
            assert part.name == "kueue" or made.goes_before(nodes, part)
    for part in made.of(":Deployment"):
        for definition in made.of(":CustomResourceDefinition"):
            group = definition.name.rpartition(".")[0]
            if (part.name in ("kueue",) and "kueue" in group) or (
                part.name == "karpenter" and "karpenter" in group
            ):
                assert made.goes_before(part, definition)


class Api:
    """A cluster where a pod goes at the second look, and its workload at the third."""

    def __init__(self, rounds: int) -> None:
        self.rounds, self.deleted, self.asked = rounds, list[str](), dict[str, int]()

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        assert query == ({"labelSelector": "kueue.x-k8s.io/managed=true"} if "pods" in path else {})
        self.asked[path] = self.asked.get(path, 0) + 1
        name = {"metadata": {"namespace": "pipelines", "name": "one"}}
        return [name] if self.asked[path] < self.rounds else []

    def delete(self, path: str) -> None:
        self.deleted.append(path)


def test_what_is_queued_is_ended_and_waited_for() -> None:
    provider, api = DrainedProvider(), Api(rounds=2)
    provider.poll_seconds = 0
    provider.drain(api)
    assert api.deleted == [
        "/api/v1/namespaces/pipelines/pods/one",
        "/apis/kueue.x-k8s.io/v1beta1/namespaces/pipelines/workloads/one",
    ]


def test_what_does_not_end_is_named() -> None:
    provider = DrainedProvider()
    provider.wait_seconds = 0
    with pytest.raises(RuntimeError, match=r"2 still in a queue, such as /api/v1/.*/pods/one, "):
        provider.drain(Api(rounds=9))


def test_a_certificate_is_made_once_and_is_for_its_service() -> None:
    provider = ServingCertificateProvider()
    made = provider.create({"name": "kueue.gpus.svc"}).outs or {}
    certificate = x509.load_pem_x509_certificate(made["certificate"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["kueue.gpus.svc"]
    same, other = ({"name": n, "certificate": None, "key": None} for n in ("kueue.gpus.svc", "x"))
    assert provider.diff("", made, same).changes is False
    assert provider.diff("", made, other).replaces == ["name"]
    assert provider.update("", made, same).outs == made
