"""The resource provider: Pulumi's operations on Kubernetes objects, by server-side apply."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import yaml
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty

from . import VERSION, awaits, diff
from .api import APPLY, ApiError, Cluster, NoKind, Unreachable
from .kubeconfig import Access, KubeconfigError
from .kubeconfig import load as load_kubeconfig
from .protocol import (
    engine_pb2,
    engine_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
    status_pb2,
)
from .values import (
    Object,
    Secret,
    decode,
    encode,
    has_unknown,
    mark_secrets,
    plain,
    secret_texts,
    without_nulls,
)

DEFAULT_TIMEOUT_S = 600.0
# Kinds on whose account nothing else is made.
CHILDLESS = {
    *("ClusterRole", "ClusterRoleBinding", "ConfigMap", "NetworkPolicy", "PriorityClass", "Role"),
    *("RoleBinding", "Secret", "ServiceAccount", "StorageClass", "ValidatingAdmissionPolicy"),
    "ValidatingAdmissionPolicyBinding",
}
RETRY_S = 30.0  # how long a missing namespace or kind may take to appear

Context = grpc.ServicerContext


class Failure(Exception):
    """An operation failed; the message is for the user."""


class InitFailure(Failure):
    """The object is on the server but not ready; `response` is what the state keeps of it."""

    def __init__(self, urn: str, reasons: list[str], response: Any) -> None:
        name = urn.rpartition("::")[2]
        super().__init__("\n".join([f"{name} is on the cluster but not ready:", *reasons]))
        self.reasons, self.response = reasons, response


class Log:
    """The engine's log."""

    def __init__(self, address: str) -> None:
        self._engine: Any = None
        self._said: set[tuple[str, str]] = set()
        if address:
            self._engine = engine_pb2_grpc.EngineStub(grpc.insecure_channel(address))

    def _send(self, severity: int, urn: str, message: str, ephemeral: bool = False) -> None:
        if self._engine is None:
            return
        request: Any = engine_pb2.LogRequest(
            severity=severity,  # pyright: ignore[reportArgumentType]
            urn=urn,
            message=message,
            ephemeral=ephemeral,
        )
        with suppress(grpc.RpcError):
            self._engine.Log(request)

    def warn(self, urn: str, message: str) -> None:
        """A warning, once for each resource and text."""
        if (urn, message) not in self._said:
            self._said.add((urn, message))
            self._send(engine_pb2.WARNING, urn, message)

    def progress(self, urn: str, message: str) -> None:
        """A line that the next one replaces."""
        self._send(engine_pb2.INFO, urn, message, ephemeral=True)


def _flag(config: Object, name: str, variable: str, default: bool = False) -> bool:
    value = config.get(name)
    text = os.environ.get(variable, str(default)) if value is None else str(value)
    return text.lower() == "true"


def _namespace(obj: Object) -> str:
    return str((obj.get("metadata") or {}).get("namespace") or "")


def _name(obj: Object) -> str:
    return str((obj.get("metadata") or {}).get("name") or "")


def _id(live: Object) -> str:
    namespace = _namespace(live)
    return f"{namespace}/{_name(live)}" if namespace else _name(live)


def _of_token(urn: str) -> tuple[str, str]:
    """(apiVersion, kind) of a resource's type, `kubernetes:apps/v1:Deployment`."""
    _, group_version, kind = urn.split("::")[2].rpartition("$")[2].split(":")
    return group_version.removeprefix("core/"), kind


def _secret_safe(message: str, *sources: Object) -> str:
    """`message` without any of the secrets in `sources`, plain or in base64."""
    texts = {t for source in sources for t in secret_texts(source) if len(t) > 3}
    encoded = {base64.b64encode(t.encode()).decode() for t in texts}
    for text in sorted(texts | encoded, key=len, reverse=True):
        message = message.replace(text, "[secret]")
    return message


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """Serves one provider resource of a stack: one cluster."""

    def __init__(self, engine_address: str = "") -> None:
        self._log = Log(engine_address)
        self._stop = threading.Event()
        self._cluster: Cluster | None = None
        self._broken = "the provider is not configured"
        self._default_namespace = "default"
        self._mutable: frozenset[str] = frozenset()
        self._force = False
        self._delete_unreachable = self._quiet = False
        # Scope of the kinds that this program's own CRDs will bring, by (group, kind).
        self._planned: dict[tuple[Any, Any], bool] = {}

    # --- The provider itself

    def Handshake(self, request: Any, context: Context) -> Any:
        return provider_pb2.ProviderHandshakeResponse(
            accept_secrets=True, supports_autonaming_configuration=True
        )

    def Attach(self, request: Any, context: Context) -> Empty:
        self._log = Log(request.address)
        return Empty()

    def GetPluginInfo(self, request: Any, context: Context) -> Any:
        return plugin_pb2.PluginInfo(version=VERSION)

    def GetSchema(self, request: Any, context: Context) -> Any:
        return provider_pb2.GetSchemaResponse(
            schema=json.dumps({"name": "kubernetes", "version": VERSION})
        )

    def GetMapping(self, request: Any, context: Context) -> Any:
        return provider_pb2.GetMappingResponse()

    def GetMappings(self, request: Any, context: Context) -> Any:
        return provider_pb2.GetMappingsResponse()

    def CheckConfig(self, request: Any, context: Context) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Context) -> Any:
        olds, news = plain(decode(request.olds)), plain(decode(request.news))
        changed = sorted({str(path[0]) for path in diff.changes(olds, news)})
        if news.get("clusterIdentifier") or olds.get("clusterIdentifier"):
            moved = olds.get("clusterIdentifier") != news.get("clusterIdentifier")
        elif has_unknown(news):
            moved = False
        else:
            # A cluster has no identity that could be asked for; its entry must do.
            moved = bool(changed) and _active_cluster(olds) != _active_cluster(news)
        some, none = provider_pb2.DiffResponse.DIFF_SOME, provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(
            changes=some if changed else none, diffs=changed, replaces=changed if moved else []
        )

    def Configure(self, request: Any, context: Context) -> Any:
        config = {k.rpartition(":")[2]: v for k, v in request.variables.items()}
        config = {**config, **plain(decode(request.args))}
        if not _flag(config, "enableServerSideApply", "PULUMI_K8S_ENABLE_SERVER_SIDE_APPLY", True):
            context.abort(
                grpc.StatusCode.UNIMPLEMENTED,
                "enableServerSideApply: false needs the official pulumi-kubernetes plugin",
            )
        if config.get("renderYamlToDirectory"):
            context.abort(
                grpc.StatusCode.UNIMPLEMENTED,
                "renderYamlToDirectory needs the official pulumi-kubernetes plugin",
            )
        names = {"ConfigMap": "ConfigMap", "Secret": "Secret"}
        self._mutable = frozenset(
            kind
            for kind, word in names.items()
            if _flag(config, f"enable{word}Mutable", f"PULUMI_K8S_ENABLE_{word.upper()}_MUTABLE")
        )
        self._force = _flag(config, "enablePatchForce", "PULUMI_K8S_ENABLE_PATCH_FORCE")
        self._quiet = _flag(
            config, "suppressDeprecationWarnings", "PULUMI_K8S_SUPPRESS_DEPRECATION_WARNINGS"
        )
        self._delete_unreachable = _flag(
            config, "deleteUnreachable", "PULUMI_K8S_DELETE_UNREACHABLE"
        )
        try:
            access = _access(config)
            self._cluster = Cluster(access)
            self._default_namespace = config.get("namespace") or access.namespace or "default"
        except (KubeconfigError, OSError, ValueError) as error:
            # A preview may come before the cluster; what needs it will say this.
            self._broken = str(error)
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, supports_autonaming_configuration=True
        )

    def Cancel(self, request: Any, context: Context) -> Empty:
        self._stop.set()
        return Empty()

    # --- Resources

    def Check(self, request: Any, context: Context) -> Any:
        return self._answer(context, self._check, request)

    def Diff(self, request: Any, context: Context) -> Any:
        return self._answer(context, self._diff, request)

    def Create(self, request: Any, context: Context) -> Any:
        return self._answer(context, self._create, request)

    def Read(self, request: Any, context: Context) -> Any:
        return self._answer(context, self._read, request)

    def Update(self, request: Any, context: Context) -> Any:
        return self._answer(context, self._update, request)

    def Delete(self, request: Any, context: Context) -> Any:
        return self._answer(context, self._delete, request)

    def Construct(self, request: Any, context: Context) -> Any:
        context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            f"{request.type} needs the official pulumi-kubernetes plugin",
        )

    def Invoke(self, request: Any, context: Context) -> Any:
        return self._answer(context, self._invoke, request)

    def _answer(self, context: Context, operation: Callable[[Any], Any], request: Any) -> Any:
        """Runs an operation; what it raises becomes the engine's error, its secrets blacked out."""
        try:
            return operation(request)
        except (Failure, ApiError, Unreachable, NoKind, KubeconfigError, ValueError) as error:
            fields = {f.name: v for f, v in request.ListFields()}
            bags = [decode(v) for n, v in fields.items() if n in ("properties", "news", "olds")]
            message = _secret_safe(str(error), *bags)
            if isinstance(error, Unreachable):
                message = f"the configured Kubernetes cluster is unreachable: {message}"
            if isinstance(error, InitFailure):
                error.response.reasons.extend(_secret_safe(r, *bags) for r in error.reasons)
                detail = AnyMessage()
                detail.Pack(error.response)
                status: Any = status_pb2.Status(
                    code=grpc.StatusCode.UNKNOWN.value[0],  # pyright: ignore
                    message=message,
                    details=[detail],
                )
                context.set_trailing_metadata(
                    (("grpc-status-details-bin", status.SerializeToString()),)
                )
            context.abort(grpc.StatusCode.UNKNOWN, message)

    def _check(self, request: Any) -> Any:
        news, olds = decode(request.news), decode(request.olds)
        api_version, typed_as = _of_token(request.urn)
        if typed_as == "Release" and api_version.startswith("helm.sh/"):
            raise Failure("helm.sh Release needs the official pulumi-kubernetes plugin")
        if typed_as.endswith("List") and isinstance(plain(news.get("items")), list):
            raise Failure("a List cannot be created; use the resources in it")
        if typed_as == f"{plain(news.get('kind')) or typed_as.removesuffix('Patch')}Patch":
            raise Failure(f"{typed_as} needs the official pulumi-kubernetes plugin")
        news.setdefault("apiVersion", api_version)
        news.setdefault("kind", typed_as)
        metadata = news["metadata"] = dict(_members(news.get("metadata")))
        if metadata.get("generateName") and not metadata.get("name"):
            raise Failure("metadata.generateName does not go with server-side apply")
        if not metadata.get("name"):
            self._autoname(request, metadata, plain(olds))
        obj = plain(news)
        if not _namespace(obj) and self._namespaced(request.urn, obj) is not False:
            metadata["namespace"] = self._default_namespace
        if obj["kind"] == "CustomResourceDefinition" and not has_unknown(obj.get("spec")):
            spec = obj["spec"]
            names, scope = spec.get("names") or {}, spec.get("scope")
            self._planned[spec.get("group"), names.get("kind")] = scope == "Namespaced"
        return provider_pb2.CheckResponse(inputs=encode(mark_secrets(news, {})))

    def _autoname(self, request: Any, metadata: Object, olds: Object) -> None:
        """Gives the object a name, the one it has where that was given before."""
        if awaits.annotation(olds, "autonamed") == "true":
            name = _name(olds)
        elif request.HasField("autonaming"):
            if request.autonaming.mode == provider_pb2.CheckRequest.AutonamingOptions.DISABLE:
                raise Failure("autonaming is disabled: metadata.name is required")
            name = request.autonaming.proposed_name
        else:
            seed = request.randomSeed or os.urandom(16)
            stem = request.urn.rpartition("::")[2]
            name = f"{stem}-{hashlib.sha256(seed).hexdigest()[:8]}"
        annotations = dict(_members(metadata.get("annotations")))
        annotations["pulumi.com/autonamed"] = "true"
        metadata.update(name=name, annotations=annotations)

    def _namespaced(self, urn: str, obj: Object) -> bool | None:
        """Whether the object's kind has namespaces; None where nothing can say."""
        if has_unknown([obj["apiVersion"], obj["kind"]]):
            return None
        try:
            return self._api().kind(obj["apiVersion"], obj["kind"]).namespaced
        except NoKind:
            return self._planned.get((diff.group_of(obj), obj["kind"]))
        except Unreachable as error:
            self._log.warn(urn, f"the configured Kubernetes cluster is unreachable: {error}")
            return None
        except KubeconfigError:
            return None

    def _diff(self, request: Any) -> Any:
        state = plain(decode(request.olds))
        old = without_nulls(plain(decode(request.old_inputs)) or state.get("__inputs") or {})
        new = without_nulls(plain(decode(request.news)))
        if self._namespaced(request.urn, new) is False:
            for obj in (old, new):
                obj.get("metadata", {}).pop("namespace", None)
        else:
            for obj in (old, new):
                obj.setdefault("metadata", {}).setdefault("namespace", self._default_namespace)
        ignored = [diff.parse_path(p) for p in request.ignoreChanges]
        changed = {
            path: change
            for path, change in diff.changes(old, new).items()
            if not any(path[: len(p)] == p for p in ignored)
        }
        kinds = provider_pb2.PropertyDiff.Kind
        detailed: dict[str, Any] = {}
        replaces: list[str] = []
        for path, change in changed.items():
            name = diff.property_path(path)
            if diff.replaces(path, old, new, self._mutable):
                replaces.append(name)
                change = f"{change}_REPLACE"
            kind = kinds.Value(change)
            detailed[name] = provider_pb2.PropertyDiff(kind=kind, inputDiff=True)
        name_stays = not has_unknown(new["metadata"].get("name")) and _name(new) == _name(state)
        place_stays = _namespace(new) == _namespace(state)
        autonamed = awaits.annotation(new, "autonamed") == "true"
        some, none = provider_pb2.DiffResponse.DIFF_SOME, provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(
            changes=some if changed else none,
            replaces=replaces,
            deleteBeforeReplace=bool(replaces) and name_stays and place_stays and not autonamed,
            detailedDiff=detailed,
            hasDetailedDiff=True,
        )

    def _create(self, request: Any) -> Any:
        inputs = decode(request.properties)
        if request.preview:
            outputs = self._previewed(request.urn, inputs)
            return provider_pb2.CreateResponse(
                properties=request.properties if outputs is None else encode(outputs)
            )
        manager = awaits.annotation(plain(inputs), "patchFieldManager") or _manager(request.urn)
        live = self._apply(request.urn, inputs, manager)
        live = self._ready(request, inputs, live, manager)
        return provider_pb2.CreateResponse(
            id=_id(live), properties=encode(_state(inputs, live, manager))
        )

    def _update(self, request: Any) -> Any:
        inputs, state = decode(request.news), plain(decode(request.olds))
        manager = (
            awaits.annotation(plain(inputs), "patchFieldManager")
            or state.get("__fieldManager")
            or _manager(request.urn)
        )
        if request.preview:
            outputs = self._previewed(request.urn, inputs, manager)
            return provider_pb2.UpdateResponse(
                properties=request.news if outputs is None else encode(outputs)
            )
        wanted = self._with_ignored(inputs, list(request.ignoreChanges))
        live = self._apply(request.urn, wanted, manager)
        live = self._ready(request, inputs, live, manager)
        return provider_pb2.UpdateResponse(properties=encode(_state(inputs, live, manager)))

    def _previewed(self, urn: str, inputs: Object, manager: str = "") -> Object | None:
        """What the server would make of the inputs; None where it cannot be asked yet."""
        if has_unknown(inputs):
            return None
        try:
            live = self._apply(urn, inputs, manager or _manager(urn), dry_run=True)
        except (NoKind, Unreachable, KubeconfigError):
            return None
        except ApiError as error:
            # No namespace yet, nobody to ask, or an object that is going to be replaced.
            if error.status in (403, 404) or error.immutable or "dry run" in str(error):
                return None
            raise
        live.pop("status", None)  # a program must not take a default for an observation
        return _state(inputs, live, manager or _manager(urn))

    def _read(self, request: Any) -> Any:
        inputs, state = decode(request.inputs), decode(request.properties)
        api_version, kind = _of_token(request.urn)
        known = plain(state) if state.get("kind") else plain(inputs)
        api_version, kind = known.get("apiVersion") or api_version, known.get("kind") or kind
        namespace, _, name = request.id.rpartition("/")
        try:
            live = self._api().get(api_version, kind, namespace or self._default_namespace, name)
        except NoKind:
            live = None
        except (Unreachable, KubeconfigError) as error:
            if self._delete_unreachable:
                self._log.warn(request.urn, f"cluster unreachable, taken as deleted: {error}")
                return provider_pb2.ReadResponse()
            raise
        if live is None:
            return provider_pb2.ReadResponse()
        manager = str(state.get("__fieldManager") or _manager(request.urn))
        if inputs:
            found = diff.refreshed_object(plain(inputs), plain(state), live)
        else:
            found = diff.inputs_of(live)
        found = mark_secrets(found, inputs)
        outputs = _state(found, live, manager, state.get("__initialApiVersion"))
        response: dict[str, Any] = {
            "id": request.id,
            "properties": encode(outputs),
            "inputs": encode(found),
        }
        check = awaits.check_for(plain(found)) if inputs else None
        ready = check(self._api(), live) if check else awaits.READY
        if not ready.ready:
            reasons = [ready.message, *awaits.explain(self._api(), live)]
            init_failed: Any = provider_pb2.ErrorResourceInitFailed(**response)
            raise InitFailure(request.urn, reasons, init_failed)
        return provider_pb2.ReadResponse(**response)

    def _delete(self, request: Any) -> Empty:
        state = plain(decode(request.properties))
        api_version, kind = _of_token(request.urn)
        namespace, _, name = request.id.rpartition("/")
        api_version, kind = state.get("apiVersion") or api_version, state.get("kind") or kind
        # What is waited for with its dependents waits for the garbage collector, too; what nobody
        # waits for has to be gone at once, as another of its name may be made next.
        skip = awaits.annotation(state, "skipAwait").lower() == "true"
        default = "background" if skip or kind in CHILDLESS else "foreground"
        policy = awaits.annotation(state, "deletionPropagationPolicy") or default
        cluster = self._api()
        try:
            path = cluster.path(api_version, kind, namespace or self._default_namespace, name)
            options = {"propagationPolicy": policy.capitalize()}
            answer = cluster.request("DELETE", path, body=options)
        except NoKind:
            return Empty()
        except ApiError as error:
            if error.status == 404:
                return Empty()
            answer = cluster.get(api_version, kind, namespace, name) or {"metadata": {}}
            if not answer["metadata"].get("deletionTimestamp"):
                raise
        if skip:
            return Empty()
        # The answer is the object while something holds it, else a Status about it.
        uid = answer["metadata"].get("uid") or (answer.get("details") or {}).get("uid")
        metadata = {"namespace": namespace, "name": name, "uid": uid}
        live: Object = {"apiVersion": api_version, "kind": kind, "metadata": metadata}
        self._log.progress(request.urn, "waiting until it is gone")
        timeout = _timeout(request, state)
        left = awaits.until_gone(cluster, live, timeout, self._stop)
        if left is not None:
            why = ", ".join(left["metadata"].get("finalizers") or [])
            why = why or "; ".join(
                f"{c.get('type')}: {c.get('message')}"
                for c in left.get("status", {}).get("conditions") or []
                if c.get("status") == "True"
            )
            raise Failure(
                f"still there {timeout:.0f} s after it was deleted" + (f" ({why})" if why else "")
            )
        return Empty()

    def _invoke(self, request: Any) -> Any:
        if request.tok != "kubernetes:yaml:decode":
            raise Failure(f"{request.tok} needs the official pulumi-kubernetes plugin")
        args = plain(decode(request.args))
        objects = _manifests(args["text"])
        for obj in objects if args.get("defaultNamespace") else ():
            if not _namespace(obj) and self._namespaced("", obj):
                obj.setdefault("metadata", {})["namespace"] = args["defaultNamespace"]
        answer: Any = provider_pb2.InvokeResponse()
        getattr(answer, "return").CopyFrom(encode({"result": objects}))
        return answer

    # --- How they do it

    def _api(self) -> Cluster:
        if self._cluster is None:
            raise KubeconfigError(self._broken)
        return self._cluster

    def _apply(self, urn: str, inputs: Object, manager: str, dry_run: bool = False) -> Object:
        """Server-side apply; the object as the server then has it.

        Waits a while for a namespace or kind that is not there yet, or an object on its way out.
        """
        cluster, obj = self._api(), without_nulls(plain(inputs))
        if self._namespaced(urn, obj) is False:
            obj["metadata"].pop("namespace", None)
        force = dry_run or self._force or awaits.annotation(obj, "patchForce").lower() == "true"
        query = {"fieldManager": manager, "force": str(force).lower()}
        if dry_run:
            query["dryRun"] = "All"

        def warn(text: str) -> None:
            if not (self._quiet and "deprecated" in text):
                self._log.warn(urn, text)

        deadline = time.monotonic() + (0 if dry_run else RETRY_S)
        pause = 0.1
        while True:
            try:
                path = cluster.path(
                    obj["apiVersion"], obj["kind"], _namespace(obj), obj["metadata"]["name"]
                )
                live: Object = cluster.request("PATCH", path, query, obj, APPLY, warn)
                if dry_run or not live["metadata"].get("deletionTimestamp"):
                    return live
                # It was being deleted when we found it, so it is not ours: wait and make our own.
                why: Exception = Failure("an object of this name is being deleted, and stays")
                self._until_gone(obj, deadline)
            except ApiError as error:
                ending = "is being terminated" in str(error)
                refused = error.owners or error.immutable
                if refused and not dry_run and self._until_gone(obj, deadline):
                    continue
                if error.owners:
                    raise Failure(
                        f"{error}\nother managers own these fields; the annotation"
                        ' pulumi.com/patchForce: "true" takes them over'
                    ) from None
                if error.status not in (404, 409) and not ending:
                    raise
                why = error
            except NoKind as error:
                why = error
            if time.monotonic() > deadline or self._stop.wait(pause):
                raise why
            self._log.progress(urn, f"retrying: {why}")
            pause = min(pause * 2, 2.0)

    def _until_gone(self, obj: Object, deadline: float) -> bool:
        """Whether an object of this name was being deleted, and now is gone."""
        live = self._api().get(obj["apiVersion"], obj["kind"], _namespace(obj), _name(obj))
        if live is None or not live["metadata"].get("deletionTimestamp"):
            return False
        left = deadline - time.monotonic()
        return awaits.until_gone(self._api(), live, left, self._stop) is None

    def _with_ignored(self, inputs: Object, ignored: list[str]) -> Object:
        """The inputs with the live values of ignored fields, so that applying changes none."""
        if not ignored:
            return inputs
        obj = plain(inputs)
        live = self._api().get(obj["apiVersion"], obj["kind"], _namespace(obj), _name(obj)) or {}
        for path in map(diff.parse_path, ignored):
            source, target = live, obj
            try:
                for key in path[:-1]:
                    source, target = source[key], target[key]  # pyright: ignore
                target[path[-1]] = source[path[-1]]  # pyright: ignore
            except (KeyError, IndexError, TypeError):
                continue
        return obj

    def _ready(self, request: Any, inputs: Object, live: Object, manager: str) -> Object:
        """Waits until the object is ready, or raises `InitFailure` with its state."""
        check = awaits.check_for(plain(inputs))
        if check is None:
            return live
        timeout, urn = _timeout(request, plain(inputs)), request.urn
        try:
            return awaits.until_ready(
                self._api(), live, check, timeout, self._stop, lambda m: self._log.progress(urn, m)
            )
        except (awaits.NotReady, ApiError, Unreachable) as error:
            last = error.live if isinstance(error, awaits.NotReady) else live
            reasons = error.reasons if isinstance(error, awaits.NotReady) else [str(error)]
            response: Any = provider_pb2.ErrorResourceInitFailed(
                id=_id(last), properties=encode(_state(inputs, last, manager))
            )
            raise InitFailure(urn, reasons, response) from None


def _members(value: Any) -> Object:
    """An object that may be a secret as a whole: its members, each secret then."""
    if isinstance(value, Secret):
        return {k: Secret(v) for k, v in (value.value or {}).items()}
    return value or {}


def _manager(urn: str) -> str:
    """A field manager for each resource, the same in every run: one that was killed half-way is
    taken up without a conflict with itself."""
    return f"pulumi-kubernetes-{hashlib.sha256(urn.encode()).hexdigest()[:8]}"


def _timeout(request: Any, obj: Object) -> float:
    """Seconds to wait: the resource's customTimeouts, its annotation, or ten minutes."""
    return request.timeout or float(awaits.annotation(obj, "timeoutSeconds") or DEFAULT_TIMEOUT_S)


def _state(inputs: Object, live: Object, manager: str, initial: Any = None) -> Object:
    """The resource's outputs: the live object, and what the official plugin keeps beside it."""
    outputs = mark_secrets(json.loads(json.dumps(live)), inputs)
    if live.get("kind") != "CustomResourceDefinition":
        # These can be a megabyte, the engine writes the state after every step, and the official
        # plugin needs old inputs only to tell what to replace, which of a definition is nothing.
        outputs["__inputs"] = inputs
    outputs["__initialApiVersion"] = plain(initial or inputs.get("apiVersion"))
    outputs["__fieldManager"] = manager
    return outputs


def _access(config: Object) -> Access:
    return Access.of(
        load_kubeconfig(str(config.get("kubeconfig") or "")),
        context=str(config.get("context") or ""),
        cluster=str(config.get("cluster") or ""),
    )


def _active_cluster(config: Object) -> Object:
    try:
        return _access(config).cluster
    except KubeconfigError:
        return {}


class _ManifestLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as Kubernetes reads it: dates are strings."""


_ManifestLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in _ManifestLoader.yaml_implicit_resolvers.items()
}


def _manifests(text: str) -> list[Object]:
    """The objects in a YAML text of several documents, lists taken apart."""
    objects: list[Object] = []
    for document in yaml.load_all(text, Loader=_ManifestLoader):
        if isinstance(document, dict):
            listed = str(document.get("kind", "")).endswith("List") and "items" in document
            objects += document["items"] if listed else [document]
    return objects
