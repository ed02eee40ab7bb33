"""The released model under load: as its bento, and as MLflow itself would serve it."""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from slipway import bento, paths, release, up
from slipway.bench.figures import Figure
from slipway.commands.predict import example
from slipway.endpoints import Cluster, part
from slipway.errors import SlipwayError
from slipway.release import Release

CONNECTIONS, SECONDS, ROUNDS, START_S = 4, 10, 3, 120.0
# The bento calculates in 32 bits, MLflow in 64.
SAME = 1e-4
MODEL, ENV = up.FIRST_MODEL, up.FIRST_ENVIRONMENT
# As in the pod, and the same for both: thread pools cost more than they give.
QUIET = {
    "OMP_NUM_THREADS": "1",
    "BENTOML_DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
}
Load = dict[str, Any]


def prediction(platform: Cluster, say: Callable[[str], None]) -> list[Figure]:
    """Both services on this machine, one worker each, under load in turns; then the pod."""
    with platform.forge() as forge:
        path = release.path(ENV, MODEL)
        released = release.parse(forge.read(str(path)), path)
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as name:
        folder = Path(name)
        say("fetching the released bento and the same model from MLflow")
        _fetch_bento(platform, released, folder / "bento")
        _fetch_model(platform, released, folder / "mlflow")
        bodies = {"bento": example(MODEL).read_bytes(), "mlflow": model_input(example(MODEL))}
        for service, body in bodies.items():
            (folder / f"{service}.json").write_bytes(body)
        say("starting both services")
        with _bentoml(folder) as bento_url, _mlflow(folder) as mlflow_url:
            urls = {"bento": bento_url, "mlflow": mlflow_url}
            same_answer(*(_ask(urls[service], body) for service, body in bodies.items()))
            rounds: dict[str, list[Load]] = {"bento": [], "mlflow": []}
            for turn in range(ROUNDS):
                for service, url in urls.items():
                    taken = load(url, folder / f"{service}.json")
                    rounds[service].append(taken)
                    said = f"{taken['requests_per_second']:.0f}/s, p99 {taken['p99_ms']:.1f} ms"
                    say(f"{turn + 1} of {ROUNDS}: {service} {said}")
        figures = beside(rounds["bento"], rounds["mlflow"])
        if platform.embedded:
            say("the pod")
            figures.append(_pod(platform, folder / "bento.json"))
    return figures


def beside(ours: list[Load], theirs: list[Load]) -> list[Figure]:
    """The two ratios, of the medians over all rounds."""

    def median(rounds: list[Load], key: str) -> float:
        return statistics.median(taken[key] for taken in rounds)

    rates = [median(rounds, "requests_per_second") for rounds in (ours, theirs)]
    p99s = [median(rounds, "p99_ms") for rounds in (ours, theirs)]
    conditions = f"{CONNECTIONS} connections, {SECONDS} s, one worker each, median of {len(ours)}"
    details = {"bento": ours, "mlflow": theirs}
    if any(taken["errors"] for taken in (*ours, *theirs)):
        conditions += "; not every answer was good, see the details"
    return [
        Figure(
            "throughput",
            rates[0] / rates[1],
            f"{rates[0]:.0f} beside {rates[1]:.0f} requests/s: {conditions}",
            "",
            details,
        ),
        Figure("p99", p99s[0] / p99s[1], f"{p99s[0]:.1f} beside {p99s[1]:.1f} ms, the same runs"),
    ]


def _pod(platform: Cluster, body: Path) -> Figure:
    name = release.service(MODEL)
    service = platform.find(f"/api/v1/namespaces/{ENV}/services/{name}")
    host = part(service, "spec", "clusterIP")
    taken = load(f"http://{host}:80/predict", body)
    how = f"{ENV}/{name} by its ClusterIP, p99 {taken['p99_ms']:.1f} ms"
    return Figure("in-cluster", taken["requests_per_second"], how, "", taken)


# --- the two services -------------------------------------------------------------------------


def _fetch_bento(platform: Cluster, released: Release, place: Path) -> None:
    with platform.store() as store:
        files = store.get_files("bentos", released.bento.digest)
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)


def _fetch_model(platform: Cluster, released: Release, place: Path) -> None:
    uri = f"models:/{MODEL}/{released.version}"
    # Through the server: the store's own address means nothing outside the cluster.
    proxied = {"MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false"}
    with platform.mlflow() as url:
        done = subprocess.run(
            [*_python("mlflow"), "artifacts", "download", "-u", uri, "-d", str(place)],
            env={**_environment(), **proxied, "MLFLOW_TRACKING_URI": url},
            capture_output=True,
            text=True,
            timeout=START_S,
        )
    if done.returncode:
        raise SlipwayError(f"{uri} cannot be downloaded\n{done.stderr.strip()[-1500:]}")


@contextmanager
def _bentoml(folder: Path) -> Generator[str, None, None]:
    port = free_port()
    command = [*_python("bentoml"), "serve", str(folder / "bento")]
    options = ["--host", "127.0.0.1", "--port", str(port)]
    home = {"BENTOML_HOME": str(folder / "home")}
    with _process([*command, *options], folder / "bentoml.log", home) as check:
        url = f"http://127.0.0.1:{port}"
        _wait(f"{url}/readyz", check)
        yield f"{url}/predict"


@contextmanager
def _mlflow(folder: Path) -> Generator[str, None, None]:
    port = free_port()
    command = [*_python("mlflow"), "models", "serve", "--model-uri", str(folder / "mlflow")]
    options = ["--env-manager", "local", "--workers", "1", "--host", "127.0.0.1"]
    with _process([*command, *options, "--port", str(port)], folder / "mlflow.log", {}) as check:
        url = f"http://127.0.0.1:{port}"
        _wait(f"{url}/ping", check)
        yield f"{url}/invocations"


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", module]


def _environment() -> dict[str, str]:
    # MLflow starts its server by a name on PATH.
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    return {**os.environ, **QUIET, "PATH": path}


@contextmanager
def _process(
    command: list[str], log: Path, more: dict[str, str]
) -> Generator[Callable[[], None], None, None]:
    """A service and its children for the time of the body, which gets a check that it lives."""
    with log.open("w") as out:
        # A session of its own: the service's workers end with it.
        process = subprocess.Popen(
            command,
            env={**_environment(), **more},
            cwd=log.parent,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )

    def check() -> None:
        if process.poll() is not None:
            tail = log.read_text(errors="replace")[-1500:]
            raise SlipwayError(f"{' '.join(command[1:4])} ended\n{tail}")

    try:
        yield check
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)


def _wait(url: str, check: Callable[[], None]) -> None:
    deadline = time.monotonic() + START_S
    while True:
        check()
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=10).is_success:
                return
        if time.monotonic() > deadline:
            raise SlipwayError(f"{url} is not ready after {START_S:.0f} s")
        time.sleep(0.2)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- asking -----------------------------------------------------------------------------------


def model_input(request: Path) -> bytes:
    """The example request as MLflow's scoring server is asked: the model's own inputs, a table."""
    import pandas as pd

    flight = json.loads(request.read_text())["flight"]
    rows = pd.DataFrame([flight]).astype({"scheduled_departure": "datetime64[s]"})
    table = bento.find(MODEL).training().features(rows)
    text = table.to_json(orient="split", index=False)
    return f'{{"dataframe_split": {text}}}'.encode()


def _ask(url: str, body: bytes) -> Any:
    answer = httpx.post(url, content=body, headers={"Content-Type": "application/json"}, timeout=30)
    if answer.is_error:
        raise SlipwayError(f"{url}: {answer.status_code} {answer.text[:1000]}")
    return answer.json()


def same_answer(ours: Any, theirs: Any) -> None:
    """The bento answers with one probability, MLflow with that of each class.

    Raises:
        SlipwayError: they differ by more than rounding, so they are not the same model.
    """
    probability, other = ours["probability_late"], theirs["predictions"][0][1]
    if abs(probability - other) > SAME:
        raise SlipwayError(f"the bento answers {probability}, MLflow's model {other}: not the same")


def load(url: str, body: Path) -> Load:
    """What the load generator, a process of its own, finds."""
    command = [*_python("slipway.bench.load"), url, str(body)]
    options = ["--connections", str(CONNECTIONS), "--seconds", str(SECONDS)]
    done = subprocess.run(
        [*command, *options], cwd=paths.REPOSITORY, capture_output=True, text=True
    )
    if done.returncode:
        raise SlipwayError(f"load on {url}: {done.stderr.strip()[-1000:]}")
    return json.loads(done.stdout)
