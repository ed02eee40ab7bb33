"""Propose: the release that the evidence is about, on a branch, as the one open pull request.

A pull request is never exchanged under its reader: other content is another pull request, and the
former one is closed with a word on why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from slipway import attestation, digests, gates, paths, release, training
from slipway.digests import Digest
from slipway.errors import BadInput, SlipwayError
from slipway.evidence import Evidence
from slipway.forge import NotFound, from_environment
from slipway.release import Approvals, Code, Data, MLflow, Release, Rollout, Signature
from slipway.repository import REQUESTED_BY
from slipway.store import Store

if TYPE_CHECKING:
    from slipway.forge import Forge, PullRequest

MARKER = "slipway-superseded"


@dataclass(frozen=True)
class Proposal:
    """What is to stand on main: the release and, by path, every file of its pull request."""

    environment: str
    release: Release
    files: Mapping[str, bytes] = field(repr=False)
    requested_by: str = ""

    @property
    def title(self) -> str:
        return f"Release {self.release.model} {self.release.version} to {self.environment}"

    @property
    def message(self) -> str:
        """The commit's."""
        asked = f"\n\n{REQUESTED_BY}: {self.requested_by}" if self.requested_by else ""
        return f"{self.title}{asked}"

    def branch(self, main: str) -> str:
        """Of this content from this commit of main on, and of nothing else.

        A forge may finish removing a branch long after it said so, and then close whatever pull
        request has come by that name.
        """
        mark = digests.of_json([main, digests.of_files(self.files)])
        new = self.release
        return release.branch(new.model, new.version, self.environment, mark=mark[-8:])


def run(
    model: str,
    environment: str,
    evidence: Digest,
    break_glass: str,
    dry_run: str,
    requested_by: str,
) -> dict[str, str]:
    """Proposes the release to an environment.

    Args:
        break_glass: content of the break-glass file to come with it; "" for none.
        dry_run: "true" to write nothing.
        requested_by: who asks for it, to stand in the commit; "" for nobody.

    Outputs `pull-request`, its number, or "" and in `note` why there is none; and `release`, the
    release file that is proposed, or would be.
    """
    release.check_environment(environment)
    keys = attestation.keys_from_environment(environment)
    document = attestation.fetch(Store(), evidence, keys)
    if (document.evaluation.model, document.environment) != (model, environment):
        raise BadInput(
            f"is of {document.evaluation.model} for {document.environment}, "
            f"not of {model} for {environment}",
            field="--evidence",
        )
    with from_environment() as forge:
        present = on_main(forge, environment, model)
        made = proposal(document, evidence, present, break_glass)
        made = replace(made, requested_by=" ".join(requested_by.split()))
        content = made.files[str(release.path(environment, model))].decode()
        if dry_run == "true":
            return {"pull-request": "", "note": "only tried", "release": content}
        number, note = propose(forge, made, document, present)
    print(note if number else f"nothing to propose: {note}")
    return {"pull-request": number, "note": note, "release": content}


def on_main(forge: Forge, environment: str, model: str) -> Release | None:
    """The environment's release file on the forge's main."""
    path = str(release.path(environment, model))
    try:
        return release.parse(forge.read(path), path)
    except NotFound:
        return None


def proposal(
    document: Evidence,
    digest: Digest,
    present: Release | None,
    break_glass: str = "",
) -> Proposal:
    """The release of this evidence. How it rolls out and who approves stays as it is there."""
    found, environment = document.evaluation, document.environment
    proposed = Release(
        model=found.model,
        version=document.version,
        bento=document.bento,
        runtime=document.runtime,
        data=Data(digest=found.data.digest),
        code=Code(commit=found.code),
        mlflow=MLflow(run=found.run),
        signature=Signature(digest=found.signature.digest),
        evidence=release.Evidence(digest=digest, summary=document.summary()),
        rollout=present.rollout if present else Rollout(),
        approvals=present.approvals if present else approvals(environment, found.model),
    )
    path = str(release.path(environment, found.model))
    files = {path: release.dumps(proposed).encode()}
    if break_glass:
        glass = gates.break_glass_path(environment, found.model)
        gates.parse_break_glass(break_glass, glass)
        files[str(glass)] = break_glass.encode()
    return Proposal(environment, proposed, files)


def approvals(environment: str, model: str) -> Approvals:
    """Who must approve a model's first release to an environment, by that environment's policy."""
    policy = gates.load_policy(gates.reader(paths.REPOSITORY), environment, model)
    named = getattr(policy.limits.get("approvals"), "policy", None)
    return Approvals(policy=named) if named else Approvals()


def propose(
    forge: Forge, made: Proposal, document: Evidence, present: Release | None
) -> tuple[str, str]:
    """Number of the one open pull request ("" for none), and a line about it."""
    new, path = made.release, str(release.path(made.environment, made.release.model))
    if present and (present.bento, present.runtime) == (new.bento, new.runtime):
        return "", f"{path} on main has this bento and this runtime image"
    # It could not be merged, and is not to close what can.
    if not training.is_merged(forge, new.code.commit):
        return "", training.unmerged(new.code.commit)
    compared = document.champion.evidence if document.champion else ""
    if compared != (present.evidence.digest if present else ""):
        raise SlipwayError(
            f"{path} changed on main since the evidence was written, which is against another "
            "champion",
            fix="start it again: what was trained is not trained again",
        )
    others = _open(forge, made)
    newer = next((pull for version, pull in others if version > new.version), None)
    if newer:
        return "", (
            f"a newer version is proposed already: {newer.url} (close that to "
            f"propose version {new.version})"
        )
    alike = (pull for version, pull in others if version == new.version)
    same = next((pull for pull in alike if _has(forge, pull, made.files)), None)
    branch = same.head if same else made.branch(forge.commit())
    if same is None:
        forge.write(branch, made.files, made.message)
    pull = forge.open(branch, made.title, body(made, present))
    for _, former in others:
        if former.number != pull.number:
            _supersede(forge, former, f"Superseded by #{pull.number}: {made.title}.")
    return str(pull.number), f"{made.title}: {pull.url}"


def _open(forge: Forge, made: Proposal) -> list[tuple[int, PullRequest]]:
    """Version and pull request of each open proposal of the model to the environment."""
    found: list[tuple[int, PullRequest]] = []
    for pull in forge.pulls("open"):
        about = release.proposes(pull.head)
        if about and not pull.fork and pull.base == "main":
            environment, model, version = about
            if (environment, model) == (made.environment, made.release.model):
                found.append((version, pull))
    return found


def _has(forge: Forge, pull: PullRequest, files: Mapping[str, bytes]) -> bool:
    """Whether the pull request proposes just this."""
    return set(forge.changed(pull.number)) == set(files) and all(
        forge.read(path, pull.sha) == content for path, content in files.items()
    )


def _supersede(forge: Forge, pull: PullRequest, why: str) -> None:
    forge.comment(pull.number, MARKER, why)
    forge.close(pull.number)
    forge.delete_branch(pull.head)


def body(made: Proposal, present: Release | None) -> str:
    """The pull request's text: what it pins. What to think of it is the gates' comment."""
    new = made.release
    before = f"instead of version {present.version}" if present else "where none runs yet"
    lines = [
        f"Version {new.version} of `{new.model}` for {made.environment}, {before}. The gates "
        "report in a comment below.",
        "",
        f"- bento `{new.bento.digest}`",
        f"- evidence `{new.evidence.digest}`",
        f"- data `{new.data.digest}`",
        f"- code {new.code.commit}",
        f"- MLflow run `{new.mlflow.run}`",
    ]
    if len(made.files) > 1:
        lines += ["", "**It breaks the glass**: who, why and until when is in its second file."]
    return "\n".join(lines)
