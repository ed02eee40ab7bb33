"""What goes wrong around a promotion: nothing is half promoted, nothing is lost, and it is said."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from infra.platform.forge import webhooks
from infra.stack import ARGO, ARGO_CD
from slipway import cluster, digests, merging, release, serving, training
from slipway.endpoints import Cluster
from slipway.forge import ForgeError, Gitea, PullRequest

from .conftest import (
    ENV,
    MODEL,
    SLIPWAY,
    as_user,
    comment,
    document,
    git,
    merge,
    number_in,
    propose,
    released,
    until,
    verdict,
    with_password,
    workflows,
)

DEV, PROD = (str(release.path(env, MODEL)) for env in (ENV, "prod"))
ONE, TWO, MANY = b"replicas: 1", b"replicas: 2", b"replicas: 99"
EVENTS = "argo-server"


# --- refused: each a pull request, all opened at once -----------------------------------------


class Case:
    """A pull request that may not be merged, and what its comment has to say."""

    def __init__(self, files: Mapping[str, bytes], *said: str) -> None:
        self.files, self.said = files, said


def cases(forge: Gitea, put: Callable[[bytes], str]) -> dict[str, Case]:
    """By name. `put` keeps an object as evidence and gives its digest."""
    dev, prod = forge.read(DEV), forge.read(PROD)
    here, there = (release.parse(content, DEV) for content in (dev, prod))

    def evidence(digest: str) -> bytes:
        return dev.replace(here.evidence.digest.encode(), digest.encode())

    brier = here.evidence.summary["brier"]
    policy, gate = "policies/promotion/dev.yaml", "slipway/gates.py"
    return {
        "two environments": Case(
            {DEV: dev.replace(ONE, TWO), PROD: prod.replace(ONE, TWO)}, "dev and prod together"
        ),
        "thresholds": Case(
            {DEV: dev.replace(ONE, TWO), policy: forge.read(policy) + b"# lenient\n"}, policy
        ),
        "gate code": Case({DEV: dev.replace(ONE, TWO), gate: forge.read(gate) + b"# kind\n"}, gate),
        "edited metrics": Case(
            {DEV: dev.replace(f"brier: {brier}".encode(), b"brier: 0.01")}, "summary", "not about"
        ),
        "no such evidence": Case({DEV: evidence(f"sha256:{'0' * 64}")}, "evidence", "0" * 12),
        "altered evidence": Case({DEV: evidence(put(altered()))}, "altered since it was signed"),
        "signed by another": Case(
            {DEV: evidence(put(signed_again()))}, "not signed by a known key"
        ),
        "another's evidence": Case({DEV: evidence(there.evidence.digest)}, "environment is prod"),
        "another image": Case(
            {DEV: dev.replace(here.runtime.image.encode(), other_image(here).encode())},
            "runtime image is",
            "not about",
        ),
        "another version": Case(
            {DEV: dev.replace(b"version: %d" % here.version, b"version: 999")},
            "version is",
            "not about",
        ),
        "over budget": Case({DEV: dev.replace(ONE, MANY)}, "cost"),
        "a tag": Case(
            {DEV: dev.replace(here.bento.digest.encode(), b"latest", 1)}, "bento.digest", "tag"
        ),
        "a stray file": Case({"environments/dev/notes.txt": b"x\n"}, "belongs"),
    }


def other_image(of: release.Release) -> str:
    """Of the same repository, by another digest."""
    return f"{of.runtime.image.partition('@')[0]}@sha256:{'0' * 64}"


def envelope() -> dict[str, Any]:
    """Dev's evidence as it is in the store."""
    platform = Cluster.connect()
    with platform.forge() as forge, platform.store() as store:
        found = released(forge, ENV)
        assert found
        return json.loads(store.get("evidence", found.evidence.digest))


def altered() -> bytes:
    """The same signature over a better number."""
    found = envelope()
    statement = json.loads(base64.b64decode(found["payload"]))
    statement["predicate"]["evaluation"]["metrics"]["brier"]["value"] = 0.01
    found["payload"] = base64.b64encode(digests.canonical_json(statement)).decode()
    return digests.canonical_json(found)


def signed_again() -> bytes:
    """Signed in good order, by a key that is not the platform's."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from slipway import attestation
    from slipway.evidence import Evidence

    statement = json.loads(base64.b64decode(envelope()["payload"]))
    document = Evidence.model_validate(statement["predicate"])
    return attestation.sign(document, Ed25519PrivateKey.generate())


NAMES = (
    "two environments",
    "thresholds",
    "gate code",
    "edited metrics",
    "no such evidence",
    "altered evidence",
    "signed by another",
    "another's evidence",
    "another image",
    "another version",
    "over budget",
    "a tag",
    "a stray file",
)


@contextmanager
def administrator(platform: Cluster) -> Iterator[Any]:
    """The store as its administrator: the pipelines may not delete what a digest names."""
    keys = platform.secret("storage", "minio")
    with platform.service("storage", "minio") as url:
        yield boto3.client(
            "s3",
            endpoint_url=url,
            aws_access_key_id=keys["username"],
            aws_secret_access_key=keys["password"],
            region_name="us-east-1",
        )


@pytest.fixture(scope="module")
def opened() -> Iterator[dict[str, tuple[Case, PullRequest]]]:
    platform = Cluster.connect()
    with platform.forge() as forge, administrator(platform) as s3:
        kept: list[str] = []

        def put(content: bytes) -> str:
            digest = digests.of(content)
            kept.append(digest.replace(":", "/"))
            s3.put_object(Bucket="evidence", Key=kept[-1], Body=content)
            return digest

        found = {
            name: (case, propose(forge, case.files, f"Test: {name}"))
            for name, case in cases(forge, put).items()
        }
        assert set(found) == set(NAMES)
        yield found
        for _, pull in found.values():
            forge.close(pull.number)
            forge.delete_branch(pull.head)
        for key in kept:
            s3.delete_object(Bucket="evidence", Key=key)


@pytest.mark.parametrize("name", NAMES)
def test_refused(forge: Gitea, opened: dict[str, tuple[Case, PullRequest]], name: str) -> None:
    case, pull = opened[name]
    before = forge.commit()
    assert verdict(forge, pull.number, seconds=180) == "failure"
    text = comment(forge, pull.number)
    for words in case.said:
        assert words in text, f"{words!r} is not in\n{text}"
    with pytest.raises(ForgeError):
        forge.merge(pull.number)
    assert forge.commit() == before


@pytest.fixture(scope="module")
def unheard(opened: object) -> Iterator[PullRequest]:
    """A pull request whose webhook is lost. The next sweep may be two minutes away, so tests that
    do not move main, which would start one too, come before the one that looks at it."""
    platform = Cluster.connect()
    admin = platform.secret("forge", "gitea-admin")
    with (
        platform.forge() as forge,
        as_user(platform, admin["username"], admin["password"]) as api,
    ):
        hooks = [h for h in api.get("hooks").json() if EVENTS in h["config"]["url"]]
        assert hooks

        def deliver_events(active: bool) -> None:
            for hook in hooks:
                # Where a change names no events, Gitea leaves only pushes.
                change = {
                    "active": active,
                    "events": webhooks("gitea", ARGO_CD, ARGO)[hook["config"]["url"]],
                }
                api.patch(f"hooks/{hook['id']}", json=change).raise_for_status()

        deliver_events(False)
        try:
            changed = forge.read(DEV).replace(ONE, TWO)
            pull = propose(forge, {DEV: changed}, "Test: nobody is told")
        finally:
            deliver_events(True)
        yield pull
        forge.close(pull.number)
        forge.delete_branch(pull.head)


@pytest.mark.usefixtures("unheard")
def test_a_fork_that_edits_the_gates_is_judged_by_main_s(platform: Cluster, forge: Gitea) -> None:
    secret = platform.secret("pipelines", "forge")
    name, password = secret["FORGE_USERNAME"], secret["FORGE_PASSWORD"]
    gates = "slipway/steps/gates.py"
    with as_user(platform, name, password) as client:
        root = str(client.base_url).partition("/repos/")[0]
        client.post("forks", json={}).raise_for_status()
        own = f"{root}/repos/{name}/{forge.repository.partition('/')[2]}"
        try:
            until(lambda: client.get(f"{own}/branches/main").status_code == 200, 60, "no fork")
            kind = b"def run(pull):\n    return {'judged': 'all is well'}\n"
            for path, content in ((gates, kind), (DEV, forge.read(DEV).replace(ONE, MANY))):
                sha = client.get(f"{own}/contents/{path}").raise_for_status().json()["sha"]
                body = {"content": base64.b64encode(content).decode(), "sha": sha, "branch": "main"}
                client.put(f"{own}/contents/{path}", json=body).raise_for_status()
            request = {"head": f"{name}:main", "base": "main", "title": "Trust me"}
            number = client.post("pulls", json=request).raise_for_status().json()["number"]
            assert verdict(forge, number, seconds=180) == "failure"
            text = comment(forge, number)
            assert gates in text
            assert "cost" in text
            forge.close(number)
        finally:
            client.delete(own).raise_for_status()


def test_what_was_judged_is_merged_and_nothing_that_came_after(
    forge: Gitea, tmp_path: Path
) -> None:
    """A branch that is forced to another commit is another proposal."""
    pull = propose(forge, {DEV: forge.read(DEV).replace(ONE, TWO)}, "Test: two replicas")
    assert verdict(forge, pull.number) == "success"
    place = tmp_path / "clone"
    git(None, "clone", "--quiet", with_password(forge), str(place))
    git(place, "checkout", "--quiet", pull.head)
    (place / DEV).write_bytes(forge.read(DEV).replace(ONE, MANY))
    git(place, "commit", "--quiet", "--all", "--amend", "--message", "Test: two replicas")
    git(place, "push", "--quiet", "--force", "origin", pull.head)
    until(lambda: forge.pull(pull.number).sha != pull.sha, 30, "the push did not arrive")
    with pytest.raises(ForgeError, match="another head commit"):
        forge.merge(pull.number, sha=pull.sha)
    with pytest.raises(ForgeError):
        forge.merge(pull.number)
    assert verdict(forge, pull.number) == "failure"
    forge.close(pull.number)
    forge.delete_branch(pull.head)


# --- the store --------------------------------------------------------------------------------


@contextmanager
def damaged(platform: Cluster, bucket: str, digest: str, content: bytes | None) -> Iterator[None]:
    """The object has other content, or None is there, for the time of the body."""
    key = digest.replace(":", "/")
    with administrator(platform) as s3:
        before = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        if content is None:
            s3.delete_object(Bucket=bucket, Key=key)
        else:
            s3.put_object(Bucket=bucket, Key=key, Body=content)
        try:
            yield
        finally:
            s3.put_object(Bucket=bucket, Key=key, Body=before)


@pytest.mark.parametrize("content", [None, b"{}"], ids=["deleted", "altered"])
@pytest.mark.parametrize("bucket", ["bentos", "evidence"])
def test_what_is_not_whole_does_not_come_back(
    platform: Cluster,
    forge: Gitea,
    slipway: Callable[..., str],
    bucket: str,
    content: bytes | None,
) -> None:
    plan = document("rollback", MODEL, "--env", ENV, "--dry-run")
    former = release.parse(forge.read(DEV, plan["commit"]), DEV)
    digest = former.bento.digest if bucket == "bentos" else former.evidence.digest
    pulls, main = [p.number for p in forge.pulls("all")], forge.commit()
    with damaged(platform, bucket, digest, content):
        said = slipway("rollback", MODEL, "--env", ENV, code=1)
    assert "cannot come back" in said
    assert digest[7:19] in said
    assert ([p.number for p in forge.pulls("all")], forge.commit()) == (pulls, main)


# --- once main moves --------------------------------------------------------------------------


def test_a_lost_webhook_is_made_good_by_the_sweep(forge: Gitea, unheard: PullRequest) -> None:
    assert verdict(forge, unheard.number, seconds=400) == "success"


def test_of_two_that_change_one_release_the_second_is_held_and_judged_anew(
    platform: Cluster, forge: Gitea
) -> None:
    """At once, though the judging waits for a rollout. A sweep, which would be as good, has just
    been: the test before this one has seen it."""
    before = forge.read(DEV)
    # After a branch of such a name the rollout has the node to itself.
    names = f"rollback/test-{secrets.token_hex(4)}", ""
    first, second = (
        propose(forge, {DEV: before.replace(ONE, b"replicas: %d" % count)}, f"Test: {count}", name)
        for count, name in zip((2, 3), names, strict=True)
    )
    assert verdict(forge, second.number) == "success"

    def said(state: str) -> bool:
        return forge.statuses(second.sha).get(merging.CONTEXT) == state

    try:
        merging.merge(forge, first.number)
        until(lambda: said("pending"), 60, "what an older main let pass is not held")
        until(lambda: said("failure"), 400, "the second still passes")
        assert "changed" in comment(forge, second.number)
        with pytest.raises(ForgeError):
            forge.merge(second.number)
    finally:
        forge.close(second.number)
        forge.write("main", {DEV: before}, "One replica")
    forge.delete_branch(second.head)


# --- code that speaks for itself --------------------------------------------------------------


def test_code_that_calls_itself_mains_has_nothing_signed(
    platform: Cluster, forge: Gitea, slipway: Callable[..., str]
) -> None:
    """A branch's own code evaluates it, and may write what it likes: here, that main's code did."""
    path, main = "slipway/steps/evaluate.py", forge.commit()
    honest = forge.read(path)
    forged = honest.replace(b" code=commit,", b' code="%s",' % main.encode())
    assert forged != honest
    branch = f"test/{secrets.token_hex(4)}"
    sha = forge.write(branch, {path: forged}, "Test: an evaluation that names another commit")
    try:
        said = slipway("train", MODEL, "--commit", branch, "--wait", code=1)
    finally:
        forge.delete_branch(branch)
    assert "step attest failed" in said, said
    assert f"says it is of commit {main}, and {sha} was evaluated" in said, said
    found = training.find(platform, MODEL, sha, ENV, dry_run=True)
    assert found is None, "it failed"


# --- parts that are down ----------------------------------------------------------------------

PARTS = {
    "select": ("storage", "statefulset/minio"),
    "attest": ("mlflow", "deployment/mlflow"),
    "propose": ("forge", "deployment/gitea"),
}


@contextmanager
def down(namespace: str, workload: str) -> Iterator[None]:
    """It is not there for the time of the body."""
    kind, _, name = workload.partition("/")
    cluster.kubectl("-n", namespace, "scale", workload, "--replicas=0")
    cluster.kubectl("-n", namespace, "delete", "pod", "--all", "--force", "--grace-period=0")
    try:
        yield
    finally:
        cluster.kubectl("-n", namespace, "scale", workload, "--replicas=1")
        cluster.kubectl("-n", namespace, "rollout", "status", f"{kind}/{name}", "--timeout=120s")


def test_a_promotion_outlives_store_registry_and_forge(
    platform: Cluster, forge: Gitea, slipway: Callable[..., str]
) -> None:
    """Each goes down as the step begins that needs it, and the store again while the gates judge.
    Main stays as it is all the time."""
    main, before = forge.commit(), set(workflows(platform, "promote"))

    def proposed() -> list[PullRequest]:
        return [p for p in forge.pulls() if p.title.startswith(f"Release {MODEL}")]

    command = [SLIPWAY, "promote", MODEL, "--to", "staging"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    waiting = dict(PARTS)
    name = until(lambda: set(workflows(platform, "promote")) - before, 60, "it does not begin")
    for now in training.follow(platform, name.pop(), every_s=0.5):
        begun = {step.name for step in now.steps if step.phase in ("Pending", "Running")}
        for step in begun & waiting.keys():
            with down(*waiting.pop(step)):
                time.sleep(8)
        if not waiting and proposed():
            break
    assert not waiting, f"over before {waiting}: {training.failure(platform, now)}"
    (pull,) = proposed()
    with down(*PARTS["select"]):

        def missed() -> bool:
            return forge.statuses(pull.sha).get(merging.CONTEXT) == "error"

        until(missed, 120, "the gates have not missed the store")
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert "gates: error" in said
    assert [p.number for p in proposed()] == [pull.number]
    assert verdict(forge, pull.number) == "success"
    assert forge.commit() == main
    # Again: it is there, and no other takes its place.
    assert number_in(slipway("promote", MODEL, "--to", "staging")) == pull.number
    forge.close(pull.number)
    forge.delete_branch(pull.head)


def test_two_promotions_at_once_end_in_one(
    platform: Cluster, forge: Gitea, slipway: Callable[..., str]
) -> None:
    with ThreadPoolExecutor() as pool:
        runs = [
            pool.submit(slipway, "promote", MODEL, "--to", "staging", code=None) for _ in range(2)
        ]
        said = [run.result() for run in runs]
    found = [p for p in forge.pulls() if p.title.endswith("to staging")]
    assert len(found) == 1, said
    merged = merge(forge, platform, found[0].number, "staging")
    assert merged.bento == (released(forge, ENV) or merged).bento
    assert not [p for p in forge.pulls() if p.title.endswith("to staging")]


# --- webhooks ---------------------------------------------------------------------------------


def deliver(platform: Cluster, body: bytes, secret: str | None) -> int:
    """An event as the forge delivers it; its signature is left out without a secret."""
    headers = {"Content-Type": "application/json", "X-GitHub-Event": "pull_request"}
    if secret is not None:
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers["X-Hub-Signature-256"] = f"sha256={signature}"
    with platform.service("argo", "argo-server") as url:
        address = f"{url}/api/v1/events/pipelines/forge"
        return httpx.post(
            address, content=body, headers=headers, timeout=30, trust_env=False
        ).status_code


def test_events_are_taken_from_the_forge_alone_and_once(platform: Cluster, forge: Gitea) -> None:
    closed = next(forge.pulls("closed"))

    def judged() -> set[str]:
        """Of this pull request alone: others may be judged meanwhile."""
        return {w for w in workflows(platform, "gates") if w.startswith(f"gates-{closed.number}-")}

    about = {
        "base": {"ref": "main"},
        "head": {"sha": closed.sha},
        "updated_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "merged": False,
    }
    event = {"action": "edited", "number": closed.number, "pull_request": about}
    body = json.dumps(event).encode()
    before = judged()
    for secret in (None, "guessed"):
        assert deliver(platform, body, secret) >= 400
    time.sleep(3)
    assert judged() <= before
    secret = platform.secret("forge", "gitea-setup")["webhook"]
    assert deliver(platform, body, secret) < 300
    new = until(lambda: judged() - before, 60, "the forge is not believed")
    for _ in range(3):
        deliver(platform, body, secret)
    time.sleep(5)
    assert judged() - before == new
    assert len(new) == 1


def test_everything_still_answers(platform: Cluster, forge: Gitea) -> None:
    for env in release.ENVIRONMENTS:
        found = released(forge, env)
        assert found, env
        assert serving.answering(platform, env, MODEL) == found.bento.digest
