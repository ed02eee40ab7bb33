"""Brings MLflow's tables to the schema of the MLflow that is about to start, which refuses others.

It runs before every start, so it reads in the text of the migrations which of them is the last: to
import them takes as long as a server's start. Empty databases are laid out by the server itself.
"""

import os
import re
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import psycopg2

# A number that nobody else locks by in this database: of several replicas one migrates.
LOCK = 5_710_417
PATIENCE_S = 120
MIGRATIONS = Path(sysconfig.get_path("purelib"), "mlflow", "store", "db_migrations", "versions")


def migrations(folder: Path) -> tuple[set[str], set[str]]:
    """All revisions that the migrations in a folder lead to, and the last of them: more than one
    where they are written otherwise than known here."""
    text = "\n".join(file.read_text() for file in folder.glob("*.py"))
    known, former = (
        set(re.findall(rf"""^{name}\b[^=\n]*=\s*["'](\w+)["']""", text, re.MULTILINE))
        for name in ("revision", "down_revision")
    )
    return known, known - former


def revision(cursor: Any) -> str | None:
    """The revision that the tables are at; None where nothing is laid out."""
    cursor.execute("SELECT to_regclass('alembic_version')")
    if cursor.fetchone()[0] is None:
        return None
    cursor.execute("SELECT version_num FROM alembic_version")
    found = cursor.fetchone()
    return found and found[0]


def connect(url: str) -> Any:
    """A session in which each statement counts by itself: after a restart of the machine, the
    database may start later than this."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            connection = psycopg2.connect(url.replace("+psycopg2", "", 1))
            connection.autocommit = True
            return connection
        except psycopg2.OperationalError as error:
            if time.monotonic() > deadline:
                sys.exit(f"the database does not answer: {error}")
            time.sleep(0.5)


def upgrade(url: str) -> None:
    """In this process: a command's arguments, of which this has a password, are no secret."""
    from mlflow.db import commands

    commands(["upgrade", url], standalone_mode=False)


def main(url: str, folder: Path) -> None:
    known, last = migrations(folder)
    with connect(url).cursor() as cursor:
        if {revision(cursor)} in ({None}, last):
            return
        cursor.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        present = revision(cursor)
        if {present} == last:
            return
        if present not in known:
            sys.exit(
                f"the tables are of revision {present}, which this MLflow does not know: a newer "
                "one made them; bring that one back, or restore a backup from before it"
            )
        print(f"migrating from revision {present} to {', '.join(last)}")
        upgrade(url)
        print(f"the tables are of revision {revision(cursor)}")


if __name__ == "__main__":
    main(os.environ["MLFLOW_BACKEND_STORE_URI"], MIGRATIONS)
