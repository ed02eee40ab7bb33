"""What pods may do, run and use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from policies.infrastructure.limits import Limits
from policies.infrastructure.resources import UNKNOWN, Resource, at, each
from policies.infrastructure.rule import Rule

Container = Mapping[str, Any]
_TEMPLATES = {
    "Pod": ("spec",),
    "PodTemplate": ("template", "spec"),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
    **dict.fromkeys(
        ("DaemonSet", "Deployment", "Job", "ReplicaSet", "Rollout", "StatefulSet"),
        ("spec", "template", "spec"),
    ),
}
_BY_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
# Those that the restricted Pod Security Standard leaves.
_CAPABILITIES = {"NET_BIND_SERVICE"}


def pod_of(resource: Resource) -> Mapping[str, Any]:
    """The pod that a workload is made of; empty for all else."""
    path = _TEMPLATES.get(resource.kind)
    found = resource.get(*path) if path else None
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}


def containers(pod: Mapping[str, Any]) -> list[Container]:
    """All of a pod's, those that start it included."""
    kinds = ("initContainers", "containers", "ephemeralContainers")
    return [c for kind in kinds for c in each(pod.get(kind)) if isinstance(c, Mapping)]


def pods_unprivileged(resource: Resource, limits: Limits) -> Iterator[str]:
    """No pod has power over its node, except in the namespaces meant for that."""
    pod = pod_of(resource)
    if not pod or resource.namespace in limits.privileged_namespaces:
        return
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name) is True:
            yield f"{name}: true; leave it out"
    for volume in each(pod.get("volumes")):
        if at(volume, "hostPath") is not None:
            yield f"volumes[{at(volume, 'name')}]: hostPath is the node's own disk"
    for container in containers(pod):
        context, where = container.get("securityContext"), f"containers[{container.get('name')}]"
        if at(context, "privileged") is True:
            yield f"{where}: privileged: true; leave it out"
        if at(context, "allowPrivilegeEscalation") not in (False, UNKNOWN):
            yield f"{where}: allowPrivilegeEscalation: false is missing"
        added = {str(c) for c in each(at(context, "capabilities", "add"))} - _CAPABILITIES
        if added:
            yield f"{where}: capabilities.add: {', '.join(sorted(added))}; leave it out"
        user = at(context, "runAsUser")
        if user is None:
            user = at(pod, "securityContext", "runAsUser")
        no_root = True in (
            at(context, "runAsNonRoot"),
            at(pod, "securityContext", "runAsNonRoot"),
        )
        if user == 0 or not (no_root or user):
            yield f"{where}: runAsNonRoot: true is missing"


def images_versioned(resource: Resource, limits: Limits) -> Iterator[str]:
    """An image is named by a version, not `latest`."""
    for where, image in _images(resource):
        tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
        if not _BY_DIGEST.search(image) and tag in ("", "latest"):
            yield f"{where}: {image} has no version; name one, and its digest"


def images_pinned(resource: Resource, limits: Limits) -> Iterator[str]:
    """An image is named by its digest, since a tag can move."""
    for where, image in _images(resource):
        if not _BY_DIGEST.search(image):
            yield f"{where}: {image} has no digest"


def _images(resource: Resource) -> Iterator[tuple[str, str]]:
    for container in containers(pod_of(resource)):
        image = container.get("image")
        if isinstance(image, str):
            yield f"containers[{container.get('name')}].image", image


def resources_set(resource: Resource, limits: Limits) -> Iterator[str]:
    """A container requests what it needs, and has a memory limit."""
    for container in containers(pod_of(resource)):
        where = f"containers[{container.get('name')}].resources"
        asked = container.get("resources")
        if asked is UNKNOWN:
            continue
        for path in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
            # What has a limit and no request requests its limit.
            if at(asked, *path) is None and at(asked, "limits", path[1]) is None:
                yield f"{where}.{'.'.join(path)} is missing"


RULES = (Rule(pods_unprivileged), Rule(images_versioned), Rule(images_pinned), Rule(resources_set))
