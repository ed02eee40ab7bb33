"""How things are measured. What they measure is the platform's, and no test fails by it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from slipway import bench, paths, up
from slipway.bench import command, prediction, push, rest, train
from slipway.bench import load as load_module
from slipway.bench.figures import TARGETS, Figure, percentile
from slipway.bench.rest import Groups
from slipway.cli import app
from slipway.commands.bench import amount
from slipway.endpoints import Cluster, Outside
from slipway.errors import BadInput, SlipwayError

NODE = "workflows.argoproj.io/node-name"


def cluster(objects: dict[str, Any]) -> Cluster:
    """A cluster whose API server knows these paths."""

    def answer(request: httpx.Request) -> httpx.Response:
        found = objects.get(request.url.path)
        return httpx.Response(200 if found else 404, json=found or {"message": "no"})

    client = httpx.Client(base_url="https://api", transport=httpx.MockTransport(answer))
    return Cluster(client, embedded=True)


# --- figures ----------------------------------------------------------------------------------


def test_percentile_is_a_value_that_was_measured() -> None:
    values = [float(n) for n in range(20, 0, -1)]
    assert (percentile(values, 95), percentile(values, 50)) == (19, 10)
    assert percentile([7.0], 95) == 7


def test_a_target_is_an_upper_or_a_lower_limit() -> None:
    assert TARGETS["up"].met(5) is True
    assert TARGETS["up"].met(5.1) is False
    assert TARGETS["throughput"].met(2.9) is False
    assert TARGETS["throughput"].met(3) is True
    assert TARGETS["up"].met(None) is None
    assert TARGETS["in-cluster"].met(1) is None


def test_every_figure_is_measured_once() -> None:
    given = [name for names in bench.MEASUREMENTS.values() for name in names]
    assert sorted(given) == sorted(TARGETS)


def test_an_unknown_figure_is_answered_with_the_near_one() -> None:
    with pytest.raises(BadInput, match="did you mean 'memory'"):
        bench.check_names(["memry"])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.193, "0.19 s"), (2.5, "2.50 s"), (34.47, "34.5 s"), (1706.5, "1706 s"), (None, "-")],
)
def test_amounts_have_the_digits_that_count(value: float | None, shown: str) -> None:
    assert amount(value, "s") == shown


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Replaces every measurement; state and cache are the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Cluster, "connect", lambda: cluster({}))

    def use(**measurements: Any) -> None:
        table = {function: (name.replace("_", "-"),) for name, function in measurements.items()}
        monkeypatch.setattr(bench, "MEASUREMENTS", table)

    return use


def fine(_platform: Cluster, say: Callable[[str], None]) -> list[Figure]:
    say("measuring")
    return [Figure("up", 4.2, "how it was")]


def slow(_platform: Cluster, _say: Callable[[str], None]) -> list[Figure]:
    return [Figure("disk", 12.0, "du")]


def broken(_platform: Cluster, _say: Callable[[str], None]) -> list[Figure]:
    raise SlipwayError("the forge is [gone]", fix="make up")


def test_a_missed_target_is_shown_and_no_failure(measured: Callable[..., None]) -> None:
    measured(up=fine, disk=slow)
    done = CliRunner().invoke(app, ["bench"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert any("4.20 s" in line and "≤ 5.00 s" in line and " yes " in line for line in lines)
    assert any("12.0 GB" in line and " no " in line for line in lines)
    document = json.loads(bench.default_file().read_text())
    assert [(f["name"], f["met"]) for f in document["figures"]] == [("up", True), ("disk", False)]
    assert document["machine"]["cores"]


def test_what_cannot_be_measured_stops_nothing_but_fails(
    measured: Callable[..., None], tmp_path: Path
) -> None:
    measured(push=broken, up=fine)
    file = tmp_path / "elsewhere" / "b.json"
    done = CliRunner().invoke(app, ["bench", "-o", "json", "--file", str(file)])
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document == json.loads(file.read_text())
    by_name = {f["name"]: f for f in document["figures"]}
    assert by_name["push"]["measured"] is None
    assert "[gone]" in by_name["push"]["problem"]
    assert by_name["up"]["measured"] == 4.2


def test_only_what_is_named_is_measured(measured: Callable[..., None]) -> None:
    measured(push=broken, up=fine)
    done = CliRunner().invoke(app, ["bench", "up"])
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(app, ["bench", "up", "pushes"]).exit_code == 2


# --- make up ----------------------------------------------------------------------------------


def test_first_runs_are_reported_as_make_up_recorded_them(
    measured: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.cache().mkdir(parents=True)
    cold, cached, peak = command.installs(None, print)
    assert (cold.value, cold.how, cold.problem) == (None, "not measured yet", "")
    assert (peak.value, peak.how, peak.problem) == (None, "not measured yet", "")
    monkeypatch.delenv("SLIPWAY_BEGUN", raising=False)
    up._remember_time(None, 3, 40)
    up._remember_time("cold", 2000.04, 21_500_000_000)
    up._remember_time("cached", 100, 3)
    up._remember_time("cached", 200, 6_000_000_000)
    cold, cached, peak = command.installs(None, print)
    assert (cold.value, cached.value, peak.value) == (2000.0, 200, 21.5)
    assert "make up, cold, began" in peak.how


def test_a_run_that_kept_no_peak_has_none(measured: Callable[..., None]) -> None:
    up.record("cold", 2000)
    cold, _, peak = command.installs(None, print)
    assert (cold.value, peak.value) == (2000, None)


def test_how_long_make_check_took_is_what_it_recorded(measured: Callable[..., None]) -> None:
    assert command.checked(None, print)[0].value is None
    up.record("make-check", 171.04)
    [figure] = command.checked(None, print)
    assert (figure.value, figure.target.met(figure.value)) == (171, True)
    assert figure.how.startswith("make check that ended")


# --- at rest ----------------------------------------------------------------------------------


def make(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


def test_groups_of_version_1(tmp_path: Path) -> None:
    stat = "inactive_file 1\ntotal_inactive_file 30\n"
    for pod in ("podaa", "burstable/podbb", "besteffort/podcc"):
        make(
            tmp_path / "memory/kubepods" / pod,
            memory__usage_in_bytes="100\n",
            memory__stat=stat,
        )
        make(tmp_path / "cpuacct/kubepods" / pod, cpuacct__usage="2500000000\n")
    groups = Groups.find(tmp_path)
    pods = groups.pods()
    assert sorted(pods) == ["aa", "bb", "cc"]
    assert groups.working_set(pods["bb"]) == 70
    assert groups.cpu_seconds(pods["cc"]) == 2.5


def test_groups_of_version_2(tmp_path: Path) -> None:
    make(
        tmp_path / "kubepods/burstable/podbb",
        memory__current="100\n",
        memory__stat="file 50\ninactive_file 130\n",
        cpu__stat="usage_usec 2500000\nuser_usec 1\n",
    )
    groups = Groups.find(tmp_path)
    assert groups.working_set(groups.pods()["bb"]) == 0
    assert groups.cpu_seconds(groups.pods()["bb"]) == 2.5


def test_no_groups_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match="make up"):
        Groups.find(tmp_path)


def test_static_pods_are_known_by_their_hash() -> None:
    usual = {"metadata": {"namespace": "dev", "name": "a", "uid": "1"}}
    static = {
        "metadata": {
            "namespace": "kube-system",
            "name": "etcd",
            "uid": "2",
            "annotations": {"kubernetes.io/config.hash": "ff"},
        }
    }
    names = rest.pod_names(cluster({"/api/v1/pods": {"items": [usual, static]}}))
    assert names == {"1": "dev/a", "ff": "kube-system/etcd"}


def test_a_pods_process_is_not_counted_twice() -> None:
    assert rest.in_pod(["4:memory:/kubepods/burstable/podx/y", "1:cpu:/"])
    assert not rest.in_pod(["4:memory:/", "0::/"])


def test_at_rest_means_that_nothing_trains() -> None:
    running = {"metadata": {"name": "train-x"}, "status": {"phase": "Running"}}
    ended = {"metadata": {"name": "train-y"}, "status": {"phase": "Failed"}}
    path = "/apis/argoproj.io/v1alpha1/namespaces/pipelines/workflows"
    with pytest.raises(SlipwayError, match="not at rest: train-x runs"):
        rest.rest(cluster({path: {"items": [running, ended]}}), print)


def test_memory_is_the_median_and_processor_time_the_difference() -> None:
    used = {"dev/a": rest.Use(), "node/kubelet": rest.Use()}
    for cpu, memory in ((1, 2**30), (2, 3 * 2**30), (4, 2**31)):
        used["dev/a"].add(cpu, memory)
    used["node/kubelet"].add(9, 0)
    memory, cpu = rest._rest_figures(used, 30)
    assert (memory.value, cpu.value) == (2, 0.1)
    assert memory.details["namespaces"]["dev"] == {"cores": 0.1, "mib": 2048}


def test_disk_is_what_is_allocated(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    (one / "file").write_bytes(b"x" * 100_000)
    (two / "same").hardlink_to(one / "file")
    (tmp_path / "link").symlink_to(two)
    first, missing, second = rest.allocated(one, tmp_path / "missing", tmp_path / "link")
    assert 100_000 <= first < 200_000
    assert (missing, second < 50_000) == (0, True)
    assert rest.allocated() == []


# --- pushes, training -------------------------------------------------------------------------


def test_the_synced_file_takes_the_annotation() -> None:
    import yaml

    before = (paths.REPOSITORY / push.FILE).read_bytes()
    after = yaml.safe_load(push.annotated(before, "mark"))
    assert after["metadata"].pop("annotations") == {push.ANNOTATION: "mark"}
    assert after == yaml.safe_load(before)
    with pytest.raises(SlipwayError, match="no place"):
        push.annotated(push.annotated(before, "mark"), "mark")


def test_a_push_that_does_not_arrive_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "PATIENCE_S", 0.1)
    item = {"metadata": {"annotations": {push.ANNOTATION: "mark"}}}
    platform = cluster({push.OBJECT: item})
    assert push.seen_after(platform, "mark") < 1
    with pytest.raises(SlipwayError, match="not synced"):
        push.seen_after(platform, "another")


def at(second: int) -> str:
    return f"2026-01-01T00:{second // 60:02}:{second % 60:02}Z"


def pod(node: str, created: int, started: int | None, finished: int | None) -> dict[str, Any]:
    state: dict[str, Any] = {"running": {}}
    if started is not None and finished is not None:
        state = {"terminated": {"startedAt": at(started), "finishedAt": at(finished)}}
    return {
        "metadata": {"creationTimestamp": at(created), "annotations": {NODE: node}},
        "status": {
            "containerStatuses": [
                {"name": "main", "state": state},
                {"name": "wait", "state": {"terminated": {}}},
            ]
        },
    }


def test_a_steps_overhead_is_all_but_its_own_container() -> None:
    pods = [
        pod("train-x.train(1)", 50, 53, 93),
        pod("train-x.ingest(0)", 0, 3, 13),
        pod("train-x.train(0)", 15, 18, 30),
    ]
    ingest, trained = train.costs(pods, {"status": {"finishedAt": at(95)}})
    assert ingest == train.Cost("ingest", before=3, work=10, after=2)
    assert ingest.overhead == 5
    # The first try and the wait for the second are overhead too.
    assert trained == train.Cost("train", before=38, work=40, after=2)


def test_a_step_whose_end_was_missed_is_not_guessed() -> None:
    pods = [pod("train-x.ingest(0)", 0, None, None)]
    with pytest.raises(SlipwayError, match="ingest was not seen"):
        train.costs(pods, {"status": {"finishedAt": at(95)}})


# --- predictions ------------------------------------------------------------------------------


def taken(rate: float, p99: float, errors: dict[str, int] | None = None) -> dict[str, Any]:
    return {"requests_per_second": rate, "p99_ms": p99, "errors": errors or {}}


def test_two_services_are_compared_by_their_medians() -> None:
    ours = [taken(900, 5), taken(1000, 9), taken(100, 6)]
    theirs = [taken(300, 12), taken(290, 24), taken(310, 6)]
    throughput, p99 = prediction.beside(ours, theirs)
    assert (throughput.value, p99.value) == (3, 0.5)
    assert "not every answer" not in throughput.how
    assert "not every answer" in prediction.beside([taken(1, 1, {"503": 2})], theirs)[0].how


@pytest.mark.parametrize("late", [0.6, 0.699, 0.701, 0.2])
def test_two_models_that_answer_otherwise_are_not_compared(late: float) -> None:
    prediction.same_answer({"probability_late": 0.7}, {"predictions": [[0.30002, 0.69998]]})
    with pytest.raises(SlipwayError, match="not the same"):
        prediction.same_answer({"probability_late": 0.7}, {"predictions": [[1 - late, late]]})


def test_mlflow_is_asked_with_the_models_own_inputs() -> None:
    body = json.loads(prediction.model_input(prediction.example(prediction.MODEL)))
    table = body["dataframe_split"]
    row = dict(zip(table["columns"], table["data"][0], strict=True))
    assert (row["carrier"], row["minute_of_day"], row["wind_gust_mph"]) == ("UA", 1110, None)


@pytest.mark.parametrize("url", ["http://192.0.2.1:80/", "http://example.org/", "http://[::2]/"])
def test_load_is_for_this_machine_only(url: str) -> None:
    with pytest.raises(BadInput):
        load_module.address(url)


def test_load_reaches_this_machine_and_its_services() -> None:
    assert load_module.address("http://127.0.0.1:3000/predict") == ("127.0.0.1", 3000)
    assert load_module.address("http://10.96.7.8/predict") == ("10.96.7.8", 80)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


def loaded(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> load_module.Tally:
    """What the generator counts of a service that answers so, in a fifth of a second."""
    monkeypatch.setattr(load_module, "WARM_UP_S", 0.05)

    async def measure() -> load_module.Tally:
        async with await asyncio.start_server(handler, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await load_module.load(f"http://127.0.0.1:{port}/predict", b"{}", 4, 0.2)

    return asyncio.run(measure())


async def one_request(reader: asyncio.StreamReader) -> bool:
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"POST /predict HTTP/1.1")
    return await reader.readexactly(2) == b"{}"


async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await one_request(reader)
    writer.close()


def test_answers_are_timed_and_other_statuses_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        try:
            while await one_request(reader):
                asked += 1
                status = "503 Busy" if asked % 10 == 0 else "200 OK"
                # In two pieces: an answer is one when all of it is there.
                writer.write(f"HTTP/1.1 {status}\r\ncontent-Length: 4\r\n\r\nab".encode())
                await asyncio.sleep(0.002)
                writer.write(b"cd")
        except asyncio.IncompleteReadError:
            writer.close()

    document = loaded(serve, monkeypatch).document()
    assert isinstance(document["requests"], int)
    assert 10 < document["requests"] <= asked
    assert document["errors"] == {"503": pytest.approx(document["requests"] / 9, abs=5)}
    assert isinstance(document["p50_ms"], float)
    assert 2 <= document["p50_ms"] < 100


def test_a_service_that_hangs_up_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SlipwayError, match="closed a connection"):
        loaded(closing, monkeypatch)


def test_no_good_answer_is_no_result() -> None:
    with pytest.raises(SlipwayError, match="500"):
        load_module.Tally(0, 1, errors={"500": 9}).document()


def test_what_pushes_leaves_a_forge_of_somebody_s_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Cluster(None, embedded=False)  # type: ignore[arg-type]
    outside = Outside("github", "https://github.com", "acme/models", "actions")
    monkeypatch.setattr(Cluster, "outside_forge", lambda _: outside)
    [found] = bench.measure(platform, ["push"], lambda *_: None)
    assert "this platform reads somebody's own" in found.problem


def test_a_preview_on_aws_needs_no_platform(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command.toolchain, "fetch", lambda _names: None)
    monkeypatch.setattr(command.pulumi, "on_aws", lambda: ["dev", "prod"])
    seconds = iter((20.0, 2.0, 3.0))
    monkeypatch.setattr(command, "_run", lambda *_: (next(seconds), "9 resources"))
    assert bench.platform(["preview", "up-cold"]) is None
    [found] = command.preview(None, lambda _: None)
    # The first run compiled the SDK.
    assert (found.value, found.details) == (3, {"dev": 2, "prod": 3})
    assert "stack prod, the slowest of 2" in found.how
    monkeypatch.setattr(paths, "state", lambda: tmp_path)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with pytest.raises(SlipwayError, match="no cluster"):
        bench.platform(["preview", "memory"])


def test_how_long_a_destroy_took_is_what_it_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "times_file", lambda: tmp_path / "times.json")
    monkeypatch.setattr(up, "head", lambda: "a" * 40)
    [figure] = command.destroyed(None, lambda _: None)
    assert (figure.value, figure.how) == (None, "not measured yet")
    up.record("destroy", 41.23)
    [figure] = command.destroyed(None, lambda _: None)
    assert (figure.value, figure.target.met(figure.value)) == (41.2, True)
    assert "commit aaaaaaaaaaaa" in figure.how
