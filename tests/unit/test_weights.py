"""Weights are what model.yaml pins, or they are not taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from slipway import bento, digests, weights
from slipway.cli import app
from slipway.errors import BadInput, SlipwayError

COMMIT = "7a" * 20
FILES = {"config.json": b"{}", "model.safetensors": b"weights" * 1000}


class Hub:
    """Files of one commit, by name; `asked` are the paths that were asked for."""

    def __init__(self) -> None:
        self.files, self.asked = dict(FILES), list[str]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        before, _, name = request.url.path.rpartition("/")
        if before != f"/some/model/resolve/{COMMIT}" or name not in self.files:
            return httpx.Response(404)
        return httpx.Response(200, content=self.files[name])

    @property
    def client(self) -> httpx.Client:
        return httpx.Client(base_url="https://hub", transport=httpx.MockTransport(self))


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def folder(tmp_path: Path) -> bento.Pretrained:
    """bentos/toy, whose weights are those of the hub."""
    made = tmp_path / "bentos" / "toy"
    made.mkdir(parents=True)
    pins = "".join(f"    {name}: {digests.of(data)}\n" for name, data in FILES.items())
    (made / "model.yaml").write_text(
        "kind: pretrained\nname: toy\ndescription: a model of others\nowner: me\n"
        "service: service:Toy\nweights:\n  repository: some/model\n"
        f"  revision: {COMMIT}\n  licence: MIT\n  files:\n{pins}"
    )
    for name in ("service.py", "example.json", "README.md"):
        (made / name).write_text("")
    return bento.load_pretrained(made)


def test_what_is_pinned_lies_beside_the_service(
    hub: Hub, folder: bento.Pretrained, tmp_path: Path
) -> None:
    made = weights.fetch(folder, tmp_path / "out", hub.client)
    found = {p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_file()}
    assert found == {
        *("service.py", "model.yaml", "example.json"),
        *("model/config.json", "model/model.safetensors"),
    }
    assert (made / "model" / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_only_what_is_missing_or_altered_is_fetched_again(
    hub: Hub, folder: bento.Pretrained, tmp_path: Path
) -> None:
    weights.fetch(folder, tmp_path / "out", hub.client)
    hub.asked.clear()
    (tmp_path / "out" / "model" / "config.json").write_text("altered")
    weights.fetch(folder, tmp_path / "out", hub.client)
    assert [path.rpartition("/")[2] for path in hub.asked] == ["config.json"]


def test_other_bytes_are_refused_and_not_kept(
    hub: Hub, folder: bento.Pretrained, tmp_path: Path
) -> None:
    hub.files["model.safetensors"] = b"trojan"
    with pytest.raises(SlipwayError, match=r"model\.safetensors: the hub's file has the digest"):
        weights.fetch(folder, tmp_path / "out", hub.client)
    assert [p.name for p in (tmp_path / "out" / "model").iterdir()] == ["config.json"]


def test_a_commit_without_the_file_is_a_wrong_pin(
    hub: Hub, folder: bento.Pretrained, tmp_path: Path
) -> None:
    del hub.files["config.json"]
    with pytest.raises(BadInput, match=r"model\.yaml: weights: .* answers 404"):
        weights.fetch(folder, tmp_path / "out", hub.client)


def test_a_hub_that_does_not_answer_may_do_so_later(
    folder: bento.Pretrained, tmp_path: Path
) -> None:
    def silent(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    client = httpx.Client(base_url="https://hub", transport=httpx.MockTransport(silent))
    with pytest.raises(SlipwayError, match="run it again"):
        weights.fetch(folder, tmp_path / "out", client)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def test_the_command(
    hub: Hub, folder: bento.Pretrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bento, "BENTOS", folder.path.parent)
    client = hub.client
    monkeypatch.setattr(httpx, "Client", lambda **_: client)
    result = run("fetch", "toy", "--to", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert "model.safetensors: 7,000 bytes, as pinned" in result.stderr
    assert result.stdout.strip() == str(tmp_path / "out")
