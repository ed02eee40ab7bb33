"""A forge with thresholds on main, and releases whose evidence is really signed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from slipway import attestation, evidence, gates, release, store
from slipway.check import Verdict, check
from slipway.digests import Digest
from slipway.errors import SlipwayError
from slipway.evidence import Estimate, Evidence
from slipway.forge import Comment, PullRequest, Review, State
from slipway.gates import PullFacts, Soak
from slipway.release import Release
from slipway.repository import Repository
from slipway.sources import Keys
from tests import samples
from tests.gitforge import GitForge

Environment = Literal["dev", "staging", "prod"]
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
APPROVALS = "policies/promotion/approvals.yaml"
PEOPLE = b"""groups: {managers: [grace, ada]}
policies: {none: [], two: [{group: managers}]}
custody: two
"""


class Kept:
    """A source in memory."""

    def __init__(self) -> None:
        self.objects = samples.Objects()
        self.known: Keys = samples.KEYS
        self.served: dict[tuple[str, str, Digest], Soak] = {}
        self.down: SlipwayError | None = None
        self.spoilt: dict[Digest, SlipwayError] = {}

    def get(self, digest: Digest) -> bytes:
        if self.down:
            raise self.down
        return self.objects.get("evidence", digest)

    def keys(self, environment: str, *, fresh: bool = False) -> Keys:
        return self.known

    def bento(self, digest: Digest) -> None:
        if problem := self.down or self.spoilt.get(digest):
            raise problem

    def soak(self, environment: str, model: str, bento: Digest) -> Soak:
        if self.down:
            raise self.down
        return self.served.get((environment, model, bento), Soak((), 0, 0, None))


class Place(GitForge):
    """The repository, the store beside it, and what a gate's report leaves on the forge."""

    def __init__(self, folder: Path) -> None:
        files = {f"policies/promotion/{e}.yaml": rules() for e in release.ENVIRONMENTS}
        super().__init__(folder, files | {APPROVALS: PEOPLE})
        self.verdict = None
        self.source = Kept()
        self.log: list[tuple[str, State, str]] = []
        self.commented: dict[int, list[Comment]] = {}
        self.attached: list[str] = []
        self.approvals: dict[int, list[Review]] = {}
        # What trained all that is released here.
        self.trained = self.commit()

    # Releases

    def evidence(self, env: Environment = "dev", **changes: Any) -> tuple[Evidence, Digest]:
        """Signed evidence against what main has there, and its digest in the store."""
        champion = self.champion(env)
        policy = gates.load_policy(lambda path: self.read(path), env, "toy")
        values: dict[str, Any] = {
            "environment": env,
            "evaluation": samples.evaluation(code=self.trained),
            "policy": evidence.PolicyPin(environment=env, digest=policy.digest),
            "champion": champion and of_champion(champion),
            "comparison": champion
            and evidence.Comparison(
                tests=[paired("brier", 0.004)],
                yardstick=[],
                signature=[],
                drift=[],
                dependencies=[],
            ),
        }
        document = samples.document(**values | changes)
        return document, self.source.objects.put(
            "evidence", attestation.sign(document, samples.KEY)
        )

    def champion(self, env: str) -> Release | None:
        path = str(release.path(env, "toy"))
        if path not in self.files(str(release.path(env, "toy").parent)):
            return None
        return release.parse(self.read(path), path)

    def next(
        self, seed: str = "be", version: int = 3, env: Environment = "dev", **changes: Any
    ) -> Release:
        """A release of `toy` with good evidence; `seed` names its bento."""
        pins = {"bento": samples.bento(seed), "version": version}
        document, digest = self.evidence(env, **pins | changes)
        return samples.released(document, digest)

    def landed(self, seed: str, version: int, env: Environment = "dev", **changes: Any) -> Release:
        """A release that main has already."""
        made = self.next(seed, version, env, **changes)
        self.write("main", files(made, env), f"Release toy {version} to {env}")
        return made

    def check(self, head: str = "head", **options: Any) -> Verdict:
        """The verdict on a branch."""
        with Repository(self.folder) as repository:
            given: dict[str, Any] = {"source": self.source, "now": NOW} | options
            return check(repository, "main", head, **given)

    def propose(self, made: Mapping[str, bytes | None], **options: Any) -> Verdict:
        """The verdict on these files on a new branch."""
        self.write("head", made, "Propose")
        return self.check(**options)

    # Commits by others

    def amend(self, branch: str, committer: str, *, author: str = "Ada <ada@example.org>") -> str:
        """The branch's last commit once more, as somebody else's."""
        tree, parent = self._git("rev-parse", f"{branch}^{{tree}}", f"{branch}^").split()
        message = self._git("show", "-s", "--format=%B", branch)
        return self._commit_as(branch, tree, [parent], message, author, committer)

    def update(self, branch: str, by: str) -> str:
        """What a forge's button "Update branch" does: merges main into it."""
        parents = [self.commit(branch), self.commit("main")]
        tree = self._git("merge-tree", "--write-tree", *parents)
        return self._commit_as(branch, tree, parents, "Merge main", by, by)

    def merge_as(self, branch: str, parents: list[str], message: str) -> None:
        """Makes main a merge with these parents that has a branch's content."""
        tree = self._git("rev-parse", f"{branch}^{{tree}}")
        who = "Ada <ada@example.org>"
        self._commit_as("main", tree, parents, message, who, who)

    def _commit_as(
        self, branch: str, tree: str, parents: list[str], message: str, author: str, committer: str
    ) -> str:
        when = f"{self.when} +0000"
        people = [f"author {author} {when}", f"committer {committer} {when}"]
        lines = [f"tree {tree}", *(f"parent {p}" for p in parents), *people, "", message, ""]
        given = "\n".join(lines).encode()
        made = self._git("hash-object", "-t", "commit", "-w", "--stdin", given=given)
        self._git("update-ref", f"refs/heads/{branch}", made)
        return made

    # What a gate's report leaves

    def open(self, head: str, title: str, body: str = "", *, base: str = "main") -> PullRequest:
        made = super().open(head, title, body, base=base)
        return self.pull(made.number)

    def pull(self, number: int) -> PullRequest:
        found = super().pull(number)
        self._git("update-ref", f"refs/pull/{number}/head", found.sha)
        return found

    def fork(self, number: int) -> None:
        """Makes a pull request another repository's."""
        self.asked[number - 1] = replace(self.asked[number - 1], fork=True, author="mallory")

    def set_status(
        self, sha: str, context: str, state: State, description: str = "", url: str = ""
    ) -> None:
        super().set_status(sha, context, state, description, url)
        self.log.append((sha, state, description))

    def comments(self, number: int) -> list[Comment]:
        return self.commented.get(number, [])

    def said(self, number: int, marker: str, *, by: Collection[str] = ()) -> str:
        found = (c for c in self.comments(number) if c.author in (by or ("bot",)))
        return next((c.body for c in found if c.body.startswith(f"<!-- {marker} -->")), "")

    def comment(self, number: int, marker: str, body: str) -> None:
        said = self.commented.setdefault(number, [])
        made = Comment(len(said), "bot", f"<!-- {marker} -->\n{body}", NOW)
        kept = [c for c in said if not (c.author == "bot" and c.body.startswith(f"<!-- {marker}"))]
        self.commented[number] = [*kept, made]

    def attach(self, number: int, name: str, content: bytes) -> str:
        self.attached.append(name)
        return f"attachments/{name}"

    def reviews(self, number: int) -> list[Review]:
        return self.approvals.get(number, [])

    def compare_url(self, base: str, head: str) -> str:
        return f"compare/{base}...{head}"


def files(made: Release, env: str = "dev") -> dict[str, bytes | None]:
    return {str(release.path(env, made.model)): release.dumps(made).encode()}


def rules(**limits: Any) -> bytes:
    """Thresholds of the rules that these tests need; the rest is skipped."""
    document: dict[str, Any] = {
        "evidence": {"margins": {"brier": 0.01}, "maximum_age_days": 100_000},
        "fresh": {},
        "non_inferior": {},
        "approvals": {"policy": "none"},
    } | limits
    skip = [name for name in gates.rules() if name not in document]
    return yaml.safe_dump(document | {"skip": dict.fromkeys(skip, "not of these tests")}).encode()


def paired(metric: str, gain: float, **changes: Any) -> evidence.Test:
    values: dict[str, Any] = {
        "kind": "non_inferiority",
        "metric": metric,
        "rows": 1000,
        "margin": 0.01,
        "alpha": 0.05,
        "difference": Estimate(value=gain, low=gain - 0.001, high=gain + 0.001),
        "p_value": 0.001,
        "p_adjusted": 0.002,
        "passed": True,
    }
    return evidence.Test(**values | changes)


def of_champion(champion: Release, **changes: Any) -> evidence.Champion:
    values: dict[str, Any] = {
        "version": champion.version,
        "bento": champion.bento.digest,
        "evidence": champion.evidence.digest,
        "commit": champion.code.commit,
        "data": champion.data.digest,
        "predictions": samples.digest("a2"),
        "metrics": {"brier": Estimate(value=0.154, low=0.144, high=0.164)},
        "parameters": {"max_iter": 200},
    }
    return evidence.Champion(**values | changes)


def facts(*approvers: str, author: str = "ada", sha: str = "") -> PullFacts:
    approvals = tuple(gates.Approval(login, sha, NOW) for login in approvers)
    return PullFacts(number=1, author=author, sha=sha, approvals=approvals)


def failing(verdict: Verdict) -> dict[str, str]:
    """The failing gates, each with what its findings say, fixes included."""
    found: dict[str, str] = {}
    for about, finding in verdict.of("fail"):
        name = f"{about} {finding.rule}".strip()
        found[name] = f"{found.get(name, '')}{finding.message} → {finding.fix}\n"
    return found


UNREACHABLE = store.Unreachable("s3://evidence: no answer from the store")
