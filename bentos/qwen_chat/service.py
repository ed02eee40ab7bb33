"""Serves a language model on vLLM: one typed endpoint, OpenAI's beside it, and nothing else of it.

BentoML starts `vllm serve` as a process and ends it; what is asked goes to that process over the
loopback. Never run on a GPU so far: see README.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal

import bentoml
import httpx
import settings
from bentoml.exceptions import BentoMLException, ServiceUnavailable
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse

LOG = logging.getLogger("bentoml.qwen_chat")
HERE = Path(__file__).parent
NAME = "qwen_chat"
ENGINE = settings.load(HERE / "model.yaml")
if GPUS := os.environ.get("SLIPWAY_GPUS"):
    ENGINE.check_fits(int(GPUS))
PORT = int(os.environ.get("SLIPWAY_ENGINE_PORT", "8000"))
MAXIMUM_BODY_BYTES = 1 << 20
DROPPED_BODY_BYTES = 64 << 20
# Characters. Hardly a text of more has so few tokens that it fits; up to there vLLM counts.
MAXIMUM_PROMPT = 8 * ENGINE.max_model_len
# What a queue may hold beside what is answered. Beyond it waiting is of no use: 429.
MAXIMUM_REQUESTS = 4 * ENGINE.max_num_seqs
SECONDS = 300
# An engine that was heard of so lately is ready; a probe must not queue behind those it serves.
LATELY = 5.0
PROBE_SECONDS = 4.0
# What of vLLM's API is open to callers. The rest loads adapters, sleeps, resets caches, …
OPEN = {
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
}


class Completion(BaseModel):
    """What the model answers, and how many tokens that took."""

    text: str
    finish_reason: Literal["stop", "length"] = Field(
        description="length: cut off after max_tokens, or where the context is full"
    )
    prompt_tokens: int
    completion_tokens: int


class Vllm:
    """The engine's process, as its HTTP API shows it."""

    def __init__(self, port: int) -> None:
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            timeout=httpx.Timeout(SECONDS, connect=PROBE_SECONDS),
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )
        self.heard = float("-inf")

    async def complete(self, prompt: str, **options: Any) -> Completion:
        """One answer. Raises what BentoML answers with the engine's own status, or with 503."""
        message = {"role": "user", "content": prompt}
        body = {"model": NAME, "messages": [message], **options}
        try:
            answer = await self.client.post("/v1/chat/completions", json=body)
        except httpx.HTTPError as error:
            raise ServiceUnavailable(f"the engine does not answer: {error!r}") from None
        if answer.is_client_error:
            raise BentoMLException(_reason(answer), error_code=HTTPStatus(answer.status_code))
        if answer.is_error:
            raise ServiceUnavailable(f"the engine failed: {_reason(answer)}")
        self.heard = time.monotonic()
        found = answer.json()
        [choice], usage = found["choices"], found["usage"]
        return Completion(
            text=choice["message"]["content"] or "",
            finish_reason=choice["finish_reason"],
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
        )

    async def metrics(self) -> str:
        """vLLM's own metrics, without those of its Python process; "" while it does not answer."""
        with suppress(httpx.HTTPError):
            answer = await self.client.get("/metrics", timeout=PROBE_SECONDS)
            if answer.is_success:
                lines = answer.text.splitlines(keepends=True)
                ours = ("vllm:", "# HELP vllm:", "# TYPE vllm:")
                return "".join(line for line in lines if line.startswith(ours))
        return ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI: what is OPEN, as vLLM answers it, token by token where the caller streams."""
        request = Request(scope, receive)
        method, path = request.method, request.url.path
        if (method, path) not in OPEN:
            await _error(404, f"no {method} {path} here")(scope, receive, send)
            return
        began = False

        async def sent(message: Any) -> None:
            nonlocal began
            began = True
            await send(message)

        asked = self.client.stream(
            method, path, content=await request.body(), headers={"content-type": "application/json"}
        )
        try:
            # Left in any way, this closes the connection, by which vLLM knows to stop.
            async with asked as answer:
                kind = answer.headers.get("content-type", "application/json")
                passed = StreamingResponse(
                    self._heard(answer), answer.status_code, {"content-type": kind}
                )
                await passed(scope, receive, sent)
        except httpx.HTTPError as error:
            if began:  # the caller sees that the answer has no end
                raise
            await _error(503, f"the engine does not answer: {error!r}")(scope, receive, send)

    async def _heard(self, answer: httpx.Response) -> AsyncGenerator[bytes]:
        async for chunk in answer.aiter_raw():
            if answer.is_success:
                self.heard = time.monotonic()
            yield chunk


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "code": status}}, status)


def _reason(answer: httpx.Response) -> str:
    """What vLLM says of a refusal."""
    with suppress(ValueError, KeyError, TypeError):
        return str(answer.json()["error"]["message"])
    return answer.text[:500]


class Gate:
    """ASGI middleware around every request.

    It names the bento, refuses bodies over 1 MiB with 413, and drops what nobody waits for any
    more: a GPU that answers a caller who has gone makes all others wait. While the file that
    SLIPWAY_DRAINING names is there, clients are asked to come again by another connection.

    Prompts and answers are logged nowhere: they may hold anything.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.header = (b"x-slipway-bento", os.environ.get("SLIPWAY_BENTO_DIGEST", "").encode())
        self.draining = os.environ.get("SLIPWAY_DRAINING", "")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = False

        async def named(message: Any) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                message["headers"] = [*message.get("headers", []), self.header]
                if self.draining and os.path.exists(self.draining):
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        body = await _body(receive)
        if body is None:
            return
        if len(body) > MAXIMUM_BODY_BYTES:
            too_much = _error(413, f"body over {MAXIMUM_BODY_BYTES} bytes")
            await too_much(scope, receive, named)
            return
        whole: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]
        gone = asyncio.create_task(_gone(receive))

        async def again() -> Any:
            return whole.pop() if whole else await asyncio.shield(gone)

        work = asyncio.create_task(self.app(scope, again, named))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            dropped = work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        # Without an answer BentoML's own middleware would wait for one until its timeout.
        if dropped and not began:
            await _error(499, "the caller has gone")(scope, receive, named)
        elif not dropped and (error := work.exception()):
            if began:  # the caller sees that the answer has no end
                raise error
            LOG.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
            await _error(500, "see the service's log")(scope, receive, named)


async def _body(receive: Any) -> bytes | None:
    """The request's body; None when the caller has gone.

    Of one that is too large a little more than is allowed. The rest is read and dropped: a client
    that is still sending would not hear the refusal.
    """
    body, size, more = bytearray(), 0, True
    while more and size <= DROPPED_BODY_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk = message.get("body", b"")
        size += len(chunk)
        body += chunk[: MAXIMUM_BODY_BYTES + 1 - len(body)]
        more = message.get("more_body", False)
    return bytes(body)


async def _gone(receive: Any) -> Any:
    """Returns when the caller has gone."""
    while (message := await receive())["type"] != "http.disconnect":
        pass
    return message


VLLM = Vllm(PORT)


class Example(BaseModel):
    """example.json, which is a body for /predict."""

    model_config = ConfigDict(extra="forbid")

    prompt: str
    max_tokens: int
    temperature: float


@bentoml.service(
    name=NAME,
    workers=1,
    resources={"gpu": ENGINE.tensor_parallel_size},
    traffic={"timeout": SECONDS, "max_concurrency": MAXIMUM_REQUESTS},
    http={"proxy_port": PORT},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)
# At the root, so that BentoML's own proxy, which opens all of vLLM's API, is never asked.
@bentoml.asgi_app(VLLM, path="/", name="openai")
class QwenChat:
    """Answers a prompt with a small language model."""

    def __init__(self) -> None:
        self.example = Example.model_validate_json((HERE / "example.json").read_text())

    def __command__(self) -> list[str]:
        # The pod reaches nothing but the store: weights are in the bento, and nobody hears of use.
        # In BentoML's folder of metrics vLLM's would be counted twice.
        return [
            *("env", "--unset=PROMETHEUS_MULTIPROC_DIR", "HF_HUB_OFFLINE=1"),
            "VLLM_NO_USAGE_STATS=1",
            *("vllm", "serve", str(HERE / "model"), "--host=127.0.0.1", f"--port={PORT}"),
            *(f"--served-model-name={NAME}", "--disable-uvicorn-access-log"),
            *ENGINE.options(),
        ]

    @bentoml.api
    async def predict(
        self,
        prompt: Annotated[str, Field(min_length=1, max_length=MAXIMUM_PROMPT)],
        max_tokens: Annotated[int, Field(ge=1, le=ENGINE.max_model_len)] = 256,
        temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.7,
    ) -> Completion:
        """One answer to one prompt. Conversations and streaming: /v1/chat/completions."""
        return await VLLM.complete(prompt, max_tokens=max_tokens, temperature=temperature)

    async def __is_ready__(self) -> bool:
        """Ready is what has generated a token: lately for somebody, or now for this."""
        if time.monotonic() - VLLM.heard < LATELY:
            return True
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                made = await VLLM.complete(self.example.prompt, max_tokens=1, temperature=0.0)
        except (TimeoutError, BentoMLException):
            return False
        return made.completion_tokens == 1

    async def __is_alive__(self) -> bool:
        """An engine that has ended does not begin again by itself: the replica has to."""
        process = QwenChat.context.state.get("proc")
        return process is None or process.returncode is None

    async def __metrics__(self, content: str) -> str:
        return content + await VLLM.metrics()


QwenChat.add_asgi_middleware(Gate)
