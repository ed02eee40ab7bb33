"""Attest: the parts that other steps wrote, compared with the champion, as one signed document.

The only step that holds the signing key. It runs main's code and believes nobody: it verifies what
can be verified here, and writes down whose word the rest is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from slipway import attestation, comparison, digests, evidence, gates, interface, paths, store
from slipway.digests import Digest
from slipway.errors import BadInput, SlipwayError
from slipway.evidence import (
    Comparison,
    Dependencies,
    Evaluation,
    Evidence,
    PolicyPin,
    Serving,
)
from slipway.gates import Policy
from slipway.release import Bento
from slipway.steps import predictions, tracking
from slipway.steps.champion import Champion
from slipway.steps.champion import find as find_champion
from slipway.steps.rescore import MODEL
from slipway.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient


def run(
    model: str,
    environment: str,
    evaluation: Digest,
    serving: Digest,
    dependencies: Digest,
    bento: Digest,
    bento_size: str,
    version: str,
    champion: Digest,
    champion_predictions: Digest,
) -> dict[str, str]:
    """Outputs `evidence`, the digest of the envelope.

    `champion` is the digest of the evidence of whose model `champion_predictions` are; both are
    empty where the environment has no champion.
    """
    objects, keys = Store(), attestation.keys_from_environment()
    key = attestation.key_from_environment()
    if attestation.key_id(key.public_key()) not in keys:
        raise BadInput(
            "its public key is not among those that evidence is verified with",
            file="SLIPWAY_SIGNING_KEY",
            fix="add it to the ConfigMap evidence-keys (pulumi up does both)",
        )
    if not (version.isdecimal() and bento_size.isdecimal()):
        raise BadInput(f"{version!r}, {bento_size!r}: not numbers", field="--version, --bento-size")
    present = find_champion(objects, keys, model, environment)
    if (present.release.evidence.digest if present else "") != champion:
        raise SlipwayError(
            f"{environment} has another champion of {model} than when this workflow began",
            fix="start it again: what was trained is not trained again",
        )
    document = write(
        objects,
        policy=gates.load_policy(gates.reader(paths.REPOSITORY), environment, model),
        challenger=_part(objects, Evaluation, evaluation),
        serving=_part(objects, Serving, serving),
        dependencies=_part(objects, Dependencies, dependencies),
        bento=Bento(digest=bento, uri=store.uri("bentos", bento), size=int(bento_size)),
        champion=present,
        champion_predictions=champion_predictions,
        now=datetime.now(UTC),
    )
    if document.evaluation.model != model:
        raise BadInput(f"is of {document.evaluation.model}", field="--evaluation")
    envelope = attestation.sign(document, key)
    digest = objects.put("evidence", envelope)
    record(tracking.client(), document, int(version), envelope)
    _report(document, digest)
    return {"evidence": digest}


T = TypeVar("T", Evaluation, Serving, Dependencies)


def _part(objects: Store, kind: type[T], digest: Digest) -> T:
    return evidence.loads(kind, objects.get("evidence", digest), store.uri("evidence", digest))


def write(
    objects: Store,
    *,
    policy: Policy,
    challenger: Evaluation,
    serving: Serving,
    dependencies: Dependencies,
    bento: Bento,
    champion: Champion | None,
    champion_predictions: Digest,
    now: datetime,
) -> Evidence:
    """The evidence document for the policy's environment.

    Raises:
        BadInput: the bento is not made of the model that was evaluated.
        NotComparable: the champion's predictions are of other rows.
        SlipwayError: one of the bentos does not say what its callers send and get.
    """
    content = objects.get("bentos", bento.digest)
    check_bento(content, bento, challenger)
    offered = interface.read(content, store.uri("bentos", bento.digest))
    compared, against = None, None
    if champion:
        compared, against = compare(
            objects, policy, challenger, offered, dependencies, champion, champion_predictions
        )
    return Evidence(
        created=now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        environment=policy.environment,  # type: ignore[arg-type] -- load_policy has checked it
        policy=PolicyPin(environment=policy.environment, digest=policy.digest),  # type: ignore[arg-type]
        bento=bento,
        evaluation=challenger,
        serving=serving,
        dependencies=dependencies,
        champion=against,
        comparison=compared,
    )


def compare(
    objects: Store,
    policy: Policy,
    challenger: Evaluation,
    offered: Mapping[str, interface.Field],
    dependencies: Dependencies,
    champion: Champion,
    champion_predictions: Digest,
) -> tuple[Comparison, evidence.Champion]:
    """The comparison with the champion, and what it answers on the challenger's holdout.

    `offered`: what the challenger's callers send and get. Raises as `write` does.
    """
    theirs, before = champion.evidence.evaluation, champion.release.bento.digest
    table = predictions.get(objects, champion_predictions, challenger.task)
    compared = comparison.compare(
        challenger,
        predictions.get(objects, challenger.predictions, challenger.task),
        theirs,
        table,
        policy.evidence,
        signature=interface.changes(
            interface.read(objects.get("bentos", before), store.uri("bentos", before)), offered
        ),
        drift=comparison.drift(objects, challenger.data, theirs.data),
        locks=(dependencies, champion.evidence.dependencies),
    )
    answered = predictions.scores(table, challenger.task)
    against = evidence.Champion(
        version=champion.release.version,
        bento=before,
        evidence=champion.release.evidence.digest,
        commit=theirs.code,
        data=theirs.data.digest,
        predictions=champion_predictions,
        metrics=comparison.metrics(answered, policy.evidence),
        parameters=theirs.parameters,
        **comparison.curves(answered, table["period"].to_numpy()),
    )
    return compared, against


def check_bento(content: bytes, bento: Bento, evaluation: Evaluation) -> None:
    """`BadInput` unless the bento holds the very model files that were evaluated."""
    where = store.uri("bentos", bento.digest)
    if len(content) != bento.size:
        raise BadInput(f"has {len(content)} bytes, not {bento.size}", file=where)
    members = store.untar(content)
    files = {n.removeprefix(MODEL): c for n, c in members.items() if n.startswith(MODEL)}
    if (found := digests.of(store.tar(files))) != evaluation.model_digest:
        raise BadInput(
            f"its model files are {found}, evaluated was {evaluation.model_digest}",
            file=where,
            fix="package the evaluated model: run the workflow again",
        )


def record(mlflow: MlflowClient, document: Evidence, version: int, envelope: bytes) -> None:
    """Puts the envelope beside the run, and its digest on the registered version.

    Raises:
        SlipwayError: that version is of another model.
    """
    found, digest = document.evaluation, digests.of(envelope)
    tags = mlflow.get_model_version(found.model, str(version)).tags
    if tags.get(tracking.MODEL) != found.model_digest:
        raise SlipwayError(
            f"MLflow's {found.model} {version} is of model {tags.get(tracking.MODEL)}, evaluated "
            f"was {found.model_digest}",
            fix="run the workflow again: the train step registers the version",
        )
    file = f"evidence/{document.environment}/{digest.removeprefix('sha256:')}.json"
    mlflow.log_text(found.run, envelope.decode(), file)
    mlflow.set_model_version_tag(
        found.model, str(version), f"{tracking.EVIDENCE}.{document.environment}", digest
    )


def _report(document: Evidence, digest: Digest) -> None:
    print(f"signed {store.uri('evidence', digest)} for {document.environment}")
    if not (document.champion and document.comparison):
        print(f"no champion: {document.environment} serves no {document.evaluation.model}")
        return
    print(f"against version {document.champion.version}:")
    for test in document.comparison.tests:
        if not test.column:
            kind = test.kind.replace("_", "-")
            print(
                f"{test.metric:18} gain {test.difference.value:+.4f}  {kind}: "
                f"{'yes' if test.passed else 'no'} (p {test.p_adjusted:.3f})"
            )
