"""S3 in MinIO's place: the same buckets and clients, who are known by their pod, not by a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_aws.s3.bucket import Bucket
from pulumi_aws.s3.bucket_lifecycle_configuration import BucketLifecycleConfiguration
from pulumi_aws.s3.bucket_ownership_controls import BucketOwnershipControls
from pulumi_aws.s3.bucket_policy import BucketPolicy
from pulumi_aws.s3.bucket_public_access_block import BucketPublicAccessBlock
from pulumi_aws.s3.bucket_server_side_encryption_configuration import (
    BucketServerSideEncryptionConfiguration,
)
from pulumi_aws.s3.bucket_versioning import BucketVersioning

from infra.aws.component import AwsComponent, Context
from infra.aws.policy import Statement, rendered, roots
from infra.aws.upstream import Artifacts
from infra.platform.minio import Credentials, Rights

# Days after which what nobody would miss goes; everything else is content-addressed, and stays.
EXPIRE = {"workflows": 90}
# What stacks that come after read of this one's, and the user whose pods do.
SHARED = ("bentos", "data", "evidence", "labels", "predictions")
READS_UPSTREAM = "pipelines"


@dataclass(frozen=True)
class ObjectsArgs:
    context: Context
    buckets: Sequence[str]
    readers: Sequence[str] = ()
    """Accounts of stacks that come after, which read from here."""
    upstream: Sequence[Artifacts] = ()
    """Of the stacks that come before, which are read here."""


class Objects(AwsComponent):
    """As `Minio` for those who wire: `endpoint`, `url`, `region`, and what each client needs."""

    endpoint: pulumi.Output[str]
    url: pulumi.Output[str]
    region: str
    insecure = False

    def __init__(
        self, name: str, args: ObjectsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Objects", name, args.context, opts)
        self.region = args.context.region
        self.endpoint = pulumi.Output.from_input(f"s3.{self.region}.amazonaws.com")
        self.url = pulumi.Output.from_input(f"https://s3.{self.region}.amazonaws.com")
        self._readers, self._upstream = args.readers, args.upstream
        about = f"Objects of {args.context.name}"
        self._key = self.key("objects", about, self.lasting(), self._key_policy())
        self._buckets = {bucket: self._bucket(bucket) for bucket in args.buckets}
        self.register_outputs({"url": self.url})

    @property
    def prefix(self) -> str:
        """Beginning of the buckets' names, which all of AWS shares."""
        return f"{self.context.name}-{self.context.account}-"

    def bucket(self, name: str) -> str:
        """What a bucket is called here."""
        return f"{self.prefix}{name}"

    def environment(self, user: str) -> dict[str, pulumi.Input[str]]:
        """Environment of an S3 client: no key, since EKS says who its pod is."""
        del user
        return {"AWS_DEFAULT_REGION": self.region, "SLIPWAY_BUCKET_PREFIX": self.prefix}

    def login(self, user: str) -> Credentials | None:
        """None: clients have no password."""
        del user
        return None

    def statements(self, users: Mapping[str, Rights]) -> list[Statement]:
        """What the pods of these users may do, as MinIO's policies let them."""
        result: list[Statement] = []
        for user, rights in users.items():
            name = "".join(part.capitalize() for part in user.split("-"))
            buckets = [self._arn(b) for b in sorted({*rights.read, *rights.write})]
            if buckets:
                look = ["s3:GetBucketLocation", "s3:ListBucket"]
                result.append(Statement(f"{name}Look", look, buckets))
                result.append(
                    Statement(f"{name}Read", ["s3:GetObject"], [f"{b}/*" for b in buckets])
                )
            if rights.write:
                put = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
                inside = [f"{self._arn(b)}/*" for b in rights.write]
                result.append(Statement(f"{name}Write", put, inside))
            if rights.put:
                begins = [
                    f"{self._arn(bucket)}/{prefix}*"
                    for bucket, _, prefix in (p.partition("/") for p in rights.put)
                ]
                result.append(Statement(f"{name}Add", ["s3:PutObject"], begins))
            if rights.delete:
                owned = [f"{self._arn(b)}/*" for b in rights.delete]
                result.append(Statement(f"{name}Delete", ["s3:DeleteObject"], owned))
        actions = ["kms:Decrypt"]
        if any(r.write or r.put for r in users.values()):
            actions.append("kms:GenerateDataKey")
        result.append(Statement("Key", actions, [self._key.arn]))
        return [*result, *(self._reading() if READS_UPSTREAM in users else ())]

    def _reading(self) -> list[Statement]:
        """What is upstream; its stacks say the same of this account."""
        if not self._upstream:
            return []
        buckets = [
            pulumi.Output.concat("arn:aws:s3:::", stack.prefix, bucket)
            for stack in self._upstream
            for bucket in SHARED
        ]
        inside = [pulumi.Output.concat(bucket, "/*") for bucket in buckets]
        return [
            # To be told that an object is not there takes the right to list.
            Statement("UpstreamLook", ["s3:ListBucket"], buckets),
            Statement("UpstreamRead", ["s3:GetObject"], inside),
            Statement("UpstreamKey", ["kms:Decrypt"], [stack.key for stack in self._upstream]),
        ]

    @property
    def artifacts(self) -> tuple[pulumi.Output[str], pulumi.Output[str]]:
        """For stacks that come after: the prefix, and the key's ARN."""
        return pulumi.Output.from_input(self.prefix), self._key.arn

    def _key_policy(self) -> str | None:
        """None: AWS's own, by which this account's roles say who uses it."""
        if not self._readers:
            return None
        shared = [f"arn:aws:s3:::{self.bucket(bucket)}" for bucket in SHARED]
        own = roots([self.context.account])
        within = {
            "kms:ViaService": f"s3.{self.region}.amazonaws.com",
            # With a bucket's own data key, it is the bucket that is encrypted for.
            "kms:EncryptionContext:aws:s3:arn": shared,
        }
        return rendered(
            [
                _allow("Account", own, ["kms:*"], ["*"]),
                {
                    **_allow("StacksAfter", roots(self._readers), ["kms:Decrypt"], ["*"]),
                    "Condition": {"StringEquals": within},
                },
            ]
        )

    def _arn(self, bucket: str) -> str:
        if bucket not in self._buckets:
            raise KeyError(bucket)
        return f"arn:aws:s3:::{self.bucket(bucket)}"

    def _bucket(self, name: str) -> Bucket:
        context = self.context
        made = Bucket(
            name,
            bucket=self.bucket(name),
            force_destroy=not context.kept,
            tags=context.tagged(name),
            opts=self.lasting(),
        )
        closed = BucketPublicAccessBlock(
            name,
            bucket=made.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=self.child(),
        )
        BucketOwnershipControls(
            name,
            bucket=made.id,
            rule={"object_ownership": "BucketOwnerEnforced"},
            opts=self.child(),
        )
        versions = BucketVersioning(
            name,
            bucket=made.id,
            versioning_configuration={"status": "Enabled"},
            opts=self.child(),
        )
        BucketServerSideEncryptionConfiguration(
            name,
            bucket=made.id,
            rules=[
                {
                    "apply_server_side_encryption_by_default": {
                        "sse_algorithm": "aws:kms",
                        "kms_master_key_id": self._key.arn,
                    },
                    "bucket_key_enabled": True,
                }
            ],
            opts=self.child(),
        )
        BucketLifecycleConfiguration(
            name,
            bucket=made.id,
            rules=[
                {
                    "id": "remains",
                    "status": "Enabled",
                    "filter": {},
                    "abort_incomplete_multipart_upload": {"days_after_initiation": 7},
                    "noncurrent_version_expiration": {
                        "noncurrent_days": 365 if context.protected else 30
                    },
                },
                *(
                    [
                        {
                            "id": "old",
                            "status": "Enabled",
                            "filter": {},
                            "expiration": {"days": EXPIRE[name]},
                        }
                    ]
                    if name in EXPIRE
                    else []
                ),
            ],
            opts=self.child(versions),
        )
        BucketPolicy(
            name,
            bucket=made.id,
            policy=made.arn.apply(lambda arn: rendered([_tls_only(arn), *self._shared(name, arn)])),
            # Public access is blocked first, or a policy may be taken for a public one.
            opts=self.child(closed),
        )
        return made

    def _shared(self, name: str, arn: str) -> list[dict[str, Any]]:
        """Lets the accounts of stacks that come after read."""
        if not self._readers or name not in SHARED:
            return []
        accounts = roots(self._readers)
        return [
            _allow("StacksAfterLook", accounts, ["s3:ListBucket"], [arn]),
            _allow("StacksAfterRead", accounts, ["s3:GetObject"], [f"{arn}/*"]),
        ]


def _tls_only(arn: str) -> dict[str, Any]:
    return {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def _allow(
    sid: str, principals: Sequence[str], actions: Sequence[str], resources: Sequence[str]
) -> dict[str, Any]:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"AWS": principals},
        "Action": actions,
        "Resource": resources,
    }
