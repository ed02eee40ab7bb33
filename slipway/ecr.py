"""The registry of a stack on AWS: there before the rest of the stack, whose pods pull from it."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slipway import aws, cost, images, paths, pulumi, toolchain, up
from slipway.errors import BadInput, SlipwayError

if TYPE_CHECKING:
    from infra.config import StackConfig

# What the program makes of it. Of a stack that is there, all else stays as it is.
TARGETS = ("**::pulumi:providers:aws::aws", "**::slipway:aws:Registry**")


@dataclass(frozen=True)
class Registry:
    """`address`: host of the stack's own ECR."""

    stack: str
    config: StackConfig
    address: str

    @classmethod
    def of(cls, stack: str) -> Registry:
        """The registry that a stack makes.

        Raises:
            BadInput: no such stack, its file is wrong, or its images come from elsewhere.
        """
        pulumi.is_embedded(stack)  # says which stacks there are
        file = paths.stack_file(stack)
        config = cost.stack_config(file.read_bytes(), stack)
        if config.cluster != "eks" or config.aws is None:
            raise BadInput(
                "only a stack on AWS has a registry of its own",
                file=paths.told(file),
                field="slipway:cluster",
                fix=f"name one: slipway push REGISTRY --stack {stack}",
            )
        if config.aws.registryOf:
            raise BadInput(
                f"its images come from the registry of {config.aws.registryOf}",
                file=paths.told(file),
                field="slipway:aws.registryOf",
                fix=f"slipway push --stack {config.aws.registryOf}",
            )
        host = f"{config.aws.account}.dkr.ecr.{config.aws.region}.amazonaws.com"
        return cls(stack, config, host)

    def provide(self, tell: Callable[[str], None]) -> None:
        """Makes it, unless the stack's state has it.

        Raises:
            SlipwayError: the engine failed.
        """
        if {f"slipway/{name}" for name in images.own()} <= pulumi.known(self.stack).ids:
            return
        toolchain.build(pulumi.TOOLS, progress=up.news(tell, "cached"))
        tell(f"pulumi up: {self.address}")
        targets = [word for target in TARGETS for word in ("--target", target)]
        log = paths.state() / "logs" / f"pulumi-registry-{self.stack}.log"
        code = pulumi.follow(
            self.stack,
            *("up", "--yes", "--skip-preview", "--non-interactive", *targets),
            log=log,
            on_line=lambda _: None,
            variables={images.ONLY_REGISTRY: "1"},
        )
        if code:
            why = up.diagnostics(log.read_text())
            raise SlipwayError(f"pulumi up failed\n{why}", fix=f"see {log}, then do the same again")

    @contextlib.contextmanager
    def login(self) -> Generator[Path]:
        """A file by which skopeo may push, as the role that deploys the stack; it goes afterwards.

        Raises:
            SlipwayError: AWS does not answer.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = aws.clients(self.config)("ecr").get_authorization_token()
        except (BotoCoreError, ClientError) as error:
            raise aws.unanswered(error) from None
        token = answer["authorizationData"][0]["authorizationToken"]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "auth.json")
            file.write_text(json.dumps({"auths": {self.address: {"auth": token}}}))
            yield file
