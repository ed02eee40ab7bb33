"""A change of a model's code on its way to prod and back: pull requests, gates, merges.

In this order, each test on what the ones before it have left: the version that dev has goes to
staging and prod while a new one trains, then the new one follows, and prod goes back.
"""

from __future__ import annotations

import json
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from slipway import cluster, lineage, merging, paths, predictions, release, serving, training
from slipway.endpoints import Cluster, part
from slipway.errors import SlipwayError
from slipway.forge import ForgeError, Gitea
from slipway.release import Release

from .conftest import (
    ENV,
    MODEL,
    SLIPWAY,
    as_user,
    comment,
    document,
    git,
    judged_after,
    login,
    merge,
    number_in,
    propose,
    released,
    sweep,
    until,
    verdict,
    with_password,
)

CODE = f"bentos/{MODEL}/model.yaml"
POLICY = "policies/promotion/prod.yaml"
APPROVALS = "policies/promotion/approvals.yaml"


def release_of(forge: Gitea, env: str) -> Release:
    found = released(forge, env)
    assert found, f"{env} has no release"
    return found


@pytest.fixture(scope="module")
def manager() -> Iterator[dict[str, str]]:
    """A second person, as commands are told of it: nobody approves what they asked for."""
    platform = Cluster.connect()
    admin = platform.secret("forge", "gitea-admin")
    name = f"manager-{secrets.token_hex(3)}"
    with (
        as_user(platform, admin["username"], admin["password"]) as api,
        login(api, name) as made,
    ):
        yield made


def as_manager(forge: Gitea, manager: dict[str, str]) -> Gitea:
    return Gitea(forge.url, forge.repository, *manager.values())


@pytest.fixture(scope="module", autouse=True)
def tested_by_two(manager: dict[str, str]) -> Iterator[None]:
    """Prod asks for seconds in staging, not minutes, and there are two who may approve: what judges
    changes by pull request, too, which the bot opens, as nobody approves what is his own."""
    platform = Cluster.connect()
    own = platform.secret("pipelines", "forge")
    with (
        platform.forge() as forge,
        Gitea(forge.url, forge.repository, own["FORGE_USERNAME"], own["FORGE_PASSWORD"]) as bot,
    ):
        # The checkout's, not the forge's: an interrupted run leaves a short soak there.
        before = {name: (paths.REPOSITORY / name).read_bytes() for name in (POLICY, APPROVALS)}
        name = manager["FORGE_USERNAME"].encode()
        changed = {
            POLICY: before[POLICY].replace(b"for: 2m,", b"for: 5s,"),
            APPROVALS: before[APPROVALS].replace(b"[slipway-admin]", b"[slipway-admin, %s]" % name),
        }
        assert all(changed[file] != content for file, content in before.items())
        pull = propose(bot, changed, "Tests: a short soak, and another manager")
        assert verdict(forge, pull.number) == "failure"
        assert "custody**: 0 of 1 by release-managers" in comment(forge, pull.number)
        forge.approve(pull.number)
        until(lambda: passes(platform, forge, pull.number), 420, "the approval does not count")
        merging.merge(forge, pull.number)
        yield
        forge.write("main", dict(before), "Tests: soak and managers as they were")


def promote(slipway: Callable[..., str], env: str, *options: str, **how: Any) -> int:
    """The pull request that `slipway promote` opens; it fails where the gates refuse that."""
    return number_in(slipway("promote", MODEL, "--to", env, *options, **how))


def serve(platform: Cluster, env: str, count: int = 60) -> list[dict[str, Any]]:
    """Predictions that are really made, and how the flights went: as the model expects it."""
    example = json.loads((paths.REPOSITORY / "bentos" / MODEL / "example.json").read_text())
    outcomes: list[dict[str, Any]] = []
    for number in range(count):
        example["flight"]["scheduled_departure"] = f"2013-12-{1 + number % 28:02}T17:30:00"
        answer = platform.ask(env, MODEL, "predict", body=example)
        assert answer.status_code == 200, answer.text
        late = answer.json()["probability_late"] > 0.5
        outcomes.append({"id": answer.headers["x-slipway-prediction"], "outcome": int(late)})
    return outcomes


def settled(platform: Cluster, env: str) -> tuple[str, str, str]:
    """What Argo CD says of the model there: which commit, its sync and its health."""
    folder = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications"
    status = part(platform.find(f"{folder}/{env}-{release.service(MODEL)}"), "status")
    words = (("sync", "revision"), ("sync", "status"), ("health", "status"))
    commit, sync, health = (part(status, *keys) or "" for keys in words)
    return commit, sync, health


def board() -> dict[str, Any]:
    """The model's rows of `slipway status`, by environment."""
    return {row["environment"]: row for row in document("status") if row["model"] == MODEL}


def passes(platform: Cluster, forge: Gitea, number: int) -> bool:
    """Whether the gates, who look once more, let a pull request in."""
    sweep(platform)
    return verdict(forge, number) == "success"


def label(slipway: Callable[..., str], outcomes: list[dict[str, Any]], folder: Path) -> None:
    """Replicas ship their log every few seconds; until then nobody knows the predictions."""
    file = folder / "outcomes.jsonl"
    file.write_text("".join(json.dumps(outcome) + "\n" for outcome in outcomes))

    def all_known() -> bool:
        said = slipway("label", MODEL, "--env", "staging", "--file", str(file), code=None)
        return "stored" in said and "of no prediction" not in said

    until(all_known, 150, "predictions are not shipped", every_s=3)


# --- a new version trains, while the old one is promoted ---------------------------------------


@pytest.fixture(scope="module")
def new_code() -> Iterator[str]:
    """A change of a parameter, merged: the commit on main."""
    platform = Cluster.connect()
    with platform.forge() as forge:
        before = forge.read(CODE)
        found = re.search(rb"max_iter: (\d+)", before)
        assert found
        changed = before.replace(found[0], b"max_iter: %d" % (int(found[1]) + 10))
        pull = propose(forge, {CODE: changed}, "Ten trees more")
        yield merging.merge(forge, pull.number).merge_sha or ""


def test_a_merge_starts_a_training(platform: Cluster, new_code: str) -> None:
    until(
        lambda: training.find(platform, MODEL, new_code, ENV),
        180,
        "nobody trains what was merged",
    )


def test_a_promotion_is_tried_before_anything_is_pushed(
    platform: Cluster, forge: Gitea, slipway: Callable[..., str]
) -> None:
    def pulls() -> list[int]:
        # What trains meanwhile is proposed for dev.
        return [p.number for p in forge.pulls("all") if p.title.endswith("to staging")]

    before = pulls(), forge.commit()
    said = slipway("promote", MODEL, "--to", "staging", "--dry-run")
    assert release_of(forge, ENV).bento.digest in said
    assert re.search(r"non_inferior|no champion|may be merged", said)
    assert (pulls(), forge.commit()) == before


def test_staging_gets_what_dev_has(
    platform: Cluster, forge: Gitea, slipway: Callable[..., str]
) -> None:
    number = promote(slipway, "staging")
    assert forge.pull(number).author == "slipway-bot"
    merged = merge(forge, platform, number, "staging")
    assert merged.bento == release_of(forge, ENV).bento


def test_broken_glass_lets_in_what_has_not_served_and_says_so(
    platform: Cluster, forge: Gitea, slipway: Callable[..., str], manager: dict[str, str]
) -> None:
    """Who, why and until when come with the release; who asks stands for it by approving, and
    another of the group has to approve, too."""
    why = "the first release, which nobody depends on yet"
    glass = ("--break-glass", why, "--until", "1h", "--rule", "soak")
    number = promote(slipway, "prod", *glass, code=1, who=manager)
    assert "approvals" in comment(forge, number)
    forge.approve(number)
    with as_manager(forge, manager) as another:
        another.approve(number)
    until(lambda: passes(platform, forge, number), 420, "the gates stay closed")
    assert why in comment(forge, number)
    merged = merge(forge, platform, number, "prod")
    assert merged.bento == release_of(forge, "staging").bento


# --- the new version comes to dev -------------------------------------------------------------


def test_what_was_trained_is_proposed_and_judged(
    platform: Cluster, forge: Gitea, api: httpx.Client, new_code: str
) -> None:
    workflow = training.find(platform, MODEL, new_code, ENV)
    assert workflow
    for now in training.follow(platform, workflow.name):
        workflow = now
    assert workflow.phase == training.SUCCEEDED, training.failure(platform, workflow)
    pull = training.proposal(forge, MODEL, ENV, new_code)
    assert pull
    assert (pull.author, pull.merged) == ("slipway-bot", False)
    assert verdict(forge, pull.number) == "success"
    said = comment(forge, pull.number)
    assert said.splitlines()[1].startswith("## ✅ may be merged")
    before = release_of(forge, ENV)
    for words in (
        f"| metric | champion (version {before.version}) | challenger",
        "| brier (less is better) |",
        "hyper-parameter max\\_iter",
        before.bento.digest[7:19],
        f"slipway reproduce {MODEL} --env {ENV}",
    ):
        assert words in said, words
    plots = re.findall(r"attachments/[0-9a-f-]{36}", said)
    assert plots
    root = str(api.base_url).partition("/api/")[0]
    picture = api.get(f"{root}/{forge.repository}/{plots[0]}", follow_redirects=True)
    assert picture.content.startswith(b"\x89PNG")


def test_merging_brings_it_to_dev(
    platform: Cluster, forge: Gitea, slipway: Callable[..., str], new_code: str
) -> None:
    before = release_of(forge, ENV)
    pull = training.proposal(forge, MODEL, ENV, new_code)
    assert pull
    sha = merging.merge(forge, pull.number).merge_sha
    merged = release_of(forge, ENV)
    assert merged.bento != before.bento
    # The first time that Argo CD calls the merge Synced and Healthy, nobody else answers any more.
    wanted = (sha, "Synced", "Healthy")
    until(lambda: settled(platform, ENV) == wanted, 180, "not synced", every_s=0.1)
    assert {serving.answering(platform, ENV, MODEL) for _ in range(20)} == {merged.bento.digest}
    assert merged.bento.digest in slipway("predict", MODEL, "--env", ENV)
    assert release_of(forge, "staging").bento == before.bento


def test_the_comment_is_brought_up_to_date_and_not_repeated(
    platform: Cluster, forge: Gitea, slipway: Callable[..., str], api: httpx.Client
) -> None:
    number = promote(slipway, "staging")
    assert verdict(forge, number) == "success"
    quick(judged_after(api, forge, number))
    first = comment(forge, number)
    path = str(release.path("staging", MODEL))
    pull = forge.pull(number)
    two = forge.read(path, pull.sha).replace(b"replicas: 1", b"replicas: 2")
    push(forge, number, path, two)
    assert verdict(forge, number) == "success"
    quick(judged_after(api, forge, number))
    assert comment(forge, number) != first
    push(forge, number, path, two.replace(b"replicas: 2", b"replicas: 1"))
    merge(forge, platform, number, "staging")


def push(forge: Gitea, number: int, path: str, content: bytes) -> None:
    """To a pull request's branch; the forge tells of the new head a moment later."""
    sha = forge.write(forge.pull(number).head, {path: content}, "Another number of replicas")
    until(lambda: forge.pull(number).sha == sha, 30, "the push did not arrive")


def quick(seconds: float) -> None:
    """By the webhook, not by the sweep. How quick it is on a quiet machine, the bench says."""
    print(f"judged after {seconds:.0f} s")
    assert seconds < 90


# --- prod: soak and approval ------------------------------------------------------------------


def test_prod_asks_for_soak_and_for_another_person(
    platform: Cluster,
    forge: Gitea,
    slipway: Callable[..., str],
    manager: dict[str, str],
    tmp_path: Path,
) -> None:
    number = promote(slipway, "prod", code=1)
    said = comment(forge, number)
    bento = release_of(forge, "staging").bento.digest
    with platform.store() as store:
        logged = predictions.segments(store, "staging", MODEL, bento)
    # A platform that was tested before knows this bento: the same inputs make the same one.
    assert ("served nothing yet" in said) == (not logged)
    assert "approvals" in said
    with pytest.raises(merging.NotAllowed):
        merging.merge(forge, number)
    of = board()
    (shown,) = (p for p in of["prod"]["pull_requests"] if p["number"] == number)
    assert (shown["url"], shown["gates"]) == (forge.pull(number).url, "failure")
    left = of["staging"]["soak"]
    assert left["before"] == "prod"
    assert logged or (left["predictions"] > 0 and left["labelled"] > 0)

    forge.approve(number)  # who asked for it, as all commands here are the administrator's
    label(slipway, serve(platform, "staging"), tmp_path)
    assert not passes(platform, forge, number)
    own = "0 of 1 by release-managers (slipway-admin approves what is their own)"
    assert own in comment(forge, number)
    with as_manager(forge, manager) as another:
        another.approve(number)
    until(lambda: passes(platform, forge, number), 420, "the gates stay closed")
    assert f"1 of 1 by release-managers: {manager['FORGE_USERNAME']}" in comment(forge, number)
    # Asked for once more, it is the same pull request, and has its approval.
    assert promote(slipway, "prod") == number
    merged = merge(forge, platform, number, "prod")
    assert merged.bento == release_of(forge, "staging").bento


def test_the_board_shows_the_three_of_them(slipway: Callable[..., str]) -> None:
    def all_well() -> Any:
        of = board()
        states = {(row["sync"], row["health"], row["serving"]) for row in of.values()}
        return of if states == {("Synced", "Healthy", True)} else None

    # Argo CD tells of a merge's health some seconds after the pods have it.
    of = until(all_well, 120, "not all are synced, healthy and serving", every_s=3)
    assert set(of) == set(release.ENVIRONMENTS)
    text = slipway("status")
    for env, row in of.items():
        assert env.upper() in text
        assert f"{row['version']} {row['bento'][7:19]} ✓ ✓ ✓" in text


@pytest.mark.parametrize("env", release.ENVIRONMENTS)
def test_every_link_holds_in_each_environment(slipway: Callable[..., str], env: str) -> None:
    links = document("trace", MODEL, "--env", env)
    assert len(links) >= 9
    assert all(link["ok"] for link in links), links


def test_history_tells_who_when_and_on_what_evidence(
    forge: Gitea, slipway: Callable[..., str], manager: dict[str, str]
) -> None:
    last, first = document("history", MODEL, "--env", "prod")[:2]
    people = (last["author"], last["merger"])
    assert (last["kind"], *people) == ("released", "slipway-bot", "slipway-admin")
    asked = [entry["requested_by"].split(", ")[0] for entry in (last, first)]
    assert asked == ["slipway-admin", manager["FORGE_USERNAME"]]
    assert last["evidence"] == release_of(forge, "prod").evidence.digest
    assert "nobody depends on yet" in first["break_glass"]
    assert last["version"] > first["version"]
    assert last["evidence"][7:19] in slipway("history", MODEL, "--env", "prod")


def aliases(platform: Cluster) -> dict[str, int]:
    with platform.mlflow() as url:
        answer = lineage.MLflow(url).get("registered-models/get", name=MODEL)
    found = answer["registered_model"].get("aliases", [])
    return {alias["alias"]: int(alias["version"]) for alias in found}


def test_aliases_follow_git(platform: Cluster, forge: Gitea) -> None:
    wanted = {env: release_of(forge, env).version for env in release.ENVIRONMENTS}
    until(lambda: aliases(platform) == wanted, 400, f"{aliases(platform)}, not {wanted}")

    # By hand it is another: the board says so.
    def drifts() -> bool:
        name_alias(platform, ENV, wanted[ENV] - 1)  # each time: a sweep puts it back
        found = {env for env, row in board().items() if row["drift"]}
        return found == {ENV}

    try:
        until(drifts, 60, "the board shows no drift")
    finally:
        name_alias(platform, ENV, wanted[ENV])


def name_alias(platform: Cluster, alias: str, version: int) -> None:
    body = {"name": MODEL, "alias": alias, "version": str(version)}
    with platform.mlflow() as url:
        address = f"{url}/api/2.0/mlflow/registered-models/alias"
        httpx.post(address, json=body, timeout=30, trust_env=False).raise_for_status()


# --- check, on a person's machine -------------------------------------------------------------


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the forge's main, as a person has one."""
    place = tmp_path_factory.mktemp("clone") / "slipway"
    platform = Cluster.connect()
    with platform.forge() as forge:
        git(None, "clone", "--quiet", with_password(forge), str(place))
    return place


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(None, 0, id="nothing changed"),
        pytest.param((b"replicas: 1", b"replicas: 2"), 0, id="another rollout"),
        pytest.param((b"replicas: 1", b"replicas: 99"), 1, id="over its budget"),
        pytest.param((b"version: ", b"version: v"), 2, id="not a version"),
        pytest.param((b"digest: sha256:", b"digest: latest-"), 2, id="a tag"),
    ],
)
def test_check_answers_by_its_exit_code(
    clone: Path, slipway: Callable[..., str], change: tuple[bytes, bytes] | None, code: int
) -> None:
    """Before anything is pushed: the same gates, on the same evidence."""
    git(clone, "checkout", "--quiet", "--detach", "origin/main")
    file = clone / release.path(ENV, MODEL)
    if change:
        before = file.read_bytes()
        assert change[0] in before
        file.write_bytes(before.replace(*change))
        git(clone, "commit", "--quiet", "--all", "--message", "Try")
    said = slipway("check", "--repo", str(clone), "--base", "origin/main", code=code)
    if code == 2:
        assert str(release.path(ENV, MODEL)) in said


# --- nobody gets past the gates ---------------------------------------------------------------


def test_nobody_merges_before_the_gates_have_looked(
    platform: Cluster, forge: Gitea, api: httpx.Client
) -> None:
    """Not the administrator either, and not by force."""
    path = str(release.path(ENV, MODEL))
    changed = forge.read(path).replace(b"replicas: 1", b"replicas: 2")
    pull = propose(forge, {path: changed}, "Not looked at yet")
    before = forge.commit()
    for force in (False, True):
        request = {"Do": "merge", "head_commit_id": pull.sha, "force_merge": force}
        answer = api.post(f"pulls/{pull.number}/merge", json=request)
        assert answer.status_code in (403, 405), answer.text
    assert forge.commit() == before
    bot = platform.secret("pipelines", "forge")
    with as_user(platform, bot["FORGE_USERNAME"], bot["FORGE_PASSWORD"]) as client:
        entry = client.get(f"contents/{path}").raise_for_status().json()
        request = {"branch": "main", "content": "eA==", "sha": entry["sha"], "message": "Past them"}
        assert client.put(f"contents/{path}", json=request).status_code == 403
    assert forge.commit() == before
    forge.close(pull.number)
    forge.delete_branch(pull.head)


# --- back -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reproduction() -> Iterator[Any]:
    """Takes as long as a training, so it runs beside the tests that come before it."""
    command = [SLIPWAY, "reproduce", MODEL, "--env", ENV]
    process = subprocess.Popen(
        command, cwd=paths.REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    yield process
    process.kill()


def test_rollback_brings_the_old_bento_back_and_it_stays(
    platform: Cluster, forge: Gitea, slipway: Callable[..., str], reproduction: Any
) -> None:
    left = release_of(forge, "prod")
    slipway("rollback", MODEL, "--env", "prod")
    back = release_of(forge, "prod")
    assert back.version < left.version
    assert serving.answering(platform, "prod", MODEL) == back.bento.digest
    main = forge.commit()
    sweep(platform)
    assert forge.commit() == main
    assert not [
        p
        for p in forge.pulls()
        if release.path("prod", MODEL).as_posix() in forge.changed(p.number)
    ]
    assert serving.answering(platform, "prod", MODEL) == back.bento.digest
    assert release_of(forge, "staging").bento == left.bento
    until(lambda: aliases(platform)["prod"] == back.version, 400, "@prod did not follow")


def test_a_hand_edit_is_refused_where_people_depend_on_it() -> None:
    """In dev it is put back (test_2); in prod the API server does not take it at all."""
    deployment = f"deployment/{release.service(MODEL)}"
    with pytest.raises(SlipwayError, match="are made by"):
        cluster.kubectl("-n", "prod", "scale", deployment, "--replicas=3")


# --- what the API server refuses --------------------------------------------------------------


CONTROLLERS = "system:serviceaccount:kube-system"


def running(platform: Cluster, env: str, kind: str) -> dict[str, Any]:
    """A pod, or a ReplicaSet, as the environment's release has it, under a name of its own."""
    selector = f"app.kubernetes.io/name={release.service(MODEL)}"
    group = "/api/v1" if kind == "pods" else "/apis/apps/v1"
    items = platform.items(f"{group}/namespaces/{env}/{kind}", labelSelector=selector)
    found = next(
        item
        for item in items
        if item["spec"].get("replicas", 1) and "deletionTimestamp" not in item["metadata"]
    )
    meta, spec = found["metadata"], found["spec"]
    for key in ("nodeName", "tolerations", "priority", "preemptionPolicy"):
        spec.pop(key, None)
    kept = {key: meta[key] for key in ("labels", "annotations") if key in meta}
    return {
        "apiVersion": "v1" if kind == "pods" else "apps/v1",
        "kind": "Pod" if kind == "pods" else "ReplicaSet",
        "metadata": {"name": "admission", "namespace": env, **kept},
        "spec": spec,
    }


def tried(platform: Cluster, item: dict[str, Any], kind: str, who: str = "") -> httpx.Response:
    """The API server's answer to somebody who would make it; nothing is made."""
    group = "/api/v1" if kind == "pods" else "/apis/apps/v1"
    headers = {"Impersonate-User": who, "Impersonate-Group": "system:masters"} if who else {}
    where = f"{group}/namespaces/{item['metadata']['namespace']}/{kind}?dryRun=All"
    return platform.send("POST", where, json=item, headers=headers)


def a_tag(item: dict[str, Any]) -> None:
    for container in item["spec"]["containers"]:
        container["image"] = container["image"].partition("@")[0] + ":latest"


def another_registry(item: dict[str, Any]) -> None:
    for container in item["spec"]["containers"]:
        container["image"] = f"registry.example/x@sha256:{'0' * 64}"


def privileged(item: dict[str, Any]) -> None:
    item["spec"]["containers"][0]["securityContext"] = {"privileged": True}


def another_bento(item: dict[str, Any]) -> None:
    """Everywhere where it names its bento."""
    digest = item["spec"]["template"]["metadata"]["annotations"]["slipway.dev/bento"]
    item.update(json.loads(json.dumps(item).replace(digest[7:], "0" * 64)))


@pytest.mark.parametrize("env", ["staging", "prod"])
def test_the_api_server_admits_what_is_released_made_by_who_makes_it(
    platform: Cluster, env: str
) -> None:
    pod = running(platform, env, "pods")
    by_hand = tried(platform, pod, "pods")
    assert by_hand.status_code in (403, 422)
    assert "are made by" in by_hand.json()["message"]
    made = tried(platform, pod, "pods", f"{CONTROLLERS}:replicaset-controller")
    assert made.status_code == 201, made.text
    replicas = running(platform, env, "replicasets")
    made = tried(platform, replicas, "replicasets", f"{CONTROLLERS}:deployment-controller")
    assert made.status_code == 201, made.text


@pytest.mark.parametrize("env", ["staging", "prod"])
@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("pods", a_tag, "named by digest"),
        ("pods", another_registry, "images come from"),
        ("pods", privileged, "PodSecurity"),
        ("replicasets", another_bento, "stands in no release"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_the_api_server_refuses(
    platform: Cluster, env: str, kind: str, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    item = running(platform, env, kind)
    change(item)
    maker = "replicaset-controller" if kind == "pods" else "deployment-controller"
    answer = tried(platform, item, kind, f"{CONTROLLERS}:{maker}")
    assert answer.status_code in (403, 422), answer.text
    assert said in answer.json()["message"]


# --- the same again, and gone -----------------------------------------------------------------


def test_what_runs_can_be_made_again(reproduction: Any, forge: Gitea) -> None:
    said, _ = reproduction.communicate(timeout=840)
    assert reproduction.returncode == 0, said
    assert release_of(forge, ENV).bento.digest in said


def test_removing_a_release_file_removes_that_model_there_and_nothing_else(
    platform: Cluster, forge: Gitea
) -> None:
    path = str(release.path("staging", MODEL))
    others = {env: release_of(forge, env).bento.digest for env in (ENV, "prod")}
    pull = propose(forge, {path: None}, f"Remove {MODEL} from staging")
    merging.merge(forge, pull.number)
    query = ("-n", "staging", "get", "deployment,service", release.service(MODEL))
    gone = (*query, "--ignore-not-found", "-o", "name")
    until(lambda: not cluster.kubectl(*gone), 180, "the model is still there")
    for env, bento in others.items():
        assert serving.answering(platform, env, MODEL) == bento
    with pytest.raises(ForgeError):
        forge.read(path)
