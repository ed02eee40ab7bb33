"""AWS's own policies that may be attached: `policies/infrastructure/managed_policies.yaml`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import Field

from policies.infrastructure.limits import FOLDER, Why
from slipway import documents
from slipway.release import Strict

FILE = FOLDER / "managed_policies.yaml"
Arn = Annotated[str, Field(pattern=r"^arn:aws:iam::aws:policy/([a-z-]+/)?[A-Za-z0-9_-]+$")]
Action = Annotated[str, Field(pattern=r"^[a-z0-9-]+:[A-Za-z]*\*?$")]


class Managed(Strict):
    """What a policy is for, and what it allows at most."""

    why: Why
    grants: tuple[Action, ...] = Field(min_length=1)

    def allows(self, action: str) -> bool:
        return any(fnmatchcase(action, pattern) for pattern in self.grants)


class _Document(Strict):
    policies: dict[Arn, Managed]


def parse(text: str | bytes, file: Path | str) -> Mapping[str, Managed]:
    """By ARN. `BadInput` names what is wrong in the file."""
    return documents.parse(_Document, text, file).policies


@functools.cache
def policies() -> Mapping[str, Managed]:
    """Those committed."""
    return parse(FILE.read_bytes(), FILE)
