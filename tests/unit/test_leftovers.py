"""What a stack left behind, told by AWS in its own shapes (botocore's), and by this machine."""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.stub import Stubber
from typer.testing import CliRunner

from slipway import cluster, cost, leftovers, paths, pulumi
from slipway.cli import app
from slipway.errors import SlipwayError
from slipway.leftovers import KINDS, Leftover
from slipway.pulumi import Known
from tests.unit.aws import models

REGION, ACCOUNT = "eu-central-1", "111111111111"
PRICES = paths.REPOSITORY / "tests" / "fixtures" / "prices" / "valid" / "small.yaml"
STACK = paths.REPOSITORY / "environments" / "Pulumi.dev.yaml"
OURS = {"slipway:stack": "dev", "owner": "platform"}
OWNED = {"kubernetes.io/cluster/slipway-dev": "owned"}
NOTHING = Known(frozenset(), frozenset())


def arn(service: str, rest: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{rest}"


@functools.cache
def client(service: str) -> Any:
    """Reading a service's model takes longer than the tests."""
    return boto3.client(service, REGION, aws_access_key_id="a", aws_secret_access_key="b")


class Aws:
    """An account: what carries which tags, and what its own calls say of it."""

    def __init__(self) -> None:
        self.tagged: dict[str, Mapping[str, str]] = {}
        self.described: dict[str, list[dict[str, Any]]] = {}
        self.made: dict[str, list[dict[str, Any]]] = {}
        self.groups: list[str] = []
        self.roles: dict[str, Mapping[str, str]] = {}
        self._stubs: dict[str, Stubber] = {}

    def __call__(self, service: str) -> Any:
        return self._stubs[service].client

    def _by(self, key: str, value: str, within: str = "") -> dict[str, Any]:
        found = [
            {"ResourceARN": a, "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}
            for a, tags in self.tagged.items()
            if tags.get(key) == value and within in a
        ]
        return {"ResourceTagMappingList": found}

    def ready(self, *answers: tuple[str, str, dict[str, Any]]) -> Aws:
        """Answers in the order in which they are asked for; each is checked against AWS's model."""
        for name in (
            *("resourcegroupstaggingapi", "ec2", "kms", "rds", "secretsmanager", "logs", "iam"),
        ):
            self._stubs[name] = Stubber(client(name))
        tagging, ec2 = self._stubs["resourcegroupstaggingapi"], self._stubs["ec2"]
        name = "slipway-dev"
        made = ((f"kubernetes.io/cluster/{name}", "owned"), ("elbv2.k8s.aws/cluster", name))
        for key, value in (("slipway:stack", "dev"), *made):
            filters = {"TagFilters": [{"Key": key, "Values": [value]}]}
            tagging.add_response("get_resources", self._by(key, value), filters)
        machines = {"Reservations": [{"Instances": self.made.get("i", [])}]}
        ec2.add_response("describe_instances", machines)
        ec2.add_response("describe_volumes", {"Volumes": self.made.get("vol", [])})
        ec2.add_response("describe_network_interfaces", {"NetworkInterfaces": []})
        for key, value in made:
            tagging.add_response("get_resources", self._by(key, value, ":elasticloadbalancing:"))
        group = {"logGroupNamePrefix": f"/aws/eks/{name}/cluster"}
        groups = [{"logGroupName": one} for one in self.groups]
        self._stubs["logs"].add_response("describe_log_groups", {"logGroups": groups}, group)
        iam, created = self._stubs["iam"], datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
        roles = [
            {
                "RoleName": role,
                "Arn": f"arn:aws:iam::{ACCOUNT}:role/{role}",
                **{"Path": "/", "RoleId": "AROA1234567890123", "CreateDate": created},
            }
            for role in self.roles
        ]
        iam.add_response("list_roles", {"Roles": roles})
        for role, tags in self.roles.items():
            if role.startswith(f"{name}-"):
                answer = {"Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}
                iam.add_response("list_role_tags", answer, {"RoleName": role})
        for service, call, answer in answers:
            self._stubs[service].add_response(call, answer)
        for stub in self._stubs.values():
            stub.activate()
        return self

    def refuse(self) -> Aws:
        """It lets nobody look."""
        stub = self._stubs["resourcegroupstaggingapi"] = Stubber(client("resourcegroupstaggingapi"))
        stub.add_client_error("get_resources", "AccessDeniedException", "not yours")
        stub.activate()
        return self

    def fail(self, service: str, call: str, code: str) -> None:
        self._stubs[service].add_client_error(call, code)

    def leave(self) -> None:
        for stub in self._stubs.values():
            stub.deactivate()

    def exhausted(self) -> None:
        for stub in self._stubs.values():
            stub.assert_no_pending_responses()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    monkeypatch.setattr(pulumi, "known", lambda _: NOTHING)
    made = Aws()
    yield made
    made.leave()


def found(aws: Aws) -> dict[str, Leftover]:
    table = cost.parse_prices(PRICES.read_bytes(), PRICES)
    config = cost.stack_config(STACK.read_bytes(), "dev")
    left = leftovers.on_aws(config, "dev", aws, table)
    aws.exhausted()
    return {one.id: one for one in left}


def instances(*machines: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    return "ec2", "describe_instances", {"Reservations": [{"Instances": list(machines)}]}


def test_nothing(aws: Aws) -> None:
    assert found(aws.ready()) == {}


def test_what_is_tagged_is_found_in_the_order_in_which_it_can_go(aws: Aws) -> None:
    balancer = "loadbalancer/app/consoles/50dc6c495c0c9188"
    group = "targetgroup/mlflow/73e2d6bc24d8a067"
    things = [
        arn("kms", "key/1234abcd-12ab-34cd-56ef-1234567890ab"),
        arn("ec2", "vpc/vpc-1"),
        "arn:aws:s3:::slipway-dev-111111111111-bentos",
        arn("ec2", "security-group/sg-1"),
        arn("logs", "log-group:/aws/eks/slipway-dev/cluster"),
        arn("sqs", "slipway-dev-interruptions"),
        arn("ecr", "repository/slipway/mlflow"),
        arn("ec2", "elastic-ip/eipalloc-1"),
        arn("ec2", "natgateway/nat-1"),
        arn("elasticloadbalancing", group),
        arn("elasticloadbalancing", balancer),
        arn("elasticloadbalancing", "listener/app/consoles/50dc6c495c0c9188/f2f7dc8efc522ab2"),
        arn("eks", "addon/slipway-dev/vpc-cni/1"),
        arn("eks", "nodegroup/slipway-dev/platform/1"),
        arn("rds", "db:slipway-dev"),
        arn("athena", "workgroup/somebody-s"),
    ]
    aws.tagged = dict.fromkeys(things, OURS)
    database = {"DBInstanceClass": "db.t4g.medium", "AllocatedStorage": 20, "MultiAZ": True}
    left = found(
        aws.ready(
            ("ec2", "describe_nat_gateways", {"NatGateways": [{"NatGatewayId": "nat-1"}]}),
            ("kms", "describe_key", {"KeyMetadata": {"KeyId": "1", "KeyState": "Enabled"}}),
            ("rds", "describe_db_instances", {"DBInstances": [database]}),
        )
    )
    assert [one.kind for one in left.values()] == [
        *("node group", "load balancer", "target group", "NAT gateway", "database", "address"),
        *("bucket", "image repository", "queue", "log group", "security group", "VPC", "key"),
        "athena workgroup",
    ]
    assert {one.why for one in left.values()} == {"slipway:stack=dev"}
    assert left["nat-1"].monthly == pytest.approx(0.05 * 730)
    assert left["slipway-dev"].monthly == pytest.approx(2 * (0.1 * 730 + 20 * 0.1))
    assert left["vpc-1"].monthly is None
    fixes = {one.kind: one.fix for one in left.values()}
    assert fixes["node group"].endswith(
        f"--cluster-name slipway-dev --nodegroup-name platform --region {REGION}"
    )
    assert f"--load-balancer-arn {arn('elasticloadbalancing', balancer)} " in fixes["load balancer"]
    assert "/aws/eks/slipway-dev/cluster --region" in fixes["log group"]
    assert f"{ACCOUNT}/slipway-dev-interruptions" in fixes["queue"]
    assert "see AWS's console" in fixes["athena workgroup"]


def test_what_the_cluster_made_is_found_and_priced(aws: Aws) -> None:
    machine = {"InstanceId": "i-1", "InstanceType": "g6.xlarge", "State": {"Name": "running"}}
    volume = {"VolumeId": "vol-1", "Size": 30, "State": "available"}
    aws.made = {"i": [machine], "vol": [volume]}
    balancer = arn("elasticloadbalancing", "loadbalancer/a1b2")
    aws.tagged = {arn("ec2", "instance/i-1"): {**OURS, **OWNED}, balancer: OWNED}
    left = found(aws.ready(instances(machine), ("ec2", "describe_volumes", {"Volumes": [volume]})))
    assert [(one.kind, one.id, one.monthly) for one in left.values()] == [
        ("machine", "i-1", 730),
        ("load balancer", "a1b2", pytest.approx(0.02 * 730)),
        ("volume", "vol-1", pytest.approx(3)),
    ]
    assert left["vol-1"].why == "made by the cluster slipway-dev"
    assert left["a1b2"].fix.startswith("aws elb delete-load-balancer --load-balancer-name a1b2")


def test_what_has_gone_or_goes_along_is_not_left(aws: Aws) -> None:
    names = ["instance/i-1", "instance/i-2", "volume/vol-1", "network-interface/eni-1"]
    aws.tagged = {
        **{arn("ec2", name): OURS for name in (*names, "natgateway/nat-1")},
        arn("kms", "key/1"): OURS,
    }
    root = {"VolumeId": "vol-1", "Attachments": [{"DeleteOnTermination": True}]}
    first = {"NetworkInterfaceId": "eni-1", "Attachment": {"DeleteOnTermination": True}}
    assert (
        found(
            aws.ready(
                # i-2 is so long gone that only its tags are known.
                instances({"InstanceId": "i-1", "State": {"Name": "terminated"}}),
                ("ec2", "describe_volumes", {"Volumes": [root]}),
                ("ec2", "describe_network_interfaces", {"NetworkInterfaces": [first]}),
                (
                    "ec2",
                    "describe_nat_gateways",
                    {"NatGateways": [{"NatGatewayId": "nat-1", "State": "deleted"}]},
                ),
                (
                    "kms",
                    "describe_key",
                    {"KeyMetadata": {"KeyId": "1", "KeyState": "PendingDeletion"}},
                ),
            )
        )
        == {}
    )


def test_what_the_state_knows_is_no_leftover(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"slipway-dev-bentos", arn("ecr", "repository/slipway/mlflow")}
    aws.tagged = {
        "arn:aws:s3:::slipway-dev-bentos": OURS,
        arn("ecr", "repository/slipway/mlflow"): OURS,
        arn("ecr", "repository/slipway/former"): OURS,
        arn("ec2", "launch-template/lt-1"): {**OURS, "eks:cluster-name": "slipway-dev"},
    }
    types = frozenset({"aws:eks/cluster:Cluster"})
    monkeypatch.setattr(pulumi, "known", lambda _: Known(frozenset(known), types))
    assert list(found(aws.ready())) == ["slipway/former"]


def test_what_the_next_update_would_make_anew_is_found_by_its_name(aws: Aws) -> None:
    """EKS makes its log group again, untagged, and no list by tags has roles."""
    group = "/aws/eks/slipway-dev/cluster"
    aws.groups = [group, f"{group}-of-another"]
    aws.roles = {
        "slipway-dev-nodes": OURS,
        "slipway-dev-mlflow-default": OURS,
        "slipway-dev-eu-nodes": {"slipway:stack": "dev-eu"},
        "slipway-dev-of-hand": {},
        "deploy": OURS,
    }
    left = found(aws.ready())
    assert [(one.kind, one.id) for one in left.values()] == [
        ("log group", group),
        ("role", "slipway-dev-mlflow-default"),
        ("role", "slipway-dev-nodes"),
    ]
    assert (
        left[group].fix == f"aws logs delete-log-group --log-group-name {group} --region {REGION}"
    )
    assert left["slipway-dev-nodes"].fix.startswith(
        "aws iam delete-role --role-name slipway-dev-nodes  # once"
    )


def test_what_has_its_name_and_is_in_the_state_is_no_leftover(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.groups, aws.roles = ["/aws/eks/slipway-dev/cluster"], {"slipway-dev-nodes": OURS}
    known = frozenset({*aws.groups, *aws.roles})
    monkeypatch.setattr(pulumi, "known", lambda _: Known(known, frozenset()))
    assert found(aws.ready()) == {}


def test_a_secret_that_can_still_be_brought_back_has_gone(aws: Aws) -> None:
    names = ["slipway-dev/mlflow-20261101-a1b2c3", "slipway-dev/evidence-key-20261101-d4e5f6"]
    aws.tagged = {arn("secretsmanager", f"secret:{name}"): OURS for name in names}
    left, gone = aws.tagged
    deleted = {"ARN": gone, "DeletedDate": datetime.datetime(2026, 11, 2, tzinfo=datetime.UTC)}
    look = "secretsmanager", "describe_secret"
    [(name, one)] = found(aws.ready((*look, {"ARN": left}), (*look, deleted))).items()
    assert name == names[0]
    assert one.kind == "secret"
    assert f"delete-secret --secret-id {left} --force" in one.fix


def test_what_only_its_tags_remember_is_not_left(aws: Aws) -> None:
    aws.tagged = {arn("rds", "db:slipway-dev"): OURS}
    aws.ready()
    aws.fail("rds", "describe_db_instances", "DBInstanceNotFound")
    assert found(aws) == {}


def test_an_account_that_does_not_answer(aws: Aws) -> None:
    config = cost.stack_config(STACK.read_bytes(), "dev")
    with pytest.raises(SlipwayError, match=r"AccessDenied.*not yours\n  fix: log in"):
        leftovers.on_aws(config, "dev", aws.refuse(), cost.prices())


# --- the commands that are proposed -----------------------------------------------------------


def commands() -> list[tuple[str, list[str]]]:
    filled = {
        " ".join(key): kind.fix.format(id="a", arn="a", region="r", account="1", parts=["a", "b"])
        for key, kind in KINDS.items()
    }
    return [(key, text.partition("  #")[0].split()) for key, text in filled.items()]


@pytest.mark.parametrize(
    ("kind", "words"), commands(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_aws_knows_the_command(kind: str, words: list[str]) -> None:
    program, service, call, *options = words
    assert program == "aws"
    model = models.service({"s3api": "s3"}.get(service, service))
    [operation] = [n for n in model.operation_names if xform_name(n, "-") == call]
    shape = model.operation_model(operation).input_shape
    assert shape is not None
    members = {f"--{xform_name(member, '-')}": member for member in shape.members}
    given = [option for option in options if option.startswith("--")]
    flags = {option for option in given if option in members}
    assert flags == set(given)
    assert set(shape.required_members) <= {members[option] for option in flags}


# --- a stack's state --------------------------------------------------------------------------


def test_what_a_state_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulumi, "_home", lambda: tmp_path)
    assert pulumi.known("local") == NOTHING
    file = tmp_path / "state" / ".pulumi" / "stacks" / "slipway" / "local.json"
    file.parent.mkdir(parents=True)
    queue = {"type": "aws:sqs/queue:Queue", "id": "https://q", "outputs": {"arn": "arn:q"}}
    component = {"type": "slipway:aws:Network"}
    state = {"checkpoint": {"latest": {"resources": [component, queue]}}}
    file.write_text(json.dumps(state))
    assert pulumi.known("local") == Known(
        frozenset({"https://q", "arn:q"}), frozenset({component["type"], queue["type"]})
    )
    file.write_text(json.dumps({"checkpoint": {"latest": None}}))
    assert pulumi.known("local") == NOTHING


# --- on this machine --------------------------------------------------------------------------

REMAINS: dict[str, list[str]] = {"process": ["7 (etcd)"], "mount": [], "interface": ["slipway0"]}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(cluster, "running", dict)
    monkeypatch.setattr(cluster, "remains", lambda: REMAINS)
    monkeypatch.setattr(cluster, "is_up", lambda: False)
    return tmp_path / "slipway"


def test_a_stopped_cluster_leaves_nothing_of_these(machine: Path) -> None:
    assert [(one.kind, one.id, one.fix) for one in leftovers.of_stack("local")] == [
        ("process", "7 (etcd)", "slipway down"),
        ("interface", "slipway0", "slipway down"),
    ]


def test_a_running_cluster_needs_what_it_has(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "running", lambda: {"kubelet": True})
    assert leftovers.of_stack("local") == []


def test_volumes_that_no_cluster_has(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "remains", dict)
    kept, lost = (machine / "volumes" / name for name in ("pvc-kept", "pvc-lost"))
    for folder in (kept, lost):
        folder.mkdir(parents=True)
    assert {one.id for one in leftovers.of_stack("local")} == {str(kept), str(lost)}
    (machine / "cluster-initialised").touch()
    assert leftovers.of_stack("local") == []
    monkeypatch.setattr(cluster, "is_up", lambda: True)
    monkeypatch.setattr(cluster, "kubectl", lambda *_: f"{kept} ")
    [one] = leftovers.of_stack("local")
    assert (one.kind, one.id) == ("volume", str(lost))


# --- the command ------------------------------------------------------------------------------

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def doctor(machine: Path) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["doctor", *arguments])
        return done.exit_code, done.stdout, done.stderr

    return run


def test_the_command(doctor: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, shown, said = doctor("--leftovers")
    assert code == 1
    assert "slipway0" in shown
    assert "2 left behind, 0.00 USD a month at least" in said
    code, shown, _ = doctor("--leftovers", "-o", "json")
    document = json.loads(shown)
    assert (code, document["stack"], document["monthly"]) == (1, "local", 0)
    assert document["leftovers"][0]["fix"] == "slipway down"
    monkeypatch.setattr(cluster, "remains", dict)
    assert doctor("--leftovers") == (0, "", "nothing of stack local is left behind\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--leftovers", "--stack", "deb"], "no such stack: deb\n  fix: did you mean 'dev'?"),
        (["--stack", "dev"], "--stack is for --leftovers\n  fix: add --leftovers"),
    ],
)
def test_wrong_arguments(doctor: Run, arguments: list[str], said: str) -> None:
    code, _, error = doctor(*arguments)
    assert code == 2
    assert said in error


def test_another_cluster_is_not_looked_at(doctor: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/elsewhere")
    code, _, error = doctor("--leftovers")
    assert code == 2
    assert "none that Slipway makes" in error


def test_without_a_login(doctor: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    code, _, error = doctor("--leftovers", "--stack", "dev")
    assert code == 1
    assert "Unable to locate credentials" in error
    assert "fix: log in" in error
