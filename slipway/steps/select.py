"""Select: the bento that one environment runs, to be proposed to another, with what it rests on."""

from __future__ import annotations

from slipway import attestation, evidence, release
from slipway.errors import BadInput
from slipway.steps import champion
from slipway.store import Store


def run(model: str, environment: str, from_environment: str) -> dict[str, str]:
    """Outputs what `evaluate` and `package` do for a bento just made, and its `runtime-image`.

    The parts of the verified evidence go back into the store, where their digests are those that
    the first evaluation gave them.
    """
    release.check_environment(environment)
    if environment == from_environment:
        raise BadInput(f"from {environment} to itself", field="--from-environment")
    objects, keys = Store(), attestation.keys_from_environment()
    found = champion.find(objects, keys, model, from_environment)
    if found is None:
        raise BadInput(
            f"{model} is not released to {from_environment}",
            file=str(release.path(from_environment, model)),
            fix=f"promote it to {from_environment} first",
        )
    document, pins = found.evidence, found.release
    return {
        "evaluation": objects.put("evidence", evidence.dumps(document.evaluation)),
        "serving": objects.put("evidence", evidence.dumps(document.serving)),
        "dependencies": objects.put("evidence", evidence.dumps(document.dependencies)),
        "bento": pins.bento.digest,
        "bento-size": str(pins.bento.size),
        "version": str(pins.version),
        "runtime-image": pins.runtime.image,
    }
