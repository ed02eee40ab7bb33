"""S3 in MinIO's place: the same buckets and clients, who are known by their pod, not by a key."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
from infra.aws.policy import VERSION, Statement
from infra.platform.minio import Credentials, Rights

# Days after which what nobody would miss goes; everything else is content-addressed, and stays.
EXPIRE = {"workflows": 90}


@dataclass(frozen=True)
class ObjectsArgs:
    context: Context
    buckets: Sequence[str]


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
        self._key = self.key("objects", f"Objects of {args.context.name}", self.lasting())
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
        return [*result, Statement("Key", actions, [self._key.arn])]

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
            policy=made.arn.apply(_tls_only),
            # Public access is blocked first, or a policy may be taken for a public one.
            opts=self.child(closed),
        )
        return made


def _tls_only(arn: str) -> str:
    return json.dumps(
        {
            "Version": VERSION,
            "Statement": [
                {
                    "Sid": "TlsOnly",
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:*",
                    "Resource": [arn, f"{arn}/*"],
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                }
            ],
        }
    )
