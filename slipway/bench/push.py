"""From a push to the forge to the change in the cluster."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from slipway import training
from slipway.bench.figures import Figure, percentile
from slipway.endpoints import Cluster, part
from slipway.errors import SlipwayError

PUSHES, PATIENCE_S, LOOK_S = 20, 60.0, 0.05
# Synced as a release file is, by the webhook and an Application, but it starts no pod.
FILE = "workflows/train.yaml"
OBJECT = f"{training.API}/workflowtemplates/{training.TEMPLATE}"
ANNOTATION = "slipway.dev/bench"


def push(platform: Cluster, say: Callable[[str], None], *, rounds: int = PUSHES) -> list[Figure]:
    """Pushes a changed annotation again and again; puts the file back as it was."""
    with platform.forge() as forge:
        lines = forge.read(FILE).splitlines(keepends=True)
        # Without what a bench that was killed has left.
        before = b"".join(line for line in lines if ANNOTATION.encode() not in line)
        taken: list[float] = []
        try:
            for number in range(rounds):
                mark = f"push-{time.time_ns()}"
                forge.write("main", {FILE: annotated(before, mark)}, f"Bench: push {number + 1}")
                taken.append(seen_after(platform, mark))
                say(f"{number + 1} of {rounds}: {taken[-1]:.2f} s")
                # Not in step with anything that polls.
                time.sleep(random.uniform(0.5, 2))  # noqa: S311  # not a secret
        finally:
            forge.write("main", {FILE: before}, "Bench: as before")
    p95, median = percentile(taken, 95), percentile(taken, 50)
    how = f"{rounds} pushes of {FILE}, median {median:.1f} s, slowest {max(taken):.1f} s"
    return [Figure("push", p95, how, "", {"seconds": [round(t, 3) for t in taken]})]


def annotated(manifest: bytes, mark: str) -> bytes:
    """The manifest with the annotation; it must have none yet."""
    top, _, rest = manifest.partition(b"\nmetadata:\n")
    if not rest or rest.startswith(b"  annotations:"):
        raise SlipwayError(f"{FILE} has no place for an annotation")
    own = f"  annotations: {{{ANNOTATION}: {mark}}}\n".encode()
    return b"%s\nmetadata:\n%s%s" % (top, own, rest)


def seen_after(platform: Cluster, mark: str) -> float:
    """Seconds from now until the object in the cluster carries the mark."""
    began = time.monotonic()
    while True:
        found = platform.find(OBJECT)
        took = time.monotonic() - began
        if part(found, "metadata", "annotations", ANNOTATION) == mark:
            return took
        if took > PATIENCE_S:
            raise SlipwayError(
                f"a push was not synced in {PATIENCE_S:.0f} s",
                fix="kubectl -n argocd describe application workflows",
            )
        time.sleep(LOOK_S)
