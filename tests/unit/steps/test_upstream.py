"""Promotion from a stack to the next: two stores on one real server, and a key for each stack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from slipway import attestation, digests, paths, release, soak
from slipway import store as stores
from slipway.attestation import Unverified, keys_from_environment
from slipway.errors import BadInput, SlipwayError
from slipway.evidence import Evidence
from slipway.release import Bento, Release
from slipway.steps import attest, champion, follow, hosts, predictions, rescore, select, tracking
from slipway.store import Corrupt, Given, Missing, Store
from tests import samples
from tests.unit.steps import test_attest
from tests.unit.steps.test_attest import API, POLICIES, offering, table

BEFORE, OWN = "slipway-before-111111111111-", "slipway-own-222222222222-"
PROD = "slipway-prod-333333333333-"
SHARED = ("bentos", "data", "evidence", "labels", "predictions")
BUCKETS = [f"{of}{bucket}" for of in (BEFORE, OWN, PROD) for bucket in SHARED]
DEV, STAGING = samples.KEY, Ed25519PrivateKey.from_private_bytes(b"s" * 32)


@pytest.fixture(scope="module")
def client(minio: Path) -> Any:
    made = Store()._s3
    for bucket in BUCKETS:
        made.create_bucket(Bucket=bucket)
    return made


@pytest.fixture
def before(client: Any) -> Iterator[Store]:
    """Dev's store; it and the own are empty again afterwards."""
    yield Given(client, BEFORE)
    for bucket in BUCKETS:
        for item in client.list_objects_v2(Bucket=bucket).get("Contents", []):
            client.delete_object(Bucket=bucket, Key=item["Key"])


@pytest.fixture
def own(client: Any) -> Store:
    """What staging's pods find: nothing but its own."""
    return Given(client, OWN)


@pytest.fixture
def staging(monkeypatch: pytest.MonkeyPatch) -> Store:
    """As steps on staging's cluster open it."""
    monkeypatch.setenv("SLIPWAY_BUCKET_PREFIX", OWN)
    monkeypatch.setenv("SLIPWAY_UPSTREAM", f"dev={BEFORE}")
    return Store()


# The store


def test_what_is_not_here_is_got_from_before_and_kept(
    staging: Store, before: Store, own: Store
) -> None:
    digest = before.put("bentos", b"a bento")
    assert staging.has("bentos", digest)
    assert not own.has("bentos", digest)
    assert staging.get("bentos", digest) == b"a bento"
    assert own.get("bentos", digest) == b"a bento"
    other = before.put("bentos", b"another")
    staging.verify("bentos", other)
    own.verify("bentos", other)


def test_nothing_is_written_upstream(staging: Store, before: Store) -> None:
    assert not before.has("data", staging.put("data", b"staging's"))


def test_what_is_nowhere_is_missing(staging: Store, before: Store) -> None:
    digest = digests.of(b"nowhere")
    assert not staging.has("data", digest)
    for look in (staging.get, staging.verify):
        with pytest.raises(Missing, match=f"s3://data/sha256/{digest[7:]}: no such object"):
            look("data", digest)


def test_other_bytes_upstream_are_refused_and_not_kept(
    staging: Store, before: Store, own: Store
) -> None:
    digest = digests.of(b"right")
    before.write("data", digest.replace(":", "/"), b"wrong")
    with pytest.raises(Corrupt):
        staging.get("data", digest)
    assert not own.has("data", digest)


def test_of_several_the_next_is_asked(
    before: Store, own: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_BUCKET_PREFIX", PROD)
    monkeypatch.setenv("SLIPWAY_UPSTREAM", f"dev={BEFORE} staging={OWN}")
    for store in (before, own):
        digest = store.put("data", store._prefix.encode())
        assert Store().has("data", digest)
        assert Store().get("data", digest) == store._prefix.encode()
        Given(own._s3, PROD).verify("data", digest)


def test_a_person_reads_what_is_before_and_changes_nothing(
    client: Any, before: Store, own: Store
) -> None:
    digest = before.put("data", b"rows")
    assert Given(client, OWN, {"dev": BEFORE}).get("data", digest) == b"rows"
    assert not own.has("data", digest)


def test_what_an_environment_served_is_read_where_that_is_hosted(
    staging: Store, before: Store, own: Store
) -> None:
    bento = samples.digest("be")
    for where, env, count in ((before, "dev", 3), (own, "dev", 9), (own, "staging", 5)):
        key = f"{env}/toy/{bento[7:]}/20260101T000000-toy-1-{count}.jsonl"
        where.write("predictions", key, b"")
    assert soak.measure(staging, "dev", "toy", bento).predictions == 3
    assert soak.measure(staging, "staging", "toy", bento).predictions == 5


# From dev to staging


@dataclass
class Scene:
    """`toy` in dev, on dev's stack; the steps run on staging's."""

    root: Path
    before: Store
    document: Evidence

    def release(self, environment: str, key: Ed25519PrivateKey, **changes: Any) -> Release:
        """Releases it there, with evidence that `key` signs, in the stores of both."""
        document = self.document.model_copy(update={"environment": environment, **changes})
        proof = self.before.put("evidence", attestation.sign(document, key))
        made = samples.released(document, proof)
        file = self.root / release.path(environment, "toy")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(release.dumps(made))
        return made

    def promote(self) -> str:
        """What the workflow does; the digest of the new evidence."""
        found = {k.replace("-", "_"): v for k, v in select.run("toy", "staging", "dev").items()}
        compared = rescore.run("toy", "staging", found["evaluation"])
        found |= {k.replace("-", "_"): v for k, v in compared.items()}
        return attest.run("toy", "staging", **found)["evidence"]


@pytest.fixture
def scene(tmp_path: Path, before: Store, staging: Store, monkeypatch: pytest.MonkeyPatch) -> Scene:
    weights = {"model.onnx": b"weights"}
    bento = before.put_files("bentos", offering(API) | {"src/model/model.onnx": b"weights"})
    document = samples.document(
        environment="dev",
        version=4,
        bento=Bento(
            digest=bento,
            uri=stores.uri("bentos", bento),
            size=len(before.get("bentos", bento)),
        ),
        evaluation=samples.evaluation(
            model_digest=digests.of(stores.tar(weights)),
            data=test_attest.Scene(tmp_path, cast("Any", before), cast("Any", None), {}).data(
                "new"
            ),
            predictions=predictions.put(before, table(0.4)),
        ),
    )
    (tmp_path / "keys").mkdir()
    (tmp_path / "private.pem").write_bytes(samples.private_pem(STAGING))
    (tmp_path / "keys" / "public.pem").write_bytes(samples.public_pem(STAGING))
    (tmp_path / "keys" / "dev.pem").write_bytes(samples.public_pem(DEV))
    (tmp_path / "policies").symlink_to(POLICIES.parent)
    monkeypatch.setenv("ENVIRONMENTS", "staging")
    monkeypatch.setenv("SLIPWAY_SIGNING_KEY", str(tmp_path / "private.pem"))
    monkeypatch.setenv("SLIPWAY_EVIDENCE_KEYS", str(tmp_path / "keys" / "public.pem"))
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    monkeypatch.setattr(tracking, "client", lambda: pytest.fail("staging's MLflow knows nothing"))
    made = Scene(tmp_path, before, document)
    made.release("dev", DEV)
    return made


def test_what_dev_runs_is_attested_anew_and_served_from_the_own_store(
    scene: Scene, own: Store
) -> None:
    digest = scene.promote()
    found = attestation.fetch(own, digest, keys_from_environment("staging"))
    assert (found.environment, found.version, found.bento) == ("staging", 4, scene.document.bento)
    assert found.evaluation == scene.document.evaluation
    own.verify("bentos", found.bento.digest)
    with pytest.raises(Unverified, match="not signed by a known key"):
        attestation.fetch(own, digest, keys_from_environment("dev"))


def test_a_champion_here_is_compared_with_what_comes_from_before(scene: Scene, own: Store) -> None:
    first = scene.promote()
    document = attestation.fetch(own, first, keys_from_environment("staging"))
    file = scene.root / release.path("staging", "toy")
    file.parent.mkdir(parents=True)
    file.write_text(release.dumps(samples.released(document, first)))
    scene.document = scene.document.model_copy(update={"version": 5})
    scene.release("dev", DEV)
    found = attestation.fetch(own, scene.promote(), keys_from_environment("staging"))
    assert found.champion
    assert (found.version, found.champion.version) == (5, 4)
    # Compared by what was fetched on the way.
    own.verify("evidence", scene.document.evaluation.predictions)
    own.verify("data", scene.document.evaluation.data.digest)


def test_evidence_of_the_stack_before_is_none_for_a_release_here(scene: Scene) -> None:
    scene.release("staging", DEV)
    with pytest.raises(Unverified, match="not signed by a known key"):
        champion.find(Store(), keys_from_environment("staging"), "toy", "staging")
    with pytest.raises(Unverified, match="not signed by a known key"):
        scene.promote()


def test_nor_is_ours_for_a_release_there(scene: Scene) -> None:
    scene.release("dev", STAGING)
    with pytest.raises(Unverified, match="not signed by a known key"):
        select.run("toy", "staging", "dev")


@pytest.mark.parametrize("step", ["select", "attest"])
@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_nothing_is_attested_for_what_others_host(
    scene: Scene, step: str, environment: str
) -> None:
    given = dict.fromkeys(
        ("commit", "evaluation", "serving", "dependencies", "bento", "bento_size", "version"), "x"
    )
    more = dict.fromkeys(("runtime_image", "champion", "champion_predictions"), "x")
    run = {
        "select": lambda: select.run("toy", environment, "dev"),
        "attest": lambda: attest.run("toy", environment, **given, **more),
    }[step]
    with pytest.raises(BadInput, match=f"hosts staging, not {environment}\n  fix: run it on"):
        run()


def test_only_what_is_released_before_is_attested_here(scene: Scene, before: Store) -> None:
    """MLflow, which has the version elsewhere, vouches for nothing here."""
    other = scene.document.model_copy(update={"version": 5})
    with pytest.raises(SlipwayError, match="released nowhere before: dev: version is 5, the rel"):
        attest.check_promoted(Store(), other)
    (scene.root / release.path("dev", "toy")).unlink()
    with pytest.raises(SlipwayError, match="before: dev: is not there\n  fix: promote it to"):
        attest.check_promoted(Store(), scene.document)
    scene.release("dev", STAGING)
    with pytest.raises(SlipwayError, match="evidence of version 4 cannot be trusted"):
        attest.check_promoted(Store(), scene.document)


def test_without_the_other_stacks_store_a_promotion_ends(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLIPWAY_UPSTREAM")
    with pytest.raises(Unverified, match="no such object"):
        select.run("toy", "staging", "dev")


def test_aliases_are_moved_where_the_models_are_registered(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    assert follow.run() == {}
    assert "on the stack that trained them" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("here", "changed", "judges"),
    [
        ("dev", "", True),
        ("dev", "dev", True),
        ("dev", "dev staging", False),
        ("staging", "", False),
        ("staging", "dev", False),
        ("staging", "dev staging", True),
        ("staging", "staging prod", False),
        ("prod", "dev prod", True),
        ("dev staging", "staging", True),
    ],
)
def test_one_stack_judges_each_change(
    here: str, changed: str, judges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVIRONMENTS", here)
    assert hosts.judges(set(changed.split())) is judges
