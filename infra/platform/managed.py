"""What Argo CD manages, by kind: what its projects admit, and its accounts see and change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from infra.platform.rights import READ, Rule

# Group to kinds: what an environment is made of (the serving chart, the list of releases), and what
# the workflows are.
SERVING_KINDS = {
    "": ["ConfigMap", "Service"],
    "apps": ["Deployment"],
    "autoscaling": ["HorizontalPodAutoscaler"],
    "gateway.networking.k8s.io": ["HTTPRoute"],
    "networking.k8s.io": ["NetworkPolicy"],
    "policy": ["PodDisruptionBudget"],
    "slipway.dev": ["ReleaseSet"],
}
WORKFLOW_KINDS = {
    "": ["ConfigMap"],
    "argoproj.io": ["CronWorkflow", "WorkflowEventBinding", "WorkflowTemplate"],
}
# What others make of these, which is shown; and where kinds are made that were not there before.
_SEEN = {
    "": ["Pod"],
    "apiextensions.k8s.io": ["CustomResourceDefinition"],
    "apps": ["ReplicaSet"],
    "argoproj.io": ["Workflow"],
    "discovery.k8s.io": ["EndpointSlice"],
}


def inclusions() -> str:
    """Argo CD's `resource.inclusions`: it looks at no other kind, or it would ask for all."""
    return json.dumps(
        [
            {"apiGroups": [group], "kinds": kinds, "clusters": ["*"]}
            for group, kinds in _kinds(SERVING_KINDS, WORKFLOW_KINDS, _SEEN).items()
        ]
    )


def managed(verbs: list[str]) -> list[Rule]:
    """Rights to what Argo CD makes."""
    kinds = _kinds(SERVING_KINDS, WORKFLOW_KINDS)
    return [(group, list(map(_resource, names)), verbs) for group, names in kinds.items()]


def seen() -> list[dict[str, Any]]:
    """Rights to read that and what comes of it, as a manifest has them: no Secret is among it."""
    kinds = _kinds(SERVING_KINDS, WORKFLOW_KINDS, _SEEN)
    return [
        {"apiGroups": [group], "resources": list(map(_resource, names)), "verbs": READ}
        for group, names in kinds.items()
    ]


def _kinds(*maps: Mapping[str, list[str]]) -> dict[str, list[str]]:
    found: dict[str, dict[str, None]] = {}
    for kinds in maps:
        for group, names in kinds.items():
            found.setdefault(group, {}).update(dict.fromkeys(names))
    return {group: list(names) for group, names in found.items()}


def _resource(kind: str) -> str:
    """What the API calls objects of a kind in an address."""
    return f"{kind[:-1]}ies".lower() if kind.endswith("y") else f"{kind}s".lower()
