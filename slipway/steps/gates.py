"""Gates: judges open pull requests by main's gates, and tells the forge: a comment and a status.

It runs main's code. Of a pull request, a fork's too, it reads data alone.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from slipway import digests, publish, report
from slipway.check import Verdict, check, shorten
from slipway.errors import SlipwayError
from slipway.forge import Forge, ForgeError, NotFound, PullRequest, State, from_environment
from slipway.gates import Approval, PullFacts
from slipway.merging import CONTEXT, MARKER
from slipway.release import ENVIRONMENTS
from slipway.repository import Commit, Repository, empty
from slipway.sources import Mounted, Source
from slipway.steps import hosts
from slipway.store import Store, Unreachable

BASE = "main"
# How often a head or a base may move while it is being judged before the sweep has to come back.
ATTEMPTS = 5


def run(pull: int | None) -> dict[str, str]:
    """Judges one pull request, or all open ones. Outputs `judged`, a line for each.

    Where the forge's Actions do (.github/workflows/gates.yml), it leaves that to them: of two who
    report the same status, the later would be believed.

    Raises:
        SlipwayError: the first thing that kept one from being judged; its status says so too.
    """
    if os.environ.get("FORGE_GATES") == "actions":
        return {"judged": "nothing here: the forge's Actions judge, as slipway:forge says"}
    with from_environment() as forge, fetching(forge) as fetched:
        gates = Gates(forge, fetched, Mounted(Store()))
        pulls = [forge.pull(pull)] if pull is not None else list(forge.pulls())
        return {"judged": "\n".join(gates.judge(pulls))}


@dataclass(frozen=True)
class Fetched:
    """A repository of our own, into which the forge's commits come as they are needed."""

    repository: Repository
    forge: Forge

    def update(self, pull: PullRequest) -> str:
        """Fetches main, and the head that the forge says this pull request has; main's commit."""
        here = f"refs/pulls/{pull.number}"
        refs = (f"+refs/heads/{BASE}:refs/heads/{BASE}", f"+refs/pull/{pull.number}/head:{here}")
        try:
            publish.fetch(self.forge.remote, self.repository.path, *refs)
            if not self.repository.has(pull.sha):  # the forge writes its ref a moment later
                publish.fetch(self.forge.remote, self.repository.path, f"{pull.sha}:{here}")
        except SlipwayError as error:
            raise ForgeError(str(error)) from error
        return self.repository.commit(f"refs/heads/{BASE}")


@contextmanager
def fetching(forge: Forge) -> Generator[Fetched]:
    """An empty repository, gone afterwards."""
    with empty() as repository:
        yield Fetched(repository, forge)


class Elsewhere(Exception):
    """The cluster of another stack judges this one."""


class Gates:
    """Judges pull requests. Judging one again, with nothing changed, changes nothing."""

    def __init__(self, forge: Forge, fetched: Fetched, source: Source) -> None:
        self._forge, self._fetched, self._source = forge, fetched, source

    def judge(self, pulls: Iterable[PullRequest]) -> Iterator[str]:
        """A line for each; one that cannot be judged does not keep the others from it.

        Raises:
            SlipwayError: at the end, the first thing that kept one from being judged.
        """
        errors: list[Exception] = []
        for pull in pulls:
            if pull.base != BASE or pull.state != "open":
                continue
            try:
                verdict = self._judge(pull)
                yield f"{pull.number}: {verdict.headline if verdict else 'merged'}"
                if verdict and state_of(verdict) == "error":
                    errors.append(Unreachable(verdict.unreachable[0]))
            except NotFound:
                yield f"{pull.number}: gone"  # closed, or its repository removed, meanwhile
            except Elsewhere:
                yield f"{pull.number}: another stack's to judge"
            except Exception as error:
                errors.append(error)
                yield f"{pull.number}: {error}"
        if errors:
            raise errors[0]

    def _judge(self, pull: PullRequest) -> Verdict | None:
        """None: it was merged before its turn came, and what was said of it then stays."""
        for _ in range(ATTEMPTS):
            verdict = self._judge_head(pull)
            pull, moved = self._forge.pull(pull.number), pull.sha
            if (
                verdict is None
                or pull.state != "open"
                or (pull.sha == moved and self._forge.commit(BASE) == verdict.base)
            ):
                return verdict
        raise SlipwayError(
            f"pull request {pull.number} or {BASE} moved {ATTEMPTS} times while it was judged",
            fix="it is looked at again within two minutes",
        )

    def _judge_head(self, pull: PullRequest) -> Verdict | None:
        """Judges one head against one base, and says so at that head."""
        if not self._judges(pull):
            raise Elsewhere
        before = self._forge.statuses(pull.sha).get(CONTEXT)
        if before is None:
            self._report(pull, "pending", "the gates are being evaluated")
        try:
            base = self._fetched.update(pull)
            if self._fetched.repository.contains(base, pull.sha):
                return None
            verdict = check(
                self._fetched.repository,
                base,
                pull.sha,
                source=self._source,
                pull=self._facts(pull, base),
                now=datetime.now(UTC),
            )
            changed = self._comment(pull, verdict)
            state = state_of(verdict)
            # Not what an older base would say: whoever judges the newer one has said it already.
            if (changed or state != before) and self._forge.commit(BASE) == base:
                self._report(pull, state, verdict.description)
        except Exception as error:
            # Never success, and not merely pending, which would look as if somebody still judged.
            with suppress(ForgeError):
                self._report(pull, "error", f"could not be judged: {error}")
            raise
        return verdict

    def _judges(self, pull: PullRequest) -> bool:
        """Whether it is for this stack to judge: of two who report, the later would be believed."""
        # Of a forge of one's own, or where Actions judge, nobody else does.
        if os.environ.get("FORGE_GATES") != "cluster" or set(ENVIRONMENTS) == set(hosts.here()):
            return True
        base, repository = self._fetched.update(pull), self._fetched.repository
        forks = repository.merge_bases(base, pull.sha)
        changes = [c for fork in forks for c in repository.changed(fork, pull.sha)]
        folders = [PurePosixPath(p).parts[:2] for c in changes for p in (c.path, c.old_path)]
        return hosts.judges({e for e in ENVIRONMENTS if ("environments", e) in folders})

    def _report(self, pull: PullRequest, state: State, description: str) -> None:
        text = shorten(" ".join(description.split()), 140)
        self._forge.set_status(pull.sha, CONTEXT, state, text)

    def _facts(self, pull: PullRequest, base: str) -> PullFacts:
        """Who proposed it and who approves it: nobody approves what he committed or asked for."""
        commits = self._fetched.repository.ahead(base, pull.sha)
        return PullFacts(
            number=pull.number,
            author=pull.author,
            sha=pull.sha,
            approvals=tuple(
                Approval(review.login, review.sha, review.when)
                for review in self._forge.reviews(pull.number)
            ),
            proposers=frozenset(name.lower() for commit in commits for name in _people(commit)),
        )

    def _comment(self, pull: PullRequest, verdict: Verdict) -> bool:
        """Brings the comment up to date; whether there was anything new to say."""
        said = self._forge.said(pull.number, MARKER)
        if not said and not (
            verdict.releases or verdict.findings or verdict.problems or verdict.costs
        ):
            return False
        text = report.markdown(verdict, compare_url=self._forge.compare_url)
        # Plots take seconds and an upload, so what the text says tells whether it was said before.
        key = f"<!-- {digests.of(text.encode())} -->"
        if key in said:
            return False
        plots = {
            found.path: self._forge.attach(
                pull.number, f"{found.environment}-{found.model}.png", report.plot(found)
            )
            for found in verdict.releases
            if found.evidence
        }
        if any(plots.values()):
            text = report.markdown(verdict, compare_url=self._forge.compare_url, plots=plots)
        self._forge.comment(pull.number, MARKER, f"{text}\n{key}")
        return True


def _people(commit: Commit) -> tuple[str, ...]:
    """What the forge may call whoever a commit is of."""
    people = [who.partition(" <") for who in commit.requested_by.split(", ")]
    names = (commit.author, commit.committer, *(name for name, _, _ in people))
    addresses = (commit.email, commit.committer_email, *(email for _, _, email in people))
    # GitHub's own address of somebody is 12345+LOGIN@users.noreply.github.com.
    logins = (part for a in addresses for part in a.partition("@")[0].split("+"))
    return *names, *logins


def state_of(verdict: Verdict) -> State:
    """The commit status of a verdict: an error where what did not answer may change it."""
    if verdict.exit_code == 0:
        return "success"
    return "error" if verdict.unreachable and not verdict.problems else "failure"
