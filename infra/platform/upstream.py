"""Manifests of others, read from their modules, patched as data and registered one by one."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pulumi
import yaml

from slipway.errors import SlipwayError

Manifest = dict[str, Any]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
WORKLOADS = {"Deployment", "StatefulSet"}
CLUSTER_SCOPED = {
    "APIService",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
    "PriorityClass",
    "StorageClass",
}


def load(*files: Path) -> list[Manifest]:
    """Every object in `files`, in order."""
    return [
        document
        for file in files
        for document in yaml.load_all(file.read_text(), Loader=_LOADER)
        if document
    ]


def load_list(file: Path) -> list[Manifest]:
    """The patches in a file: one list of them."""
    return yaml.safe_load(file.read_text())


def patch(objects: Iterable[Manifest], patches: Sequence[Manifest]) -> list[Manifest]:
    """The objects with each patch laid over those of its kind and name (`"*"`: any name).

    Maps are merged and null removes a key; lists whose items have a name are merged by it and
    other lists replaced; `$patch: delete` removes an object or a list's item, `$patch: replace`
    puts a map in place of another.

    Raises:
        SlipwayError: a patch fits no object, so what it was for has moved upstream.
    """
    result: list[Manifest | None] = [_copy(o) for o in objects]
    for change in patches:
        kind, name = change["kind"], change["metadata"]["name"]
        hits = [
            index
            for index, item in enumerate(result)
            if item and item["kind"] == kind and name in ("*", item["metadata"]["name"])
        ]
        if not hits:
            raise SlipwayError(f"upstream has no {kind} {name} to patch")
        for index in hits:
            item = result[index]
            if item is None or change.get("$patch") == "delete":
                result[index] = None
                continue
            overlay = {k: v for k, v in change.items() if k not in ("kind", "apiVersion")}
            overlay["metadata"] = {k: v for k, v in change["metadata"].items() if k != "name"}
            result[index] = _merge(item, overlay)
    return [item for item in result if item is not None]


def _copy(value: Any) -> Any:
    """A copy of maps and lists; Pulumi's outputs within them cannot be copied."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [_copy(item) for item in cast(list[Any], value)]
    return value


def _merge(base: Any, overlay: Any) -> Any:
    if isinstance(overlay, dict) and overlay.get("$patch") == "replace":
        return {key: value for key, value in overlay.items() if key != "$patch"}
    if isinstance(base, dict) and isinstance(overlay, dict):
        merged = dict(cast(dict[str, Any], base))
        for key, value in cast(dict[str, Any], overlay).items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = _merge(merged.get(key), value)
        return merged
    if _named(base) and _named(overlay):
        by_name = {item["name"]: item for item in base}
        for item in overlay:
            if item.get("$patch") == "delete":
                by_name.pop(item["name"], None)
            else:
                by_name[item["name"]] = _merge(by_name.get(item["name"]), item)
        return list(by_name.values())
    return overlay


def _named(value: Any) -> bool:
    items = cast(list[Any], value) if isinstance(value, list) else []
    return bool(items) and all(isinstance(i, dict) and "name" in i for i in items)


def pod_spec(manifest: Manifest) -> Manifest | None:
    """The pod specification within a workload's manifest, if it has one."""
    spec = manifest.get("spec")
    return spec["template"]["spec"] if isinstance(spec, dict) and "template" in spec else None


def with_images(objects: Iterable[Manifest], images: Mapping[str, str]) -> list[Manifest]:
    """The objects with every container's image replaced.

    Args:
        images: repository of the upstream image (no tag) to the reference to run.

    Raises:
        SlipwayError: an image is not in `images`: nothing unpinned may run.
    """
    result = [_copy(o) for o in objects]
    for manifest in result:
        pod = pod_spec(manifest)
        if manifest["kind"] not in WORKLOADS or not pod:
            continue
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            repository = container["image"].split("@")[0].rsplit(":", 1)[0]
            if repository not in images:
                raise SlipwayError(f"no image of ours for {container['image']}")
            container["image"] = images[repository]
            container["imagePullPolicy"] = "IfNotPresent"
    return result


def in_namespace(objects: Iterable[Manifest], namespace: pulumi.Input[str]) -> list[Manifest]:
    """The objects placed in `namespace`, and the service accounts that bindings name with them."""
    result = [_copy(o) for o in objects]
    for manifest in result:
        if manifest["kind"] not in CLUSTER_SCOPED:
            manifest["metadata"]["namespace"] = namespace
        for subject in manifest.get("subjects", []):
            subject["namespace"] = namespace
    return result


def register(
    prefix: str, manifest: Mapping[str, Any], opts: pulumi.ResourceOptions
) -> pulumi.CustomResource:
    """Registers one object under the type that the Kubernetes provider knows it by."""
    version = str(manifest["apiVersion"])
    group = version if "/" in version else f"core/{version}"
    metadata = manifest["metadata"]
    parts = [prefix, manifest["kind"].lower(), metadata.get("namespace"), metadata["name"]]
    pinned = pulumi.ResourceOptions(version=importlib.metadata.version("pulumi-kubernetes"))
    return pulumi.CustomResource(
        f"kubernetes:{group}:{manifest['kind']}",
        "-".join(part for part in parts if isinstance(part, str)),
        dict(manifest),
        pulumi.ResourceOptions.merge(opts, pinned),
    )


def register_all(
    prefix: str,
    objects: Sequence[Manifest],
    options: Callable[..., pulumi.ResourceOptions],
    before: Sequence[pulumi.Resource] = (),
) -> None:
    """Registers workloads after what they read at their start, so that none starts in vain.

    Args:
        options: makes a child's options from the resources that it waits for.
        before: further resources that workloads wait for.
    """
    workloads = [m for m in objects if m["kind"] in WORKLOADS]
    first = [register(prefix, m, options()) for m in objects if m["kind"] not in WORKLOADS]
    for manifest in workloads:
        register(prefix, manifest, options(*first, *before))
