"""The policy pack as Pulumi runs it: `pulumi preview --policy-pack policies/infrastructure`."""

import sys
from pathlib import Path

# Pulumi puts this folder itself on the path; its modules are named from the repository's root.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from policies.infrastructure import pack  # noqa: E402

pack.serve()
