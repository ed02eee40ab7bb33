"""What the platform has before tests take it away, and that it has the same again afterwards."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from slipway import pulumi, up
from slipway.endpoints import Cluster
from slipway.lineage import MLflow

from .conftest import ENV, MODEL, document, run, until


@dataclass
class Kept:
    """A backup, what was there when it was taken, and whether that is still so."""

    place: Path
    passphrase: Path
    """A copy outside the machine's data, as one that is kept elsewhere."""
    taken: Any
    seen: dict[str, Any]
    lost: bool = False
    """Something of it is gone from the platform."""

    @classmethod
    def take(cls, folder: Path) -> Kept:
        place, passphrase = folder / "backups", folder / "passphrase"
        before = seen()
        taken = document("backup", str(place))
        shutil.copy(pulumi.passphrase_file(), passphrase)
        return cls(place, passphrase, taken, before)

    @property
    def restore(self) -> tuple[str, ...]:
        """The command that brings it back to a cluster without a platform."""
        return ("restore", str(self.place), "--passphrase-file", str(self.passphrase))

    def check(self) -> None:
        """All of it is there again."""
        until(up.all_ready, 180, "not every pod is ready")
        after = seen()
        for what, was in self.seen.items():
            assert after[what] == was, what
        assert "answered by" in run("predict", MODEL, "--env", ENV)
        self.lost = False


def seen() -> dict[str, Any]:
    """What must be the same afterwards: what is released and answers, and how it came to be."""
    rows = document("status")
    places = [(row["model"], row["environment"]) for row in rows if row["version"]]
    trace = document("trace", MODEL, "--env", ENV)
    platform = Cluster.connect()
    with platform.forge(administrator=True) as forge, platform.mlflow() as url:
        merged = [pull for pull in forge.pulls("all") if pull.merged]
        versions = MLflow(url).get("model-versions/search")["model_versions"]
        for version in versions:  # whose tags come in the order in which the database has them
            version["tags"].sort(key=itemgetter("key"))
        versions.sort(key=itemgetter("name", "version"))
        return {
            "status": {
                (row["model"], row["environment"]): (row["version"], row["bento"], row["answers"])
                for row in rows
                if row["version"]
            },
            "trace": [(link["what"], link["value"], link["ok"]) for link in trace],
            "main": forge.commit(),
            "history": {
                place: document("history", place[0], "--env", place[1]) for place in places
            },
            "merged": merged,
            "comments": {pull.number: forge.comments(pull.number) for pull in merged},
            "approvals": {pull.number: forge.reviews(pull.number) for pull in merged},
            "versions": versions,
            "runs": {
                v["run_id"]: MLflow(url).get("runs/get", run_id=v["run_id"]) for v in versions
            },
        }
