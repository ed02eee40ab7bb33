"""Select: the bento that one environment runs, to be proposed to another, with what it rests on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from slipway import attestation, evidence, release
from slipway.digests import Digest
from slipway.errors import BadInput
from slipway.evidence import Evidence
from slipway.steps import champion, hosts, tracking
from slipway.store import Store

if TYPE_CHECKING:
    from slipway.sources import Keys


def run(model: str, environment: str, from_environment: str) -> dict[str, str]:
    """Outputs what `evaluate` and `package` do for a bento just made, and its release's
    `runtime-image` and `commit`.

    The parts of the verified evidence go back into the store, where their digests are those that
    the evaluation gave them. What else is known of a version says the MLflow that registered it;
    of one that another stack made this one knows what its release names.
    """
    hosts.check_here(environment)
    if environment == from_environment:
        raise BadInput(f"from {environment} to itself", field="--from-environment")
    objects, keys = Store(), attestation.keys_from_environment(from_environment)
    found = champion.find(objects, keys, model, from_environment)
    if found is None:
        raise BadInput(
            f"{model} is not released to {from_environment}",
            file=str(release.path(from_environment, model)),
            fix=f"promote it to {from_environment} first",
        )
    pins = found.release
    document = found.evidence
    if from_environment not in hosts.upstream():
        tags = tracking.client().get_model_version(model, str(pins.version)).tags
        document = latest(objects, keys, found, tracking.evidence(tags))
    return {
        "evaluation": objects.put("evidence", evidence.dumps(document.evaluation)),
        "serving": objects.put("evidence", evidence.dumps(document.serving)),
        "dependencies": objects.put("evidence", evidence.dumps(document.dependencies)),
        "bento": pins.bento.digest,
        "bento-size": str(pins.bento.size),
        "version": str(pins.version),
        "runtime-image": pins.runtime.image,
        "commit": pins.code.commit,
    }


def latest(
    objects: Store, keys: Keys, found: champion.Champion, named: Iterable[Digest]
) -> Evidence:
    """The evidence with the latest evaluation of what is released: its own, or of those named one
    that came when the same commit was trained once more."""
    others = (
        document
        for document in attestation.proven(objects, named, keys)
        if not attestation.differences(document, found.release)
    )
    return max([found.evidence, *others], key=lambda document: document.evaluation.evaluated)
