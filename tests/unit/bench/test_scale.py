"""An environment of many models: what is made for it, watched, and removed again."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml

from infra.platform.applications import Applications
from slipway import bench, paths, release, toolchain
from slipway.bench import history, kwok, many, meter, scale
from slipway.bench.figures import Figure
from slipway.bench.many import ARGO, NAME, Many
from slipway.bench.meter import Meter, Use
from slipway.bench.rest import Groups
from slipway.endpoints import Cluster
from slipway.errors import SlipwayError

PODS = "/api/v1/namespaces/argocd/pods"


class Api:
    """An API server that knows some paths and remembers what it was asked to change."""

    def __init__(self, objects: dict[str, Any]) -> None:
        self.objects, self.asked = objects, []
        self.refused: set[str] = set()
        # A list that is empty when this has been deleted.
        self.gone_with: dict[str, str] = {}
        transport = httpx.MockTransport(self._answer)
        client = httpx.Client(base_url="https://api", transport=transport)
        self.cluster = Cluster(client, embedded=True)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.method != "GET":
            self.asked.append((request.method, path))
        if path in self.refused:
            return httpx.Response(403, json={"message": "no"})
        found = self.objects.get(path)
        if request.method == "DELETE":
            self.objects.pop(path, None)
            self.objects.pop(self.gone_with.get(path, ""), None)
        return httpx.Response(200 if found else 404, json=found or {"message": "gone"})


class Branches:
    """As much of a forge as cleaning up needs."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    def delete_branch(self, branch: str) -> None:
        self.deleted.append(branch)


def place(api: Api, folder: Path, models: int = 3) -> Many:
    return Many(api.cluster, Branches(), folder, models)  # type: ignore[arg-type]


def quiet(_news: str) -> None:
    pass


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((many, "time"), (scale, "time")):
        clock = SimpleNamespace(sleep=quiet, monotonic=time.monotonic, time=time.time)
        monkeypatch.setattr(module, name, clock)


# --- what is made -----------------------------------------------------------------------------


def test_the_platforms_own_application_set_gets_other_names_and_nothing_else() -> None:
    args = SimpleNamespace(repository_url="http://forge/slipway.git", look_seconds=10)
    itself = SimpleNamespace(
        _args=args, _releases=lambda *_: {"template": "of what admission asks"}
    )
    spec = Applications._application_set(itself, "dev", "dev")  # type: ignore[arg-type]
    own = many.models_of(spec)
    [generator] = own["generators"]
    git = generator["git"]
    assert git["revision"] == NAME
    assert git["files"] == [{"path": f"environments/{NAME}/models/*.yaml"}]
    template = own["template"]
    assert template["metadata"]["name"].startswith(f"{NAME}-{{{{")
    assert "=".join(*template["metadata"]["labels"].items()) == many.SELECTOR
    assert (template["spec"]["project"], template["spec"]["destination"]["namespace"]) == (
        NAME,
    ) * 2
    assert template["spec"]["source"]["targetRevision"] == NAME
    text = json.dumps(own)
    assert '"dev"' not in text
    assert '"main"' not in text
    back = text.replace(f"environments/{NAME}/", "environments/dev/").replace(f"{NAME}-", "dev-")
    changed = json.loads(back)
    assert changed["template"]["spec"]["syncPolicy"] == spec["template"]["spec"]["syncPolicy"]
    assert (
        changed["template"]["metadata"]["annotations"]
        == (spec["template"]["metadata"]["annotations"])
    )


def test_the_chart_of_the_branch_differs_in_where_pods_go() -> None:
    before = (paths.REPOSITORY / many.DEPLOYMENT).read_text()
    after = many.placed(before.encode()).decode()
    head, anchor, rest = before.partition(many.ANCHOR)
    added = after.removeprefix(head + anchor).removesuffix(rest)
    assert yaml.safe_load(added) == kwok.PLACEMENT
    assert after == head + anchor + added + rest
    for other in (b"", before.encode() * 2):
        with pytest.raises(SlipwayError, match="no place for nodes"):
            many.placed(other)


def test_pods_for_these_nodes_tolerate_what_keeps_the_others_away() -> None:
    node = kwok.node("simulated-1")
    taints = {taint["key"] for taint in node["spec"]["taints"]}
    assert taints == {toleration["key"] for toleration in kwok.PLACEMENT["tolerations"]}
    assert kwok.PLACEMENT["nodeSelector"].items() <= node["metadata"]["labels"].items()


def test_release_files_are_the_real_one_by_other_names() -> None:
    real = history.pins("flight_delay", 4, "a" * 40)
    other = many.released(real, "model_0001")
    assert other.model_dump() == real.model_dump() | {"model": "model_0001"}
    changed = many.released(real, "model_0001", 100)
    assert (changed.version, changed.bento.size) == (100, real.bento.size)
    assert changed.bento.digest not in (real.bento.digest, many.released(real, "b2", 100).bento)
    path = release.path(NAME, "model_0001")
    assert release.parse(release.dumps(changed), str(path)) == changed


def test_there_is_room_for_the_second_pod_of_a_model_that_changes(tmp_path: Path) -> None:
    nodes = [place(Api({}), tmp_path, count).nodes for count in (1, 250, 251, 1000)]
    assert nodes == [2, 2, 3, 5]


# --- what is removed --------------------------------------------------------------------------


def left(**more: Any) -> Api:
    """What a bench leaves that was killed."""
    application = {"metadata": {"name": f"{NAME}-model-0001"}}
    pod = {"metadata": {"namespace": "kube-system", "name": "kube-proxy-x"}}
    return Api(
        {
            f"{ARGO}/applicationsets/{NAME}": {"kind": "ApplicationSet"},
            f"{ARGO}/applications": {"items": [application]},
            many.NAMESPACE: {"metadata": {"name": NAME}},
            f"{ARGO}/appprojects/{NAME}": {"kind": "AppProject"},
            kwok.NODES: {"items": [{"metadata": {"name": "simulated-1"}}]},
            "/api/v1/pods": {"items": [pod]},
            **more,
        }
    )


def test_all_of_it_is_removed_in_an_order_in_which_nothing_comes_back(tmp_path: Path) -> None:
    api = left()
    made = place(api, tmp_path)
    application = f"{ARGO}/applications/{NAME}-model-0001"
    api.gone_with = {application: f"{ARGO}/applications"}
    made.clear(quiet)
    assert api.asked == [
        ("DELETE", f"{ARGO}/applicationsets/{NAME}"),
        ("PATCH", application),
        ("DELETE", application),
        ("DELETE", many.NAMESPACE),
        ("DELETE", f"{kwok.NODES}/simulated-1"),
        ("DELETE", "/api/v1/namespaces/kube-system/pods/kube-proxy-x"),
        ("DELETE", f"{ARGO}/appprojects/{NAME}"),
    ]
    assert made._forge.deleted == [NAME]  # type: ignore[attr-defined]
    Many(Api({}).cluster, made._forge, tmp_path, 1).clear(quiet)


def test_what_cannot_be_removed_keeps_nothing_else(tmp_path: Path) -> None:
    api = left()
    api.refused = {f"{ARGO}/applicationsets/{NAME}", many.NAMESPACE}
    made = place(api, tmp_path)
    with pytest.raises(SlipwayError, match="403"):
        made.clear(quiet)
    assert ("DELETE", f"{kwok.NODES}/simulated-1") in api.asked
    assert ("DELETE", f"{ARGO}/appprojects/{NAME}") in api.asked
    assert made._forge.deleted == [NAME]  # type: ignore[attr-defined]


def test_what_does_not_go_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "PATIENCE_S", -1)
    ending = {"metadata": {"name": NAME, "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    api = left(**{many.NAMESPACE: ending})
    with pytest.raises(SlipwayError, match="are not gone"):
        place(api, tmp_path).clear(quiet)
    assert ("DELETE", many.NAMESPACE) not in api.asked, "it is ending already"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SlipwayError("broken")])
def test_whatever_happens_all_is_removed_and_argo_cd_begins_anew(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    done: list[str] = []

    class Recorded(Many):
        def clear(self, say: Any) -> None:
            done.append("clear")

        def make(self, log: Path) -> None:
            done.append("make")
            raise error

    api = Api({})
    monkeypatch.setattr(scale, "Many", Recorded)
    monkeypatch.setattr(toolchain, "build", lambda names, progress: done.extend(names))
    monkeypatch.setattr(kwok, "running", lambda folder: _given(folder))
    monkeypatch.setattr(Cluster, "forge", lambda _: _given(Branches()))
    monkeypatch.setattr(scale, "begin_anew", lambda _: done.append("anew"))
    with pytest.raises(type(error) if isinstance(error, SlipwayError) else error):
        scale.scale(api.cluster, quiet)
    assert done == ["kwok", "clear", "make", "clear", "anew"]


def _given(value: Any) -> Any:
    import contextlib

    return contextlib.nullcontext(value)


def test_argo_cd_begins_anew_and_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def pod(name: str, uid: str) -> dict[str, Any]:
        labels = {"app.kubernetes.io/name": name}
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        return {"metadata": {"name": uid, "uid": uid, "labels": labels}, "status": ready}

    server = pod("argocd-server", "s")
    api = Api({PODS: {"items": [server, pod("argocd-redis", "r1")]}, f"{PODS}/r1": {"kind": "Pod"}})

    def later(_seconds: float) -> None:
        api.objects[PODS] = {"items": [server, pod("argocd-redis", "r2")]}

    monkeypatch.setattr(scale.time, "sleep", later)
    scale.begin_anew(api.cluster)
    assert api.asked == [("DELETE", f"{PODS}/r1")]
    monkeypatch.setattr(scale, "PUSH_PATIENCE_S", -1)
    api.objects[f"{PODS}/r2"] = {"kind": "Pod"}
    with pytest.raises(SlipwayError, match="does not come back"):
        scale.begin_anew(api.cluster)


# --- kwok -------------------------------------------------------------------------------------


def test_kwok_outlives_ctrl_c_and_ends_with_the_bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "kwok"
    program.write_text('#!/bin/sh\necho "$$ $*"\nexec sleep 60\n')
    program.chmod(0o755)
    monkeypatch.setattr(toolchain, "binary", lambda _: program)
    monkeypatch.setattr(toolchain, "files", lambda _: tmp_path / "files")
    with kwok.running(tmp_path) as log:
        deadline = time.monotonic() + 10
        while not (said := log.read_text()).endswith("\n") and time.monotonic() < deadline:
            pass
        process = int(said.split()[0])
        assert os.getpgid(process) != os.getpgid(0)
        os.kill(process, 0)
    assert "--manage-all-nodes=false" in said
    assert said.count("--config=") == len(kwok.STAGES)
    with pytest.raises(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def test_nodes_that_do_not_become_ready_show_what_kwok_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "kwok.log"
    log.write_text("forbidden\n")
    monkeypatch.setattr(kwok, "PATIENCE_S", -1)
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    api = Api({kwok.NODES: {"items": [ready]}})
    kwok.add(api.cluster, 1, log)
    with pytest.raises(SlipwayError, match="forbidden"):
        kwok.add(api.cluster, 2, log)


def test_the_stages_are_kept_from_the_module() -> None:
    kept = toolchain.tool("kwok").config.files
    for stage in kwok.STAGES:
        assert any(f"kustomize/stage/{stage}".startswith(f"{folder}/") for folder in kept)


# --- what is measured -------------------------------------------------------------------------


def table(*rows: tuple[str | None, str | None]) -> dict[str, Any]:
    columns = [{"name": name} for name in ("Name", "Sync Status", "Health Status", "Project")]
    cells = [{"cells": ["a", sync, health, NAME]} for sync, health in rows]
    return {"columnDefinitions": columns, "rows": cells}


def test_all_are_there_before_all_are_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api({f"{ARGO}/applications": table((None, None))})
    made = place(api, tmp_path, 2)
    steps = [
        table(("Synced", "Healthy"), ("OutOfSync", "Missing")),
        table(("Synced", "Healthy"), ("Synced", "Progressing")),
        table(("Synced", "Healthy"), ("Synced", "Healthy")),
    ]

    def later(_seconds: float) -> None:
        api.objects[f"{ARGO}/applications"] = steps.pop(0)

    monkeypatch.setattr(scale.time, "sleep", later)
    course = scale.watch(made, quiet)
    assert [look[1:] for look in course.looks] == [(1, 0), (2, 1), (2, 1), (2, 2)]
    assert course.exist is not None
    assert course.settled is not None

    monkeypatch.setattr(scale, "STUCK_S", 0)
    api.objects[f"{ARGO}/applications"] = table(("Synced", "Healthy"))
    steps = [table(("Synced", "Healthy"))] * 9
    assert scale.watch(made, quiet).settled is None


def given(restarts: dict[str, str] | None = None) -> dict[str, Any]:
    limits = {scale.CONTROLLER: "512Mi"}
    settings = {"reposerver.parallelism.limit": "2"}
    return {"models": 9, "settings": settings, "limits": limits, "restarts": restarts or {}}


def test_figures_tell_of_settings_and_limits() -> None:
    used = {scale.CONTROLLER: Use(300 * 2**20, 0.5)}
    course = scale.Course(10, 60, [(60, 9, 9)])
    settled, memory, push = scale.figures(course, used, used, [3.0, 5.0, 4.0], given())
    assert (settled.value, memory.value, push.value) == (60, 300, 4)
    assert "reposerver.parallelism.limit 2" in settled.how
    assert "controller 300 of 512Mi" in memory.how
    assert "slowest 5.0 s" in push.how


def test_what_did_not_settle_says_how_far_it_came_and_who_was_stopped() -> None:
    used = {scale.CONTROLLER: Use(512 * 2**20, 0.5)}
    stopped = given({scale.CONTROLLER: "OOMKilled, 2 times"})
    course = scale.Course(10, None, [(200, 9, 4)])
    settled, memory, push = scale.figures(course, used, {}, [], stopped)
    assert settled.value is None
    assert "4 of 9 synced" in settled.problem
    assert "OOMKilled, 2 times" in settled.problem
    assert memory.value == 512
    assert push.problem


def test_settings_are_those_in_force() -> None:
    maps = "/api/v1/namespaces/argocd/configmaps"
    variables = [{"name": "ARGOCD_K8S_CLIENT_QPS", "value": "200"}]
    api = Api(
        {
            f"{maps}/argocd-cmd-params-cm": {"data": {"controller.status.processors": "4"}},
            f"{maps}/argocd-cm": {"data": {"timeout.reconciliation": "60s"}},
            f"{PODS}/{scale.CONTROLLER}-0": {"spec": {"containers": [{"env": variables}]}},
        }
    )
    found = scale.settings(api.cluster)
    assert (found["controller.status.processors"], found["QPS"]) == ("4", "200")
    assert found["controller.operation.processors"] == "10"
    assert found["timeout.reconciliation"] == "60s"
    assert found["manifest-generate-paths"] == "no"


def test_the_meter_knows_the_peak_the_processor_and_who_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "kubepods" / "burstable" / "pod7"
    group.mkdir(parents=True)

    def use(mib: int, seconds: float) -> None:
        for name, content in {
            "memory.current": f"{mib * 2**20}\n",
            "memory.stat": "inactive_file 0\n",
            "cpu.stat": f"usage_usec {seconds * 1e6:.0f}\n",
        }.items():
            # At once, as the kernel does it.
            (tmp_path / name).write_text(content)
            (tmp_path / name).rename(group / name)

    state = {"restartCount": 2, "lastState": {"terminated": {"reason": "OOMKilled"}}}
    limit = {"resources": {"limits": {"memory": "384Mi"}}}
    pod = {
        "metadata": {"uid": "7", "name": "x", "labels": {"app.kubernetes.io/name": "repo"}},
        "spec": {"containers": [limit]},
        "status": {"containerStatuses": [state]},
    }
    groups = Groups.find(tmp_path)
    monkeypatch.setattr(meter.Groups, "find", lambda: groups)
    monkeypatch.setattr(meter, "SAMPLE_S", 0.01)
    use(100, 1)
    with Meter(Api({PODS: {"items": [pod]}}).cluster, ["argocd"]) as watched:

        def sampled(mib: int) -> None:
            use(mib, 2)
            deadline = time.monotonic() + 10
            while watched._peaks["repo"] < mib * 2**20 and time.monotonic() < deadline:
                pass

        sampled(300)
        use(200, 2)
        first = watched.lap()["repo"]
        sampled(200)
        second = watched.lap()["repo"]
        assert watched.limits() == {"repo": "384Mi"}
        assert watched.restarts() == {"repo": "OOMKilled, 2 times"}
    assert (first.peak_bytes, second.peak_bytes) == (300 * 2**20, 200 * 2**20)
    assert first.cores > second.cores == 0


def test_it_is_measured_on_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def many_models(_platform: Cluster, _say: Any, *, models: int = 5) -> list[Figure]:
        sizes.append(models)
        return [Figure("scale", 1.0), Figure("scale-memory", 2.0)]

    def usual(_platform: Cluster, _say: Any, *, rounds: int = 3) -> list[Figure]:
        return [Figure("up", float(rounds))]

    table = {usual: ("up",), many_models: ("scale", "scale-memory")}
    monkeypatch.setattr(bench, "MEASUREMENTS", table)
    monkeypatch.setattr(bench, "ON_REQUEST", {many_models})

    def measured(*names: str, **given: int) -> dict[str, float | None]:
        found = bench.measure(Api({}).cluster, names, lambda _figure, _news: None, **given)
        return {figure.name: figure.value for figure in found}

    assert measured() == {"up": 3}
    assert measured("scale") == {"scale": 1, "scale-memory": 2}
    assert measured("up", "scale", rounds=7, models=9) == {"up": 7, "scale": 1, "scale-memory": 2}
    assert sizes == [5, 9]
