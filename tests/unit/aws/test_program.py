"""The stacks on AWS, whole: what each says of tags, access, order and its stores."""

from __future__ import annotations

import importlib
import inspect
import ipaddress
import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import yaml

from infra.aws import families
from infra.aws.stack import images, minor
from policies.infrastructure import managed
from slipway import toolchain
from slipway.store import Bucket
from tests.manifests.program import ROOT, containers, decoded, run, settings
from tests.unit.aws import mocks, models
from tests.unit.aws.stacks import OTHERS, STACKS, Made, Stack, stack

TAGS = {"slipway:stack", "environment", "owner", "cost-centre", "managed-by", "Name"}
# Made by the cluster's own controllers, and in no state: nothing may be removed that they need.
MADE_BY_CLUSTER = (":NodePool", ":EC2NodeClass", ":StatefulSet", ":PersistentVolumeClaim")
DATABASE = (":Instance", "database")


@pytest.fixture(scope="module", params=STACKS)
def made(request: pytest.FixtureRequest) -> Stack:
    return stack(request.param)


@pytest.fixture(scope="module", params=(*STACKS, *OTHERS))
def every(request: pytest.FixtureRequest) -> Stack:
    """Also those that no file of environments/ is."""
    return stack(request.param)


@pytest.fixture(scope="module")
def prod() -> Stack:
    return stack("prod")


def takes_tags(token: str) -> bool:
    module, _, name = token.removeprefix("aws:").partition(":")
    package, _, file = module.partition("/")
    python = "".join(f"_{c.lower()}" if c.isupper() else c for c in file)
    resource = getattr(importlib.import_module(f"pulumi_aws.{package}.{python}"), name)
    return "tags" in inspect.signature(resource._internal_init).parameters


def statements(resource: Made) -> list[dict[str, Any]]:
    key = "assumeRolePolicy" if "assumeRolePolicy" in resource.inputs else "policy"
    return json.loads(resource.inputs[key])["Statement"]


def roles_that(made: Stack, action: str, resource: str) -> set[str]:
    """Workloads (namespace-account), and others, whose role allows `action` on `resource`."""

    def covers(patterns: list[str]) -> bool:
        return any(
            p == resource or (p.endswith("*") and resource.startswith(p[:-1])) for p in patterns
        )

    roles = {role.inputs["name"]: role.name for role in made.of("iam/role:Role")}
    by_aws = {
        roles[attached.inputs["role"]]
        for attached in made.of(":RolePolicyAttachment")
        if managed.policies()[attached.inputs["policyArn"]].allows(action)
    }
    return by_aws | {
        policy.name
        for policy in made.of("rolePolicy:RolePolicy")
        for s in statements(policy)
        if action in s["Action"] and covers(s["Resource"])
    }


def test_every_resource_says_whose_it_is(every: Stack) -> None:
    for resource in every.resources:
        if resource.token.startswith("aws:") and takes_tags(resource.token):
            assert resource.inputs.get("tags", {}).keys() >= TAGS, resource.urn
    for machines in every.of(":EC2NodeClass"):
        assert machines.inputs["spec"]["tags"].keys() >= TAGS
    for template in every.of(":LaunchTemplate"):
        kinds = {t["resourceType"]: t["tags"].keys() for t in template.inputs["tagSpecifications"]}
        assert set(kinds) == {"instance", "volume", "network-interface"}
        assert all(keys >= TAGS for keys in kinds.values())
    driver = json.loads(every.one(":Addon", "aws-ebs-csi-driver").inputs["configurationValues"])
    assert driver["controller"]["extraVolumeTags"].keys() >= TAGS - {"Name"}


def test_aws_knows_everything_that_is_said(every: Stack) -> None:
    found = [f"{r.name}: {p}" for r in every.resources for p in models.problems(r.token, r.inputs)]
    assert found == []


def test_names_are_unique(every: Stack) -> None:
    assert len(every.by_urn) == len(every.resources)


# Network and cluster


def test_subnets_fill_the_network_without_overlap(made: Stack) -> None:
    [vpc] = made.of("vpc:Vpc")
    whole = ipaddress.ip_network(vpc.inputs["cidrBlock"])
    blocks = [ipaddress.ip_network(s.inputs["cidrBlock"]) for s in made.of(":Subnet")]
    assert len(blocks) == 9
    assert all(block.subnet_of(whole) for block in blocks)
    assert not [(a, b) for a in blocks for b in blocks if a is not b and a.overlaps(b)]
    zones = [s.inputs["availabilityZone"] for s in made.of(":Subnet")]
    assert {zones.count(zone) for zone in zones} == {3}


def test_karpenter_and_load_balancers_find_their_subnets(made: Stack) -> None:
    cluster = made.one("eks/cluster:Cluster", "cluster")
    for subnet in made.of(":Subnet"):
        tags = subnet.inputs["tags"]
        kind = subnet.name.split("-")[0]
        assert ("kubernetes.io/role/elb" in tags) == (kind == "public")
        assert ("kubernetes.io/role/internal-elb" in tags) == (kind == "private")
        discovered = tags.get("karpenter.sh/discovery")
        assert discovered == (cluster.inputs["name"] if kind == "private" else None)


def test_a_database_has_no_way_out(made: Stack) -> None:
    isolated = {f"{s.name}-id" for s in made.of(":Subnet") if s.name.startswith("isolated")}
    joined = {a.inputs["subnetId"] for a in made.of(":RouteTableAssociation")}
    assert not isolated & joined
    [group] = made.of(":SubnetGroup")
    assert set(group.inputs["subnetIds"]) == isolated


def test_no_pod_has_an_address_of_the_api_server_s(made: Stack) -> None:
    """By addresses alone a policy tells what it asks of a model from what pods ask."""
    cluster = made.one("eks/cluster:Cluster", "cluster")
    control_plane = set(cluster.inputs["vpcConfig"]["subnetIds"])
    nodes = {s for g in made.of("eks/nodeGroup:NodeGroup") for s in g.inputs["subnetIds"]}
    assert control_plane
    assert not control_plane & nodes
    subnets = {f"{s.name}-id": s.inputs for s in made.of(":Subnet")}
    assert not {"karpenter.sh/discovery"} & {t for s in control_plane for t in subnets[s]["tags"]}
    policies = made.program.all("NetworkPolicy")
    by_address = {
        peer["ipBlock"]["cidr"]
        for policy in policies
        if policy["metadata"]["name"].endswith("-models")
        for rule in policy["spec"]["ingress"]
        for peer in rule["from"]
        if "ipBlock" in peer
    }
    assert by_address == {subnets[s]["cidrBlock"] for s in control_plane}


def test_images_and_artifacts_cost_no_nat(made: Stack) -> None:
    found = {e.inputs["serviceName"].split(".", 3)[3]: e.inputs for e in made.of(":VpcEndpoint")}
    objects = found.pop("s3")
    assert objects["vpcEndpointType"] == "Gateway"
    private = {f"{s.name}-id" for s in made.of(":Subnet") if s.name.startswith("private")}
    assert set(objects["routeTableIds"]) == {
        a.inputs["routeTableId"]
        for a in made.of(":RouteTableAssociation")
        if a.inputs["subnetId"] in private
    }
    assert found.keys() >= {"ecr.api", "ecr.dkr", "sts", "eks-auth"}
    # By the service's own name, from every zone, and let in.
    [vpc] = made.of(":Vpc")
    assert (vpc.inputs["enableDnsHostnames"], vpc.inputs["enableDnsSupport"]) == (True, True)
    let_in = made.one(":SecurityGroupIngressRule", "endpoints").inputs
    assert (let_in["cidrIpv4"], let_in["fromPort"]) == (vpc.inputs["cidrBlock"], 443)
    for endpoint in found.values():
        assert endpoint["vpcEndpointType"] == "Interface"
        assert endpoint["privateDnsEnabled"] is True
        assert set(endpoint["subnetIds"]) == private
        assert endpoint["securityGroupIds"] == [let_in["securityGroupId"]]


def test_nat_is_in_every_zone_where_production_is() -> None:
    assert len(list(stack("prod").of(":NatGateway"))) == 3
    assert len(list(stack("dev").of(":NatGateway"))) == 1


def test_the_control_plane(made: Stack) -> None:
    cluster = made.one("eks/cluster:Cluster", "cluster").inputs
    assert cluster["version"] == minor(toolchain.tool("kubernetes").version) == "1.34"
    assert cluster["vpcConfig"]["endpointPrivateAccess"] is True
    assert cluster["vpcConfig"]["endpointPublicAccess"] is False
    assert cluster["encryptionConfig"]["resources"] == ["secrets"]
    assert cluster["upgradePolicy"] == {"supportType": "EXTENDED"}
    assert len(cluster["enabledClusterLogTypes"]) == 5
    assert cluster["accessConfig"]["authenticationMode"] == "API"
    assert cluster["accessConfig"]["bootstrapClusterCreatorAdminPermissions"] is False
    admins = {e.inputs["principalArn"] for e in made.of(":AccessEntry")}
    assert {e.inputs["principalArn"] for e in made.of(":AccessPolicyAssociation")} == admins


def test_nodes_and_add_ons_follow_the_cluster_to_another_version(every: Stack) -> None:
    cluster = every.one("eks/cluster:Cluster", "cluster")
    version = cluster.inputs["version"]
    followers = {
        **{group.urn: group.inputs["version"] for group in every.of(":NodeGroup")},
        # As EKS says what its default is.
        **{a.urn: a.inputs["addonVersion"].removeprefix("v")[:4] for a in every.of(":Addon")},
    }
    assert followers == dict.fromkeys(followers, version)
    for urn in followers:
        assert cluster.urn in every.needs(every.by_urn[urn])


def test_people_log_in_as_their_groups_and_administer_nothing() -> None:
    made = stack("eks_own_stores")
    entries = {e.name: e.inputs for e in made.of(":AccessEntry")}
    assert {
        name: e["kubernetesGroups"] for name, e in entries.items() if name in ("ml", "ada")
    } == {
        "ml": ["ml-team"],
        "ada": ["ml-team", "data-scientists"],
    }
    [admin] = made.of(":AccessPolicyAssociation")
    assert admin.inputs["principalArn"] == "arn:aws:iam::111111111111:role/slipway-deploy"
    assert "kubernetesGroups" not in entries["slipway-deploy"]


def test_pods_do_not_reach_the_nodes_role(every: Stack) -> None:
    for template in every.of(":LaunchTemplate"):
        options = template.inputs["metadataOptions"]
        assert (options["httpTokens"], options["httpPutResponseHopLimit"]) == ("required", 1)
    for machines in every.of(":EC2NodeClass"):
        options = machines.inputs["spec"]["metadataOptions"]
        assert (options["httpTokens"], options["httpPutResponseHopLimit"]) == ("required", 1)


# Stores


def test_objects_are_kept_closed_and_encrypted(made: Stack) -> None:
    buckets = [b.name for b in made.of("s3/bucket:Bucket")]
    assert set(buckets) == {
        *("data", "bentos", "evidence", "predictions", "labels", "mlflow", "workflows")
    }
    for name in buckets:
        closed = made.one(":BucketPublicAccessBlock", name).inputs
        assert [v for k, v in closed.items() if k != "bucket"] == [True] * 4
        versions = made.one(":BucketVersioning", name).inputs["versioningConfiguration"]
        assert versions == {"status": "Enabled"}
        encryption = made.one(":BucketServerSideEncryptionConfiguration", name)
        [rule] = encryption.inputs["rules"]
        assert rule["applyServerSideEncryptionByDefault"]["sseAlgorithm"] == "aws:kms"
        [deny] = statements(made.one(":BucketPolicy", name))
        assert deny["Effect"] == "Deny"
        assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_volumes_are_encrypted_by_the_default_class_and_no_other(every: Stack) -> None:
    [volumes] = every.of(":StorageClass")
    assert volumes.inputs["parameters"] == {"type": "gp3", "encrypted": "true"}
    assert list(volumes.inputs["metadata"]["annotations"].values()) == ["true"]
    driver = json.loads(every.one(":Addon", "aws-ebs-csi-driver").inputs["configurationValues"])
    assert "defaultStorageClass" not in driver
    claims = {
        holder.urn: claim["spec"]
        for holder in every.of(":StatefulSet", ":PersistentVolumeClaim")
        for claim in holder.inputs["spec"].get("volumeClaimTemplates", [holder.inputs])
        if "accessModes" in claim["spec"]
    }
    # Where stores are AWS's, a Gitea is all that claims any.
    has_gitea = any(m["metadata"]["name"] == "gitea" for m in every.program.all("Deployment"))
    assert bool(claims) is has_gitea
    for urn, spec in claims.items():
        assert "storageClassName" not in spec
        assert every.goes_before(every.by_urn[urn], volumes)


def test_only_what_nobody_would_miss_expires(made: Stack) -> None:
    expiring = {
        c.name
        for c in made.of(":BucketLifecycleConfiguration")
        for rule in c.inputs["rules"]
        if "expiration" in rule
    }
    assert expiring == {"workflows"}


def test_production_outlives_a_zone_and_a_mistake() -> None:
    for name in STACKS:
        server = stack(name).one(":Instance", "database")
        protected = name == "prod"
        assert server.inputs["multiAz"] is protected
        assert server.inputs["deletionProtection"] is protected
        assert server.inputs["storageEncrypted"] is True
        assert server.inputs["publiclyAccessible"] is False
        assert server.inputs["backupRetentionPeriod"] >= 7
        assert "password" in server.secret
        kept = [server, *stack(name).of("s3/bucket:Bucket", "ecr/repository:Repository")]
        assert {r.protect for r in kept} == {protected}
        assert stack(name).one("eks/cluster:Cluster", "cluster").inputs["deletionProtection"] is (
            protected
        )


def test_production_that_is_to_be_destroyed_keeps_nothing_from_it_but_a_last_copy() -> None:
    made, prod = stack("eks_to_be_destroyed"), stack("prod")
    asked = {
        "deletionProtection": True,
        "enableDeletionProtection": True,
        "forceDestroy": False,
        "forceDelete": False,
    }
    before = {r.urn.partition("::")[2]: r for r in prod.resources}
    unlike = 0
    for resource in made.resources:
        was = before[resource.urn.partition("::")[2]]
        assert not resource.protect
        unlike += was.protect
        for key, kept in asked.items():
            if key in was.inputs:
                assert (was.inputs[key], resource.inputs[key]) == (kept, not kept)
                unlike += 1
    assert unlike > len(asked)
    server = made.one(":Instance", "database").inputs
    assert (server["multiAz"], server["skipFinalSnapshot"]) == (True, False)
    assert len(made.resources) == len(prod.resources)


def test_logs_end_with_what_writes_them_and_one_day_in_any_case(made: Stack) -> None:
    """A group that AWS makes by itself is kept for ever, and in no state."""
    cluster, server = (made.one(*of) for of in (("eks/cluster:Cluster", "cluster"), DATABASE))
    groups = {g.inputs["name"]: g for g in made.of("logGroup:LogGroup")}
    written = {f"/aws/eks/{cluster.inputs['name']}/cluster": cluster}
    for log in server.inputs["enabledCloudwatchLogsExports"]:
        written[f"/aws/rds/instance/{server.inputs['identifier']}/{log}"] = server
    assert groups.keys() >= written.keys()
    for name, writer in written.items():
        assert made.goes_before(writer, groups[name])
    assert all(group.inputs["retentionInDays"] for group in groups.values())


def test_images_are_written_once_scanned_and_pulled_by_other_stacks() -> None:
    dev = stack("dev")
    for repository in dev.of("ecr/repository:Repository"):
        assert repository.inputs["imageTagMutability"] == "IMMUTABLE"
        assert repository.inputs["imageScanningConfiguration"] == {"scanOnPush": True}
        [pull] = statements(dev.one(":RepositoryPolicy", repository.name))
        assert pull["Principal"] == {
            "AWS": ["arn:aws:iam::222222222222:root", "arn:aws:iam::333333333333:root"]
        }
        assert not [a for a in pull["Action"] if "Put" in a or "Delete" in a]
    assert not list(stack("prod").of(":RepositoryPolicy"))


def test_images_of_ours_come_from_the_registry_of_the_stack_that_is_named() -> None:
    registry = f"{mocks.ACCOUNT}.dkr.ecr.{mocks.REGION}.amazonaws.com"
    for name, other in (("dev", None), ("staging", "dev"), ("prod", "dev")):
        made = stack(name)
        references = [r.name for r in made.program.resources if "StackReference" in r.token]
        assert references == ([f"organization/slipway/{other}"] if other else [])
        seen = {c["image"] for _, _, pod in made.program.pods() for c in containers(pod)}
        ours = {image.partition("@")[0] for image in seen if "/slipway/" in image}
        assert ours == {f"{registry}/slipway/mlflow", f"{registry}/slipway/training"}
        settings = made.program.one("ConfigMap", "platform")["data"]
        assert settings["SERVING_IMAGE"].startswith(f"{registry}/slipway/serving@sha256:")
        policy = made.program.one("ValidatingAdmissionPolicy", "slipway-images")
        assert policy["spec"]["variables"][0]["expression"] == json.dumps([f"{registry}/"])
        # And may be pulled by the account that names it.
        if other:
            config = settings_of(name)["slipway:aws"]
            assert config["account"] in settings_of(other)["slipway:aws"]["registryReaders"]


def settings_of(name: str) -> dict[str, Any]:
    file = ROOT / "environments" / f"Pulumi.{name}.yaml"
    return yaml.safe_load(file.read_text())["config"]


def test_images_of_others_say_their_version() -> None:
    """By tag: what digest that is, cannot be looked up here. Policy `images-pinned` lists them."""
    for name, reference in images().items():
        assert re.search(r":v?\d+\.\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?$", reference), name


# Identities


def test_a_role_is_one_workloads(every: Stack) -> None:
    pairs = [
        (a.inputs["namespace"], a.inputs["serviceAccount"], a.inputs["roleArn"])
        for a in every.of(":PodIdentityAssociation")
    ]
    assert len({role for *_, role in pairs}) == len(pairs)
    assert len({(n, a) for n, a, _ in pairs}) == len(pairs)
    for role in every.of("iam/role:Role"):
        [trusted] = statements(role)
        assert trusted["Principal"].keys() == {"Service"}
        tagged = trusted["Principal"]["Service"] == "pods.eks.amazonaws.com"
        assert ("sts:TagSession" in trusted["Action"]) is tagged


def test_who_reads_the_artifacts_of_production(prod: Stack) -> None:
    bucket = "arn:aws:s3:::slipway-prod-333333333333-"
    pipelines = {"pipelines-workflow", "pipelines-evidence", "pipelines-dispatcher"}
    read = "s3:GetObject"
    assert roles_that(prod, read, f"{bucket}bentos/sha256/0") == {"prod-model", *pipelines}
    assert roles_that(prod, read, f"{bucket}mlflow/0") == {"mlflow-default"}
    assert roles_that(prod, read, f"{bucket}labels/0") == pipelines
    assert roles_that(prod, read, f"{bucket}predictions/prod/0") == pipelines
    assert roles_that(prod, "s3:PutObject", f"{bucket}predictions/prod/0") == {"prod-model"}
    assert roles_that(prod, "s3:PutObject", f"{bucket}bentos/sha256/0") == pipelines
    # What is named by its digest is removed by nobody.
    assert not roles_that(prod, "s3:DeleteObject", f"{bucket}bentos/sha256/0")
    assert not roles_that(prod, "s3:DeleteObject", f"{bucket}evidence/sha256/0")
    # No other account's stack reads any of it: buckets are opened to nobody.
    for policy in prod.of(":BucketPolicy"):
        assert {s["Effect"] for s in statements(policy)} == {"Deny"}


BETWEEN = "arn:aws:s3:::slipway-eks-between-others-222222222222-"
BEFORE = f"arn:aws:s3:::slipway-dev-{mocks.ACCOUNT}-"
SHARED = ("bentos", "data", "evidence", "labels", "predictions")


def test_a_stack_between_others_lets_those_after_it_read_and_nothing_more() -> None:
    made = stack("eks_between_others")
    after = {"AWS": ["arn:aws:iam::333333333333:root"]}
    key = made.one("kms/key:Key", "objects")
    own, theirs = statements(key)
    assert own["Principal"] == {"AWS": ["arn:aws:iam::222222222222:root"]}
    assert (theirs["Principal"], theirs["Action"]) == (after, ["kms:Decrypt"])
    assert theirs["Condition"] == {
        "StringEquals": {
            "kms:ViaService": "s3.eu-central-1.amazonaws.com",
            "kms:EncryptionContext:aws:s3:arn": [f"{BETWEEN}{bucket}" for bucket in SHARED],
        }
    }
    for bucket in made.of("s3/bucket:Bucket"):
        deny, *allowed = statements(made.one(":BucketPolicy", bucket.name))
        assert deny["Effect"] == "Deny"
        arn = f"{BETWEEN}{bucket.name}"
        found = [(s["Principal"], s["Action"], s["Resource"]) for s in allowed]
        expected = [(after, ["s3:ListBucket"], [arn]), (after, ["s3:GetObject"], [f"{arn}/*"])]
        assert found == (expected if bucket.name in SHARED else [])
    # No key but this one is another account's to use.
    assert [k.name for k in made.of("kms/key:Key") if k.inputs.get("policy")] == ["objects"]
    said = made.program.outputs["artifacts"]
    assert (said["prefix"], said["key"]) == (
        BETWEEN.removeprefix("arn:aws:s3:::"),
        key.outputs["arn"],
    )
    assert said["environments"] == ["staging"]
    assert (
        said["evidenceKeys"]
        == made.program.one("ConfigMap", "evidence-keys", "staging")["data"]["public.pem"]
    )


def test_and_its_pipelines_read_those_before_it_and_nobody_else_does() -> None:
    made = stack("eks_between_others")
    pipelines = {"pipelines-workflow", "pipelines-evidence", "pipelines-dispatcher"}
    for bucket in SHARED:
        assert roles_that(made, "s3:GetObject", f"{BEFORE}{bucket}/sha256/0") == pipelines
        assert roles_that(made, "s3:ListBucket", f"{BEFORE}{bucket}") == pipelines
    for bucket in ("mlflow", "workflows"):
        assert not roles_that(made, "s3:GetObject", f"{BEFORE}{bucket}/0")
    for action in ("s3:PutObject", "s3:DeleteObject"):
        assert not roles_that(made, action, f"{BEFORE}bentos/sha256/0")
    theirs = f"{mocks.ARNS['aws:kms/key:Key']}dev"
    assert roles_that(made, "kms:Decrypt", theirs) == pipelines
    assert not roles_that(made, "kms:GenerateDataKey", theirs)
    prefix = BEFORE.removeprefix("arn:aws:s3:::")
    told = made.program.one("ConfigMap", "platform", "pipelines")["data"]
    assert told["SLIPWAY_UPSTREAM"] == f"dev={prefix}"
    # A model's pod believes its own stack alone.
    keys = {
        namespace: made.program.one("ConfigMap", "evidence-keys", namespace)["data"]
        for namespace in ("pipelines", "staging")
    }
    assert keys["pipelines"] == {**keys["staging"], "dev.pem": "the keys of dev\n"}
    assert keys["staging"].keys() == {"public.pem"}


def test_a_stack_that_comes_after_none_knows_of_none(made: Stack) -> None:
    assert "SLIPWAY_UPSTREAM" not in made.program.one("ConfigMap", "platform")["data"]
    assert not made.one("kms/key:Key", "objects").inputs.get("policy")
    assert made.program.one("ConfigMap", "evidence-keys", "pipelines")["data"].keys() == {
        "public.pem"
    }


def test_what_comes_before_is_of_another_environment() -> None:
    file = ROOT / "tests" / "unit" / "infra" / "valid" / "eks_between_others.yaml"
    values = settings(file)
    account = json.loads(values["slipway:aws"]) | {"artifactsOf": ["prod"], "artifactReaders": []}
    with pytest.raises(Exception, match="prod hosts prod, which does not come before staging"):
        run({**values, "slipway:aws": json.dumps(account)}, "staging")


def test_production_reads_from_all_that_come_before() -> None:
    file = ROOT / "tests" / "unit" / "infra" / "valid" / "eks_between_others.yaml"
    values = settings(file)
    account = json.loads(values["slipway:aws"]) | {"artifactsOf": ["dev", "staging"]}
    given = {"slipway:aws": json.dumps(account), "slipway:environments": '["prod"]'}
    made = run({**values, **given}, "prod")
    told = made.one("ConfigMap", "platform", "pipelines")["data"]["SLIPWAY_UPSTREAM"]
    at = mocks.ACCOUNT
    assert told == f"dev=slipway-dev-{at}- staging=slipway-staging-{at}-"
    keys = made.one("ConfigMap", "evidence-keys", "pipelines")["data"]
    assert keys.keys() == {"public.pem", "dev.pem", "staging.pem"}


def test_nodes_may_ask_who_they_are_pull_images_and_give_pods_their_roles(every: Stack) -> None:
    """Without the first no node joins: it asks EC2 for its own name."""
    assert "nodes" in roles_that(every, "ec2:DescribeInstances", "*")
    for action in ("eks-auth:AssumeRoleForPodIdentity", "ecr:BatchGetImage"):
        assert roles_that(every, action, "*") == {"nodes"}
    assert "nodes" not in roles_that(every, "ec2:TerminateInstances", "*")


def test_refused_connections_are_written_down(prod: Stack) -> None:
    group = prod.one(":LogGroup", "flows").outputs["arn"]
    for action in ("logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"):
        assert roles_that(prod, action, f"{group}:log-stream:eni-0") == {"flows"}
    assert roles_that(prod, "logs:DescribeLogGroups", "*") == {"flows"}


def test_karpenter_may_let_a_node_class_go(prod: Stack) -> None:
    """Before it does, it lists profiles and asks for one by the name that it gave them once."""
    profile = f"arn:aws:iam::333333333333:instance-profile/slipway-prod_{2**63}"
    assert roles_that(prod, "iam:GetInstanceProfile", profile) == {"karpenter"}
    assert roles_that(prod, "iam:ListInstanceProfiles", "*") == {"karpenter"}
    assert not roles_that(prod, "iam:DeleteInstanceProfile", profile)


def test_nobody_decrypts_but_with_the_key_of_the_objects(prod: Stack) -> None:
    """And who brings secrets, with theirs."""
    for policy in prod.of("rolePolicy:RolePolicy"):
        owner = "secrets" if policy.name == "external-secrets" else "objects"
        key = prod.one("kms/key:Key", owner)
        for statement in statements(policy):
            if any(a.startswith("kms:") for a in statement["Action"]):
                assert statement["Resource"] == [key.outputs["arn"]]


def test_who_reads_the_secrets(made: Stack) -> None:
    kept = {s.name: s for s in made.of("secretsmanager/secret:Secret")}
    assert kept.keys() == {
        *("postgres", "postgres-databases", "mlflow", "gitea", "gitea-admin", "gitea-setup"),
        *("argocd-repository", "argo-argo-postgres", "argo-workflows-webhook-clients"),
        *("pipelines-forge", "evidence-key"),
    }
    key = made.one("kms/key:Key", "secrets").outputs["arn"]
    for name, secret in kept.items():
        assert secret.inputs["kmsKeyId"] == key
        assert "secretString" in made.one(":SecretVersion", name).secret
        arn = secret.outputs["arn"]
        readers = roles_that(made, "secretsmanager:GetSecretValue", arn)
        assert readers == {f"external-secrets-{name}"}
        policy = made.one("rolePolicy:RolePolicy", f"external-secrets-{name}")
        assert policy.inputs["role"] == "external-secrets-id"
        [brought] = [m for m in made.of(":ExternalSecret") if m.name == name]
        assert brought.inputs["spec"]["dataFrom"] == [{"extract": {"key": arn}}]


def test_a_secret_is_brought_into_the_cluster_by_one_way_only(made: Stack) -> None:
    held = [m for m in made.program.all("Secret") if m.get("data")]
    # Nothing secret is in the first three; into the next Argo CD itself writes, and the last is of
    # no use elsewhere: the certificate of a webhook.
    assert {m["metadata"]["name"] for m in held} - {"kueue-webhooks"} == {
        *("object-store", "labels", "reader", "argocd-secret", "argocd-redis")
    }
    # The operator makes no tokens, and Secrets in the platform's own namespaces only.
    [role] = [m for m in made.program.all("ClusterRole") if "external-secrets" in _name(m)]
    may = {(r, verb) for rule in role["rules"] for r in rule["resources"] for verb in rule["verbs"]}
    assert not {("secrets", verb) for verb in ("create", "update", "patch", "delete")} & may
    assert not [kind for kind, _ in may if "token" in kind]
    inside = {
        m["metadata"]["namespace"] for m in made.program.all("Role") if "external" in _name(m)
    }
    assert inside == {"argocd", "argo", "storage", "mlflow", "forge", "pipelines"}
    [store] = made.of(":ClusterSecretStore")
    assert set(store.inputs["spec"]["conditions"][0]["namespaces"]) == inside
    # On destroy it is there until what it made has gone.
    operator = made.one("apps/v1:Deployment", "external-secrets")
    for brought in made.of(":ExternalSecret"):
        assert made.goes_before(brought, operator)
        assert made.goes_before(
            brought, made.one("rolePolicy:RolePolicy", f"external-secrets-{brought.name}")
        )


def _name(manifest: dict[str, Any]) -> str:
    return manifest["metadata"]["name"]


def test_nothing_has_a_key_to_s3(made: Stack) -> None:
    named = ("object-store", "labels", "reader")
    secrets = [m for m in made.program.all("Secret") if m["metadata"]["name"] in named]
    assert len(secrets) == 4
    for secret in secrets:
        assert set(secret["data"]) == {"AWS_DEFAULT_REGION", "SLIPWAY_BUCKET_PREFIX"}
    assert not [s for s in made.program.all("Secret") if s["metadata"]["name"] == "argo-artifacts"]


def test_everybody_finds_the_buckets(made: Stack) -> None:
    """Those who read `SLIPWAY_BUCKET_PREFIX`, and those who are told a bucket's whole name."""
    names = {b.inputs["bucket"] for b in made.of("s3/bucket:Bucket")}
    [prefix] = {
        decoded(s)["SLIPWAY_BUCKET_PREFIX"]
        for s in made.program.all("Secret")
        if s["metadata"]["name"] == "object-store"
    }
    assert {f"{prefix}{bucket}" for bucket in get_args(Bucket)} <= names
    controller = made.program.one("ConfigMap", "workflow-controller-configmap")["data"]
    artifacts = yaml.safe_load(controller["artifactRepository"])["s3"]
    assert artifacts["bucket"] == f"{prefix}workflows"
    assert (artifacts["useSDKCreds"], artifacts["insecure"]) == (True, False)
    assert "accessKeySecret" not in artifacts
    [mlflow] = made.program.one("Deployment", "mlflow")["spec"]["template"]["spec"]["containers"]
    assert f"--artifacts-destination=s3://{prefix}mlflow" in mlflow["args"]


# Order


def alive_for(made: Stack) -> Iterator[Made]:
    """What nodes, volumes and network interfaces of the cluster need to leave well."""
    yield from made.of("eks/nodeGroup:NodeGroup", "eks/addon:Addon", ":NatGateway", ":Route")
    yield from (r for r in made.of(":RolePolicyAttachment", ":AccessPolicyAssociation"))
    yield from (r for r in made.of(":Deployment") if r.name == "karpenter")
    karpenter = ("karpenter",)
    yield from (r for r in made.of(":PodIdentityAssociation") if r.name in karpenter)
    yield from (r for r in made.of(":ClusterRoleBinding", ":RolePolicy") if r.name in karpenter)


def test_what_the_cluster_made_goes_before_what_it_needs(every: Stack) -> None:
    [gone] = every.of(":Gone")
    on_cluster = [r for r in every.resources if r.token.endswith((":Namespace", *MADE_BY_CLUSTER))]
    assert on_cluster
    for resource in on_cluster:
        assert every.goes_before(resource, gone), resource.urn
    for needed in alive_for(every):
        if needed.name.startswith("gpu-"):
            assert every.goes_before(needed, gone)
        else:
            assert every.goes_before(gone, needed), needed.urn


def test_everything_on_the_cluster_goes_before_the_wait(every: Stack) -> None:
    [gone] = every.of(":Gone")
    outlives = {"karpenter"}
    for resource in every.resources:
        parent = resource.parent.rpartition("::")[2]
        if resource.token.startswith("kubernetes:") and parent not in outlives:
            assert every.goes_before(resource, gone), resource.urn


def test_the_network_goes_last(every: Stack) -> None:
    [vpc] = every.of("vpc:Vpc")
    for resource in every.of("eks/cluster:Cluster", ":NodeGroup", ":Instance", ":LoadBalancer"):
        assert every.goes_before(resource, vpc), resource.urn
    for pool in every.of(":NodePool"):
        machines = [m for m in every.of(":EC2NodeClass") if every.goes_before(pool, m)]
        assert len(machines) == 1
    # No load balancer is every behind Pulumi's back.
    services = every.program.all("Service")
    assert not [s for s in services if s["spec"].get("type") == "LoadBalancer"]
    assert not every.program.all("Ingress")


def test_the_front_door_is_made_once_the_internet_is_there() -> None:
    prod = stack("prod")
    [balancer] = prod.of(":LoadBalancer")
    [gateway] = prod.of(":InternetGateway")
    assert prod.goes_before(balancer, gateway)
    assert prod.goes_before(balancer, prod.one(":Route", "public-out"))
    for joined in prod.of(":RouteTableAssociation"):
        if joined.name.startswith("public"):
            assert prod.goes_before(balancer, joined)


def test_a_pod_is_made_once_it_has_its_role(every: Stack) -> None:
    """EKS gives a pod its role when the pod is made, and never later."""
    workloads = list(every.of(":Deployment", ":StatefulSet", ":DaemonSet", ":Job"))
    # Those of models and workflows, which Argo CD makes.
    applications = list(every.of(":Application", ":ApplicationSet"))
    assert applications
    for role in every.of(":PodIdentityAssociation"):
        who = (role.inputs["namespace"], role.inputs["serviceAccount"])
        its = [workload for workload in workloads if account(workload) == who]
        for made in its or applications:
            assert every.goes_before(made, role), (made.urn, who)


def account(workload: Made) -> tuple[str, str]:
    """Namespace and service account of its pods."""
    pod = workload.inputs["spec"]["template"]["spec"]
    return workload.inputs["metadata"]["namespace"], pod.get("serviceAccountName", "default")


# GPU nodes and consoles


def test_pools_are_karpenters_or_managed_groups() -> None:
    for name in ("dev", "prod"):
        assert list(stack(name).of(":NodePool"))
        assert [g.name for g in stack(name).of(":NodeGroup")] == ["platform"]
        pools = {p.inputs["metadata"]["name"]: p.inputs for p in stack(name).of(":NodePool")}
        general = pools["general"]
        inner = general["spec"]["template"]["spec"]
        assert "taints" not in inner
        asked = {r["key"]: r["values"] for r in inner["requirements"]}
        own = stack(name).one(":NodeGroup", "platform").inputs
        assert asked["node.kubernetes.io/instance-type"] == sorted(own["instanceTypes"])
        least, more = own["scalingConfig"]["minSize"], int(general["spec"]["limits"]["nodes"])
        assert set(own["scalingConfig"].values()) == {least}
        given = settings_of(name)["slipway:aws"].get("nodes", {"min": 3, "max": 6})
        assert (least, least + more) == (given["min"], given["max"])
    staging = stack("staging")
    assert not list(staging.of(":NodePool", ":EC2NodeClass"))
    own = staging.one(":NodeGroup", "platform").inputs["scalingConfig"]
    assert own == {"minSize": 3, "maxSize": 6, "desiredSize": 3}
    group = staging.one(":NodeGroup", "gpu-inference").inputs
    assert group["amiType"] == "AL2023_x86_64_NVIDIA"
    assert group["scalingConfig"] == {"minSize": 0, "maxSize": 3, "desiredSize": 0}
    assert [t["effect"] for t in group["taints"]] == ["NO_SCHEDULE"]


def test_somebody_is_told_when_a_budget_is_nearly_or_all_spent(made: Stack) -> None:
    budgets = list(made.of("budgets/budget:Budget"))
    assert budgets
    for budget in budgets:
        told = budget.inputs["notifications"]
        assert [(n["threshold"], n["thresholdType"]) for n in told] == [
            *((80, "PERCENTAGE"), (100, "PERCENTAGE"))
        ]
        assert all(n["subscriberEmailAddresses"] == ["ml-platform@example.com"] for n in told)


def test_a_stack_keeps_what_it_costs(made: Stack) -> None:
    monthly = made.program.outputs["monthlyUSD"]
    assert 0 < float(monthly["floor"]) <= float(monthly["ceiling"])


def test_every_machine_of_a_pool_is_one_of_awss(made: Stack) -> None:
    known = models.values("ec2", "InstanceType")
    for pool in made.of(":NodePool"):
        requirements = pool.inputs["spec"]["template"]["spec"]["requirements"]
        [types] = [r["values"] for r in requirements if r["key"].endswith("/instance-type")]
        assert types
        assert set(types) <= known
    assert set(families.sizes(list(families.catalogue().families))) <= known


def test_each_pool_has_its_device_plugin(prod: Stack) -> None:
    names = {m["metadata"]["name"]: m for m in prod.program.all("DaemonSet")}
    for pool in ("inference", "shared", "training"):
        spec = names[f"nvidia-device-plugin-{pool}"]["spec"]["template"]["spec"]
        assert spec["nodeSelector"]["slipway/pool"] == pool
        assert spec["tolerations"] == [{"operator": "Exists"}]
    assert {"dcgm-exporter", "efa-device-plugin"} <= names.keys()


def test_nobody_reaches_a_console_without_a_login(prod: Stack) -> None:
    rules = list(prod.of(":ListenerRule"))
    assert {hosts(r) for r in rules} == {
        f"{name}.ml.example.com" for name in ("argocd", "mlflow", "argo")
    }
    for rule in rules:
        first, then = rule.inputs["actions"]
        assert (first["type"], first["order"]) == ("authenticate-oidc", 1)
        assert (then["type"] == "forward") != rule.name.endswith("-writes")
        assert then["order"] == 2
    [listener] = prod.of(":Listener")
    assert listener.inputs["protocol"] == "HTTPS"
    assert [a["type"] for a in listener.inputs["defaultActions"]] == ["fixed-response"]
    opened = {
        r.inputs["fromPort"]: r.inputs["referencedSecurityGroupId"]
        for r in prod.of(":SecurityGroupIngressRule")
        if r.name.startswith("nodes-")
    }
    assert opened == {30080: "consoles-id", 30500: "consoles-id", 30746: "consoles-id"}
    ports = {p.get("nodePort") for s in prod.program.all("Service") for p in s["spec"]["ports"]}
    assert ports - {None} == set(opened)
    assert "actions" in rules[0].secret
    assert not list(stack("dev").of(":LoadBalancer"))


def hosts(rule: Made) -> str:
    [name] = rule.inputs["conditions"][0]["hostHeader"]["values"]
    return name


def answered(made: Stack, host: str, method: str, path: str) -> str:
    """What the load balancer does with a request of somebody who has logged in."""
    for rule in sorted(made.of(":ListenerRule"), key=lambda r: r.inputs["priority"]):
        asked = {k: v["values"] for c in rule.inputs["conditions"] for k, v in c.items()}
        if (
            host in asked["hostHeader"]
            and method in asked.get("httpRequestMethod", [method])
            and path in asked.get("pathPattern", [path])
        ):
            return rule.inputs["actions"][1]["type"]
    return "404"


def test_whoever_logs_in_reads_mlflow_and_does_not_write(prod: Stack) -> None:
    """Each path by what the pinned MLflow does there: it asks nobody who he is."""
    from mlflow.server import handlers

    reads = re.compile(r"(_?(get|list|search|query|batch_get)_|_deprecated_search_|_graphql)")
    for path, handler, methods in handlers.get_endpoints():
        for method in methods:
            if "<" in path or path.startswith("/api/"):
                continue
            passed = answered(prod, "mlflow.ml.example.com", method, path) == "forward"
            if passed and handler.__name__ != "_not_implemented":
                assert reads.match(handler.__name__), (method, path, handler.__name__)
    for method, path, answer in (
        ("GET", "/", "forward"),
        ("POST", "/ajax-api/2.0/mlflow/runs/search", "forward"),
        ("POST", "/ajax-api/2.0/mlflow/runs/create", "fixed-response"),
        ("POST", "/api/2.0/mlflow/runs/search", "fixed-response"),
        ("POST", "/ajax-api/2.0/mlflow/registered-models/alias", "fixed-response"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/x", "fixed-response"),
        ("DELETE", "/ajax-api/2.0/mlflow/registered-models/delete", "fixed-response"),
    ):
        assert answered(prod, "mlflow.ml.example.com", method, path) == answer
    # These ask who somebody is, and what he may do.
    for host in ("argocd", "argo"):
        assert answered(prod, f"{host}.ml.example.com", "POST", "/x") == "forward"
    for rule in prod.of(":ListenerRule"):
        assert sum(len(v["values"]) for c in rule.inputs["conditions"] for v in c.values()) <= 5


def test_what_mlflows_pages_look_up_is_answered_by_the_pinned_mlflow() -> None:
    from mlflow.server import handlers

    from infra.stack import READS

    served = {path for path, _, methods in handlers.get_endpoints() if "POST" in methods}
    # This one is the server's own, outside the table.
    assert set(READS) - served == {"/ajax-api/2.0/mlflow/experiments/search-datasets"}


def test_pods_reach_the_stores_and_no_other_addresses(made: Stack) -> None:
    outside = {
        (peer["ipBlock"]["cidr"], port["port"])
        for policy in made.program.all("NetworkPolicy")
        for rule in policy["spec"].get("egress", [])
        for peer in rule.get("to", [])
        if "ipBlock" in peer
        for port in rule["ports"]
    }
    subnets = {s.inputs["cidrBlock"] for s in made.of(":Subnet") if s.name.startswith("isolated")}
    assert outside == {
        # EKS judges a connection by the address that the pod named: of the Service `kubernetes`.
        ("172.20.0.1/32", 443),
        # S3 is anywhere, the API server where databases are.
        ("0.0.0.0/0", 443),
        ("169.254.170.23/32", 80),
        *((cidr, port) for cidr in subnets for port in (443, 5432)),
    }


def test_who_is_let_to_pods_is_let_to_their_service(every: Stack) -> None:
    """EKS judges a connection by the Service's address. It lets that through which has the rule's
    labels in its selector, on the port that leads to the rule's."""
    services = every.program.all("Service")

    def leads(namespace: str, labels: dict[str, str], port: int) -> bool:
        return any(
            labels.items() <= service["spec"]["selector"].items()
            and port in [at.get("targetPort", at["port"]) for at in service["spec"]["ports"]]
            for service in services
            if service["metadata"]["namespace"] == namespace
        )

    asked = {
        (
            peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"],
            labels,
            at["port"],
        )
        for policy in every.program.all("NetworkPolicy")
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        if "podSelector" in peer
        for labels in [tuple(peer["podSelector"].get("matchLabels", {}).items())]
        for at in rule["ports"]
    }
    # The chart makes those of models, with any labels; EKS makes DNS.
    ours = {a for a in asked if a[0] not in ("dev", "staging", "prod", "kube-system")}
    assert ours
    assert not [a for a in ours if not leads(a[0], dict(a[1]), a[2])]


# Queues


def test_teams_share_the_pools_by_queues_that_are_emptied_before_anything_else_goes() -> None:
    dev = stack("dev")
    drained = dev.one(":Drained", "queues")
    assert json.loads(drained.inputs["kubeconfig"])["kind"] == "Config"
    for webhook in dev.of("WebhookConfiguration"):
        assert dev.goes_before(webhook, drained)
    [kueue] = (d for d in dev.of(":Deployment") if d.name == "kueue")
    queues = list(dev.of(":LocalQueue"))
    assert {q.inputs["metadata"]["name"] for q in queues} == {"vision", "language"}
    for queue in (*queues, *dev.of(":ClusterQueue", ":ResourceFlavor")):
        assert dev.goes_before(drained, queue)
        assert dev.goes_before(queue, kueue)
    [pipelines] = (n for n in dev.of(":Namespace") if n.name == "pipelines")
    assert dev.goes_before(drained, pipelines)
    [gone] = dev.of(":Gone")
    assert dev.goes_before(kueue, gone)


def test_without_teams_there_is_no_kueue(prod: Stack) -> None:
    assert not list(prod.of(":LocalQueue", ":Drained"))
    assert not [d for d in prod.of(":Deployment") if d.name == "kueue"]
