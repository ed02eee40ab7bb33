"""Passage: whether the gates let in what main has.

Who may push to main passes by them, and who may write to the repository may report a verdict. Both
is the forge's to allow; here it shows, from git and from what was reported on the commits.
"""

from __future__ import annotations

from slipway.forge import Forge, NotFound
from slipway.history import pull_number
from slipway.merging import CONTEXT
from slipway.repository import Commit, Repository


def doubt(forge: Forge, repository: Repository, commit: str, path: str, judge: str) -> str:
    """Why no verdict stands behind what a commit of main made of a file; "" where one does.

    Args:
        judge: whose verdicts count, a login; "" for whosoever.

    Raises:
        ForgeError: the forge does not answer.
    """
    landed = repository.landed(commit)
    head = landed.parents[1] if len(landed.parents) > 1 else _squashed(forge, landed)
    here = f"{landed.sha[:12]} by {landed.author}"
    if not head:
        return f"pushed as {here}"
    # Of a squashed one the forge alone has the head, and says that this came of it.
    if repository.has(head) and repository.read(head, path) != repository.read(commit, path):
        return f"merged as {here}, and not as it was proposed"
    report = forge.report(head, CONTEXT)
    if report is None or report.state != "success":
        return f"merged as {here}, without a verdict that lets {head[:12]} in"
    if judge and report.login.lower() != judge.lower():
        return f"merged as {here}, by a verdict of {report.login}, not of {judge}"
    return ""


def _squashed(forge: Forge, landed: Commit) -> str:
    """The head of the pull request of which the forge made this one commit; "" for none."""
    number = pull_number(landed.subject)
    if number is None:
        return ""
    try:
        pull = forge.pull(number)
    except NotFound:
        return ""
    return pull.sha if pull.merged and pull.merge_sha == landed.sha else ""
