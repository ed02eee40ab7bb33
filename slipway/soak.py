"""Soak: what a bento really served in an environment, and how good that was."""

from __future__ import annotations

from slipway import predictions
from slipway.digests import Digest
from slipway.gates import Soak
from slipway.store import Store


def measure(store: Store, env: str, model: str, bento: Digest) -> Soak:
    """Counts from the listing of the bento's log; reads the segments with labelled ones alone.

    In the store of whoever hosts the environment.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    store = store.hosting(env)
    logged = predictions.segments(store, env, model, bento)
    served = [segment for segment in logged if segment.predictions]
    labels = predictions.read_labels(store, env, model) if served else {}
    rows = predictions.outcomes(store, served, labels).values() if labels else ()
    errors = [(value - outcome) ** 2 for value, outcome in rows]
    return Soak(
        times=tuple(segment.first for segment in served),
        predictions=sum(segment.predictions for segment in served),
        labelled=len(errors),
        squared_error=sum(errors) / len(errors) if errors else None,
    )
