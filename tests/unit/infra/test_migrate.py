"""What runs before MLflow's server: that its database is of the schema that it wants."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from infra.platform import pods
from infra.platform.scripts import migrate

OLD, NEWER, NEWEST = "0a1", "0b2", "0c3"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Migrations, as alembic writes them."""
    (tmp_path / "first.py").write_text(f'revision = "{OLD}"\ndown_revision = None\n')
    (tmp_path / "second.py").write_text(f'revision: str = "{NEWER}"\ndown_revision = "{OLD}"\n')
    third = f"revision = '{NEWEST}'\ndown_revision: str | None = '{NEWER}'\n"
    (tmp_path / "third.py").write_text(third)
    return tmp_path


class Database:
    """At a revision, or "" where nothing is laid out; another replica may come in between."""

    def __init__(self, *revisions: str) -> None:
        self.revisions, self.said = list(revisions), []

    def cursor(self) -> Database:
        return self

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def execute(self, statement: str, _: Any = None) -> None:
        self.said.append(statement)
        self.asked = statement

    def fetchone(self) -> tuple[str | None]:
        if "to_regclass" in self.asked:
            return (self.revisions[0] or None,)
        return (self.revisions.pop(0) if self.revisions[1:] else self.revisions[0],)


@pytest.mark.parametrize(
    ("revisions", "migrated"),
    [
        ([""], False),
        ([NEWEST], False),
        ([OLD], True),
        ([NEWER], True),
        ([NEWER, NEWEST], False),
    ],
    ids=["empty", "as it is to be", "older", "one older", "another replica was first"],
)
def test_what_is_older_is_migrated(
    folder: Path, monkeypatch: pytest.MonkeyPatch, revisions: list[str], migrated: bool
) -> None:
    database, upgraded = Database(*revisions), list[str]()
    monkeypatch.setattr(migrate, "connect", lambda _: database)
    monkeypatch.setattr(migrate, "upgrade", upgraded.append)
    migrate.main("postgresql+psycopg2://there", folder)
    assert upgraded == ["postgresql+psycopg2://there"] * migrated
    locked = any("pg_advisory_lock" in said for said in database.said)
    assert locked == (revisions[0] in (OLD, NEWER))


def test_what_a_newer_one_made_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "connect", lambda _: Database("0d4"))
    monkeypatch.setattr(migrate, "upgrade", lambda _: pytest.fail("it cannot be"))
    with pytest.raises(SystemExit, match="revision 0d4, which this MLflow does not know"):
        migrate.main("", folder)


def test_a_database_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "PATIENCE_S", 0)
    with pytest.raises(SystemExit, match="the database does not answer"):
        migrate.connect("postgresql+psycopg2://mlflow@127.0.0.1:1/mlflow")


def test_the_last_migration_of_the_locked_mlflow_is_found() -> None:
    known, last = migrate.migrations(migrate.MIGRATIONS)
    assert len(known) > 60
    assert len(last) == 1


# --- a real PostgreSQL, where this machine has one ----------------------------------------------

BINARIES = [*Path("/usr/lib/postgresql").glob("*/bin"), Path(shutil.which("initdb") or "/").parent]
POSTGRES = next((folder for folder in BINARIES if (folder / "initdb").exists()), None)
# What lays out tables as an MLflow before the last migration would have.
LAY_OUT = """
import sys
from alembic import command
from mlflow.store.db import utils
from mlflow.store.tracking.dbmodels.initial_models import Base
engine = utils.create_sqlalchemy_engine(sys.argv[1])
Base.metadata.create_all(engine)
command.upgrade(utils._get_alembic_config(sys.argv[1]), utils._get_latest_schema_revision() + "-1")
"""


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a database in a PostgreSQL of our own, which root may not run."""
    assert POSTGRES
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    before = user if os.geteuid() == 0 else []
    say = {"stdout": subprocess.DEVNULL, "check": True}
    # Not pytest's folder: that is root's alone, and a socket's path may not be long.
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        if before:
            os.chown(place, 65534, 65534)
        create = [*before, POSTGRES / "initdb", "-N", "-U", "mlflow", "-D", place / "data"]
        subprocess.run(create, **say)
        options = f"-c listen_addresses='' -c fsync=off -k {place}"
        control = [*before, POSTGRES / "pg_ctl", "-D", place / "data", "-l", place / "log"]
        subprocess.run([*control, "-w", "-o", options, "start"], **say)
        try:
            yield f"postgresql+psycopg2://mlflow@/postgres?host={place}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **say)


@pytest.mark.slow
@pytest.mark.skipif(POSTGRES is None, reason="no PostgreSQL here")
def test_tables_of_an_older_mlflow_are_those_of_this_one_afterwards(server: str) -> None:
    subprocess.run([sys.executable, "-c", LAY_OUT, server], check=True)
    [last] = migrate.migrations(migrate.MIGRATIONS)[1]
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": server}
    script = [sys.executable, pods.SCRIPTS / "migrate.py"]
    replicas = [
        subprocess.Popen(script, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = "".join(replica.communicate()[0] for replica in replicas)
    assert [replica.returncode for replica in replicas] == [0, 0]
    assert said.count("migrating from") == 1
    assert said.count(f"the tables are of revision {last}") == 1
    with psycopg2.connect(server.replace("+psycopg2", "")).cursor() as cursor:
        assert migrate.revision(cursor) == last
    again = subprocess.run(script, env=environment, check=True, capture_output=True, text=True)
    assert again.stdout == ""
