"""The Containerfiles build on this machine and in the cloud alike, and run without root."""

import re
from pathlib import Path

import pytest

from slipway import images

ROOT = {
    # kubeadm's static pods and daemon set; its keys belong to root.
    *("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "kube-proxy"),
    # Is asked about packets, with the one capability that its manifest leaves it.
    "kube-network-policies",
    # Binds port 53 with the one capability that its manifest leaves it.
    "coredns",
    # Makes and removes volumes.
    "busybox",
}
FILES = sorted(images.FOLDER.glob("*/Containerfile"))
APPLICATIONS = [f for f in FILES if f.parent.name != "base"]


def named(file: Path) -> str:
    return file.parent.name


@pytest.mark.parametrize("file", FILES, ids=named)
def test_starts_from_our_base_or_from_nothing(file: Path) -> None:
    text = file.read_text()
    sources = [words[1] for words in map(str.split, re.findall(r"^FROM .*$", text, re.M))]
    assert set(sources) <= {"scratch", "${BASE}"}
    if "${BASE}" in sources:
        assert text.startswith("ARG BASE=docker.io/library/debian:bookworm-slim\n")


@pytest.mark.parametrize("file", APPLICATIONS, ids=named)
def test_runs_as_a_numeric_user(file: Path) -> None:
    *_, user = re.findall(r"^USER (.*)$", file.read_text(), re.M)
    assert re.fullmatch(r"\d+(:\d+)?", user)
    assert (user == "0") == (file.parent.name in ROOT)


@pytest.mark.parametrize("file", FILES, ids=named)
def test_everything_comes_from_pinned_sources(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r"curl|wget|ADD +http|:latest\b|pip install(?!.*--require-hashes)", text)
    assert ("pip" not in text) or "--require-hashes" in text


@pytest.mark.parametrize("file", FILES, ids=named)
def test_layers_keep_no_package_lists(file: Path) -> None:
    for step in re.split(r"\n(?=[A-Z])", file.read_text()):
        if "apt-get install" in step:
            assert "--no-install-recommends" in step
            assert "/var/lib/apt/lists/*" in step


@pytest.mark.parametrize("file", FILES, ids=named)
def test_scripts_beside_it_can_run(file: Path) -> None:
    for script in file.parent.iterdir():
        if script.read_bytes().startswith(b"#!"):
            assert script.stat().st_mode & 0o111, f"{script} is not executable"


@pytest.mark.parametrize("file", FILES, ids=named)
def test_what_it_copies_exists(file: Path) -> None:
    image = images.Image(file.parent)
    known = {b for tool in images.toolchain.tools().values() for b in tool.binaries}
    assert set(image.needs("bin")) <= known
    assert set(image.needs("files")) <= set(images.toolchain.tools())
    for lock in image.needs("requirements"):
        assert (images.paths.REPOSITORY / "requirements" / lock).is_file()


def test_images_of_one_runtime_share_their_first_layer() -> None:
    first = {
        re.split(r"\n(?=RUN|ENV)", (images.FOLDER / name / "Containerfile").read_text())[1]
        for name in ("mlflow", "serving", "training")
    }
    assert len({step.partition("\n#")[0] for step in first}) == 1
