"""What promotions are measured with: a repository of many, and callers who notice a failure."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from slipway import check, paths, release
from slipway.bench import history, promotion, repository, sample, staging
from slipway.bench.watch import Answer, Watch, watching
from slipway.endpoints import Cluster
from slipway.errors import BadInput, SlipwayError
from slipway.repository import Repository
from slipway.sources import Platform
from tests.gitforge import GitForge

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64


# --- the repository ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bench") / "repository"
    history.make(made, models=4, commits=60)
    return made


def test_each_promotion_is_a_change_and_its_merge(place: Path) -> None:
    with Repository(place) as found:
        merges, everything = (found.log("main", first_parent=first) for first in (True, False))
        assert (len(merges), len(everything)) == (31, 61)
        last = merges[0]
        assert last.subject == "Merge pull request 'Release model_0001 3 to prod' (#30)"
        assert (last.author, len(last.parents)) == ("slipway-admin", 2)
        path = str(release.path("prod", "model_0001"))
        assert [c.path for c in found.changed("main~1", "main")] == [path]
        assert len(found.log("main", path)) == 3
        files = [f for f in found.files("main", "environments") if "/models/" in f]
        assert len(files) == 12
        for file in files:
            assert release.parse(found.read("main", file) or b"", file).version in (2, 3)
        assert found.read("main", "policies/promotion/prod.yaml")


def test_the_sample_passes_every_gate_without_a_platform(place: Path, tmp_path: Path) -> None:
    challenger = sample.propose(place, tmp_path, "model_0002")
    source = Platform(_no_cluster, folder=challenger.evidence, keys=challenger.keys)
    with Repository(place) as found:
        verdict = check.check(found, "main", challenger.branch, source=source)
        assert verdict.exit_code == 0, verdict.findings
        assert verdict.releases[0].kind == "release"
        # Its own keys alone prove it.
        other = sample.propose(place, tmp_path / "other", "model_0003")
        source = Platform(_no_cluster, folder=challenger.evidence, keys=other.keys)
        assert check.check(found, "main", challenger.branch, source=source).exit_code == 1


def _no_cluster() -> Cluster:
    raise AssertionError("no platform is asked")


def test_a_repository_is_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "cache", lambda: tmp_path)
    first = repository.made(2, 6)
    (first / "mark").touch()
    assert (repository.made(2, 6) / "mark").exists()
    monkeypatch.setattr(repository, "_sources", lambda: ["changed"])
    second = repository.made(2, 6)
    assert not (second / "mark").exists()
    assert not first.exists()


# --- callers ----------------------------------------------------------------------------------


def answers(*given: tuple[float, str, str]) -> Watch:
    return Watch([Answer(asked, asked + 0.1, status, bento) for asked, status, bento in given])


def test_it_is_over_when_nobody_else_has_answered_for_a_while() -> None:
    flapping = [(0.0, "200", OLD), (1.0, "200", NEW), (2.0, "200", OLD), (3.0, "200", NEW)]
    assert answers(*flapping).settled(0, NEW, for_s=1) is None
    later = answers(*flapping, (5.0, "200", NEW))
    assert later.settled(0, NEW, for_s=1) == 3
    assert later.settled(0.5, NEW, for_s=1) == 2.5
    assert later.settled(0, NEW, for_s=3) is None
    assert later.settled(0, OLD, for_s=0) is None
    assert answers().settled(0, NEW, for_s=0) is None


def test_a_failed_request_is_counted_and_ends_nothing() -> None:
    watch = answers((0, "503", ""), (1, "200", NEW), (2, "TimeoutError", ""), (3, "200", NEW))
    assert watch.settled(0, NEW, for_s=1) == 1
    assert watch.failures(0) == {"503": 1, "TimeoutError": 1}
    assert watch.failures(2.5) == {}


@pytest.fixture
def service() -> Iterator[tuple[str, type[BaseHTTPRequestHandler]]]:
    """A model that says which bento it is; `bento` may be changed, "" fails."""

    class Model(BaseHTTPRequestHandler):
        bento = OLD

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200 if self.bento else 500)
            self.send_header("x-slipway-bento", self.bento)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/predict", Model
    server.shutdown()
    server.server_close()


def until(what: Any) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_callers_see_one_bento_follow_the_other(service: Any, tmp_path: Path) -> None:
    url, model = service
    (tmp_path / "body.json").write_text("{}")
    with watching(url, tmp_path / "body.json", rate=50) as watch:
        until(lambda: watch.answers)
        merged = time.time()
        assert watch.settled(merged, NEW, for_s=0) is None
        model.bento = NEW
        until(lambda: watch.settled(merged, NEW, for_s=0.2) is not None)
        model.bento = ""
        until(lambda: watch.failures(merged))
    assert set(watch.failures(merged)) == {"500"}
    assert len(watch.since(0)) == len(watch.answers)


def test_callers_that_may_not_ask_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text("{}")
    with (
        pytest.raises(SlipwayError, match="not on this machine"),
        watching("http://192.0.2.1/", tmp_path / "body.json") as watch,
    ):
        assert watch.over.wait(120)


# --- rounds -----------------------------------------------------------------------------------


def test_figures_of_the_rounds() -> None:
    taken = promotion.Taken(gates=[10.0, 12.0], there=[8.0, 9.0], back=[7.0, 14.0])
    polled = promotion.Taken(there=[90.0], back=[110.0])
    found = {f.name: f for f in promotion.figures(taken, polled, 1000, {"503": 2})}
    assert {name: figure.value for name, figure in found.items()} == {
        "promotion": 14.0,
        "failed": 2.0,
        "revert": 14.0,
        "gates": 12.0,
        "polling": 90 / 8,
    }
    assert "2 of 1,000 requests failed" in found["promotion"].how
    assert "former releases of dev" in found["promotion"].how
    assert found["failed"].target.met(2) is False
    assert found["failed"].target.met(0) is True


class Forge:
    """A release file's history, newest first."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = contents

    def read(self, _: str, ref: str = "0") -> bytes:
        return self.contents[int(ref)]

    def history(self, _: str) -> list[Any]:
        class Revision:
            def __init__(self, sha: int) -> None:
                self.sha = str(sha)

        return [Revision(n) for n in range(len(self.contents))]


def test_the_other_bento_is_the_last_one_that_was_another() -> None:
    first, second = (
        release.dumps(history.pins(promotion.MODEL, version, "c" * 40)).encode()
        for version in (1, 2)
    )
    again = second.replace(b"replicas: 1", b"replicas: 2")
    forge: Any = Forge(again, second, b"model: nonsense", first)
    assert promotion.pair(forge) == (again, first)
    only: Any = Forge(again, second)
    assert promotion.pair(only) is None


class Main(Forge):
    """The forge's main, where each merge of what was trained is another release of its bento."""

    def __init__(self) -> None:
        self.settings = (paths.REPOSITORY / promotion.SETTINGS).read_bytes()
        self.trained: list[bytes] = []
        self.release()

    def release(self) -> None:
        self.trained.append(self.settings)
        bento = self.trained.index(self.settings) + 1
        made = release.dumps(history.pins(promotion.MODEL, bento, "c" * 40)).encode()
        self.contents = (made, *getattr(self, "contents", ()))

    def read(self, path: str, ref: str = "0") -> bytes:
        return self.settings if path == promotion.SETTINGS else super().read(path, ref)

    def write(self, branch: str, files: dict[str, bytes], _: str) -> str:
        assert branch == "main"
        (self.settings,) = files.values()
        return "c" * 40


def test_where_one_bento_is_known_another_is_trained_and_the_first_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forge: Any = Main()
    before = forge.settings
    monkeypatch.setattr(promotion.training, "find", lambda *_: "the webhook's")
    monkeypatch.setattr(promotion, "train", lambda *_, **__: Pull())
    monkeypatch.setattr(promotion.merging, "merge", lambda forge, _, **__: forge.release())
    nowhere: Any = None
    here, other = promotion.second(nowhere, forge, print)
    assert forge.trained == [before, promotion.changed(before), before]
    assert (here, other) == forge.contents[:2]
    assert promotion.pair(forge) == (here, other)


def test_settings_are_as_before_where_training_another_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forge: Any = Main()
    before = forge.settings

    def train(*_: Any, **__: Any) -> None:
        if forge.settings != before:
            raise SlipwayError("no memory")

    monkeypatch.setattr(promotion.training, "find", lambda *_: "the webhook's")
    monkeypatch.setattr(promotion, "train", train)
    nowhere: Any = None
    with pytest.raises(SlipwayError, match="no memory"):
        promotion.second(nowhere, forge, print)
    assert forge.settings == before


# --- to staging -------------------------------------------------------------------------------


@pytest.fixture
def two() -> tuple[bytes, bytes]:
    """Release files of two bentos."""
    first, second = (
        release.dumps(history.pins(promotion.MODEL, version, "c" * 40)).encode()
        for version in (1, 2)
    )
    return first, second


def test_what_staging_has_is_not_promoted_there_first(two: tuple[bytes, bytes]) -> None:
    here, other = two
    assert staging.order(here, other, None) == (here, other)
    assert staging.order(here, other, other) == (here, other)
    assert staging.order(here, other, here.replace(b"replicas: 1", b"replicas: 2")) == (other, here)


@pytest.mark.parametrize("was", [True, False], ids=["with a release", "without"])
@pytest.mark.parametrize("fails", [None, "promotion", "round"])
def test_both_environments_are_as_before(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    two: tuple[bytes, bytes],
    was: bool,
    fails: str | None,
) -> None:
    here, other = two
    dev, there = promotion.path_of(), promotion.path_of(staging.ENV)
    forge = GitForge(tmp_path / "forge")
    before = {dev: here} | ({there: other} if was else {})
    forge.write("main", before, "Before")
    platform: Any = SimpleNamespace(embedded=True, forge=lambda: nullcontext(forge))

    def released(_: Any, __: Any, file: bytes, say: Any) -> float:
        forge.write("main", {dev: file, there: file}, "Promoted")
        if fails == "promotion":
            raise SlipwayError("the gates refuse")
        return 20.0

    def one(_: Any, __: Any, file: bytes, taken: promotion.Taken, *, env: str) -> float:
        forge.write("main", {promotion.path_of(env): file}, "A round")
        if fails == "round":
            raise SlipwayError("others answer")
        taken.there.append(9.0)
        return 9.0

    stand_ins = {"pair": lambda _: two, "released": released, "one": one}
    stand_ins |= {"watching": lambda *_: nullcontext(), "address": lambda *_: "nowhere"}
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(staging, name, stand_in)
    if fails:
        with pytest.raises(SlipwayError):
            staging.staging(platform, print, rounds=3)
    else:
        found = {f.name: f.value for f in staging.staging(platform, print, rounds=3)}
        assert found == {"gates-release": 20.0, "staging": 9.0}
    assert forge.read(dev) == here
    assert staging.present(forge) == (other if was else None)  # type: ignore[arg-type]


class Pull:
    number = 1


def test_polling_is_put_back_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server and the forge, as far as this asks them."""
    settings: dict[str, Any] = {promotion.POLLING[0]: "60s", "other": "stays"}
    hooks = {"http://argocd-server.argocd.svc/api/webhook": True, "http://argo/events": True}
    pods = [1]

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == promotion.CONFIG:
            if request.method == "PATCH":
                for key, value in json.loads(request.content)["data"].items():
                    settings.pop(key, None) if value is None else settings.update({key: value})
            return httpx.Response(200, json={"data": settings})
        assert path == promotion.CONTROLLER
        if request.method == "DELETE":
            pods[0] += 1
        ready = [{"type": "Ready", "status": "True"}]
        body = {"metadata": {"uid": str(pods[0])}, "status": {"conditions": ready}}
        return httpx.Response(200, json=body)

    def turn(_: Cluster, *, active: bool) -> None:
        for url in hooks:
            if promotion.HOOK in url:
                hooks[url] = active

    monkeypatch.setattr(promotion, "_hooks", turn)
    client = httpx.Client(base_url="https://api", transport=httpx.MockTransport(answer))
    platform = Cluster(client, embedded=True)

    def measured() -> None:
        with promotion.polling(platform, print):
            assert settings == {"other": "stays"}
            assert list(hooks.values()) == [False, True]
            raise BadInput("broken")

    with pytest.raises(BadInput, match="broken"):
        measured()
    assert settings == {promotion.POLLING[0]: "60s", "other": "stays"}
    assert list(hooks.values()) == [True, True]
    assert pods == [3]


def test_the_generator_is_a_program(tmp_path: Path) -> None:
    options = ["--models=2", "--commits=4"]
    command = [sys.executable, "-m", "slipway.bench.history", str(tmp_path / "r"), *options]
    subprocess.run(command, cwd=paths.REPOSITORY, check=True)
    with Repository(tmp_path / "r") as found:
        assert len(found.log("main", first_parent=False)) == 5
