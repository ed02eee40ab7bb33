"""`make up` between its parts: what it hears, what it remembers, what it says at the end."""

from __future__ import annotations

import io
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from rich.console import Console

from slipway import (
    cluster,
    doctor,
    images,
    merging,
    paths,
    pulumi,
    release,
    serving,
    sources,
    toolchain,
    up,
)
from slipway.commands import predict
from slipway.doctor import Finding
from slipway.endpoints import Cluster, ClusterError
from slipway.errors import BadInput, SlipwayError
from slipway.forge import NotFound
from slipway.publish import git
from tests import samples

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: Patch) -> Path:
    """A checkout on a machine of its own, where nothing may be started."""
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    folder = tmp_path / "checkout"
    for name in ("infra/stack.py", "toolchain/etcd/go.mod", "environments/Pulumi.local.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("config: {'slipway:cluster': embedded}\n")
    paths.state().mkdir(parents=True)
    paths.images_file().write_text("{}")
    monkeypatch.setattr(paths, "REPOSITORY", folder)
    (folder / ".gitignore").write_text("__pycache__/\n")
    git("init", "--quiet")
    commit()
    for part, name in (
        *((toolchain, "build"), (toolchain, "fetch"), (toolchain, "missing")),
        *((images, "build"), (images, "push"), (cluster, "up")),
        *((cluster, "configure"), (cluster, "start_process"), (cluster, "clean_remains")),
        *((pulumi, "follow"), (up, "publish"), (up, "train"), (Cluster, "connect")),
    ):
        monkeypatch.setattr(part, name, lambda *_, name=name, **__: pytest.fail(f"{name} called"))
    return folder


def commit() -> None:
    """What lies in the checkout."""
    git("add", "--all")
    git("commit", "--quiet", "--message", "as it is")


def heard(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=120, highlight=False)


# --- hearing the engine -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "change"),
    [
        (" +  kubernetes:apps/v1:Deployment mlflow creating (0s) ", ("mlflow", "creating (0s)")),
        (" +  kubernetes:apps/v1:Deployment mlflow created (12s) ", ("mlflow", "created (12s)")),
        (" +  kubernetes:core/v1:Namespace dev created (0.05s) ", ("dev", "created")),
        (
            " ~  kubernetes:core/v1:Service gitea updated (1s) [diff: ~spec]",
            ("gitea", "updated (1s)"),
        ),
        (" -  kubernetes:core/v1:Secret old deleted (0.01s)", ("old", "deleted")),
        (" ++ kubernetes:batch/v1:Job buckets created replacement (3s)", ("buckets", "created")),
        (" +- kubernetes:batch/v1:Job buckets replaced (0.00s)", ("buckets", "replaced")),
        (" -- kubernetes:batch/v1:Job buckets deleted original", ("buckets", "deleted")),
        (" ~  kubernetes:core/v1:Namespace forge refresh", None),
        (" ~  kubernetes:core/v1:Namespace forge refreshing (5s)", None),
        ("@ updating......", None),
        ("    pulumi:pulumi:Stack slipway-local running ", None),
        ("Resources:", None),
        ("    + 3 created", None),
        ("    +-1 replaced", None),
        ("    223 unchanged", None),
        ("", None),
    ],
)
def test_changes_are_heard(line: str, change: tuple[str, str] | None) -> None:
    assert up.change_in(line) == change


def test_diagnostics_are_what_the_engine_says_last() -> None:
    said = "Updating (local):\nDiagnostics:\n  mlflow:\n    error: no such image\n\nResources:\n"
    assert up.diagnostics(said).splitlines()[:2] == ["mlflow:", "    error: no such image"]


def test_a_failure_without_diagnostics_is_told_too() -> None:
    assert up.diagnostics("error: no space left on device\n") == "error: no space left on device"
    assert up.diagnostics("") == ""


def platform_step(monkeypatch: Patch, console: Console, lines: list[str], code: int) -> None:
    def follow(*_: str, log: Path, on_line: Callable[[str], None]) -> int:
        log.parent.mkdir(parents=True)
        log.write_text("\n".join(lines))
        for line in lines:
            on_line(line)
        return code

    monkeypatch.setattr(pulumi, "follow", follow)
    up.apply(up.Report(console))


def test_a_resource_counts_once(monkeypatch: Patch, console: Console) -> None:
    lines = [f" +  kubernetes:apps/v1:Deployment mlflow {w}" for w in ("creating (0s)", "created")]
    platform_step(monkeypatch, console, lines, 0)
    assert "1 resources changed" in heard(console)
    assert "platform: mlflow created" in heard(console)


def test_nothing_to_change(monkeypatch: Patch, console: Console) -> None:
    platform_step(monkeypatch, console, ["Resources:", "    223 unchanged"], 0)
    assert "nothing to change" in heard(console)


def test_a_failing_engine_is_quoted(monkeypatch: Patch, console: Console) -> None:
    with pytest.raises(SlipwayError, match=r"pulumi up failed\n.*no such image") as error:
        platform_step(monkeypatch, console, ["Diagnostics:", "  error: no such image"], 1)
    assert "then do the same again" in str(error.value)
    assert "✗ platform" in heard(console)


# --- what is remembered -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "infra/stack.py",
        "toolchain/etcd/go.mod",
        "environments/Pulumi.local.yaml",
        "policies/admission/images.yaml",
        "slipway/people.py",
        "infra/platform/new.py",
    ],
)
def test_what_lies_in_the_checkout_decides_the_platform(checkout: Path, name: str) -> None:
    seen, file = [up._inputs()], checkout / name
    for content in ("config: {}\n", "config: {'slipway:cluster': other}\n"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        seen.append(up._inputs())
    commit()
    seen.append(up._inputs())
    file.unlink()
    seen.append(up._inputs())
    assert len(set(seen)) == len(seen)


def test_so_does_what_the_machine_adds(checkout: Path, monkeypatch: Patch, tmp_path: Path) -> None:
    seen = [up._inputs()]
    paths.images_file().write_text('{"base": "other"}')
    seen.append(up._inputs())
    paths.kubeconfig().write_text("of another cluster")
    seen.append(up._inputs())
    stacks = tmp_path / "stacks"
    monkeypatch.setenv("SLIPWAY_STACKS", str(stacks))
    stacks.mkdir()
    for content in ("config: {}\n", "config: {'slipway:cluster': other}\n"):
        (stacks / "Pulumi.local.yaml").write_text(content)
        seen.append(up._inputs())
    assert len(set(seen)) == len(seen)


def test_what_is_compiled_does_not(checkout: Path) -> None:
    before = up._inputs()
    (checkout / "infra" / "__pycache__").mkdir()
    (checkout / "infra" / "__pycache__" / "stack.pyc").write_text("compiled")
    assert up._inputs() == before


RELEASED = "environments/dev/models/flight_delay.yaml"
SAMPLE = "bentos/flight_delay/model.yaml"


class Forge:
    """What main has, by path, and pull requests by the branch each is of."""

    def __init__(self, *there: str, merged: tuple[str, ...] = (), closed: tuple[str, ...] = ()):
        self.there, self.empty = set(there), False
        pulls = [(branch, True) for branch in merged] + [(branch, False) for branch in closed]
        self._pulls = [SimpleNamespace(head=branch, merged=state) for branch, state in pulls]

    def files(self, folder: str, _: str = "main") -> list[str]:
        if self.empty:
            raise NotFound("no branch main", status=404)
        return [file for file in self.there if str(Path(file).parent) == folder]

    def read(self, path: str) -> bytes:
        assert path in self.there
        return release.dumps(samples.released(model="flight_delay")).encode()

    def pulls(self, state: str) -> list[Any]:
        assert state == "all"
        return self._pulls


@pytest.fixture
def answering(monkeypatch: Patch) -> Iterator[dict[str, Any]]:
    """A platform that is up and was brought up from these inputs."""
    state: dict[str, Any] = {"ready": True, "answers": f"sha256:{'a' * 64}"}
    state["forge"] = Forge(RELEASED)
    monkeypatch.setattr(up, "all_ready", lambda: state["ready"])
    monkeypatch.setattr(Cluster, "connect", lambda: api(iter([]), []))
    monkeypatch.setattr(Cluster, "forge", lambda *_, **__: nullcontext(state["forge"]))
    monkeypatch.setattr(serving, "answering", lambda *_: state["answers"])
    up._remember()
    return state


@pytest.mark.parametrize("elsewhere", [False, True], ids=["embedded", "a cluster that was there"])
def test_a_second_time_there_is_nothing_to_do(
    answering: dict[str, Any], monkeypatch: Patch, console: Console, elsewhere: bool, tmp_path: Path
) -> None:
    monkeypatch.setattr(up, "summary", lambda _: None)
    if elsewhere:
        (tmp_path / "kubeconfig").write_text("theirs")
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        assert not up.nothing_to_do(), "it was another cluster"
        up._remember()
    up.up(console)
    assert "nothing to do" in heard(console)


def test_there_is_something_to_do(answering: dict[str, Any], checkout: Path) -> None:
    assert up.nothing_to_do()
    answering["answers"] = None
    assert not up.nothing_to_do(), "no model answers"
    answering |= {"answers": "sha256:b", "ready": False}
    assert not up.nothing_to_do(), "a pod is not ready"
    answering["ready"] = True
    answering["forge"].empty = True
    assert not up.nothing_to_do(), "the forge was made anew"
    answering["forge"].empty = False
    (checkout / "infra" / "stack.py").write_text("other")
    assert not up.nothing_to_do(), "the program changed"


def test_a_model_that_nobody_releases_need_not_answer(answering: dict[str, Any]) -> None:
    answering |= {"answers": None, "forge": Forge(SAMPLE, merged=("release/flight_delay-1",))}
    assert up.nothing_to_do()


def test_what_does_not_answer_is_looked_at(answering: dict[str, Any], monkeypatch: Patch) -> None:
    def away() -> bool:
        raise ClusterError("no answer")

    monkeypatch.setattr(up, "all_ready", away)
    assert not up.nothing_to_do()


def test_the_first_time_nothing_is_asked(monkeypatch: Patch) -> None:
    monkeypatch.setattr(up, "all_ready", lambda: pytest.fail("there is no cluster to ask"))
    assert not up.nothing_to_do()


@pytest.mark.parametrize(
    ("embedded", "broken", "ready"),
    [
        (True, "", True),
        (True, "kube-system", False),
        (True, "mlflow", False),
        (False, "kube-system", True),
        (False, "mlflow", False),
    ],
)
def test_on_a_cluster_that_others_use_only_what_is_the_platforms_has_to_be_ready(
    monkeypatch: Patch, embedded: bool, broken: str, ready: bool
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        names = ["mlflow", "kube-system"]
        if request.url.path == "/api/v1/namespaces":
            if request.url.params.get("labelSelector") == "app.kubernetes.io/part-of=slipway":
                names = ["mlflow"]
            items = [{"metadata": {"name": name}} for name in names]
        else:
            items = [
                {
                    "metadata": {"namespace": name},
                    "spec": {"replicas": 1},
                    "status": {"readyReplicas": int(name != broken)},
                }
                for name in names
            ]
        return httpx.Response(200, json={"items": items})

    client = httpx.Client(base_url="https://api", transport=httpx.MockTransport(answer))
    monkeypatch.setattr(Cluster, "connect", lambda: Cluster(client, embedded=embedded))
    monkeypatch.setattr(pulumi, "is_embedded", lambda _: embedded)
    monkeypatch.setattr(cluster, "is_up", lambda: embedded)
    assert up.all_ready() == ready


def test_what_does_not_run_is_not_asked(monkeypatch: Patch) -> None:
    monkeypatch.setattr(cluster, "is_up", lambda: False)
    assert not up.all_ready()


@pytest.mark.parametrize(
    ("spec", "status", "ready"),
    [
        ({"replicas": 2}, {"readyReplicas": 2}, True),
        ({"replicas": 2}, {"readyReplicas": 1}, False),
        ({"replicas": 1}, {}, False),
        ({"replicas": 0}, {}, True),
        ({}, {"desiredNumberScheduled": 1, "numberReady": 1}, True),
        ({}, {"desiredNumberScheduled": 1, "numberReady": 0}, False),
    ],
)
def test_readiness(spec: dict[str, int], status: dict[str, int], ready: bool) -> None:
    assert up._is_ready({"spec": spec, "status": status}) == ready


# --- the way through --------------------------------------------------------------------------


@pytest.fixture
def way(monkeypatch: Patch) -> list[str]:
    """The parts that were gone through."""
    gone: list[str] = []
    monkeypatch.setattr(doctor, "examine", lambda *, embedded: [])
    monkeypatch.setattr(doctor, "missing_packages", list)
    monkeypatch.setattr(Cluster, "connect", lambda: None)
    for name in (
        "start_cluster",
        "apply",
        "await_consoles",
        "_publish",
        "_first_release",
        "summary",
    ):
        monkeypatch.setattr(up, name, lambda *_, name=name: gone.append(name))
    for part in (toolchain, images):

        def build(names: object = None, *, part: Any = part, **_: object) -> None:
            gone.append(f"{part.__name__} {'all' if names is None else ' '.join(names)}")  # type: ignore[call-overload]

        monkeypatch.setattr(part, "build", build)
    monkeypatch.setattr(toolchain, "fetch", lambda names, **_: gone.extend(names))
    monkeypatch.setattr(toolchain, "missing", list)
    return gone


ALWAYS = ["apply", "await_consoles", "_publish", "_first_release", "summary"]


def test_from_nothing(way: list[str], console: Console) -> None:
    up.up(console)
    built = ["slipway.toolchain all", *pulumi.MANIFESTS, "slipway.images all"]
    assert way == [*built, "start_cluster", *ALWAYS]
    assert (paths.state() / "up").read_text() == up._inputs()


def test_on_a_cluster_that_exists(way: list[str], console: Console, monkeypatch: Patch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/some/where")
    up.up(console)
    built = f"slipway.toolchain {' '.join(pulumi.TOOLS)}"
    assert way == [built, *pulumi.MANIFESTS, *ALWAYS]


def test_the_disk_is_watched_meanwhile(monkeypatch: Patch) -> None:
    seen = iter((10, 15, 40, 12))
    last, watched = 20, threading.Event()

    def used() -> int:
        if (value := next(seen, None)) is None:
            watched.set()
        return last if value is None else value

    monkeypatch.setattr(up, "_disk_used", used)
    with up._disk_peak(every_s=0.001) as peak:
        assert watched.wait(10)
        assert peak() == 30
        last = 60
        assert peak() == 50
    assert peak() == 50


def test_the_disk_is_counted_once_and_folders_may_be_still_to_come() -> None:
    assert not paths.data().exists()
    assert 0 < up._disk_used() <= shutil.disk_usage(paths.state()).total


def test_what_fails_is_not_remembered(way: list[str], console: Console, monkeypatch: Patch) -> None:
    def broken(*_: object) -> None:
        raise SlipwayError("no")

    monkeypatch.setattr(up, "_first_release", broken)
    with pytest.raises(SlipwayError):
        up.up(console)
    assert not (paths.state() / "up").exists()


def test_a_machine_that_cannot_is_left_as_it_is(console: Console, monkeypatch: Patch) -> None:
    failed = Finding("memory", "failed", "2 GiB, 6 needed", fix="a larger machine")
    monkeypatch.setattr(doctor, "examine", lambda *, embedded: [failed])
    monkeypatch.setattr(up, "_kind", lambda: None)
    with pytest.raises(BadInput, match="2 GiB, 6 needed\n  fix: a larger machine"):
        up.up(console)


def test_the_checkout_is_published_by_the_administrator(
    console: Console, monkeypatch: Patch
) -> None:
    """Nobody else may push to main."""
    monkeypatch.setenv("FORGE_USERNAME", "ada")
    monkeypatch.setenv("FORGE_PASSWORD", "hers")
    remotes: list[up.Remote] = []
    given: list[dict[str, Any]] = []

    def publish(remote: up.Remote, **options: Any) -> tuple[str, bool]:
        remotes.append(remote)
        given.append(options)
        return "d4" * 20, False

    monkeypatch.setattr(up, "publish", publish)
    monkeypatch.setattr(up, "wait_synced", lambda *_: None)
    monkeypatch.setattr(Cluster, "service", lambda *_: nullcontext("http://forge"))
    monkeypatch.setattr(Cluster, "secret", lambda *_: {"username": "admin", "password": "theirs"})
    platform = api(iter([{"data": {"FORGE_REPOSITORY": "slipway/slipway"}}] * 2), [])
    up._publish(up.Report(console), platform)
    assert remotes == [up.Remote("http://forge/slipway/slipway.git", "admin", "theirs")]
    # Which releases are this platform's, it knows itself.
    monkeypatch.setattr(sources, "is_foreign", lambda *of: of == (platform, RELEASED, b"x"))
    assert given[0]["is_foreign"](RELEASED, b"x")
    given[0]["warn"]("stays out")
    assert "· stays out" in heard(console)


OUTSIDE = {
    "data": {
        "FORGE_KIND": "gitea",
        "FORGE_SERVER": "https://git.example.com",
        "FORGE_REPOSITORY": "acme/models",
        "FORGE_GATES": "cluster",
    }
}


def test_nothing_is_pushed_to_a_forge_that_was_there_before(
    console: Console, monkeypatch: Patch
) -> None:
    monkeypatch.delenv("FORGE_KIND", raising=False)
    bot = {"FORGE_USERNAME": "bot", "FORGE_PASSWORD": "token"}
    monkeypatch.setattr(Cluster, "secret", lambda *_: bot)
    looked: list[Any] = []
    monkeypatch.setattr(up, "published", lambda remote: looked.append(remote) or "d4" * 20)
    monkeypatch.setattr(up, "look_again", looked.append)
    monkeypatch.setattr(up, "wait_synced", lambda *of: looked.append(of[2]))
    platform = api(iter([OUTSIDE] * 2), [])
    assert up._publish(up.Report(console), platform) == "d4" * 20
    remote = up.Remote("https://git.example.com/acme/models.git", "bot", "token")
    assert looked == [remote, platform, "workflows"]


# --- the first model ---------------------------------------------------------------------------


@pytest.fixture
def first(monkeypatch: Patch, console: Console) -> Callable[..., list[str]]:
    """What becomes of the first model on a forge."""
    done: list[str] = []

    def merge(forge: Forge, number: int, **_: Any) -> None:
        done.append(f"merged {number}")
        forge.there.add(RELEASED)

    def ran(forge: Forge, *, platform: Any = None) -> list[str]:
        done.clear()
        monkeypatch.setattr(Cluster, "forge", lambda *_, **__: nullcontext(forge))
        platform = platform or api(iter([{"data": {}}]), [])
        up._first_release(up.Report(console), platform, "d4" * 20)
        return done

    def train(*_: Any, **__: Any) -> Any:
        done.append("trained")
        return SimpleNamespace(number=7, url="pulls/7")

    monkeypatch.setattr(up, "train", train)
    monkeypatch.setattr(merging, "merge", merge)
    monkeypatch.setattr(up, "look_again", lambda _: None)
    monkeypatch.setattr(serving, "wait_until_answering", lambda *_, **__: done.append("waited"))
    answer = serving.Answer("", {"probability_late": 0.5})
    monkeypatch.setattr(serving, "predict", lambda *_: answer)
    return ran


def test_where_nothing_was_ever_released_the_sample_model_is(
    first: Callable[..., list[str]], console: Console
) -> None:
    # A proposal that was closed, and a merge that released nothing, are no release.
    forge = Forge(SAMPLE, merged=("feature",), closed=("release/flight_delay-1",))
    assert first(forge) == ["trained", "merged 7", "waited"]
    assert "merged pulls/7" in heard(console)
    assert first(forge) == ["waited"], "the second time"


@pytest.mark.parametrize(
    "forge",
    [
        Forge(SAMPLE, merged=("release/flight_delay-1",)),
        Forge(SAMPLE, "environments/prod/models/other.yaml"),
        Forge("bentos/other/model.yaml"),
    ],
    ids=["its release was removed", "others are released", "a fork does without it"],
)
def test_what_people_have_made_of_the_platform_stays(
    first: Callable[..., list[str]], console: Console, forge: Forge
) -> None:
    assert first(forge) == []
    assert heard(console) == ""


def test_the_sample_model_says_something_where_the_checkout_has_a_request_for_it(
    first: Callable[..., list[str]], console: Console
) -> None:
    first(Forge(RELEASED))
    assert "flight_delay in dev answers\n" in heard(console)
    example = predict.example("flight_delay")
    example.parent.mkdir(parents=True)
    example.write_text("{}")
    first(Forge(RELEASED))
    assert 'flight_delay in dev answers: {"probability_late": 0.5}' in heard(console)


def test_a_model_that_a_team_has_not_merged_is_nobody_else_s_to_merge(
    first: Callable[..., list[str]], console: Console
) -> None:
    assert first(Forge(SAMPLE), platform=api(iter([OUTSIDE]), [])) == []
    assert "dev serves no flight_delay yet" in heard(console)


# --- waiting for Argo CD ----------------------------------------------------------------------


def application(sync: str, health: str, *messages: str) -> dict[str, Any]:
    conditions = [{"message": message} for message in messages]
    return {
        "status": {
            **{"sync": {"status": sync}, "health": {"status": health}, "conditions": conditions}
        }
    }


def api(
    answers: Iterator[dict[str, Any] | httpx.TransportError | None], patches: list[Any]
) -> Cluster:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH":
            patches.append(json.loads(request.content))
            return httpx.Response(200, json={})
        found = next(answers)
        if isinstance(found, httpx.TransportError):
            raise found
        return httpx.Response(200, json=found) if found else httpx.Response(404, json={})

    client = httpx.Client(base_url="https://api", transport=httpx.MockTransport(answer))
    return Cluster(client, embedded=True)


def test_a_sync_is_asked_for_once_and_waited_for(monkeypatch: Patch) -> None:
    monkeypatch.setattr(up.time, "sleep", lambda _: None)
    before = application("Synced", "Healthy")
    asked = {**before, "metadata": {"annotations": {up.REFRESH: "normal"}}}
    states = [None, {}, before, asked, application("OutOfSync", "Missing"), before]
    patches: list[Any] = []
    news: list[str] = []
    up.wait_synced(api(iter(states), patches), news.append, "workflows")
    assert len(patches) == 1
    assert news[-1] == "Argo CD: workflows OutOfSync Missing"


def test_a_sync_is_waited_for_while_the_api_server_begins_anew(monkeypatch: Patch) -> None:
    monkeypatch.setattr(up.time, "sleep", lambda _: None)
    before = application("Synced", "Healthy")
    away = httpx.ConnectError("refused")
    news: list[str] = []
    up.wait_synced(api(iter([away, away, before, before]), []), news.append, "workflows")
    [said] = news
    assert said.startswith("waiting for the API server")


def test_a_sync_that_does_not_come_says_why(monkeypatch: Patch) -> None:
    stuck = application("Unknown", "Healthy", "repository not found")
    platform = api(iter([stuck, stuck]), [])
    with pytest.raises(SlipwayError, match=r"Unknown Healthy repository not found\n  fix: kubectl"):
        up.wait_synced(platform, lambda _: None, "workflows", seconds=-1)


# --- what is said -----------------------------------------------------------------------------


def services(**ports: int | None) -> Iterator[dict[str, Any] | None]:
    for port in ports.values():
        yield {"spec": {"ports": [{"port": 80, "nodePort": port} if port else {"port": 80}]}}


def test_the_summary(console: Console, monkeypatch: Patch) -> None:
    ports = services(gitea=30300, argocd=30080, mlflow=30500, argo=None, minio=30900)
    answers = chain([{"data": {}}], ports, [application("Synced", "Healthy")])
    monkeypatch.setattr(Cluster, "connect", lambda: api(answers, []))
    up.summary(console)
    said = heard(console)
    for words in (
        *("http://127.0.0.1:30300", "Secret forge/gitea-admin", "argocd-initial-admin-secret"),
        *("http://127.0.0.1:30900", "service argo/argo-server", str(paths.kubeconfig())),
        "slipway trace flight_delay --env dev",
    ):
        assert words in said


def test_the_summary_of_a_platform_that_lacks_a_part(console: Console, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Cluster, "connect", lambda: api(iter([None] * 7), []))
    up.summary(console)
    assert "service mlflow/mlflow" in heard(console)
    assert heard(console).endswith("next: .venv/bin/slipway status\n"), "there is no model to trace"


def test_the_summary_names_a_forge_that_is_elsewhere(console: Console, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Cluster, "connect", lambda: api(iter([OUTSIDE] + [None] * 5), []))
    up.summary(console)
    assert "git forge       https://git.example.com/acme/models login: your own" in heard(console)
    assert "gitea-admin" not in heard(console)


def test_steps_without_news_are_not_shown(console: Console) -> None:
    report = up.Report(console)
    with report.step("toolchain"):
        pass
    assert not report.changed
    with report.step("images") as say:
        say("base: built [in 3 s]")
    assert report.changed
    assert "toolchain" not in heard(console)
    assert heard(console).count("base: built [in 3 s]") == 2


def test_a_warning_stays_whatever_the_step_says_after_it(console: Console) -> None:
    report = up.Report(console)
    with report.step("cluster") as say:
        report.warn("no NFQUEUE [here]")
        say("waiting")
    assert "· no NFQUEUE [here]" in heard(console)


def test_a_step_that_fails_is_marked(console: Console) -> None:
    with pytest.raises(KeyboardInterrupt), up.Report(console).step("images"):
        raise KeyboardInterrupt
    assert "✗ images" in heard(console)
