"""ECR: the images that only Slipway has. A tag is written once, and every image is scanned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_aws.ecr.lifecycle_policy import LifecyclePolicy
from pulumi_aws.ecr.repository import Repository
from pulumi_aws.ecr.repository_policy import RepositoryPolicy

from infra.aws.component import AwsComponent, Context
from infra.aws.policy import rendered, roots

IMAGES = ["mlflow", "serving", "training"]
PULL = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]


@dataclass(frozen=True)
class RegistryArgs:
    context: Context
    readers: Sequence[str]
    """Accounts of other stacks, which pull from here."""


class Registry(AwsComponent):
    """`address`: where `slipway/<image>` is pushed to and pulled from."""

    address: str

    def __init__(
        self, name: str, args: RegistryArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Registry", name, args.context, opts)
        context = args.context
        self.address = f"{context.account}.dkr.ecr.{context.region}.amazonaws.com"
        for image in IMAGES:
            repository = Repository(
                image,
                name=f"slipway/{image}",
                image_tag_mutability="IMMUTABLE",
                image_scanning_configuration={"scan_on_push": True},
                encryption_configurations=[{"encryption_type": "KMS"}],
                force_delete=not context.kept,
                tags=context.tagged(image),
                opts=self.lasting(),
            )
            LifecyclePolicy(
                image, repository=repository.name, policy=json.dumps(UNTAGGED), opts=self.child()
            )
            if args.readers:
                RepositoryPolicy(
                    image,
                    repository=repository.name,
                    policy=_pull(args.readers),
                    opts=self.child(),
                )
        self.register_outputs({"address": self.address})


# Release files name images by digest: one that has a tag may be in use, however old.
UNTAGGED = {
    "rules": [
        {
            "rulePriority": 1,
            "description": "what lost its tag in a push that failed",
            "selection": {
                "tagStatus": "untagged",
                "countType": "sinceImagePushed",
                "countUnit": "days",
                "countNumber": 30,
            },
            "action": {"type": "expire"},
        }
    ]
}


def _pull(accounts: Sequence[str]) -> str:
    principal = {"AWS": roots(accounts)}
    statement = {"Sid": "OtherStacks", "Effect": "Allow", "Principal": principal, "Action": PULL}
    return rendered([statement])
