"""Propose: the release file of the new bento, on a branch, as a pull request with its evidence."""

from __future__ import annotations

from slipway import evidence, release, store
from slipway.bento import Folder
from slipway.digests import Digest
from slipway.errors import BadInput
from slipway.evidence import Evidence
from slipway.forge import Forge, Gitea, NotFound
from slipway.release import Code, Data, MLflow, Release, Rollout, Runtime
from slipway.store import Store


def run(
    folder: Folder, evidence: Digest, version: str, environment: str, runtime_image: str
) -> dict[str, str]:
    """Outputs `pull-request`, its address; empty when the environment already runs this bento."""
    if not version.isdecimal():
        raise BadInput(f"{version!r} is not a number", field="--version")
    release.check_environment(environment)
    document = read(Store(), evidence)
    with Gitea.from_environment() as forge:
        return {
            "pull-request": propose(
                forge, document, evidence, int(version), environment, runtime_image
            )
        }


def read(objects: Store, digest: Digest) -> Evidence:
    """The evidence document, verified."""
    return evidence.loads(Evidence, objects.get("evidence", digest), store.uri("evidence", digest))


def propose(
    forge: Forge,
    document: Evidence,
    digest: Digest,
    version: int,
    environment: str,
    image: str,
) -> str:
    """Address of the one pull request for this release; "" when it is there already."""
    found = document.evaluation
    path = str(release.path(environment, found.model))
    try:
        current = release.parse(forge.read(path), path)
    except NotFound:
        current = None
    proposed = Release(
        model=found.model,
        version=version,
        bento=document.bento,
        runtime=Runtime(image=image),
        data=Data(digest=found.data.digest),
        code=Code(commit=found.code),
        mlflow=MLflow(run=found.run),
        evidence=release.Evidence(digest=digest, summary=document.summary()),
        # How it rolls out is the environment's choice, not the training's.
        rollout=current.rollout if current else Rollout(),
    )
    if current and (current.bento, current.runtime) == (proposed.bento, proposed.runtime):
        print(f"nothing to do: {path} on main has this bento and this runtime image")
        return ""
    title = f"Release {found.model} {version} to {environment}"
    branch = f"release/{found.model}-{version}"
    forge.write(branch, {path: release.dumps(proposed).encode()}, title)
    pull = forge.open(branch, title, body(document, digest, current))
    print(f"{title}: {pull.url}")
    return pull.url


def body(document: Evidence, digest: Digest, current: Release | None) -> str:
    """The pull request's text: what the model gains, where it is weak, and where it came from."""
    found = document.evaluation
    lines = [
        f"| holdout {', '.join(found.holdout.partitions)} | value | 95 % interval | baselines |"
    ]
    lines.append("|---|---|---|---|")
    for name, e in found.metrics.items():
        others = ", ".join(f"{b} {m[name]:.4f}" for b, m in found.baselines.items() if name in m)
        lines.append(f"| {name} | {e.value:.4f} | {e.low:.4f} to {e.high:.4f} | {others} |")
    for name, e in found.gain.items():
        lines.append(f"| Brier skill over {name} | {e.value:.1%} | {e.low:.1%} to {e.high:.1%} | |")
    weak = sorted(
        (s for s in found.slices if "roc_auc" in s.metrics), key=lambda s: s.metrics["roc_auc"]
    )[:3]
    named = ", ".join(f"{s.column} {s.value} ({s.metrics['roc_auc']:.3f})" for s in weak)
    lines += ["", f"Weakest slices by roc_auc: {named}." if named else "No slices."]
    lines += [
        "",
        f"- bento `{document.bento.digest}`, {document.bento.size:,} bytes",
        f"- evidence `{digest}`",
        f"- data `{found.data.digest}`, {found.data.rows:,} rows",
        f"- code `{found.code}`",
        f"- MLflow run `{found.run}`",
        f"- now running: `{current.bento.digest}`" if current else "- now running: nothing",
    ]
    return "\n".join(lines)
