"""What AWS would answer: the few outputs of resources that the program reads on its way."""

from __future__ import annotations

from typing import Any

ACCOUNT, REGION = "111111111111", "eu-central-1"
# Type to the part of an ARN that its name follows.
ARNS = {
    "aws:iam/role:Role": f"arn:aws:iam::{ACCOUNT}:role/",
    "aws:iam/instanceProfile:InstanceProfile": f"arn:aws:iam::{ACCOUNT}:instance-profile/",
    "aws:kms/key:Key": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/",
    "aws:sqs/queue:Queue": f"arn:aws:sqs:{REGION}:{ACCOUNT}:",
    "aws:s3/bucket:Bucket": "arn:aws:s3:::",
    "aws:cloudwatch/logGroup:LogGroup": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:",
    "aws:lb/loadBalancer:LoadBalancer": f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:"
    "loadbalancer/app/",
    "aws:lb/targetGroup:TargetGroup": f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:"
    "targetgroup/",
    "aws:lb/listener:Listener": f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:listener/app/",
    "aws:secretsmanager/secret:Secret": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:",
    "aws:acm/certificate:Certificate": f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/",
}


def outputs(token: str, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Outputs of a resource beside its inputs; nothing for one that is not AWS's."""
    if token == "pulumi:pulumi:StackReference":
        stack = name.rpartition("/")[2]
        artifacts = {
            "prefix": f"slipway-{stack}-{ACCOUNT}-",
            "key": f"{ARNS['aws:kms/key:Key']}{stack}",
            "environments": [stack],
            "evidenceKeys": f"the keys of {stack}\n",
        }
        registry = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
        return {"outputs": {"registry": registry, "artifacts": artifacts}}
    if not token.startswith("aws:"):
        return {}
    known = inputs.get("bucket") or inputs.get("name") or name
    made: dict[str, Any] = {"arn": ARNS[token] + known} if token in ARNS else {}
    match token:
        case "aws:eks/cluster:Cluster":
            made |= {
                "endpoint": "https://cluster.example",
                "certificateAuthority": {"data": "Y2VydGlmaWNhdGU="},
                "vpcConfig": {**inputs["vpcConfig"], "clusterSecurityGroupId": "sg-0c1"},
            }
        case "aws:eks/nodeGroup:NodeGroup":
            made["resources"] = [{"autoscalingGroups": [{"name": f"eks-{name}"}]}]
        case "aws:ec2/launchTemplate:LaunchTemplate":
            made["latestVersion"] = 1
        case "aws:rds/instance:Instance":
            made["address"] = f"{inputs['identifier']}.rds.example"
        case "aws:sqs/queue:Queue":
            made["url"] = f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{known}"
        case "aws:lb/loadBalancer:LoadBalancer":
            made |= {"dnsName": "consoles.elb.example", "zoneId": "Z215JYRZR1TBD5"}
        case "aws:acm/certificate:Certificate":
            proof = {"resourceRecordName": "_a.example", "resourceRecordType": "CNAME"}
            made["domainValidationOptions"] = [{**proof, "resourceRecordValue": "_b.example"}]
        case "aws:route53/record:Record":
            made["fqdn"] = inputs["name"]
        case _:
            pass
    return made


def call(token: str, args: dict[str, Any]) -> dict[str, Any] | None:
    """The answer to a look-up; None where the program has no business with it."""
    if token == "aws:secretsmanager/getSecretVersion:getSecretVersion":
        return {**args, "secretString": "what Secrets Manager holds"}
    if token == "aws:eks/getAddonVersion:getAddonVersion":
        return {**args, "version": f"v{args['kubernetesVersion']}.0-eksbuild.1"}
    return None
