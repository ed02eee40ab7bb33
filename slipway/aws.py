"""AWS as the role that deploys a stack, for what no program of Pulumi's does."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from slipway import paths
from slipway.errors import SlipwayError

if TYPE_CHECKING:
    from infra.config import StackConfig

# boto3's clients, by the service's name.
Client = Callable[[str], Any]


def teardown() -> Any:
    """The part of the program that knows what a cluster makes by itself."""
    if str(paths.REPOSITORY) not in sys.path:
        sys.path.append(str(paths.REPOSITORY))
    return importlib.import_module("infra.aws.teardown").GoneProvider()


def clients(config: StackConfig) -> Client:
    """Clients in the stack's account and region, by the role that deploys it.

    Raises:
        SlipwayError: AWS does not answer, or does not let the caller be that role.
    """
    assert config.aws  # noqa: S101  # on AWS it has one
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return teardown().session(config.aws.region, config.aws.deployRole).client
    except (BotoCoreError, ClientError) as error:
        raise unanswered(error) from None


def unanswered(error: Exception) -> SlipwayError:
    """What to tell of an exception of botocore's."""
    return SlipwayError(
        f"AWS does not answer as it should: {error}",
        fix="log in (aws sso login, AWS_PROFILE) as somebody who may assume the deployRole",
    )
