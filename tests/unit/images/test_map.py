"""The image map: what it accepts, and what it says of what it does not."""

from pathlib import Path

import pytest

from slipway import images, pulumi
from slipway.errors import BadInput

FIXTURES = Path(__file__).parent


@pytest.fixture
def two_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "images", lambda: {"one": None, "two": None})
    monkeypatch.setattr(images, "SAME", {})


@pytest.mark.usefixtures("two_images")
@pytest.mark.parametrize("file", sorted(FIXTURES.glob("valid/*.yaml")), ids=lambda f: f.stem)
def test_accepts(file: Path) -> None:
    assert set(images.image_map(file)) == {"one", "two"}


@pytest.mark.usefixtures("two_images")
@pytest.mark.parametrize("file", sorted(FIXTURES.glob("invalid/*.yaml")), ids=lambda f: f.stem)
def test_refuses_and_says_why(file: Path) -> None:
    with pytest.raises(BadInput) as error:
        images.image_map(file)
    assert file.with_suffix(".expected").read_text().strip() in str(error.value)


def test_the_map_itself_is_valid_and_complete() -> None:
    checked = images.image_map()
    assert set(checked) == {*images.images(), *images.SAME}
    assert [name for name, official in checked.items() if official is None] == [
        "karpenter-kwok",
        "mlflow",
        "serving",
        "training",
    ]


def test_what_only_simulated_gpus_need_is_not_built_for_the_platform() -> None:
    names = {image.name for image in images._wanted(None)}
    assert images.images().keys() - names == set(pulumi.SIMULATION)


def test_official_references_are_for_clusters_that_are_not_ours() -> None:
    found = images.references(embedded=False)
    assert found["argocd"].startswith("quay.io/argoproj/argocd:v")
    assert "training" not in found


def test_embedded_references_are_those_last_pushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(images.SlipwayError, match="make up"):
        images.references(embedded=True)
    file = images.paths.images_file()
    file.parent.mkdir(parents=True)
    file.write_text('{"argo-workflows": "localhost:5000/slipway/argo-workflows@sha256:1"}')
    found = images.references(embedded=True)
    assert found["argo-executor"] == found["argo-workflows"]
