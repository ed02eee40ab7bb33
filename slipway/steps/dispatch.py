"""Dispatch: a model whose code on main has changed is trained, once, whoever noticed first.

That somebody tried the code on a branch before does not count: it is yet to be proposed.

It compares states and not events: a push that nobody told of is found the next time. Tests and
prose are no code (see `bento.Folder.code`), so changing them trains nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from slipway import bento, digests, paths, training
from slipway.bento import Folder
from slipway.digests import Digest
from slipway.endpoints import Cluster, ClusterError, part
from slipway.errors import BadInput, SlipwayError
from slipway.forge import Forge, NotFound, from_environment
from slipway.steps import hosts
from slipway.steps.registry import Registry

ENVIRONMENT = "dev"
COMMIT = Path(__file__).with_name("commit")
# ConfigMap: model to the code that has been dealt with. A memo only: where it is lost, the same is
# told, model by model, by the workflows, or by MLflow and the pull requests of what was trained.
MEMO = f"/api/v1/namespaces/{training.NAMESPACE}/configmaps/dispatched"


def run() -> dict[str, str]:
    """Outputs `workflows`: names of those that it started."""
    if ENVIRONMENT not in hosts.here():
        print(f"this stack does not host {ENVIRONMENT}: nothing is trained here")
        return {"workflows": ""}
    with Registry.from_environment() as registry, from_environment() as forge:
        started = dispatch(Cluster.inside(), registry, forge, paths.REPOSITORY / "bentos", _head())
    return {"workflows": " ".join(started)}


def dispatch(
    cluster: Cluster, registry: Registry, forge: Forge, folders: Path, commit: str
) -> list[str]:
    """Starts a workflow for each model of `commit` whose code nobody has trained.

    Args:
        folders: bentos/ as it is in `commit`.

    Raises:
        BadInput: some folders are wrong; the others have been dealt with.
    """
    memo = part(cluster.find(MEMO), "data") or {}
    started: list[str] = []
    problems: list[str] = []
    present: set[str] = set()
    for path in sorted(file.parent for file in folders.glob("*/model.yaml")):
        present.add(path.name)
        try:
            if bento.is_pretrained(path):
                bento.load_pretrained(path)  # checked like the others, and never trained
                continue
            folder = bento.load(path)
        except BadInput as error:
            problems.append(str(error))
            continue
        code = folder.code()
        if memo.get(path.name) == code:
            continue
        why = _dealt_with(cluster, registry, forge, folder, code, commit)
        if why:
            print(f"{path.name}: {why}")
        elif workflow := _start(cluster, path.name, commit, code):
            started.append(workflow)
            print(f"{path.name}: {workflow} trains {commit[:12]}")
        # After the workflow is there: what fails between the two finds it by its name.
        cluster.patch(MEMO, {"data": {path.name: code}})
    if gone := memo.keys() - present:
        cluster.patch(MEMO, {"data": dict.fromkeys(gone)})
    if problems:
        raise BadInput("\n".join(problems))
    return started


def _dealt_with(
    cluster: Cluster,
    registry: Registry,
    forge: Forge,
    folder: Folder,
    code: Digest,
    commit: str,
) -> str:
    """Why there is nothing to train; "" when there is."""
    model = folder.config.name
    seen: dict[str, Digest | None] = {commit: code}
    for workflow, trains in training.workflows(cluster, model, ENVIRONMENT).items():
        if trains not in seen:
            seen[trains] = code_at(forge.files, forge.read, model, trains)
        if seen[trains] == code:
            return f"{workflow} is about this code"
    if training.was_proposed(forge, model, ENVIRONMENT, registry.runs(model, code)):
        return "trained and proposed before"
    return ""


def _start(cluster: Cluster, model: str, commit: str, code: Digest) -> str:
    """The new workflow's name; "" when another dispatch was faster."""
    try:
        return training.start(cluster, model, commit, ENVIRONMENT, code=code).name
    except ClusterError as error:
        if error.status != 409:
            raise
        return ""


def code_at(
    files: Callable[[str, str], list[str]],
    read: Callable[[str, str], bytes],
    model: str,
    commit: str,
) -> Digest | None:
    """`Folder.code` of a model in another commit; None where there is no such commit or model."""
    lock = str(bento.LOCK.relative_to(paths.REPOSITORY))
    try:
        names = [
            path
            for path in files(f"bentos/{model}", commit)
            if path.endswith((".py", "/model.yaml"))
        ]
        contents = {Path(path).name: read(path, commit) for path in names}
        return digests.of_files({**contents, lock: read(lock, commit)})
    except NotFound:
        return None


def _head() -> str:
    """The commit that this code is of: who packs it writes it there."""
    commit = COMMIT.read_text().strip()
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise SlipwayError(f"{COMMIT} names no commit: this folder was not packed by `git archive`")
    return commit
