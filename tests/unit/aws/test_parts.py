"""Parts of a stack on AWS by themselves: policies, pools, the wait at the end, the checker."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pulumi
import pytest
from botocore.stub import Stubber

from infra.aws import families, general_nodes, gpu_pools, node_pools
from infra.aws.component import Context
from infra.aws.config import Network, Nodes, Pool
from infra.aws.gpu_software import efa_pools, plugin_config
from infra.aws.policy import Statement, document, is_wide
from infra.aws.teardown import GoneProvider
from slipway.errors import SlipwayError
from tests.unit.aws import models

Machine = Callable[..., "subprocess.CompletedProcess[str]"]
CONTEXT = Context("slipway-dev", "111111111111", "eu-central-1", {"owner": "a"}, False, False)
POOL: dict[str, Any] = {"name": "inference", "families": ["g6"], "max": 4, "budget": 2000}


def pool(**changed: Any) -> Pool:
    return Pool.model_validate({**POOL, **changed})


# Policies


@pytest.mark.parametrize(
    ("resource", "wide"),
    [
        ("*", True),
        ("arn:aws:ec2:eu-central-1:*:instance/*", True),
        ("arn:aws:s3:::slipway-dev-bentos/*", False),
        ("arn:aws:s3:::*", True),
        ("arn:aws:s3:::slipway-dev-bentos/sha256/*", False),
        ("arn:aws:s3:::slipway-*", True),
        ("arn:aws:s3:::slipway-*/sha256/*", True),
        ("arn:aws:ssm:eu-central-1::parameter/aws/service/*", False),
        ("arn:aws:ssm:eu-central-1:111111111111:parameter/*", True),
        ("arn:aws:logs:eu-central-1:111111111111:log-group:/aws/vpc/flow:*", False),
        ("arn:aws:logs:eu-central-1:111111111111:log-group:*", True),
        ("arn:aws:logs:eu-central-1:111111111111:log-group:/aws/*:*", True),
        ("arn:aws:secretsmanager:eu-central-1:111111111111:secret:*", True),
        ("arn:aws:secretsmanager:eu-central-1:111111111111:secret:slipway-dev/one", False),
        ("arn:aws:iam::111111111111:role/slipway-*", True),
        ("arn:aws:kms:eu-central-1:111111111111:key/*", True),
    ],
)
def test_what_a_wildcard_is(resource: str, wide: bool) -> None:
    assert is_wide(resource) is wide


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (Statement("A", ["s3:*"], ["arn:aws:s3:::b/*"]), "s3:. needs a reason"),
        (Statement("A", ["ec2:RunInstances"], ["*"]), "needs a reason"),
        (Statement("A", ["sqs:SendMessage"], ["arn:aws:sqs:r:1:q"], reason="x"), "without a wild"),
        (Statement("A", ["SendMessage"], ["arn:aws:sqs:r:1:q"]), "is no action"),
    ],
)
def test_policies_that_are_refused(statement: Statement, message: str) -> None:
    async def resolve() -> None:
        await document([statement]).future()

    pulumi.runtime.set_mocks(_Nothing())
    with pytest.raises(SlipwayError, match=message):
        asyncio.new_event_loop().run_until_complete(resolve())


class _Nothing(pulumi.runtime.Mocks):
    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        return "", {}

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
        return {}


# Pools


def test_four_lines_make_a_pool() -> None:
    [made] = gpu_pools.node_pools(pool(), ["eu-central-1a"])
    spec = made["spec"]
    assert spec["limits"] == {"nodes": "4", "nvidia.com/gpu": "32"}
    assert spec["disruption"]["consolidationPolicy"] == "WhenEmpty"
    at_once = {r: b["nodes"] for b in spec["disruption"]["budgets"] for r in b["reasons"]}
    assert at_once == {"Empty": "100%", "Drifted": "1", "Underutilized": "1"}
    inner = spec["template"]["spec"]
    assert inner["taints"] == [{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}]
    assert inner["expireAfter"] == "336h"


@pytest.mark.parametrize(
    "sharing",
    [{}, {"by": "time-slicing", "replicas": 4}, {"by": "mig", "profile": "1g.5gb"}],
    ids=lambda s: s.get("by", "none"),
)
def test_a_pool_grows_until_it_has_all_its_gpus(sharing: dict[str, Any]) -> None:
    """By what Karpenter counts: the capacity that nodes say they have, shares of GPUs included."""
    made = pool(families=["p4d"], max=4, budget=90000, sharing=sharing)
    [spec] = [p["spec"] for p in node_pools.node_pools(made, ["eu-central-1a"])]
    each = made.gpus // made.max
    says = {"nodes": 1, "cpu": made.most.vcpus, "nvidia.com/gpu": each}
    nodes = min(int(limit) // says[name] for name, limit in spec["limits"].items())
    shares = {"none": 1, "time-slicing": 4, "mig": 7}[made.sharing.by]
    assert nodes * each == made.gpus == 4 * 8 * shares


def test_a_minimum_is_a_pool_that_stays() -> None:
    follows, floor = gpu_pools.node_pools(pool(min=1), ["eu-central-1a"])
    assert follows["spec"]["limits"]["nodes"] == "3"
    assert "replicas" not in follows["spec"]
    assert (floor["spec"]["replicas"], floor["spec"]["limits"]) == (1, {"nodes": "1"})
    [alone] = gpu_pools.node_pools(pool(min=4), ["eu-central-1a"])
    assert alone["metadata"]["name"] == "inference-floor"


@pytest.mark.parametrize(
    ("types", "cores"),
    [(["m7i.large"], 2), (["m7i.large", "m6i.xlarge"], 4), (["c7i.12xlarge", "m7i.large"], 48)],
)
def test_nodes_without_gpus_are_no_more_than_the_stack_may_have(
    types: list[str], cores: int
) -> None:
    nodes = Nodes.model_validate({"types": types, "min": 3, "max": 9})
    spec = general_nodes.node_pool(nodes, ["eu-central-1a"])["spec"]
    assert spec["limits"] == {"nodes": "6", "cpu": str(6 * cores)}
    assert "taints" not in spec["template"]["spec"]


def test_nodes_say_what_gpus_they_have_before_there_are_any() -> None:
    [made] = node_pools.node_pools(pool(sizes=["xlarge", "2xlarge"]), ["eu-central-1a"])
    labels = made["spec"]["template"]["metadata"]["labels"]
    found = {k.partition("/")[2]: v for k, v in labels.items() if k.startswith("nvidia.com/")}
    assert found == {
        **{"gpu.present": "true", "gpu.product": "NVIDIA-L4"},
        **{"gpu.memory": "24576", "gpu.count": "1"},
    }
    # Not what would be wrong of some.
    mixed = node_pools.discovered(pool(families=["g6", "g5"]))
    assert mixed == {"nvidia.com/gpu.present": "true", "nvidia.com/gpu.memory": "24576"}
    divided = pool(families=["p4d"], budget=20000, sharing={"by": "mig", "profile": "2g.10gb"})
    assert node_pools.discovered(divided) == {"nvidia.com/gpu.present": "true"}


def test_a_block_is_bought_by_its_reservation() -> None:
    block = pool(purchase="capacity-block", reservations=["cr-0a"])
    made = gpu_pools.machines(block, CONTEXT, ami="v20251108", profile="nodes")
    assert made["spec"]["capacityReservationSelectorTerms"] == [{"id": "cr-0a"}]
    [follows] = gpu_pools.node_pools(block, ["eu-central-1a"])
    requirements = {
        r["key"]: r["values"] for r in follows["spec"]["template"]["spec"]["requirements"]
    }
    assert requirements["karpenter.sh/capacity-type"] == ["reserved"]


def test_gpus_are_shared_by_turns_or_in_parts() -> None:
    whole = pool()
    assert gpu_pools.user_data(whole) is None
    assert "sharing" not in plugin_config(whole)
    turns = pool(sharing={"by": "time-slicing", "replicas": 4})
    [resource] = plugin_config(turns)["sharing"]["timeSlicing"]["resources"]
    assert resource == {"name": "nvidia.com/gpu", "replicas": 4}
    parts = pool(families=["p4d"], budget=20000, sharing={"by": "mig", "profile": "2g.10gb"})
    script = gpu_pools.user_data(parts) or ""
    assert "ExecStartPre=/usr/local/sbin/divide-gpus 2g.10gb 3 /var/lib/divide-gpus\n" in script
    assert plugin_config(parts)["flags"] == {"migStrategy": "single"}
    # What EC2 takes.
    assert len(base64.b64encode(script.encode())) < 16 * 1024


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Divides the two GPUs of a machine into 7 each, as often as it is called.

    Its `nvidia-smi` and `systemctl` keep what they did in files; `flips`: when MIG is on (at once,
    after a reboot, never), `makes`: how many instances of a GPU come to be.
    """
    there = tmp_path / "state"
    there.mkdir()
    commands = {
        "nvidia-smi": """
case "$*" in
*--query-gpu*) for _ in 1 2; do [ -e on ] && echo Enabled || echo Disabled; done ;;
--multi-instance-gpu*) touch pending; [ "$FLIPS" = once ] && mv pending on ;;
--list-gpus) for i in 0 1; do
    echo "GPU $i: NVIDIA (UUID: GPU-$i)"
    [ ! -e made ] || seq 1 "$MAKES" | sed "s/.*/  MIG 1g.5gb     Device  &: (UUID: MIG-$i-&)/"
  done ;;
*--create*) echo "$*" >> created; touch made ;;
*--destroy*) [ -e made ] && rm made ;;
esac""",
        "systemctl": 'echo "$@" >> rebooted; [ "$FLIPS" = reboot ] && mv pending on',
    }
    for name, text in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncd {there}\n{text}\n")
        (tmp_path / name).chmod(0o755)

    def divide(*, flips: str, makes: int = 7) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", gpu_pools.SCRIPT, "1g.5gb", "7", there / "marker"],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "FLIPS": flips, "MAKES": str(makes)},
            capture_output=True,
            text=True,
            check=False,
        )

    return divide


def did(tmp_path: Path, what: str) -> list[str]:
    file = tmp_path / "state" / what
    return file.read_text().splitlines() if file.exists() else []


def test_gpus_that_divide_at_once_are_divided_once(machine: Machine, tmp_path: Path) -> None:
    for _ in range(2):
        done = machine(flips="once")
        assert done.returncode == 0, done.stderr
    wanted = ",".join(["1g.5gb"] * 7)
    assert did(tmp_path, "created") == [
        f"mig --create-gpu-instance {wanted} --default-compute-instance"
    ]
    assert did(tmp_path, "rebooted") == []


def test_gpus_that_divide_after_a_reset_are_divided_after_a_reboot(
    machine: Machine, tmp_path: Path
) -> None:
    """Until then no kubelet starts."""
    assert machine(flips="reboot").returncode == 1
    assert did(tmp_path, "created") == []
    assert machine(flips="reboot").returncode == 0
    assert len(did(tmp_path, "created")) == 1
    assert did(tmp_path, "rebooted") == ["reboot"]


def test_a_machine_that_does_not_divide_its_gpus_starts_no_kubelet(
    machine: Machine, tmp_path: Path
) -> None:
    for _ in range(2):
        done = machine(flips="never")
        assert done.returncode == 1
    assert "though a reboot was asked for" in done.stderr
    assert did(tmp_path, "rebooted") == ["reboot"]


def test_a_machine_with_too_few_parts_starts_no_kubelet(machine: Machine) -> None:
    done = machine(flips="once", makes=6)
    assert (done.returncode, done.stderr) == (1, "12 instances of 1g.5gb in place of 14\n")


def test_a_network_is_carved_the_same_at_every_size() -> None:
    for prefix in range(16, 21):
        zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
        network = Network(cidr=f"10.16.0.0/{prefix}", zones=zones)
        blocks = [*network.private, *network.public, *network.isolated]
        assert len(set(blocks)) == 9


def test_efa_is_where_aws_has_it() -> None:
    assert families.with_efa(["g6"], ["xlarge", "8xlarge"]) == ["g6.8xlarge"]
    for family in families.catalogue().families.values():
        assert set(family.efa) <= set(family.sizes)


def test_efa_s_plugin_is_where_machines_get_its_interfaces() -> None:
    pools = [pool(), pool(name="small", sizes=["xlarge"])]
    assert [p.name for p in efa_pools(pools, karpenter=True)] == ["inference"]
    assert efa_pools(pools, karpenter=False) == []


# The wait at the end of a destroy


BALANCER = "arn:aws:elasticloadbalancing:eu-central-1:111111111111:loadbalancer/net/a/1"


def answers(*left: str) -> dict[str, Stubber]:
    """AWS, asked once for each of `left` and once more, when nothing is left."""
    stubs = {
        name: Stubber(
            boto3.client(name, "eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
        )
        for name in ("ec2", "resourcegroupstaggingapi")
    }
    ec2, tagging = stubs.values()
    for names in (*left, ""):
        machines = [{"InstanceId": name} for name in names.split() if name.startswith("i-")]
        ec2.add_response("describe_instances", {"Reservations": [{"Instances": machines}]})
        ec2.add_response("describe_volumes", {"Volumes": []})
        ec2.add_response("describe_network_interfaces", {"NetworkInterfaces": []})
        found = [{"ResourceARN": name} for name in names.split() if name.startswith("arn:")]
        for mappings in (found, []):
            tagging.add_response("get_resources", {"ResourceTagMappingList": mappings})
    for stub in stubs.values():
        stub.activate()
    return stubs


def clients(stubs: dict[str, Stubber]) -> Callable[[str], Any]:
    return lambda name: stubs[name].client


def test_a_destroy_waits_for_machines_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    stubs = answers("i-1 i-2", "i-2", BALANCER)
    GoneProvider().wait("slipway-dev", clients(stubs))
    for stub in stubs.values():
        stub.assert_no_pending_responses()
    assert slept == [10, 10, 10]


def test_what_does_not_go_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GoneProvider, "wait_seconds", 0)
    with pytest.raises(RuntimeError, match="still there: i-7\n  fix: "):
        GoneProvider().wait("slipway-dev", clients(answers("i-7")))


def test_an_edit_of_the_file_replaces_nothing() -> None:
    state = {"cluster": "a", "region": "b", "role": "c", "__provider": "1"}
    changed = GoneProvider().diff("", state, {**state, "__provider": "2"}).changes
    assert changed is False
    assert GoneProvider().diff("", state, {**state, "cluster": "d"}).changes is True


# The checker itself


@pytest.mark.parametrize(
    ("token", "inputs", "problem"),
    [
        (
            "aws:eks/nodeGroup:NodeGroup",
            {"clusterName": "a", "nodegroupName": "b", "nodeRoleArn": "c", "subnetIds": ["d"]}
            | {"amiType": "AL2023_NVIDIA"},
            "amiType: 'AL2023_NVIDIA' is none of",
        ),
        (
            "aws:kms/key:Key",
            {"discription": "x"},
            "kms/key.discription: AWS has no such property",
        ),
        ("aws:kms/alias:Alias", {"name": "alias/a b", "targetKeyId": "k"}, "not as AWS wants it"),
        ("aws:iam/role:Role", {"name": "a"}, "AWS needs AssumeRolePolicyDocument"),
        (
            "aws:ec2/securityGroup:SecurityGroup",
            {"vpcId": "v", "description": "The consoles' own"},
            "has what EC2 takes in no description",
        ),
        (
            "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
            {"ipProtocol": "tcp", "description": "Nodes → pods"},
            "has what EC2 takes in no description",
        ),
        ("aws:sns/topic:Topic", {"name": "a"}, "no counterpart on AWS is named"),
        ("aws:rds/instance:Instance", {"instanceClass": "db.m7x.large"}, "no class of machines"),
        (
            "aws:rds/instance:Instance",
            {"instanceClass": "db.t4g.medium", "engineVersion": "51"},
            "RDS has no PostgreSQL 51",
        ),
    ],
)
def test_mistakes_that_aws_would_refuse(token: str, inputs: dict[str, Any], problem: str) -> None:
    assert [p for p in models.problems(token, inputs) if problem in p]


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ({"Effect": "allow", "Action": "s3:GetObject", "Resource": "*"}, "neither Allow nor Deny"),
        ({"Effect": "Allow", "Action": "s3:GetObjects", "Resource": "*"}, "no such call"),
        ({"Effect": "Allow", "Action": "s4:GetObject", "Resource": "*"}, "no service s4"),
        ({"Effect": "Allow", "Action": "s3:GetObject"}, "neither Resource nor Principal"),
        ({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "bentos"}, "is no ARN"),
        ({"Effect": "Allow", "Action": [], "Resource": "*"}, "nothing is allowed"),
        ({"Effect": "Allow", "Actions": "s3:GetObject", "Resource": "*"}, "no such key"),
        (
            {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
            | {"Condition": {"StringEqual": {"a": "b"}}},
            "no operator StringEqual",
        ),
    ],
)
def test_mistakes_in_a_policy(statement: dict[str, Any], problem: str) -> None:
    text = models.json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    assert [p for p in models.policy_problems(text) if problem in p]
