"""Each version stands in one place; where it must stand in two, they are the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from slipway import images, paths, toolchain

ROOT = paths.REPOSITORY
ON_AWS = yaml.safe_load((ROOT / "infra" / "aws" / "images.yaml").read_text())
# Official images of another version than the program that is built, and why.
OTHERWISE = {
    "coredns": "kubeadm asks for the tag that its own version knows",
    "minio": "the last that MinIO published: what came later is source only",
}


def official() -> dict[str, tuple[str, str]]:
    """Image to its official tag and the version of the tool that its program is of."""
    owners = {
        name: toolchain.provider(image.needs("bin")[0])
        for name, image in images.images().items()
        if image.needs("bin")
    }
    owners |= {name: owners[same] for name, same in images.SAME.items()}
    owners |= {name: tool for name, tool in toolchain.tools().items() if name in ON_AWS}
    references = {**images.image_map(), **ON_AWS}
    return {
        name: (reference.rpartition(":")[2], owner.version)
        for name, owner in owners.items()
        if (reference := references[name])
    }


def agree(tag: str, version: str) -> bool:
    """A tag may say more, such as -rootless."""
    return bool(re.fullmatch(rf"v?{re.escape(version.removeprefix('v'))}(-.+)?", tag))


@pytest.mark.parametrize("name", official())
def test_an_official_image_is_of_the_version_that_is_built(name: str) -> None:
    tag, version = official()[name]
    assert agree(tag, version) == (name not in OTHERWISE), f"{name}: {tag}, go.mod {version}"


def test_images_and_tools_are_compared() -> None:
    compared = set(official())
    assert {"argocd", "argo-executor", "gitea", "kube-apiserver", "karpenter"} <= compared
    assert set(OTHERWISE) <= compared
    assert agree("3.6.5-0", "v3.6.5")
    assert not agree("v3.6.50", "v3.6.5")


def pinned(package: str, *files: Path) -> set[str]:
    found = [re.findall(rf"^{package}==([\w.]+)", f.read_text(), re.M) for f in files]
    return {version for versions in found for version in versions}


@pytest.mark.parametrize("package", ["uv", "pulumi-kubernetes"])
def test_a_package_that_several_locks_have_is_the_same_in_each(package: str) -> None:
    assert len(pinned(package, *(ROOT / "requirements").glob("*.*"))) == 1


@pytest.mark.parametrize("file", ["install", "standin/__init__.py"])
def test_the_stand_in_is_of_the_version_that_the_program_asks_for(file: str) -> None:
    text = (ROOT / "toolchain" / "pulumi-kubernetes" / file).read_text()
    found = re.findall(r'VERSION = (?:"[\w-]+", )?"([\d.]+)"', text)
    assert set(found) == pinned("pulumi-kubernetes", ROOT / "requirements" / "tools.in")


def test_dependabot_looks_after_every_tool() -> None:
    """Go writes the module of a `tool` line as indirect, which is passed over unless named."""
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    go = next(update for update in updates if update["package-ecosystem"] == "gomod")
    assert all(entry["dependency-type"] == "all" for entry in go["allow"])
    named = [entry["dependency-name"] for entry in go["allow"]]
    assert named == sorted({tool.module for tool in toolchain.tools().values()})
