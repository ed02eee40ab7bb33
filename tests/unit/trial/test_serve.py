"""`--serve`: the chart's script, on this machine's own address, until it is interrupted."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from slipway.endpoints import BENTO_HEADER
from slipway.errors import BadInput, SlipwayError
from slipway.steps import package
from slipway.store import tar, untar
from slipway.trial import serve
from tests.unit.trial.conftest import World


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_it_answers_until_it_is_interrupted(world: World) -> None:
    files = {"model.json": b'{"slope": 2, "intercept": 0}'}
    bundle, port, asked = package.build(world.folder(), files), free_port(), list[httpx.Response]()

    def ready(url: str) -> None:
        assert url == f"http://127.0.0.1:{port}"
        asked.append(httpx.post(f"{url}/predict", json={"x": 0}))
        raise KeyboardInterrupt

    serve.serve(bundle, "sha256:abc", port, ready)
    assert asked[0].json() == {"probability": 0.5}
    assert asked[0].headers[BENTO_HEADER] == "sha256:abc"
    socket.create_server(("127.0.0.1", port)).close()


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        with pytest.raises(BadInput, match=f"--port: {port}: "):
            serve.serve(b"", "", port, print)


def test_a_service_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "serve.py"
    script.write_text("import sys; sys.exit('no such model')")
    monkeypatch.setattr(serve, "SCRIPT", script)
    bundle = tar({"src/service.py": b""})
    assert untar(bundle)
    with pytest.raises(SlipwayError, match="does not become ready"):
        serve.serve(bundle, "", free_port(), print)
    assert "no such model" in capfd.readouterr().err
