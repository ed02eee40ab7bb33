"""The Pulumi program: which components a stack has, and what each hands to the others."""

import gc
import sys
from pathlib import Path

# What is imported and registered here lives until the end: looking for garbage takes a fifth of the
# time of a stack on AWS.
gc.set_threshold(100_000, 50, 50)
# Pulumi puts this folder itself on the path; its packages are named from the repository's root.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

import pulumi  # noqa: E402

from infra import stack  # noqa: E402
from slipway.errors import SlipwayError  # noqa: E402

try:
    stack.build()
except SlipwayError as error:
    raise pulumi.RunError(str(error)) from None
