"""Whether AWS would know what a resource says: each property against botocore's service models.

A provider's properties are those of AWS's own calls in other case, flattened here and there. So a
property is looked up in the call's input by its name without case, or by `ALIASES`; what the
provider has of its own is in `OWN`. A property in none of them is a mistake.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import botocore.session
from botocore.exceptions import UnknownServiceError
from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape

# Type to the service and the shape that its properties are in.
COUNTERPARTS = {
    "acm/certificate": ("acm", "RequestCertificateRequest"),
    "budgets/budget": ("budgets", "Budget"),
    "cloudwatch/eventRule": ("events", "PutRuleRequest"),
    "cloudwatch/eventTarget": ("events", "Target"),
    "cloudwatch/logGroup": ("logs", "CreateLogGroupRequest"),
    "ec2/eip": ("ec2", "AllocateAddressRequest"),
    "ec2/flowLog": ("ec2", "CreateFlowLogsRequest"),
    "ec2/launchTemplate": ("ec2", "RequestLaunchTemplateData"),
    "ec2/natGateway": ("ec2", "CreateNatGatewayRequest"),
    "ec2/route": ("ec2", "CreateRouteRequest"),
    "ec2/securityGroup": ("ec2", "CreateSecurityGroupRequest"),
    "ec2/subnet": ("ec2", "CreateSubnetRequest"),
    "ec2/vpc": ("ec2", "CreateVpcRequest"),
    "ec2/vpcEndpoint": ("ec2", "CreateVpcEndpointRequest"),
    "ecr/repository": ("ecr", "CreateRepositoryRequest"),
    "eks/accessEntry": ("eks", "CreateAccessEntryRequest"),
    "eks/accessPolicyAssociation": ("eks", "AssociateAccessPolicyRequest"),
    "eks/addon": ("eks", "CreateAddonRequest"),
    "eks/cluster": ("eks", "CreateClusterRequest"),
    "eks/nodeGroup": ("eks", "CreateNodegroupRequest"),
    "eks/podIdentityAssociation": ("eks", "CreatePodIdentityAssociationRequest"),
    "iam/instanceProfile": ("iam", "CreateInstanceProfileRequest"),
    "iam/role": ("iam", "CreateRoleRequest"),
    "iam/rolePolicy": ("iam", "PutRolePolicyRequest"),
    "iam/rolePolicyAttachment": ("iam", "AttachRolePolicyRequest"),
    "kms/alias": ("kms", "CreateAliasRequest"),
    "kms/key": ("kms", "CreateKeyRequest"),
    "lb/listener": ("elbv2", "CreateListenerInput"),
    "lb/listenerRule": ("elbv2", "CreateRuleInput"),
    "lb/loadBalancer": ("elbv2", "CreateLoadBalancerInput"),
    "lb/targetGroup": ("elbv2", "CreateTargetGroupInput"),
    "rds/instance": ("rds", "CreateDBInstanceMessage"),
    "rds/parameterGroup": ("rds", "CreateDBParameterGroupMessage"),
    "rds/subnetGroup": ("rds", "CreateDBSubnetGroupMessage"),
    "s3/bucketLifecycleConfiguration": ("s3", "BucketLifecycleConfiguration"),
    "s3/bucketOwnershipControls": ("s3", "OwnershipControlsRule"),
    "s3/bucketPublicAccessBlock": ("s3", "PublicAccessBlockConfiguration"),
    "s3/bucketServerSideEncryptionConfiguration": ("s3", "ServerSideEncryptionConfiguration"),
    "s3/bucketVersioning": ("s3", "VersioningConfiguration"),
    "secretsmanager/secret": ("secretsmanager", "CreateSecretRequest"),
    "secretsmanager/secretVersion": ("secretsmanager", "PutSecretValueRequest"),
    "vpc/securityGroupEgressRule": ("ec2", "IpPermission"),
    "vpc/securityGroupIngressRule": ("ec2", "IpPermission"),
}
# Of these, the call has no more to say than which two things belong together.
WITHOUT = {
    *("acm/certificateValidation", "autoscaling/attachment", "ec2/defaultSecurityGroup"),
    *("ec2/internetGateway", "ec2/routeTable", "ec2/routeTableAssociation", "ec2/tag"),
    *("ecr/lifecyclePolicy", "ecr/repositoryPolicy", "route53/record", "s3/bucket"),
    *("s3/bucketPolicy", "sqs/queue", "sqs/queuePolicy"),
}
# Where AWS calls it otherwise: another member, `service.Shape`, or a path through members.
ALIASES = {
    "acm/certificate.domainValidationOptions": "",
    "budgets/budget.name": "BudgetName",
    "cloudwatch/logGroup.name": "logGroupName",
    "ec2/flowLog.iamRoleArn": "DeliverLogsPermissionArn",
    "ec2/securityGroup.name": "GroupName",
    "ecr/repository.name": "repositoryName",
    "ecr/repository.encryptionConfigurations": "encryptionConfiguration",
    "eks/addon.resolveConflictsOnCreate": "eks.ResolveConflicts",
    "eks/addon.resolveConflictsOnUpdate": "eks.ResolveConflicts",
    "eks/cluster.enabledClusterLogTypes": "eks.LogTypes",
    "eks/cluster.encryptionConfig": "EncryptionConfig",
    "eks/cluster.vpcConfig": "resourcesVpcConfig",
    "eks/nodeGroup.instanceTypes": "ec2.RequestInstanceTypeList",
    "eks/nodeGroup.nodeGroupName": "nodegroupName",
    "eks/nodeGroup.nodeRoleArn": "nodeRole",
    "eks/nodeGroup.subnetIds": "subnets",
    "iam/instanceProfile.name": "InstanceProfileName",
    "iam/role.assumeRolePolicy": "AssumeRolePolicyDocument",
    "iam/role.name": "RoleName",
    "iam/rolePolicy.policy": "PolicyDocument",
    "iam/rolePolicy.role": "RoleName",
    "iam/rolePolicyAttachment.role": "RoleName",
    "kms/alias.name": "AliasName",
    "kms/alias.targetKeyId": "TargetKeyId",
    "lb/listener.certificateArn": "elbv2.CertificateArn",
    "lb/listener.defaultActions.fixedResponse": "FixedResponseConfig",
    "lb/listenerRule.actions.authenticateOidc": "AuthenticateOidcConfig",
    "lb/listenerRule.actions.fixedResponse": "FixedResponseConfig",
    "lb/listenerRule.conditions.hostHeader": "HostHeaderConfig",
    "lb/listenerRule.conditions.httpRequestMethod": "HttpRequestMethodConfig",
    "lb/listenerRule.conditions.pathPattern": "PathPatternConfig",
    "lb/loadBalancer.internal": "",
    "lb/loadBalancer.loadBalancerType": "Type",
    "rds/instance.identifier": "DBInstanceIdentifier",
    "rds/instance.instanceClass": "DBInstanceClass",
    "rds/instance.username": "MasterUsername",
    "rds/instance.password": "MasterUserPassword",
    "rds/instance.dbSubnetGroupName": "DBSubnetGroupName",
    "rds/instance.parameterGroupName": "DBParameterGroupName",
    "rds/instance.backupWindow": "PreferredBackupWindow",
    "rds/instance.maintenanceWindow": "PreferredMaintenanceWindow",
    "rds/instance.performanceInsightsEnabled": "EnablePerformanceInsights",
    "rds/instance.enabledCloudwatchLogsExports": "EnableCloudwatchLogsExports",
    "rds/parameterGroup.family": "DBParameterGroupFamily",
    "rds/parameterGroup.name": "DBParameterGroupName",
    "rds/subnetGroup.name": "DBSubnetGroupName",
    "rds/subnetGroup.description": "DBSubnetGroupDescription",
    "secretsmanager/secret.namePrefix": "Name",
    "s3/bucketLifecycleConfiguration.rules.id": "ID",
    "s3/bucketLifecycleConfiguration.rules.noncurrentVersionExpiration.noncurrentDays": (
        "NoncurrentDays"
    ),
}
# The provider's own: it makes other calls of them, or none.
OWN = {
    "budgets/budget": {"limitAmount", "limitUnit", "costFilters", "notifications"},
    "cloudwatch/eventTarget": {"rule"},
    "cloudwatch/logGroup": {"retentionInDays", "skipDestroy"},
    "ec2/flowLog": {"vpcId"},
    "ec2/launchTemplate": {"updateDefaultVersion", "name"},
    "ec2/route": set[str](),
    "ec2/subnet": {"mapPublicIpOnLaunch", "assignIpv6AddressOnCreation"},
    "ec2/securityGroup": {"revokeRulesOnDelete"},
    "ec2/vpc": {"enableDnsHostnames", "enableDnsSupport"},
    "ecr/repository": {"forceDelete"},
    "eks/addon": {"preserve"},
    "kms/key": {"deletionWindowInDays", "enableKeyRotation", "isEnabled"},
    "lb/loadBalancer": {
        *("internal", "dropInvalidHeaderFields", "enableDeletionProtection"),
        *("idleTimeout", "enableHttp2"),
    },
    "lb/targetGroup": {"deregistrationDelay", "healthCheck"},
    "iam/instanceProfile": {"role"},
    "iam/role": {"forceDetachPolicies"},
    "rds/instance": {
        *("deleteAutomatedBackups", "finalSnapshotIdentifier", "skipFinalSnapshot"),
        *("applyImmediately",),
    },
    "rds/parameterGroup": {"parameters", "skipDestroy"},
    "vpc/securityGroupEgressRule": set[str](),
    "vpc/securityGroupIngressRule": set[str](),
}
OWN_RULE = {"cidrIpv4", "description", "referencedSecurityGroupId", "securityGroupId"}
# A bucket is named beside the shape, not in it.
EVERYWHERE = {"tags", "region", "bucket", "__defaults"}
# What the provider gives AWS by itself, or an earlier call has.
GIVEN = {
    "cloudwatch/eventTarget.Id": "a random one",
    "ec2/flowLog.ResourceIds": "vpcId",
    "ec2/flowLog.ResourceType": "vpcId",
    "ec2/securityGroup.GroupName": "a random one",
    "iam/rolePolicy.PolicyName": "a random one",
    "rds/parameterGroup.Description": "Managed by Pulumi",
    "rds/subnetGroup.DBSubnetGroupDescription": "Managed by Pulumi",
}
# Botocore's model says nothing of it.
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
SECURITY_TEXT = re.compile(r"[A-Za-z0-9 ._:/()#,@\[\]+=&;{}!$*-]{1,255}")
DATABASE_CLASS = re.compile(r"db\.(.+)")
# Major versions of PostgreSQL that RDS has.
POSTGRES = ("13", "14", "15", "16", "17")


@functools.cache
def service(name: str) -> Any:
    return botocore.session.get_session().get_service_model(name)


@functools.cache
def values(service_name: str, shape: str) -> frozenset[str]:
    """The values that an enumeration of AWS has, e.g. ("ec2", "InstanceType")."""
    return frozenset(service(service_name).shape_for(shape).enum)


def kind(token: str) -> str:
    """`eks/nodeGroup` of aws:eks/nodeGroup:NodeGroup."""
    return token.removeprefix("aws:").rpartition(":")[0]


def problems(token: str, inputs: Mapping[str, Any]) -> Iterator[str]:
    """What AWS would refuse, or not know, of a resource: `property: what is wrong`.

    Args:
        token: Pulumi's type; one that is not AWS's has no problems here.
        inputs: by the provider's names (camelCase), as it is registered.
    """
    if not token.startswith("aws:"):
        return
    name = kind(token)
    for path, text in _policies(inputs):
        yield from (f"{path}: {problem}" for problem in policy_problems(text))
    if name == "rds/instance":
        yield from _database(inputs)
    if name == "s3/bucket" and not BUCKET_NAME.fullmatch(str(inputs["bucket"])):
        yield f"{name}.bucket: {inputs['bucket']!r} is no name of a bucket"
    if name.endswith(("/securityGroup", "IngressRule", "EgressRule")):
        said = str(inputs.get("description", "Managed by Pulumi"))
        if not SECURITY_TEXT.fullmatch(said):
            yield f"{name}.description: {said!r} has what EC2 takes in no description"
    if name in WITHOUT:
        return
    if name not in COUNTERPARTS:
        yield f"{name}: no counterpart on AWS is named for it"
        return
    owner, shape = COUNTERPARTS[name]
    own = OWN.get(name, set[str]()) | EVERYWHERE
    if name.startswith("vpc/securityGroup"):
        own = own | OWN_RULE
    given = {k: v for k, v in inputs.items() if k not in own}
    if name == "s3/bucketOwnershipControls":
        given = dict(given["rule"])
    if name == "s3/bucketVersioning":
        given = dict(given["versioningConfiguration"])
    yield from _structure(name, given, service(owner).shape_for(shape), name)


def _structure(
    name: str, given: Mapping[str, Any], shape: StructureShape, path: str
) -> Iterator[str]:
    members = {member.lower(): member for member in shape.members}
    seen: set[str] = set()
    for key, value in given.items():
        if key == "tags":  # a list there, a mapping here
            continue
        alias = ALIASES.get(f"{path}.{key}", key)
        if "." in alias:
            owner, _, other = alias.partition(".")
            yield from _value(name, value, service(owner).shape_for(other), f"{path}.{key}")
            continue
        member = members.get(alias.lower()) or members.get(f"{alias.lower()}s")
        if member is None and alias.lower().endswith("s"):
            member = members.get(alias.lower()[:-1])
        if member is None:
            yield f"{path}.{key}: AWS has no such property"
            continue
        seen.add(member)
        yield from _value(name, value, shape.members[member], f"{path}.{key}")
    for member in shape.required_members:
        known = f"{name}.{member}" in GIVEN or (path == name and member in _by_association(name))
        if member not in seen and not known:
            yield f"{path}: AWS needs {member}"


def _by_association(name: str) -> set[str]:
    """Required members that the provider fills from the resource's name or another property."""
    return {
        "acm/certificate": set[str](),
        "budgets/budget": {"BudgetLimit"},
        "eks/cluster": {"name", "roleArn"},
        "ec2/launchTemplate": set[str](),
    }.get(name, set[str]())


def _value(name: str, value: Any, shape: Shape, path: str) -> Iterator[str]:
    if value is None:
        return
    if isinstance(shape, StructureShape):
        for item in value if _is_list(value) else [value]:
            yield from _structure(name, item, shape, path)
    elif isinstance(shape, ListShape):
        items = list(value) if _is_list(value) else [value]
        yield from _bounds(len(items), shape, path, "items")
        for item in items:
            yield from _value(name, item, shape.member, path)
    elif isinstance(shape, MapShape):
        return
    elif isinstance(shape, StringShape):
        text = value if isinstance(value, str) else json.dumps(value)
        if shape.enum and text not in shape.enum:
            yield f"{path}: {text!r} is none of {', '.join(sorted(shape.enum)[:12])} …"
        yield from _bounds(len(text), shape, path, "characters")
        pattern = shape.metadata.get("pattern")
        if pattern and not _matches(pattern, text):
            yield f"{path}: {text!r} is not as AWS wants it: {pattern}"
    elif shape.type_name in ("integer", "long", "double", "float"):
        try:
            yield from _bounds(float(value), shape, path, "")
        except (TypeError, ValueError):
            yield f"{path}: {value!r} is no number"
    elif shape.type_name == "boolean" and value not in (True, False, "true", "false"):
        yield f"{path}: {value!r} is neither true nor false"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _matches(pattern: str, text: str) -> bool:
    """Java's character classes in Python's."""
    for java, python in {"\\p{L}": r"^\W\d_", "\\p{Z}": r"\s", "\\p{N}": r"\d"}.items():
        pattern = pattern.replace(java, python)
    try:
        return re.search(f"^(?:{pattern})$", text, re.S) is not None
    except re.error:
        return True


def _bounds(size: float, shape: Shape, path: str, unit: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low:
        yield f"{path}: {size:g} {unit} are fewer than {low}"
    if high is not None and size > high:
        yield f"{path}: {size:g} {unit} are more than {high}"


def _database(inputs: Mapping[str, Any]) -> Iterator[str]:
    match = DATABASE_CLASS.fullmatch(str(inputs["instanceClass"]))
    if not match or match[1] not in values("ec2", "InstanceType"):
        yield f"rds/instance.instanceClass: {inputs['instanceClass']!r} is no class of machines"
    version = str(inputs.get("engineVersion", POSTGRES[-1]))
    if version.partition(".")[0] not in POSTGRES:
        yield f"rds/instance.engineVersion: RDS has no PostgreSQL {version}"


# Policies

STATEMENT = {
    *("Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction"),
    *("Resource", "NotResource", "Condition"),
}
OPERATORS = re.compile(
    r"((ForAllValues|ForAnyValue):)?"
    r"(String(Not)?(Equals|Like)(IgnoreCase)?|Numeric\w+|Date\w+|Bool|Arn(Not)?(Equals|Like)|"
    r"(Not)?IpAddress|Null)(IfExists)?"
)
ARN = re.compile(r"arn:aws[\w-]*:[a-z0-9-]+:[^:]*:[^:]*:.+")
# Rights that no call of the same name has.
RIGHTS = {
    *("iam:PassRole", "s3:ListBucket", "s3:ListBucketVersions", "s3:ListMultipartUploadParts"),
    "sts:TagSession",
}


def _policies(inputs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("policy", "assumeRolePolicy"):
        text = inputs.get(key)
        if isinstance(text, str) and '"Version"' in text:
            yield key, text


@functools.cache
def _actions(prefix: str) -> frozenset[str]:
    """Calls of the service with that prefix; none where botocore knows no such service."""
    try:
        return frozenset(service(prefix).operation_names)
    except UnknownServiceError:
        return frozenset()


def policy_problems(text: str) -> Iterator[str]:
    """What IAM's grammar does not allow in a policy document, or AWS has no call for."""
    document = json.loads(text)
    if document.get("Version") != "2012-10-17":
        yield "Version is not 2012-10-17"
    if not document.get("Statement"):
        yield "no statement"
    for index, statement in enumerate(document.get("Statement", [])):
        where = f"Statement[{index}]"
        for key in statement.keys() - STATEMENT:
            yield f"{where}.{key}: no such key"
        if statement.get("Effect") not in ("Allow", "Deny"):
            yield f"{where}.Effect: {statement.get('Effect')!r} is neither Allow nor Deny"
        if not re.fullmatch(r"[A-Za-z0-9]*", statement.get("Sid", "")):
            yield f"{where}.Sid: letters and digits only"
        if ("Resource" in statement) == ("Principal" in statement) and "Principal" not in statement:
            yield f"{where}: neither Resource nor Principal"
        actions = statement.get("Action", [])
        if not actions:
            yield f"{where}.Action: nothing is allowed"
        for action in [actions] if isinstance(actions, str) else actions:
            yield from (f"{where}.Action: {problem}" for problem in _action_problems(action))
        resources = statement.get("Resource", [])
        for resource in [resources] if isinstance(resources, str) else resources:
            if resource != "*" and not re.fullmatch(
                r"arn:aws[\w-]*:[a-z0-9-]+:[^:]*:[^:]*:.+", resource
            ):
                yield f"{where}.Resource: {resource!r} is no ARN"
        for operator in statement.get("Condition", {}):
            if not OPERATORS.fullmatch(operator):
                yield f"{where}.Condition: no operator {operator}"


def _action_problems(action: str) -> Iterator[str]:
    prefix, _, call = action.partition(":")
    if action in RIGHTS:
        return
    known = _actions(prefix)
    if not known:
        yield f"{action}: no service {prefix}"
    elif call != "*" and call not in known:
        yield f"{action}: no such call"
