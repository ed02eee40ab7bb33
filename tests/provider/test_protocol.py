"""The provider over gRPC, against a real API server."""

from __future__ import annotations

import base64
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from standin import awaits, values
from standin.values import UNKNOWN, Secret

from provider.harness import Client, Failed, Objects

pytestmark = pytest.mark.apiserver


def config_map(objects: Objects, name: str = "c", **more: Any) -> Any:
    metadata = {"name": name, "namespace": objects.namespace}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {"a": "1"},
        **more,
    }


def deployment(objects: Objects, **annotations: str) -> Any:
    labels = {"app": "d"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "d",
            "namespace": objects.namespace,
            "annotations": {f"pulumi.com/{k}": v for k, v in annotations.items()},
        },
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "nowhere/none"}]},
            },
        },
    }


def soon(what: Any) -> threading.Thread:
    def later() -> None:
        time.sleep(0.5)
        what()

    thread = threading.Thread(target=later)
    thread.start()
    return thread


def test_check_names_and_places(provider: Client, objects: Objects) -> None:
    news = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}}
    first = provider.check(news)
    assert first["metadata"]["name"].startswith("r-")
    assert first["metadata"]["annotations"] == {"pulumi.com/autonamed": "true"}
    assert first["metadata"]["namespace"] == "default"
    again = provider.check(news, olds=first)
    assert again["metadata"]["name"] == first["metadata"]["name"]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
    assert "namespace" not in provider.check(role)["metadata"]


@pytest.mark.parametrize(
    ("type", "kind", "said"),
    [
        ("apps/v1:DeploymentPatch", "Deployment", "needs the official"),
        ("core/v1:ConfigMapList", "ConfigMapList", "use the resources in it"),
        ("helm.sh/v3:Release", "Release", "needs the official"),
    ],
)
def test_what_the_stand_in_cannot_do(provider: Client, type: str, kind: str, said: str) -> None:
    news = {"kind": kind, "items": []}
    with pytest.raises(Failed, match=said):
        provider.check(news, urn=f"urn:pulumi:s::p::kubernetes:{type}::r")


def test_create_update_delete(provider: Client, objects: Objects) -> None:
    obj = config_map(objects)
    id, state = provider.create(obj)
    assert id == f"{objects.namespace}/c"
    assert state["metadata"]["uid"]
    assert state["__inputs"] == obj
    assert state["__initialApiVersion"] == "v1"
    assert provider.diff(obj, state, obj).changes == 1  # none
    news = config_map(objects, metadata={**obj["metadata"], "labels": {"x.y/z": "1"}})
    difference = provider.diff(obj, state, news)
    assert list(difference.detailedDiff) == ["metadata.labels"]
    assert not difference.replaces
    state = provider.update(obj, state, news)
    assert objects.get("v1", "ConfigMap", "c")["metadata"]["labels"] == {"x.y/z": "1"}
    state = provider.update(news, state, obj)
    assert "labels" not in objects.get("v1", "ConfigMap", "c")["metadata"]
    provider.delete(obj, id, state)
    assert objects.get("v1", "ConfigMap", "c") is None
    provider.delete(obj, id, state)  # gone already


def test_preview_touches_nothing(provider: Client, objects: Objects) -> None:
    obj = config_map(objects)
    _, previewed = provider.create(obj, preview=True)
    assert previewed["metadata"]["creationTimestamp"]
    assert objects.get("v1", "ConfigMap", "c") is None
    unknown = config_map(objects, data={"a": UNKNOWN})
    assert provider.create(unknown, preview=True)[1] == unknown
    elsewhere = config_map(objects, metadata={"name": "c", "namespace": "not-yet"})
    assert provider.create(elsewhere, preview=True)[1] == elsewhere
    no_kind = {"apiVersion": "not.yet/v1", "kind": "Later", "metadata": {"name": "x"}}
    assert provider.create(provider.check(no_kind), preview=True)[1]["kind"] == "Later"


def test_secrets_stay_secret(provider: Client, objects: Objects) -> None:
    obj = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": objects.namespace},
        "stringData": {"password": "hunter2hunter2"},
    }
    obj = provider.check(obj)
    assert isinstance(obj["stringData"], Secret)
    _, state = provider.create(obj)
    assert isinstance(state["data"], Secret)
    assert "hunter2" not in repr(state)
    wrong = config_map(objects, name="UPPER", data={"k": Secret("s3cr3t-value")}, immutable="maybe")
    wrong["binaryData"] = {"b": Secret("s3cr3t-value")}
    with pytest.raises(Failed) as failed:
        provider.create(wrong)
    assert "s3cr3t" not in failed.value.message


def test_secret_text_does_not_drift(provider: Client, objects: Objects) -> None:
    metadata = {"name": "s", "namespace": objects.namespace}
    obj: Any = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
    obj = provider.check({**obj, "stringData": {"a": "one", "b": "two"}})
    id, state = provider.create(obj)
    inputs = values.decode(provider.read(obj, id, state, obj).inputs)
    assert values.plain(inputs) == values.plain(obj)
    objects.patch("v1", "Secret", "s", {"data": {"a": base64.b64encode(b"new").decode()}})
    inputs = values.decode(provider.read(obj, id, state, obj).inputs)
    assert inputs["stringData"].value == {"a": "new", "b": "two"}


def test_what_the_server_writes_differently_is_no_drift(provider: Client, objects: Objects) -> None:
    obj = deployment(objects, skipAwait="true")
    container = obj["spec"]["template"]["spec"]["containers"][0]
    container["resources"] = {"limits": {"cpu": "1000m", "memory": "1024Mi"}}
    obj["spec"]["template"]["spec"]["nodeSelector"] = {}
    id, state = provider.create(obj)
    inputs = values.decode(provider.read(obj, id, state, obj).inputs)
    assert provider.diff(inputs, state, obj).changes == 1  # none
    assert inputs == obj


def test_drift_is_seen_only_in_what_we_set(provider: Client, objects: Objects) -> None:
    obj = config_map(objects, data={"a": "1", "b": "2"})
    id, state = provider.create(obj)
    objects.patch("v1", "ConfigMap", "c", {"data": {"a": "9", "b": None, "theirs": "x"}})
    read = provider.read(obj, id, state, obj)
    inputs, state = values.decode(read.inputs), values.decode(read.properties)
    assert inputs["data"] == {"a": "9"}
    assert set(provider.diff(inputs, state, obj).detailedDiff) == {"data.a", "data.b"}
    with pytest.raises(Failed, match=r"(?s)somebody-else.*patchForce"):
        provider.update(inputs, state, obj)
    news = config_map(objects, data={"a": "1", "b": "2"})
    news["metadata"]["annotations"] = {"pulumi.com/patchForce": "true"}
    provider.update(inputs, state, news)
    assert objects.get("v1", "ConfigMap", "c")["data"] == {"a": "1", "b": "2", "theirs": "x"}


def test_ignored_changes_keep_the_live_value(provider: Client, objects: Objects) -> None:
    obj = deployment(objects, skipAwait="true")
    obj["spec"]["replicas"] = 1
    _, state = provider.create(obj)
    objects.patch("apps/v1", "Deployment", "d", {"spec": {"replicas": 5}})
    news = deployment(objects, skipAwait="true")
    news["spec"]["replicas"], news["spec"]["minReadySeconds"] = 1, 3
    provider.update(obj, state, news, ignoreChanges=["spec.replicas"])
    spec = objects.get("apps/v1", "Deployment", "d")["spec"]
    assert (spec["replicas"], spec["minReadySeconds"]) == (5, 3)


@pytest.mark.parametrize(
    ("kind", "path", "replaced"),
    [
        ("v1/ConfigMap", "data.a", True),  # as the official plugin does unless told otherwise
        ("v1/ConfigMap", "metadata.labels.a", False),
        ("v1/ConfigMap", "metadata.name", True),
        ("v1/ConfigMap", "metadata.namespace", True),
        ("v1/Secret", "type", True),
        ("v1/Service", "spec.clusterIP", True),
        ("v1/Service", "spec.ports", False),
        ("v1/PersistentVolumeClaim", "spec.storageClassName", True),
        ("v1/PersistentVolumeClaim", "spec.resources.requests.storage", False),
        ("v1/Pod", "spec.serviceAccountName", True),
        ("apps/v1/Deployment", "spec.selector.matchLabels.a", True),
        ("apps/v1/Deployment", "spec.replicas", False),
        ("apps/v1/DaemonSet", "spec.selector.matchLabels.a", True),
        ("apps/v1/StatefulSet", "spec.serviceName", True),
        ("apps/v1/StatefulSet", "spec.volumeClaimTemplates", True),
        ("apps/v1/StatefulSet", "spec.replicas", False),
        ("batch/v1/Job", "spec.template.spec.restartPolicy", True),
        ("batch/v1/Job", "spec.ttlSecondsAfterFinished", False),
        ("storage.k8s.io/v1/StorageClass", "parameters.type", True),
        ("rbac.authorization.k8s.io/v1/RoleBinding", "roleRef.name", True),
        ("rbac.authorization.k8s.io/v1/RoleBinding", "subjects", False),
    ],
)
def test_replaces(provider: Client, kind: str, path: str, replaced: bool) -> None:
    api_version, _, kind = kind.rpartition("/")

    def with_value(value: str) -> Any:
        obj: Any = {"apiVersion": api_version, "kind": kind}
        obj["metadata"] = {"name": "n", "namespace": "default"}
        *parents, last = path.split(".")
        target = obj
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
        return obj

    old, new = with_value("old"), with_value("new")
    difference = provider.diff(old, {**old, "__inputs": old}, new)
    assert bool(difference.replaces) == replaced
    same_place = path not in ("metadata.name", "metadata.namespace")
    cluster_wide = kind == "StorageClass"  # whose state has no namespace
    if not cluster_wide:
        assert difference.deleteBeforeReplace == (replaced and same_place)


def test_mutable_by_configuration(unconfigured: Client, kubeconfig: Any) -> None:
    unconfigured.configure(kubeconfig=kubeconfig.read_text(), enableConfigMapMutable="true")
    old: Any = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n"}}
    old["data"] = {"a": "1"}
    assert not unconfigured.diff(old, old, {**old, "data": {"a": "2"}}).replaces
    frozen = {**old, "immutable": True}
    assert unconfigured.diff(frozen, frozen, {**frozen, "data": {"a": "2"}}).replaces


def test_autonamed_is_created_before_the_old_is_deleted(provider: Client) -> None:
    old = provider.check({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}})
    news = provider.check({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "2"}}, olds=old)
    difference = provider.diff(old, {**old, "__inputs": old}, news)
    assert difference.replaces
    assert not difference.deleteBeforeReplace


def test_existing_object_is_adopted(provider: Client, objects: Objects) -> None:
    uid = objects.create(config_map(objects))["metadata"]["uid"]
    _, state = provider.create(config_map(objects))
    assert state["metadata"]["uid"] == uid


def test_read_without_state_is_an_import(provider: Client, objects: Objects) -> None:
    objects.create(config_map(objects))
    read = provider.read(config_map(objects), f"{objects.namespace}/c")
    assert values.decode(read.inputs) == config_map(objects)
    assert provider.read(config_map(objects), f"{objects.namespace}/none").id == ""


def test_api_servers_words(provider: Client, objects: Objects) -> None:
    obj = deployment(objects)
    obj["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    with pytest.raises(Failed, match=r"spec\.template\.metadata\.labels: Invalid value"):
        provider.create(obj)
    obj = deployment(objects)
    obj["spec"]["replica"] = 1
    with pytest.raises(Failed, match=r"spec\.replica: field not declared in schema"):
        provider.create(obj)


def test_unreachable_cluster(unconfigured: Client) -> None:
    obj: Any = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    unconfigured.configure()
    with pytest.raises(Failed, match="no kubeconfig: /nowhere"):
        unconfigured.create(obj)
    entry = {"name": "x", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "x", "context": {"cluster": "x"}}
    document = {"clusters": [entry], "contexts": [context], "current-context": "x"}
    unconfigured.configure(kubeconfig=json.dumps(document))
    assert unconfigured.create(unconfigured.check(obj), preview=True)
    with pytest.raises(Failed, match=r"cluster is unreachable: http://127.0.0.1:9.*refused"):
        unconfigured.create(obj)


def test_missing_namespace_may_come_late(provider: Client, objects: Objects) -> None:
    name = f"{objects.namespace}-late"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    thread = soon(lambda: objects.cluster.request("POST", "/api/v1/namespaces", body=body))
    id, _ = provider.create(config_map(objects, metadata={"name": "c", "namespace": name}))
    thread.join()
    assert id == f"{name}/c"


def test_deployment_becomes_ready(provider: Client, objects: Objects) -> None:
    status = {
        "observedGeneration": 1,
        "replicas": 1,
        "updatedReplicas": 1,
        "readyReplicas": 1,
        "availableReplicas": 1,
    }
    thread = soon(lambda: objects.status("apps/v1", "Deployment", "d", status))
    _, state = provider.create(deployment(objects))
    thread.join()
    assert state["status"]["availableReplicas"] == 1


def test_deployment_that_fails_says_why(provider: Client, objects: Objects) -> None:
    pod_spec = {"containers": [{"name": "main", "image": "nowhere/none"}]}
    metadata = {"name": "d-1", "namespace": objects.namespace, "labels": {"app": "d"}}
    pod = objects.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec}
    )
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
    container = {"name": "main", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    container["state"] = {"waiting": waiting}
    objects.status("v1", "Pod", "d-1", {"containerStatuses": [container]})
    objects.create(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "e", "namespace": objects.namespace},
            "involvedObject": {
                "kind": "Pod",
                "name": "d-1",
                "namespace": objects.namespace,
                "uid": pod["metadata"]["uid"],
            },
            "type": "Warning",
            "reason": "Failed",
            "message": "pull access denied",
        }
    )
    with pytest.raises(Failed) as failed:
        provider.create(deployment(objects, timeoutSeconds="1"))
    message = failed.value.message
    assert "timed out after 1 s" in message
    assert "pod d-1: container main: ImagePullBackOff: Back-off pulling image" in message
    assert "Failed: pull access denied" in message
    assert failed.value.partial.id == f"{objects.namespace}/d"
    assert values.decode(failed.value.partial.properties)["metadata"]["uid"]


def test_job_that_fails(provider: Client, objects: Objects) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "m", "image": "x"}]}}
    metadata = {"name": "j", "namespace": objects.namespace}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata}
    started = "2026-01-01T00:00:00Z"
    why = {"status": "True", "reason": "BackoffLimitExceeded", "message": "too many failures"}
    why["lastProbeTime"] = why["lastTransitionTime"] = started
    conditions = [{**why, "type": "FailureTarget"}, {**why, "type": "Failed"}]
    status = {"startTime": started, "failed": 1, "conditions": conditions}
    thread = soon(lambda: objects.status("batch/v1", "Job", "j", status))
    with pytest.raises(Failed, match="BackoffLimitExceeded: too many failures"):
        provider.create({**job, "spec": {"template": template}})
    thread.join()


def test_service_waits_for_endpoints(provider: Client, objects: Objects) -> None:
    metadata = {"name": "s", "namespace": objects.namespace}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata}
    ports = [{"port": 80}]
    provider.create({**service, "spec": {"clusterIP": "None", "ports": ports}})
    metadata["name"] = "t"
    with pytest.raises(Failed, match="no pod answers for it"):
        provider.create({**service, "spec": {"selector": {"a": "b"}, "ports": ports}}, timeout=1)
    slice = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "t-1",
            "namespace": objects.namespace,
            "labels": {"kubernetes.io/service-name": "t"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.1.1"], "conditions": {"ready": True}}],
    }
    objects.create(slice)
    provider.create({**service, "spec": {"selector": {"a": "b"}, "ports": ports}}, timeout=5)


def test_claim_of_a_late_binding_class_is_ready(provider: Client, objects: Objects) -> None:
    storage = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass"}
    provider.create(
        {
            **storage,
            "metadata": {"name": "late"},
            "provisioner": "x/y",
            "volumeBindingMode": "WaitForFirstConsumer",
        }
    )
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    claim["metadata"] = {"name": "p", "namespace": objects.namespace}  # pyright: ignore
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    provider.create({**claim, "spec": {**spec, "storageClassName": "late"}}, timeout=5)


def test_wait_for_annotation(provider: Client, objects: Objects) -> None:
    obj = config_map(objects)
    obj["metadata"]["annotations"] = {"pulumi.com/waitFor": "jsonpath={.data.a}=1"}
    provider.create(obj)
    obj = config_map(objects, name="other")
    obj["metadata"]["annotations"] = {"pulumi.com/waitFor": "jsonpath={.data.a}=2"}
    with pytest.raises(Failed, match=r"waiting for jsonpath=\{.data.a\}=2"):
        provider.create(obj, timeout=1)


def test_delete_waits_for_finalizers(provider: Client, objects: Objects) -> None:
    obj = config_map(objects)
    obj["metadata"]["finalizers"] = ["test/hold"]
    id, state = provider.create(obj)
    with pytest.raises(Failed, match=r"still there 1 s after it was deleted \(.*test/hold"):
        provider.delete(obj, id, state, timeout=1)
    patch = {"metadata": {"finalizers": None}}
    thread = soon(lambda: objects.patch("v1", "ConfigMap", "c", patch))
    provider.delete(obj, id, state)
    thread.join()
    assert objects.get("v1", "ConfigMap", "c") is None


def test_delete_in_a_namespace_that_is_gone(provider: Client, objects: Objects) -> None:
    obj = config_map(objects)
    id, state = provider.create(obj)
    objects.cluster.request("DELETE", f"/api/v1/namespaces/{objects.namespace}")
    provider.delete(obj, id, state)
    deadline = time.monotonic() + 20
    while objects.cluster.get("v1", "Namespace", "", objects.namespace):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    provider.delete(obj, id, state)
    gone = {"apiVersion": "gone.example/v1", "kind": "Gone", "metadata": {"name": "g"}}
    provider.delete(gone, "g", gone)  # with its CRD


def test_terminating_object_is_replaced_by_our_own(provider: Client, objects: Objects) -> None:
    held = config_map(objects, immutable=True)
    held["metadata"]["finalizers"] = ["test/hold"]
    objects.create(held)
    objects.delete("v1", "ConfigMap", "c")
    patch = {"metadata": {"finalizers": None}}
    thread = soon(lambda: objects.patch("v1", "ConfigMap", "c", patch))
    provider.create(config_map(objects, data={"a": "2"}))  # refused as long as the old one is there
    thread.join()
    assert objects.get("v1", "ConfigMap", "c")["data"] == {"a": "2"}


def test_deep_objects(provider: Client, objects: Objects) -> None:
    deep: Any = "leaf"
    for _ in range(80):
        deep = {"properties": [deep]}
    assert provider.check(config_map(objects, extra=deep))["extra"] == deep


def test_many_at_once(provider: Client, objects: Objects) -> None:
    many = [config_map(objects, name=f"c{i}") for i in range(150)]
    with ThreadPoolExecutor(32) as pool:
        states = list(pool.map(lambda obj: provider.create(obj)[1], many))
        start = time.monotonic()
        same = pool.map(lambda o, s: provider.diff(provider.check(o, o), s, o), many, states)
        assert {d.changes for d in same} == {1}
    assert time.monotonic() - start < 5


def test_logs_of_what_crashed() -> None:
    class Kubelet:
        def path(self, *_: str) -> str:
            return "/pod"

        def request(self, method: str, path: str, query: Any) -> str:
            assert (path, query["container"], query["previous"]) == ("/pod/log", "main", "true")
            return "no such table: users\n"

    ended = {"terminated": {"exitCode": 3, "reason": "Error"}}
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    container = {"name": "main", "state": waiting, "lastState": ended}
    metadata = {"name": "p", "namespace": "n", "creationTimestamp": "2026-01-01T00:00:00Z"}
    pod = {"metadata": metadata, "status": {"containerStatuses": [container]}}
    assert awaits.pod_troubles([pod]) == [
        "pod p: container main: CrashLoopBackOff",
        "pod p: container main: Error, exit code 3",
    ]
    logs: Any = awaits._logs(Kubelet(), [pod])  # pyright: ignore
    assert logs == ["log of p/main:\n    no such table: users"]


def test_yaml_decode(provider: Client) -> None:
    from standin.protocol import provider_pb2

    text = "kind: A\nwhen: 2026-01-01\n---\nkind: BList\nitems: [{kind: B}]\n---\n"
    request = provider_pb2.InvokeRequest(
        tok="kubernetes:yaml:decode", args=values.encode({"text": text})
    )
    answer = provider.call("Invoke", request)
    result = values.decode(getattr(answer, "return"))["result"]
    assert result == [{"kind": "A", "when": "2026-01-01"}, {"kind": "B"}]
