"""The service as its users meet it, over HTTP; the `vllm` that it starts is the one beside this.

No GPU and no weights: what vLLM does with its options is not tested here, that it gets them is.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from bentoml import server_context
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.server.metrics.prometheus import PrometheusClient
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import ValidationError

from slipway import bento

FOLDER = Path(__file__).parent.parent
EXAMPLE: dict[str, Any] = json.loads((FOLDER / "example.json").read_text())
BENTO = "sha256:" + "a" * 64
CHAT = "/v1/chat/completions"
MODULES = ("service", "settings")


class Server:
    """The whole ASGI application in this process, and the engine that it started."""

    def __init__(self, module: Any, runner: asyncio.Runner, app: Any) -> None:
        self.module, self.run, self.app = module, runner.run, app
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://model", timeout=20
        )

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.run(self.client.request(method, path, **options))

    def predict(self, **changes: Any) -> httpx.Response:
        return self.call("POST", "/predict", json={**EXAMPLE, **changes})

    def chat(self, prompt: str, **options: Any) -> httpx.Response:
        return self.call("POST", CHAT, json=asked(prompt, **options))

    async def seen(self) -> dict[str, Any]:
        return (await self.module.VLLM.client.get("/seen")).json()

    async def until(self, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """What the engine has seen, once it is so."""
        async with asyncio.timeout(10):
            while not what(seen := await self.seen()):
                await asyncio.sleep(0.01)
        return seen


def asked(prompt: str, **options: Any) -> dict[str, Any]:
    return {
        "model": "qwen_chat",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 3,
        **options,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Laid out as in the bento, but for the weights."""
    made = tmp_path_factory.mktemp("bento")
    for file in bento.load_pretrained(FOLDER).files:
        shutil.copy(file, made)
    return made


class Counts(PrometheusClient):
    """BentoML's metrics in this process, where several services follow each other."""

    def __init__(self) -> None:
        super().__init__(multiproc=False)
        self._registry = CollectorRegistry()

    def generate_latest(self) -> bytes:
        return generate_latest(self._registry)


@contextmanager
def serving(folder: Path) -> Generator[Server]:
    """The service and, started by it, an engine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join([str(FOLDER / "tests"), str(Path(sys.executable).parent), "/bin"])
    environment = {
        "PATH": path,
        "SLIPWAY_ENGINE_PORT": str(port),
        "SLIPWAY_BENTO_DIGEST": BENTO,
        "SLIPWAY_GPUS": "1",
        "PROMETHEUS_MULTIPROC_DIR": str(folder),
    }
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        for name, value in environment.items():
            patch.setenv(name, value)
        # The first worker is the one that starts the engine.
        patch.setattr(server_context, "worker_index", 1)
        patch.syspath_prepend(str(folder))
        for name in MODULES:
            patch.delitem(sys.modules, name, raising=False)
        import service

        BentoMLContainer.metrics_client.set(Counts())
        app = service.QwenChat.to_asgi()
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        made = Server(service, runner, app)
        yield made
        runner.run(made.client.aclose())
        runner.run(service.VLLM.client.aclose())
        with suppress(ProcessLookupError):  # BentoML ends an engine that has ended
            runner.run(lifespan.__aexit__(None, None, None))
        BentoMLContainer.metrics_client.reset()
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def server(folder: Path) -> Generator[Server]:
    """One for all tests that leave the engine whole."""
    with serving(folder) as made:
        yield made


@pytest.fixture
def doomed(folder: Path) -> Generator[Server]:
    """One whose engine a test may break."""
    with serving(folder) as made:
        yield made


def test_the_engine_gets_every_setting(server: Server) -> None:
    """The stand-in takes vLLM's documented options and no others."""
    seen = server.run(server.seen())
    assert seen["environ"]["HF_HUB_OFFLINE"] == "1"
    assert "PROMETHEUS_MULTIPROC_DIR" not in seen["environ"]
    argv = seen["argv"]
    assert argv[:2] == ["serve", str(Path(server.module.__file__).parent / "model")]
    assert set(argv[2:]) >= {
        "--host=127.0.0.1",
        "--served-model-name=qwen_chat",
        "--quantization=fp8",
        "--kv-cache-dtype=fp8",
        "--enable-prefix-caching",
        "--max-model-len=8192",
        "--max-num-seqs=64",
        "--gpu-memory-utilization=0.9",
        "--tensor-parallel-size=1",
    }


def test_an_answer(server: Server) -> None:
    answer = server.predict(max_tokens=5)
    assert answer.status_code == 200
    assert answer.headers["x-slipway-bento"] == BENTO
    assert answer.json() == {
        "text": "word word word word word",
        "finish_reason": "length",
        "prompt_tokens": len(EXAMPLE["prompt"].split()),
        "completion_tokens": 5,
    }


def test_openai_clients_are_answered(server: Server) -> None:
    answer = server.chat("hello")
    assert answer.json()["choices"][0]["message"]["content"] == "word word word"
    assert answer.headers["x-slipway-bento"] == BENTO
    assert server.call("GET", "/v1/models").json()["data"] == [{"id": "qwen_chat"}]


def test_tokens_come_as_they_are_made(server: Server) -> None:
    async def run() -> list[bytes]:
        arrived: list[bytes] = []
        async with asyncio.timeout(10):
            async for chunk in stream(server.app, asked("SLOW story", stream=True)):
                arrived.append(chunk)
                if len(arrived) == 3:  # of ten thousand: nothing has waited for the end
                    break
        return arrived

    assert all(chunk.startswith(b"data: ") for chunk in server.run(run()))
    whole = server.chat("hello", stream=True)
    assert whole.headers["content-type"].startswith("text/event-stream")
    assert [line for line in whole.text.split("\n\n") if line][-1] == "data: [DONE]"
    assert len(whole.text.split("\n\n")) == 5


class Caller:
    """Somebody at the other end of a connection, who may go."""

    def __init__(self, app: Any, path: str, body: Any) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.received: asyncio.Queue[Any] = asyncio.Queue()
        self.messages.put_nowait({"type": "http.request", "body": json.dumps(body).encode()})
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"model"), (b"content-type", b"application/json")],
            "server": ("model", 80),
            "client": ("127.0.0.1", 1),
        }
        self.work = asyncio.create_task(app(scope, self.messages.get, self.received.put))

    async def go(self) -> None:
        """Hangs up, and waits until the server has understood."""
        self.messages.put_nowait({"type": "http.disconnect"})
        async with asyncio.timeout(10):
            await asyncio.wait({self.work})


async def stream(app: Any, body: Any) -> AsyncGenerator[bytes]:
    caller = Caller(app, CHAT, body)
    try:
        while True:
            message = await caller.received.get()
            if chunk := message.get("body"):
                yield chunk
    finally:
        await caller.go()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"prompt": "SLOW story"}),
        (CHAT, asked("SLOW story")),
        (CHAT, asked("SLOW story", stream=True)),
    ],
    ids=["typed", "whole", "streamed"],
)
def test_a_caller_who_goes_stops_the_engine(server: Server, path: str, body: Any) -> None:
    async def run() -> None:
        before = (await server.until(lambda seen: seen["running"] == 0))["aborted"]
        caller = Caller(server.app, path, body)
        await server.until(lambda seen: seen["running"] == 1)
        await caller.go()
        seen = await server.until(lambda seen: seen["running"] == 0)
        assert seen["aborted"] == before + 1

    server.run(run())


def test_a_queue_that_is_full_is_said_at_once(server: Server) -> None:
    most = server.module.MAXIMUM_REQUESTS

    async def run() -> httpx.Response:
        callers = [Caller(server.app, CHAT, asked("SLOW story")) for _ in range(most)]
        await server.until(lambda seen: seen["running"] == most)
        refused = await server.client.post("/predict", json=EXAMPLE)
        await asyncio.gather(*(caller.go() for caller in callers))
        await server.until(lambda seen: seen["running"] == 0)
        return refused

    assert server.run(run()).status_code == 429
    assert server.predict().status_code == 200


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 70_000}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 8193}, "max_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
    ],
)
def test_bad_input_is_refused_by_name(server: Server, changes: Any, field: str) -> None:
    answer = server.predict(**changes)
    assert answer.status_code == 400
    assert field in answer.text


def test_what_the_engine_refuses_is_refused_in_its_words(server: Server) -> None:
    long = "word " * 8190
    for answer in (server.predict(prompt=long, max_tokens=9), server.chat(long, max_tokens=9)):
        assert answer.status_code == 400
        assert "maximum context length is 8192 tokens" in answer.text
    assert server.chat("hello", model="another").status_code == 404


@pytest.mark.parametrize("path", ["/predict", CHAT, "/elsewhere"])
def test_a_body_over_a_mebibyte_is_refused(server: Server, path: str) -> None:
    answer = server.call("POST", path, content=b"x" * (10 << 20))
    assert answer.status_code == 413
    assert answer.headers["x-slipway-bento"] == BENTO


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/tokenize"),
        ("POST", "/reset_prefix_cache"),
        ("GET", "/v1/chat/completions"),
        ("GET", "/version"),
    ],
)
def test_the_rest_of_the_engine_is_closed(server: Server, method: str, path: str) -> None:
    assert server.call(method, path).status_code == 404
    assert server.run(server.seen())["other"] == 0


def test_the_engines_metrics_are_among_the_services(server: Server) -> None:
    server.predict(max_tokens=1)
    lines = server.call("GET", "/metrics").text.splitlines()
    for metric in (
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:time_to_first_token_seconds_sum",
        "vllm:generation_tokens_total",
    ):
        assert any(line.startswith(metric + "{") for line in lines)
    assert "process_open_fds 12.0" not in lines
    assert any(line.startswith("bentoml_service_request_total{") for line in lines)


def test_a_replica_that_drains_sends_its_clients_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "draining").touch()

    async def hello(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIPWAY_DRAINING", str(tmp_path / "draining"))
        gate = server.module.Gate(hello)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(gate)
        async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
            return await client.get("/")

    assert server.run(ask()).headers["connection"] == "close"


def test_an_error_of_our_own_is_answered_at_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise KeyError("choices")

    monkeypatch.setattr(server.module.Vllm, "__call__", fails)
    answer = server.call("GET", "/v1/models")
    assert answer.status_code == 500
    assert answer.headers["x-slipway-bento"] == BENTO
    assert "choices" not in answer.text


def test_ready_is_a_token(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real one; but none is asked for while others are given theirs."""
    monkeypatch.setattr(server.module.VLLM, "heard", float("-inf"))
    before = server.run(server.seen())["answered"]
    for _ in range(3):
        assert server.call("GET", "/readyz").status_code == 200
    assert server.run(server.seen())["answered"] == before + 1


def test_an_engine_that_fails_is_not_ready(doomed: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """First it is there and only fails, which may pass; then it has ended, which does not."""
    assert doomed.call("GET", "/readyz").status_code == 200
    monkeypatch.setattr(doomed.module, "LATELY", 0)
    assert doomed.predict(prompt="BREAK").status_code == 503
    assert doomed.predict().status_code == 503
    assert doomed.chat("hello").status_code == 500
    assert doomed.call("GET", "/readyz").status_code == 503
    assert doomed.call("GET", "/livez").status_code == 200

    assert doomed.predict(prompt="DIE").status_code == 503
    for _ in range(200):
        if doomed.call("GET", "/livez").status_code == 503:
            break
        doomed.run(asyncio.sleep(0.01))
    assert doomed.call("GET", "/livez").status_code == 503
    assert doomed.call("GET", "/readyz").status_code == 503
    assert doomed.chat("hello").status_code == 503
    assert doomed.call("GET", "/metrics").status_code == 200


def test_an_answer_that_breaks_off_has_no_end(doomed: Server) -> None:
    with pytest.raises(httpx.HTTPError):
        doomed.chat("HALF of it", stream=True)


@pytest.fixture
def engine(folder: Path) -> Generator[Any]:
    """settings.py; its name is another's elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.delitem(sys.modules, "settings", raising=False)
        import settings

        yield settings
    sys.modules.pop("settings", None)


def test_settings_become_options(engine: Any) -> None:
    small = engine.Engine(max_model_len=4096, quantization="awq", enable_prefix_caching=False)
    assert small.options() == [
        "--quantization=awq",
        "--dtype=auto",
        "--max-model-len=4096",
        "--gpu-memory-utilization=0.9",
        "--kv-cache-dtype=auto",
        "--no-enable-prefix-caching",
        "--max-num-seqs=64",
        "--tensor-parallel-size=1",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantization": "fp9"},
        {"max_model_len": 10},
        {"max_model_len": "8192"},
        {"gpu_memory_utilization": 1.0},
        {"kv_cache_dtype": "int3"},
        {"max_num_seqs": 0},
        {"tensor_parallel_size": 3},
        {"prefix_caching": True},
    ],
    ids=str,
)
def test_wrong_settings_are_refused_by_name(engine: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        engine.Engine(**{"max_model_len": 4096, **wrong})


def test_the_gpus_of_the_release_are_those_of_the_settings(engine: Any) -> None:
    two = engine.Engine(max_model_len=4096, tensor_parallel_size=2)
    two.check_fits(2)
    with pytest.raises(ValueError, match=r"(?s)tensor_parallel_size.*rollout\.gpu\.count 2"):
        two.check_fits(1)
