"""The JSON schema of an environment's document; `python -m` this writes it."""

from __future__ import annotations

import json
from typing import Any

from policies.infrastructure.limits import FOLDER, LEVELS, Limits
from policies.infrastructure.rules import RULES

FILE = FOLDER / "schema.json"


def schema() -> dict[str, Any]:
    """JSON schema of `policies/infrastructure/<env>.yaml`: every rule has a level."""
    found = Limits.model_json_schema()
    found["title"] = "Levels and limits of one environment"
    found["properties"]["levels"] = {
        "type": "object",
        "properties": {
            rule.name: {"enum": list(LEVELS), "description": rule.description}
            for rule in RULES.values()
        },
        "required": list(RULES),
        "additionalProperties": False,
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


if __name__ == "__main__":
    FILE.write_text(json.dumps(schema(), indent=2) + "\n")
