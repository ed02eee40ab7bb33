"""Attest: the parts that other steps wrote, compared with the champion, as one signed document.

The only step that holds the signing key. It runs main's code and believes nobody: it verifies what
can be verified here, and writes down whose word the rest is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from slipway import (
    attestation,
    comparison,
    dependencies,
    digests,
    evidence,
    gates,
    interface,
    paths,
    store,
)
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
from slipway.release import Bento, Runtime
from slipway.steps import hosts, predictions, tracking
from slipway.steps.champion import Champion
from slipway.steps.champion import find as find_champion
from slipway.steps.rescore import MODEL
from slipway.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient


def run(
    model: str,
    environment: str,
    commit: str,
    evaluation: Digest,
    serving: Digest,
    dependencies: Digest,
    bento: Digest,
    bento_size: str,
    version: str,
    runtime_image: str,
    champion: Digest,
    champion_predictions: Digest,
) -> dict[str, str]:
    """Outputs `evidence`, the digest of the envelope.

    Args:
        commit: whose code evaluated, by whoever started that code: main's `train` or `select`.
        champion: digest of the evidence of whose model `champion_predictions` are; both are empty
            where the environment has no champion.
    """
    hosts.check_here(environment)
    objects, keys = Store(), attestation.keys_from_environment(environment)
    key = attestation.key_from_environment()
    if attestation.key_id(key.public_key()) not in keys:
        raise BadInput(
            "its public key is not among those that evidence is verified with",
            file="SLIPWAY_SIGNING_KEY",
            fix="add it to the ConfigMap evidence-keys (pulumi up does both)",
        )
    if not (version.isdecimal() and bento_size.isdecimal()):
        raise BadInput(f"{version!r}, {bento_size!r}: not numbers", field="--version, --bento-size")
    challenger = _part(objects, Evaluation, evaluation)
    check_evaluation(challenger, model, commit)
    present = find_champion(objects, keys, model, environment)
    if (present.release.evidence.digest if present else "") != champion:
        raise SlipwayError(
            f"{environment} has another champion of {model} than when this workflow began",
            fix="start it again",
        )
    policy = gates.load_policy(gates.reader(paths.REPOSITORY), environment, model)
    document = write(
        objects,
        policy=policy,
        challenger=challenger,
        serving=_part(objects, Serving, serving),
        dependencies=checked(objects, _part(objects, Dependencies, dependencies), policy),
        version=int(version),
        bento=Bento(digest=bento, uri=store.uri("bentos", bento), size=int(bento_size)),
        runtime=Runtime(image=runtime_image),
        champion=present,
        champion_predictions=champion_predictions,
        now=datetime.now(UTC),
    )
    # Where other stacks come before, one of them trained it and its MLflow knows the version.
    mlflow = None if hosts.upstream() else tracking.client()
    if mlflow:
        check_version(mlflow, document)
    else:
        check_promoted(objects, document)
    envelope = attestation.sign(document, key)
    digest = objects.put("evidence", envelope)
    if mlflow:
        record(mlflow, document, envelope)
    _report(document, digest)
    return {"evidence": digest}


T = TypeVar("T", Evaluation, Serving, Dependencies)


def _part(objects: Store, kind: type[T], digest: Digest) -> T:
    return evidence.loads(kind, objects.get("evidence", digest), store.uri("evidence", digest))


def checked(objects: Store, found: Dependencies, policy: Policy) -> Dependencies:
    """What the database that the policy names knows against these; not checked where it names none.

    Raises:
        Missing: the store has no such database.
        BadInput: it cannot be read.
    """
    digest = getattr(policy.limits.get("vulnerabilities"), "database", None)
    if digest is None:
        return dependencies.checked(found, None)
    return dependencies.checked(
        found, objects.get("evidence", digest), store.uri("evidence", digest)
    )


def check_evaluation(evaluation: Evaluation, model: str, commit: str) -> None:
    """`BadInput` unless it is of this model, by this commit's code.

    An evaluation is written by the code that it is about, which could name a commit that main has
    and it is not.
    """
    if evaluation.model != model:
        raise BadInput(f"is of {evaluation.model}", field="--evaluation")
    if evaluation.code != commit:
        raise BadInput(
            f"says it is of commit {evaluation.code}, and {commit or 'no commit'} was evaluated",
            field="--evaluation",
            fix="name the commit by its 40 hex digits; and see what the code of that one writes, "
            "for it may be forged",
        )


def write(
    objects: Store,
    *,
    policy: Policy,
    challenger: Evaluation,
    serving: Serving,
    dependencies: Dependencies,
    version: int,
    bento: Bento,
    runtime: Runtime,
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
        created=evidence.instant(now),
        environment=policy.environment,  # type: ignore[arg-type] -- load_policy has checked it
        policy=PolicyPin(environment=policy.environment, digest=policy.digest),  # type: ignore[arg-type]
        version=version,
        bento=bento,
        runtime=runtime,
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


def check_version(mlflow: MlflowClient, document: Evidence) -> None:
    """`SlipwayError` unless MLflow's version is of the model that was evaluated."""
    found, version = document.evaluation, str(document.version)
    tags = mlflow.get_model_version(found.model, version).tags
    if tags.get(tracking.MODEL) != found.model_digest:
        raise SlipwayError(
            f"MLflow's {found.model} {version} is of model {tags.get(tracking.MODEL)}, evaluated "
            f"was {found.model_digest}",
            fix="run the workflow again: the train step registers the version",
        )


def check_promoted(objects: Store, document: Evidence) -> None:
    """`SlipwayError` unless main releases the very same to an environment that another stack hosts,
    by evidence which that stack signed."""
    model, problems = document.evaluation.model, list[str]()
    for environment in hosts.upstream():
        keys = attestation.keys_from_environment(environment)
        try:
            found = find_champion(objects, keys, model, environment)
        except attestation.Unverified as problem:
            problems.append(str(problem).partition("\n")[0])
            continue
        differs = attestation.differences(document, found.release) if found else ["is not there"]
        if not differs:
            return
        problems.append(f"{environment}: {'; '.join(differs)}")
    raise SlipwayError(
        f"version {document.version} of {model} is released nowhere before: {' / '.join(problems)}",
        fix="promote it to an environment before; or, where main has moved, start it again",
    )


def record(mlflow: MlflowClient, document: Evidence, envelope: bytes) -> None:
    """Puts the envelope beside the run, and its digest on that and on the registered version."""
    found, digest = document.evaluation, digests.of(envelope)
    file = f"evidence/{document.environment}/{digest.removeprefix('sha256:')}.json"
    tag = f"{tracking.EVIDENCE}.{document.environment}"
    mlflow.log_text(found.run, envelope.decode(), file)
    mlflow.set_tag(found.run, tag, digest)
    mlflow.set_model_version_tag(found.model, str(document.version), tag, digest)


def _report(document: Evidence, digest: Digest) -> None:
    print(f"signed {store.uri('evidence', digest)} for {document.environment}")
    known = document.dependencies.vulnerabilities
    count = known if isinstance(known, str) else f"{len(known)} by {document.dependencies.database}"
    print(f"vulnerabilities of {len(document.dependencies.packages)} dependencies: {count}")
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
