"""What changed between two sets of inputs, what that forces to be replaced, and what drifted."""

from __future__ import annotations

import base64
import json
import re
from itertools import zip_longest
from typing import Any, Literal

Object = dict[str, Any]
Path = tuple[str | int, ...]
Change = Literal["ADD", "DELETE", "UPDATE"]


def changes(old: Any, new: Any, path: Path = ()) -> dict[Path, Change]:
    """Every leaf that differs, by its path. Null members of objects count as absent."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(k, old.get(k), new.get(k)) for k in dict.fromkeys([*old, *new])]
    elif isinstance(old, list) and isinstance(new, list):
        pairs = [(i, a, b) for i, (a, b) in enumerate(zip_longest(old, new))]
    elif old is None or new is None:
        return {} if old is new else {path: "ADD" if old is None else "DELETE"}
    else:
        # True == 1 in Python, and not in JSON.
        same = old == new and isinstance(old, bool) == isinstance(new, bool)
        return {} if same else {path: "UPDATE"}
    return {p: c for key, a, b in pairs for p, c in changes(a, b, (*path, key)).items()}


def property_path(path: Path) -> str:
    """As the engine writes it: `spec.ports[0]`, `metadata.labels["a.b/c"]`."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        elif re.fullmatch(r"[A-Za-z_$][\w$]*", key):
            text += f".{key}" if text else key
        else:
            text += f"[{json.dumps(key)}]"
    return text


def parse_path(text: str) -> Path:
    """The inverse of `property_path`."""
    parts = re.findall(r'\[(\d+|"(?:[^"\\]|\\.)*")\]|([^.\[\]]+)', text)
    return tuple(name or json.loads(index) for index, name in parts)


# Fields that the API server refuses to change, by (group, kind).
_WORKLOAD = ("spec.selector",)
_IMMUTABLE: dict[tuple[str, str], tuple[str, ...]] = {
    ("apps", "Deployment"): _WORKLOAD,
    ("apps", "DaemonSet"): _WORKLOAD,
    ("apps", "StatefulSet"): (
        *_WORKLOAD,
        "spec.podManagementPolicy",
        "spec.revisionHistoryLimit",
        "spec.serviceName",
        "spec.volumeClaimTemplates",
    ),
    ("batch", "Job"): ("spec.selector", "spec.template", "spec.completions", "spec.parallelism"),
    ("rbac.authorization.k8s.io", "RoleBinding"): ("roleRef",),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): ("roleRef",),
    ("storage.k8s.io", "StorageClass"): ("parameters", "provisioner"),
    ("", "Service"): ("spec.clusterIP",),
    ("", "Secret"): ("type",),
    ("", "ResourceQuota"): ("spec.scopes",),
    ("", "PersistentVolumeClaim"): ("spec",),
    ("", "PersistentVolume"): ("spec",),
    ("", "Pod"): ("spec",),
}
_MUTABLE_WITHIN: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "PersistentVolumeClaim"): ("spec.resources", "spec.volumeAttributesClassName"),
    ("", "PersistentVolume"): (
        "spec.accessModes",
        "spec.capacity",
        "spec.claimRef",
        "spec.mountOptions",
        "spec.nodeAffinity",
        "spec.persistentVolumeReclaimPolicy",
        "spec.storageClassName",
        "spec.volumeAttributesClassName",
    ),
    ("", "Pod"): ("spec.activeDeadlineSeconds", "spec.tolerations"),
}
_CONTENT = {"Secret": ("data", "stringData"), "ConfigMap": ("data", "binaryData")}


def group_of(obj: Object) -> str:
    """The API group; empty for the core group."""
    group, _, version = str(obj.get("apiVersion") or "").rpartition("/")
    return group if version else ""


def replaces(path: Path, old: Object, new: Object, mutable: frozenset[str]) -> bool:
    """Whether a change at `path` needs a new object. `mutable`: of ConfigMap and Secret, the kinds
    whose content may be changed in place (by the provider's configuration)."""
    if path in (("metadata",), ("metadata", "name"), ("metadata", "namespace"), ("kind",)):
        return True
    if path == ("apiVersion",):
        return group_of(old) != group_of(new)
    key = (group_of(new), str(new.get("kind")))
    if any(_within(path, p) for p in _MUTABLE_WITHIN.get(key, ())):
        return False
    fixed = [parse_path(p) for p in _IMMUTABLE.get(key, ())]
    if key[0] == "" and key[1] in _CONTENT:
        frozen = old.get("immutable") is True or new.get("immutable") is True
        if frozen or key[1] not in mutable:
            fixed += [(name,) for name in _CONTENT[key[1]]]
        if old.get("immutable") is True:
            fixed.append(("immutable",))
    return any(path[: len(p)] == p or p[: len(path)] == path for p in fixed)


def _within(path: Path, prefix: str) -> bool:
    parts = parse_path(prefix)
    return path[: len(parts)] == parts


# What tells one member of a list from another, in Kubernetes' own lists.
_IDENTITIES = ("name", "key", "mountPath", "devicePath", "containerPort", "port", "ip", "uid")


def refreshed(inputs: Any, before: Any, now: Any) -> Any:
    """`inputs` as they are on the server: changed where the object changed since we last saw it.

    `before` and `now` are the object then and now. Fields that we never set are left out, and what
    the server only writes in another way (`1000m`, `1`) is kept as the program wrote it.
    """
    if before == now:
        return inputs
    if isinstance(inputs, dict) and isinstance(now, dict):
        then = before if isinstance(before, dict) else {}
        out: Object = {}
        for key, value in inputs.items():
            if key in now:
                out[key] = refreshed(value, then.get(key), now[key])
            elif key not in then:
                out[key] = value  # the server never kept it: an empty map, say
        return out
    if isinstance(inputs, list) and isinstance(now, list):
        then_list: list[Any] = before if isinstance(before, list) else []
        identity = _identity(inputs, now)
        if identity:
            # Members that others added (a side-car, a mounted token) are theirs.
            was = {m.get(identity): m for m in then_list if isinstance(m, dict)}
            live = {m[identity]: m for m in now}
            return [
                refreshed(m, was.get(m[identity]), live[m[identity]])
                for m in inputs
                if m[identity] in live
            ]
        if len(inputs) == len(now):
            then_list = then_list if len(then_list) == len(now) else [None] * len(now)
            return [refreshed(*members) for members in zip(inputs, then_list, now, strict=True)]
    return now


def _identity(inputs: list[Any], now: list[Any]) -> str:
    if not inputs or not all(isinstance(m, dict) for m in (*inputs, *now)):
        return ""
    for key in _IDENTITIES:
        if all(key in m for m in (*inputs, *now)):
            unique = {json.dumps(m[key]) for m in now}
            return key if len(unique) == len(now) else ""
    return ""


def refreshed_object(inputs: Object, before: Object, now: Object) -> Object:
    """`refreshed` for a whole object: a Secret's `stringData` is compared with its `data`."""
    text = inputs.get("stringData")
    if now.get("kind") != "Secret" or not isinstance(text, dict):
        return refreshed(inputs, before, now)
    return refreshed(inputs, _with_text(before, text), _with_text(now, text))


def _with_text(obj: Object, keys: Object) -> Object:
    data: Object = obj.get("data") or {}
    found = {k: base64.b64decode(data[k]).decode(errors="replace") for k in keys if k in data}
    return {**obj, "stringData": found}


_SERVER_SET = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)
_SERVER_ANNOTATIONS = (
    "deployment.kubernetes.io/revision",
    "kubectl.kubernetes.io/last-applied-configuration",
)


def inputs_of(live: Object) -> Object:
    """The inputs that would make an object like `live`: what `pulumi import` starts from."""
    inputs = {k: v for k, v in live.items() if k != "status"}
    metadata = {k: v for k, v in live["metadata"].items() if k not in _SERVER_SET}
    annotations = metadata.get("annotations") or {}
    metadata["annotations"] = {k: v for k, v in annotations.items() if k not in _SERVER_ANNOTATIONS}
    if not metadata["annotations"]:
        del metadata["annotations"]
    return {**inputs, "metadata": metadata}
