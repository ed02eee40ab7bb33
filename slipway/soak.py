"""Soak: what a bento really served in an environment, and how good that was."""

from __future__ import annotations

from slipway import predictions
from slipway.digests import Digest
from slipway.gates import Soak
from slipway.store import Store


def measure(store: Store, env: str, model: str, bento: Digest) -> Soak:
    """Counts from the listing of the bento's log; reads what is labelled, and its last segment.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    logged = predictions.segments(store, env, model, bento)
    served = [segment for segment in logged if segment.predictions]
    if not served:
        return Soak(first=None, last=None, predictions=0, labelled=0, squared_error=None)
    newest = [made.time for made in predictions.read(store, served[-1])]
    labels = predictions.read_labels(store, env, model)
    rows = predictions.outcomes(store, served, labels).values() if labels else ()
    errors = [(value - outcome) ** 2 for value, outcome in rows]
    return Soak(
        first=served[0].first,
        last=max([served[-1].first, *newest]),
        predictions=sum(segment.predictions for segment in served),
        labelled=len(errors),
        squared_error=sum(errors) / len(errors) if errors else None,
    )
