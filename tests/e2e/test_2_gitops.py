"""Git decides what runs: a merge arrives, a hand edit is undone, a bad release hurts nobody."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from slipway import cluster, merging, release, serving
from slipway.endpoints import Cluster, part, parts
from slipway.forge import Gitea

from .conftest import ENV, MODEL, comment, number_in, until

PATH = str(release.path(ENV, MODEL))
APPLICATION = (
    f"/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/{ENV}-{release.service(MODEL)}"
)
SCALER = f"/apis/autoscaling/v2/namespaces/{ENV}/horizontalpodautoscalers/{release.service(MODEL)}"


def replicas() -> int:
    query = ("-n", ENV, "get", "deployment", release.service(MODEL), "-o")
    return int(cluster.kubectl(*query, "jsonpath={.spec.replicas}"))


def test_a_push_is_synced_at_once_and_told_of(
    platform: Cluster, forge: Gitea, slipway: Callable[..., str]
) -> None:
    """By the webhook: without it the change would wait for the next poll, a minute away. It has
    passed by the gates, which who asks what runs learns."""
    before = forge.read(PATH)
    two = before.replace(b"replicas: 1", b"replicas: 2")
    assert two != before
    forge.write("main", {PATH: two}, "Two replicas")
    try:
        until(lambda: replicas() == 2, 45, "the push did not arrive")
        pushed = f"past the gates: pushed as {forge.commit()[:12]}"
        assert f"{MODEL} in {ENV}: {pushed}" in slipway("status")
    finally:
        forge.write("main", {PATH: before}, "One replica")
    until(lambda: replicas() == 1, 45, "the second push did not arrive")


@contextmanager
def rarely_looked_at(platform: Cluster) -> Iterator[None]:
    """No ApplicationSet looks at git by itself for a while."""
    where = f"/apis/argoproj.io/v1alpha1/namespaces/argocd/applicationsets/{ENV}"
    before = parts(platform.find(where), "spec", "generators")

    def look(seconds: int) -> None:
        changed = [
            {**g, "git": {**g["git"], "requeueAfterSeconds": seconds}} if "git" in g else g
            for g in before
        ]
        platform.patch(where, {"spec": {"generators": changed}})

    look(600)
    try:
        time.sleep(12)  # what it was to do by then it has done
        yield
    finally:
        look(before[0]["git"]["requeueAfterSeconds"])


@contextmanager
def one_more(forge: Gitea, model: str) -> Iterator[None]:
    """Another release of the same bento, by a file that was not there."""
    path = str(release.path(ENV, model))
    content = forge.read(PATH).replace(f"model: {MODEL}\n".encode(), f"model: {model}\n".encode())
    forge.write("main", {path: content}, "One more")
    try:
        yield
    finally:
        forge.write("main", {path: None}, "One less")


def deployed(model: str) -> bool:
    query = ("-n", ENV, "get", "deployment", release.service(model), "--ignore-not-found")
    return bool(cluster.kubectl(*query))


def test_a_new_release_file_is_synced_at_once(platform: Cluster, forge: Gitea) -> None:
    """By the webhook, too; and so is that it has gone."""
    with rarely_looked_at(platform):
        with one_more(forge, "newcomer"):
            until(lambda: deployed("newcomer"), 15, "the new file did not arrive")
        until(lambda: not deployed("newcomer"), 30, "that it has gone did not arrive")


@pytest.fixture
def deaf(api: httpx.Client) -> Iterator[None]:
    """The forge tells Argo CD of nothing."""
    hooks = api.get("hooks").raise_for_status().json()
    [hook] = [h for h in hooks if "argocd" in h["config"]["url"]]
    api.patch(f"hooks/{hook['id']}", json={"active": False}).raise_for_status()
    yield
    api.patch(f"hooks/{hook['id']}", json={"active": True}).raise_for_status()


def test_a_push_that_nobody_tells_of_is_found(platform: Cluster, forge: Gitea, deaf: None) -> None:
    """By looking: at files that are known every minute, for new ones more often."""
    before = forge.read(PATH)
    two = before.replace(b"replicas: 1", b"replicas: 2")
    with one_more(forge, "newcomer"):
        forge.write("main", {PATH: two}, "Two replicas")
        try:
            until(lambda: deployed("newcomer"), 45, "the new file was not found")
            until(lambda: replicas() == 2, 120, "the push was not found")
        finally:
            forge.write("main", {PATH: before}, "One replica")
    until(lambda: not deployed("newcomer"), 45, "that it has gone was not found")
    until(lambda: replicas() == 1, 120, "the second push was not found")


def test_a_hand_edit_is_put_back() -> None:
    cluster.kubectl("-n", ENV, "scale", f"deployment/{release.service(MODEL)}", "--replicas=3")
    until(lambda: replicas() == 1, 20, "the edit stayed")


def test_argo_cd_takes_a_model_of_one_environment_to_no_other(platform: Cluster) -> None:
    """Its project says where to, whatever its Application asks for."""
    folder = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications"
    own = platform.find(f"{folder}/{ENV}-{release.service(MODEL)}")
    assert own
    elsewhere = own["spec"]["destination"] | {"namespace": "prod"}
    body = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": "test-elsewhere", "namespace": "argocd"},
        "spec": own["spec"] | {"destination": elsewhere},
    }
    assert own["spec"]["project"] == ENV

    def refused() -> str:
        found = parts(platform.find(f"{folder}/test-elsewhere"), "status", "conditions")
        said = [c["message"] for c in found if c["type"] == "InvalidSpecError"]
        return " ".join(said)

    platform.create(folder, body)
    try:
        said = until(refused, 60, "it is not refused")
        assert "namespace 'prod' do not match any of the allowed destinations" in said
        assert f"project '{ENV}'" in said
    finally:
        platform.send("DELETE", f"{folder}/test-elsewhere").raise_for_status()


def test_replicas_follow_the_cpu_and_no_sync_takes_them_back(
    platform: Cluster, forge: Gitea
) -> None:
    """From one to two by what is measured; Argo CD, which heals hand edits, lets them be."""
    before = forge.read(PATH)
    # A few requests at a time are more than this.
    scale = b"replicas: 1\n  autoscale: {maximum: 2, cpu: 10}\n"
    forge.write("main", {PATH: before.replace(b"replicas: 1\n", scale)}, "Replicas by the CPU")

    def scaled() -> bool:
        for _ in range(20):
            platform.ask(ENV, MODEL, "readyz")
        return replicas() == 2

    def synced() -> bool:
        status = part(platform.find(APPLICATION), "status")
        states = part(status, "sync", "status"), part(status, "health", "status")
        return states == ("Synced", "Healthy")

    try:
        until(scaled, 240, "nothing made a second replica", every_s=0)
        until(synced, 120, "Argo CD does not call that synced and healthy", every_s=3)
        # It looks anew, and has as long as it takes it to put a hand edit back.
        platform.annotate(APPLICATION, {"argocd.argoproj.io/refresh": "hard"})
        time.sleep(20)
        assert synced()
        assert replicas() == 2
    finally:
        forge.write("main", {PATH: before}, "One replica")
    until(lambda: replicas() == 1, 60, "the number is not git's again")
    until(lambda: platform.find(SCALER) is None, 60, "the autoscaler is still there")


def test_a_bento_that_does_not_exist_leaves_the_old_one_answering(
    platform: Cluster, forge: Gitea, slipway: Callable[..., str]
) -> None:
    before = forge.read(PATH)
    good = release.parse(before, PATH)
    ghost = f"sha256:{'0' * 64}"
    bad = before.replace(good.bento.digest.encode(), ghost.encode()).replace(
        good.bento.digest.removeprefix("sha256:").encode(), b"0" * 64
    )
    forge.write("main", {PATH: bad}, "A bento that nobody made")
    try:
        until(lambda: "0" * 64 in serving.trouble(platform, ENV, MODEL), 180, "no clear error")
        assert serving.answering(platform, ENV, MODEL) == good.bento.digest
    finally:
        forge.write("main", {PATH: before}, "Back to the bento that exists")
    serving.wait_until_answering(platform, ENV, MODEL, good.bento.digest, timeout_s=180)


@pytest.mark.slow
def test_a_second_model_needs_no_other_file(
    platform: Cluster, forge: Gitea, slipway: Callable[..., str], tmp_path: object
) -> None:
    """It answers a number, which the gates judge as one."""
    model = "second_model"
    folder = _new(slipway, model)
    forge.write("main", folder, "A second model")
    number = number_in(slipway("train", model, "--wait"))
    merging.merge(forge, number)
    assert "| rmse (less is better) |" in comment(forge, number)
    path = release.path(ENV, model)
    digest = release.parse(forge.read(str(path)), path).bento.digest
    serving.wait_until_answering(platform, ENV, model, digest, timeout_s=180)
    example = folder[f"bentos/{model}/example.json"].decode()
    assert "minutes" in slipway("predict", model, "--env", ENV, "--data", example)
    slipway("trace", model, "--env", ENV)

    forge.write("main", {str(path): None, **dict.fromkeys(folder)}, "Without the second model")
    query = ("-n", ENV, "get", "deployment", release.service(model), "--ignore-not-found")
    until(lambda: not cluster.kubectl(*query), 120, "the model is still there")
    assert replicas() == 1


def _new(slipway: Callable[..., str], model: str) -> dict[str, bytes]:
    """What `slipway new` makes, by path; the checkout is left as it was."""
    import shutil

    from slipway import paths

    folder = paths.REPOSITORY / "bentos" / model
    try:
        slipway("new", model, "--from", "regressor")
        files = [f for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
        return {str(f.relative_to(paths.REPOSITORY)): f.read_bytes() for f in files}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
