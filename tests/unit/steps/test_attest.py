"""What attest verifies, compares and signs; what champion and select hand to it."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from slipway import attestation, digests, evidence, gates, paths, release, store
from slipway.attestation import Unverified
from slipway.errors import BadInput, SlipwayError
from slipway.evidence import Data, Evaluation, Evidence
from slipway.release import Bento, Release
from slipway.steps import attest, dataset, predictions, rescore, select, tracking
from tests import samples
from tests.samples import KEY, KEYS, Objects

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ROWS = 600
POLICIES = paths.REPOSITORY / "policies" / "promotion"
API = """
paths:
  /predict:
    post:
      requestBody: {content: {application/json: {schema: {properties: {x: {type: number}}}}}}
      responses: {200: {content: {application/json: {schema: {type: number}}}}}
"""


@dataclass
class MLflow:
    """One registered version, the run that it is of, and what is put beside them."""

    model_digest: str
    tags: dict[str, str] = field(default_factory=dict[str, str])
    runs: dict[str, str] = field(default_factory=dict[str, str])
    files: dict[str, str] = field(default_factory=dict[str, str])

    def get_model_version(self, _name: str, _version: str) -> Any:
        own = {key.rpartition("/")[2]: value for key, value in self.tags.items()}
        return type("Version", (), {"tags": {tracking.MODEL: self.model_digest, **own}})

    def log_text(self, run: str, text: str, artifact_file: str) -> None:
        self.files[f"{run}/{artifact_file}"] = text

    def set_tag(self, run: str, key: str, value: str) -> None:
        self.runs[f"{run}/{key}"] = value

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self.tags[f"{name}/{version}/{key}"] = value


def table(skill: float) -> pd.DataFrame:
    random = np.random.default_rng(0)
    y = random.integers(0, 2, ROWS).astype(float)
    noise = np.random.default_rng(1).normal(0, 0.05, ROWS)
    p = np.clip(0.5 + skill * (y - 0.5) + noise, 0.01, 0.99)
    return pd.DataFrame(
        {"outcome": y, "prediction": p, "slice:origin": ["JFK", "EWR"] * 300, "period": "x"}
    )


def offering(api: str) -> dict[str, bytes]:
    """The files of a bento that say what callers send and get."""
    return {"bento.yaml": b"name: toy\n", "apis/openapi.yaml": api.encode()}


@dataclass
class Scene:
    """`toy` as package left it, and a main on which an environment may have a champion."""

    root: Path
    objects: Objects
    mlflow: MLflow
    arguments: dict[str, str]

    def run(self, **changes: str) -> Evidence:
        digest = attest.run("toy", **{**self.arguments, **changes})["evidence"]
        return attestation.fetch(self.objects, digest, KEYS)

    def put(self, document: Any) -> str:
        return self.objects.put("evidence", evidence.dumps(document))

    def release(self, environment: str, document: Evidence, **changes: Any) -> Release:
        """Releases it there, with its evidence signed and in the store."""
        document = document.model_copy(update={"environment": environment})
        proof = self.objects.put("evidence", attestation.sign(document, KEY))
        made = samples.released(document, proof, **changes)
        file = self.root / release.path(environment, "toy")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(release.dumps(made))
        return made

    def released(self, environment: str) -> Release:
        return release.load(self.root / release.path(environment, "toy"))

    def names(self, database: str) -> None:
        """Dev's thresholds name it."""
        folder = self.root / "policies"
        if folder.is_symlink():
            folder.unlink()
            shutil.copytree(POLICIES, folder / "promotion")
        file = folder / "promotion" / "dev.yaml"
        document = yaml.safe_load(file.read_text())
        document["vulnerabilities"]["database"] = database
        file.write_text(yaml.safe_dump(document, sort_keys=False))

    def champion(self, skill: float = 0.2, api: str = API) -> dict[str, str]:
        """A champion in dev; the arguments by which attest is told of it."""
        scores = predictions.put(self.objects, table(skill))
        bento = self.objects.put_files("bentos", offering(api) | {"of": b"the champion"})
        document = samples.document(
            bento=Bento(digest=bento, uri=store.uri("bentos", bento), size=7),
            evaluation=samples.evaluation(data=self.data("old"), predictions=scores),
        )
        made = self.release("dev", document)
        return {"champion": made.evidence.digest, "champion_predictions": scores}

    def data(self, name: str) -> Data:
        rows = pd.DataFrame({"distance": np.arange(ROWS, dtype=float), "origin": name})
        content = dataset.encode(rows)
        part = dataset.Partition(
            name="part-1",
            digest=self.objects.put("data", content),
            rows=ROWS,
            size=len(content),
        )
        manifest = dataset.Manifest(model="toy", partitions=[part])
        return Data(digest=self.objects.put_json("data", manifest.model_dump()), rows=ROWS)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    objects = Objects()
    model = {"model.onnx": b"weights"}
    model_digest = objects.put("bentos", store.tar(model))
    bento = store.tar(offering(API) | {"src/model/model.onnx": b"weights"})
    mlflow = MLflow(model_digest)
    made = Scene(tmp_path, objects, mlflow, {})
    found = samples.evaluation(
        model_digest=model_digest,
        data=made.data("new"),
        predictions=predictions.put(objects, table(0.4)),
    )
    made.arguments |= {
        "environment": "dev",
        "commit": samples.COMMIT,
        "evaluation": made.put(found),
        "serving": made.put(samples.serving()),
        "dependencies": made.put(samples.dependencies()),
        "bento": objects.put("bentos", bento),
        "bento_size": str(len(bento)),
        "version": "4",
        "runtime_image": samples.IMAGE,
        "champion": "",
        "champion_predictions": "",
    }
    (tmp_path / "private.pem").write_bytes(samples.private_pem())
    (tmp_path / "public.pem").write_bytes(samples.public_pem())
    monkeypatch.setenv("ENVIRONMENTS", "dev staging prod")
    monkeypatch.setenv("SLIPWAY_SIGNING_KEY", str(tmp_path / "private.pem"))
    monkeypatch.setenv("SLIPWAY_EVIDENCE_KEYS", str(tmp_path / "public.pem"))
    monkeypatch.setattr(attest, "Store", lambda: objects)
    monkeypatch.setattr(rescore, "Store", lambda: objects)
    monkeypatch.setattr(select, "Store", lambda: objects)
    monkeypatch.setattr(tracking, "client", lambda: mlflow)
    (tmp_path / "policies").symlink_to(POLICIES.parent)
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    return made


def test_the_first_evidence_has_no_champion(scene: Scene) -> None:
    found = scene.run()
    assert (found.champion, found.comparison) == (None, None)
    assert found.bento.digest == scene.arguments["bento"]
    assert (found.version, found.runtime.image) == (4, samples.IMAGE)
    policy = gates.load_policy(gates.reader(scene.root), "dev", "toy")
    assert found.policy.digest == policy.digest


def test_evidence_is_in_the_store_and_in_mlflow(scene: Scene) -> None:
    digest = attest.run("toy", **scene.arguments)["evidence"]
    name = digest.removeprefix("sha256:")
    (file,) = scene.mlflow.files
    assert file == f"{samples.RUN}/evidence/dev/{name}.json"
    assert digests.of(scene.mlflow.files[file].encode()) == digest
    assert scene.mlflow.tags == {"toy/4/slipway.evidence_digest.dev": digest}
    assert scene.mlflow.runs == {f"{samples.RUN}/slipway.evidence_digest.dev": digest}


def test_what_a_branch_says_is_of_main_is_not_signed(scene: Scene) -> None:
    """Its own code evaluated, and names a commit that main has: the platform knows which it was."""
    forged = scene.put(samples.evaluation(code="0a" * 20))
    before = dict(scene.objects.content)
    for evaluation, commit in (
        (forged, samples.COMMIT),
        (scene.arguments["evaluation"], "b7" * 20),
        (scene.arguments["evaluation"], "main"),
        (scene.arguments["evaluation"], ""),
    ):
        with pytest.raises(BadInput, match=r"--evaluation: says it is of commit (0a|d4){20}, and"):
            scene.run(evaluation=evaluation, commit=commit)
    assert scene.objects.content == before
    assert (scene.mlflow.files, scene.mlflow.tags, scene.mlflow.runs) == ({}, {}, {})


def test_a_challenger_is_compared_with_the_champion_on_main(scene: Scene) -> None:
    told = scene.champion()
    found = scene.run(**told)
    assert found.champion
    made = release.parse((scene.root / release.path("dev", "toy")).read_bytes(), "toy.yaml")
    assert found.champion.bento == made.bento.digest != found.bento.digest
    assert found.champion.evidence == told["champion"]
    assert found.champion.metrics["brier"].value > 0.1
    assert found.comparison
    better = {t.metric for t in found.comparison.tests if t.kind == "superiority" and t.passed}
    assert "brier" in better
    assert {d.column for d in found.comparison.drift} == {"distance", "origin"}


def test_callers_meet_what_the_two_bentos_declare(scene: Scene) -> None:
    """Of which the models' signatures know nothing."""
    found = scene.run(**scene.champion(api=API.replace("{x:", "{radius:")))
    assert found.comparison
    assert [(c.name, c.kind) for c in found.comparison.signature] == [
        ("/predict radius", "removed"),
        ("/predict x", "added_optional"),
    ]
    same = scene.run(**scene.champion())
    assert same.comparison
    assert same.comparison.signature == []


@pytest.mark.parametrize("api", ["", "paths: [", "paths: {/predict: {post: {}}}"])
def test_a_champion_whose_api_is_not_to_be_read_is_named(scene: Scene, api: str) -> None:
    told = scene.champion(api=api)
    with pytest.raises(
        SlipwayError, match=r"s3://bentos/sha256/.*: what its callers(.|\n)*fix: release a bento"
    ):
        scene.run(**told)
    assert not scene.mlflow.files


def test_another_champion_than_the_one_rescored_is_refused(scene: Scene) -> None:
    told = scene.champion()
    with pytest.raises(SlipwayError, match="another champion of toy than when"):
        scene.run(**{**told, "champion": samples.digest("00")})
    with pytest.raises(SlipwayError, match="another champion"):
        scene.run()


def test_predictions_of_other_rows_are_refused(scene: Scene) -> None:
    told = scene.champion()
    told["champion_predictions"] = predictions.put(scene.objects, table(0.2).iloc[:500])
    with pytest.raises(SlipwayError, match="rows that are not the challenger's"):
        scene.run(**told)


def _lost(scene: Scene, proof: str) -> None:
    del scene.objects.content["evidence", proof]


def _altered(scene: Scene, proof: str) -> None:
    scene.objects.content["evidence", proof] += b" "


def _swapped(scene: Scene, proof: str) -> None:
    """The release file names evidence about another bento, rightly signed."""
    other = scene.objects.put("evidence", attestation.sign(samples.document(), KEY))
    file = scene.root / release.path("dev", "toy")
    file.write_text(file.read_text().replace(proof, other))


def _unsigned(scene: Scene, proof: str) -> None:
    other = scene.objects.put("evidence", evidence.dumps(samples.document()))
    file = scene.root / release.path("dev", "toy")
    file.write_text(file.read_text().replace(proof, other))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_lost, "no such object"),
        (_altered, "corrupt"),
        (_swapped, "not about this release: its bento"),
        (_unsigned, "not a signed envelope"),
    ],
)
def test_a_champion_that_cannot_be_trusted_is_named(
    scene: Scene, damage: Any, message: str
) -> None:
    told = scene.champion()
    damage(scene, told["champion"])
    before = dict(scene.objects.content)
    for step in (
        lambda: scene.run(**told),
        lambda: rescore.run("toy", "dev", scene.arguments["evaluation"]),
        lambda: select.run("toy", "staging", "dev"),
    ):
        with pytest.raises(Unverified, match=message) as raised:
            step()
        assert "environments/dev/models/toy.yaml" in str(raised.value)
        assert "fix: " in str(raised.value)
        assert "slipway rollback toy --env dev" in str(raised.value)
    assert scene.objects.content == before
    assert not scene.mlflow.files


@pytest.mark.parametrize("with_champion", [False, True], ids=["first", "against a champion"])
@pytest.mark.parametrize(
    ("content", "problem"), [(None, store.Missing), (b"altered", store.Corrupt)]
)
def test_a_bento_that_is_not_whole_has_nothing_signed_about_it(
    scene: Scene, content: bytes | None, problem: type[store.StoreError], with_champion: bool
) -> None:
    told = scene.champion() if with_champion else {}
    bento = "bentos", scene.arguments["bento"]
    del scene.objects.content[bento]
    if content is not None:
        scene.objects.content[bento] = content
    before = dict(scene.objects.content)
    with pytest.raises(problem, match=f"{bento[1][7:]}: (.|\n)*fix: {samples.AGAIN}"):
        scene.run(**told)
    assert scene.objects.content == before
    assert (scene.mlflow.files, scene.mlflow.tags) == ({}, {})


def test_the_bento_must_hold_the_evaluated_model(scene: Scene) -> None:
    other = store.tar({"bento.yaml": b"", "src/model/model.onnx": b"other weights"})
    bento = scene.objects.put("bentos", other)
    with pytest.raises(BadInput, match="its model files are sha256"):
        scene.run(bento=bento, bento_size=str(len(other)))
    with pytest.raises(BadInput, match="bytes, not 7"):
        scene.run(bento_size="7")


def test_mlflows_version_must_be_of_the_evaluated_model(scene: Scene) -> None:
    scene.mlflow.model_digest = samples.digest("00")
    before = dict(scene.objects.content)
    with pytest.raises(SlipwayError, match="MLflow's toy 4 is of model sha256:00"):
        scene.run()
    assert not scene.mlflow.tags
    assert scene.objects.content == before, "nothing is signed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation": samples.digest("00")}, "no such object"),
        ({"version": "latest"}, "not numbers"),
        ({"environment": "test"}, "unknown environment"),
    ],
)
def test_wrong_inputs_are_named(scene: Scene, changes: dict[str, str], message: str) -> None:
    with pytest.raises(SlipwayError, match=message):
        scene.run(**changes)


def test_evidence_of_another_model_is_refused(scene: Scene) -> None:
    with pytest.raises(BadInput, match="--evaluation: is of toy"):
        attest.run("other", **scene.arguments)


def test_a_key_that_nobody_verifies_with_signs_nothing(scene: Scene) -> None:
    other = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
    (scene.root / "private.pem").write_bytes(samples.private_pem(other))
    with pytest.raises(BadInput, match="not among those that evidence is verified with"):
        scene.run()


def test_no_key_says_which_variable(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_SIGNING_KEY", "/nowhere/private.pem")
    with pytest.raises(BadInput, match=r"/nowhere/private\.pem: SLIPWAY_SIGNING_KEY: cannot be"):
        scene.run()
    monkeypatch.delenv("SLIPWAY_SIGNING_KEY")
    with pytest.raises(BadInput, match="SLIPWAY_SIGNING_KEY: not set"):
        scene.run()


def test_without_a_champion_nothing_is_rescored(scene: Scene) -> None:
    found = rescore.run("toy", "dev", scene.arguments["evaluation"])
    assert found == {"champion": "", "champion-predictions": ""}


def test_a_champion_of_the_same_holdout_has_answered_already(scene: Scene) -> None:
    told = scene.champion()
    found = rescore.run("toy", "dev", scene.arguments["evaluation"])
    assert found == {name.replace("_", "-"): digest for name, digest in told.items()}


def test_promotion_goes_on_from_what_was_evaluated(scene: Scene) -> None:
    """The digests of the parts are those that the first evaluation gave them."""
    first = scene.run()
    made = scene.release("dev", first)
    found = select.run("toy", "staging", "dev")
    named = ("evaluation", "serving", "dependencies", "bento", "version")
    assert {k: found[k] for k in named} == {k: scene.arguments[k] for k in named}
    assert found["bento-size"] == scene.arguments["bento_size"]
    assert (found["runtime-image"], found["commit"]) == (made.runtime.image, made.code.commit)
    staged = scene.run(environment="staging")
    assert staged.environment == "staging"
    assert staged.evaluation == first.evaluation


def test_promotion_goes_on_from_the_latest_evaluation_of_what_is_released(scene: Scene) -> None:
    """The same commit, trained once more, gives the same bento and another evaluation."""
    scene.release("dev", scene.run())
    again = {"evaluated": "2026-02-01T00:00:00Z"}
    old = evidence.loads(
        Evaluation, scene.objects.get("evidence", scene.arguments["evaluation"]), ""
    )
    later = scene.put(old.model_copy(update=again))
    told = {"champion": scene.released("dev").evidence.digest}
    told["champion_predictions"] = old.predictions
    scene.run(evaluation=later, **told)
    assert select.run("toy", "staging", "dev")["evaluation"] == later
    # Of another run, commit or image it is no evaluation of what is released; what nobody signed,
    # or has lost, is none at all.
    other = old.model_copy(update={"evaluated": "2026-03-01T00:00:00Z", "run": "0" * 32})
    scene.run(evaluation=scene.put(other), **told)
    assert select.run("toy", "staging", "dev")["evaluation"] == scene.arguments["evaluation"]
    for junk in (scene.put(other), samples.digest("00")):
        scene.mlflow.tags["toy/4/slipway.evidence_digest.dev"] = junk
        assert select.run("toy", "staging", "dev")["evaluation"] == scene.arguments["evaluation"]


def export(severity: str = "HIGH", version: str = "2.3.0") -> bytes:
    """OSV's: one entry against numpy."""
    entry = {
        "id": "GHSA-1",
        "modified": "2026-01-02T00:00:00Z",
        "database_specific": {"severity": severity},
        "affected": [
            {"package": {"ecosystem": "PyPI", "name": "numpy"}, "versions": [version]},
        ],
    }
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("GHSA-1.json", json.dumps(entry))
    return made.getvalue()


def test_each_promotion_asks_the_database_of_now(scene: Scene) -> None:
    """Whatever was known, or claimed, when the model was trained."""
    claimed = samples.dependencies(vulnerabilities=[], database="mine")
    assert scene.run(dependencies=scene.put(claimed)).dependencies == samples.dependencies()
    scene.names(scene.objects.put("evidence", export(version="1.0")))
    assert scene.run(dependencies=scene.put(claimed)).dependencies.vulnerabilities == []
    scene.names(scene.objects.put("evidence", export()))
    found = scene.run(dependencies=scene.put(claimed))
    assert found.dependencies.database == "OSV for PyPI, 1 entries, newest of 2026-01-02"
    (known,) = found.dependencies.vulnerabilities
    assert isinstance(known, evidence.Vulnerability)
    assert (known.id, known.severity) == ("GHSA-1", "high")
    scene.release("dev", found)
    named = select.run("toy", "staging", "dev")["dependencies"]
    staged = scene.run(environment="staging", dependencies=named)
    assert staged.dependencies == samples.dependencies(), "staging names no database"


@pytest.mark.parametrize(
    ("database", "said"), [(None, "no such object"), (b"no ZIP", "s3://evidence/.*: not a ZIP")]
)
def test_a_database_that_is_not_to_be_had_is_no_good_result(
    scene: Scene, database: bytes | None, said: str
) -> None:
    scene.names(scene.objects.put("evidence", database) if database else samples.digest("00"))
    with pytest.raises(SlipwayError, match=said):
        scene.run()
    assert not scene.mlflow.files


def test_promotion_needs_a_release_to_promote(scene: Scene) -> None:
    with pytest.raises(BadInput, match="toy is not released to dev"):
        select.run("toy", "staging", "dev")
    with pytest.raises(BadInput, match="from staging to itself"):
        select.run("toy", "staging", "staging")


@pytest.mark.slow
def test_the_real_mlflow_keeps_the_envelope_as_it_is(mlflow_server: str, tmp_path: Path) -> None:
    import mlflow

    client = tracking.client()
    run = client.create_run(tracking.experiment(client, "toy")).info
    client.set_terminated(run.run_id, "FINISHED")
    client.create_registered_model("toy")
    tags = {tracking.MODEL: samples.digest("0d")}
    made = client.create_model_version("toy", run.artifact_uri, run.run_id, tags=tags)
    document = samples.document(
        version=int(made.version), evaluation=samples.evaluation(run=run.run_id)
    )
    envelope = attestation.sign(document, KEY)
    attest.record(client, document, envelope)
    digest = digests.of(envelope)
    assert tracking.evidence(client.get_run(run.run_id).data.tags) == [digest]
    version = client.get_model_version("toy", made.version)
    assert version.tags["slipway.evidence_digest.dev"] == digest
    path = f"evidence/dev/{digest.removeprefix('sha256:')}.json"
    kept = mlflow.artifacts.download_artifacts(
        run_id=run.run_id, artifact_path=path, tracking_uri=mlflow_server, dst_path=str(tmp_path)
    )
    assert Path(kept).read_bytes() == envelope
