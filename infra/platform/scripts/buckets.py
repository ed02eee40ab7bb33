"""Brings MinIO's buckets, users and policies into the state that settings.json describes."""

import json
import os
from pathlib import Path

from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.credentials.providers import StaticProvider
from minio.lifecycleconfig import LifecycleConfig, NoncurrentVersionExpiration, Rule
from minio.minioadmin import MinioAdmin
from minio.versioningconfig import VersioningConfig

settings = json.loads(Path(__file__).with_name("settings.json").read_text())
root = os.environ["MINIO_ROOT_USER"], os.environ["MINIO_ROOT_PASSWORD"]
client = Minio(endpoint=settings["endpoint"], access_key=root[0], secret_key=root[1], secure=False)
admin = MinioAdmin(endpoint=settings["endpoint"], credentials=StaticProvider(*root), secure=False)


def allow(actions: list[str], resources: list[str]) -> dict[str, object]:
    return {"Effect": "Allow", "Action": actions, "Resource": resources}


def policy(read: list[str], write: list[str]) -> list[dict[str, object]]:
    """Rights on whole buckets. Nothing may be deleted where `write` alone is given."""
    buckets = [f"arn:aws:s3:::{bucket}" for bucket in {*read, *write}]
    statements = [
        allow(["s3:GetBucketLocation", "s3:ListBucket"], buckets),
        allow(["s3:GetObject"], [f"{bucket}/*" for bucket in buckets]),
    ]
    if write:
        put = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
        statements.append(allow(put, [f"arn:aws:s3:::{bucket}/*" for bucket in write]))
    return statements


# Who may write may overwrite: what was there before can be had back for so long. Where it is
# somebody's work to delete, it is for good.
emptied = {bucket for rights in settings["users"].values() for bucket in rights["delete"]}
kept = Rule(
    rule_id="former-versions",
    status=ENABLED,
    rule_filter=Filter(prefix=""),
    noncurrent_version_expiration=NoncurrentVersionExpiration(noncurrent_days=30),
)
for bucket in settings["buckets"]:
    if not client.bucket_exists(bucket_name=bucket):
        client.make_bucket(bucket_name=bucket)
    if bucket not in emptied:
        client.set_bucket_versioning(bucket_name=bucket, config=VersioningConfig(status=ENABLED))
        client.set_bucket_lifecycle(bucket_name=bucket, config=LifecycleConfig(rules=[kept]))
    print(f"bucket {bucket} is there")

for user, rights in settings["users"].items():
    statements = policy(rights["read"], rights["write"])
    if rights["put"]:
        prefixes = [f"arn:aws:s3:::{prefix}*" for prefix in rights["put"]]
        statements.append(allow(["s3:PutObject"], prefixes))
    if rights["delete"]:
        owned = [f"arn:aws:s3:::{bucket}/*" for bucket in rights["delete"]]
        statements.append(allow(["s3:DeleteObject"], owned))
    admin.policy_add(policy_name=user, policy={"Version": "2012-10-17", "Statement": statements})
    admin.user_add(access_key=user, secret_key=Path(settings["secrets"], user).read_text())
    admin.policy_set(policy_name=user, user=user)
    print(f"user {user} is there")
