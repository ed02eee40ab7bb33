"""The platform's databases by a user who is no superuser, as RDS' `postgres` is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from infra.platform.pods import NAME
from infra.platform.postgres import DATABASES, drops
from slipway import cluster
from slipway.endpoints import Cluster, part

from .conftest import until

CORE, JOBS = "/api/v1/namespaces/storage", "/apis/batch/v1/namespaces/storage/jobs"
# What AWS gives the user that it makes.
ALMOST = "ROLE almost LOGIN PASSWORD 'almost' NOSUPERUSER INHERIT CREATEDB CREATEROLE"
MADE, SECRET = "made_by_almost", "made-by-almost"


def sql(statement: str, user: str = "postgres", database: str = "postgres") -> str:
    psql = ("psql", "--quiet", "--set=ON_ERROR_STOP=1", "--tuples-only", "--no-align")
    where = (f"--username={user}", f"--dbname={database}", f"--command={statement}")
    return cluster.kubectl("-n", "storage", "exec", "postgres-0", "--", *psql, *where).strip()


@pytest.fixture
def almost(platform: Cluster) -> Iterator[dict[str, Any]]:
    """The pod that makes the platform's databases, as that user and for another database."""
    pod = part(platform.find(f"{JOBS}/{DATABASES}"), "spec", "template", "spec")
    [container] = pod["containers"]
    given = {"PGUSER": "almost", "PGPASSWORD": "almost", "PGDATABASE": "postgres"}
    given["DATABASES"] = MADE
    kept = [e for e in container["env"] if e["name"] not in given]
    container["env"] = [*kept, *({"name": k, "value": v} for k, v in given.items())]
    [volume] = [v for v in pod["volumes"] if part(v, "secret", "secretName") == DATABASES]
    volume["secret"]["secretName"] = SECRET
    pod |= {"restartPolicy": "Never", "initContainers": []}
    kind = {"apiVersion": "v1", "kind": "Secret"}
    secret = {**kind, "metadata": {"name": SECRET}, "stringData": {MADE: "a password"}}
    sql(f"CREATE {ALMOST}")
    try:
        platform.create(f"{CORE}/secrets", secret)
        yield pod
    finally:
        platform.delete(f"{CORE}/secrets/{SECRET}")
        for name in (MADE, "almost"):
            for statement in drops(name):
                sql(statement)


def ran(platform: Cluster, pod: dict[str, Any]) -> tuple[str, str]:
    """How a pod ended, and what it said."""
    metadata = {"generateName": "almost-", "labels": {NAME: DATABASES}}
    kind = {"apiVersion": "v1", "kind": "Pod"}
    made = platform.create(f"{CORE}/pods", {**kind, "metadata": metadata, "spec": pod})
    name = made["metadata"]["name"]

    def over() -> str | None:
        phase = part(platform.find(f"{CORE}/pods/{name}"), "status", "phase")
        return phase if phase in ("Succeeded", "Failed") else None

    try:
        return until(over, 120, f"{name} goes on"), cluster.kubectl("-n", "storage", "logs", name)
    finally:
        platform.delete(f"{CORE}/pods/{name}", gracePeriodSeconds="0")


def test_databases_are_made_and_dropped_by_who_is_no_superuser(
    platform: Cluster, almost: dict[str, Any]
) -> None:
    for _ in range(2):
        assert ran(platform, almost) == ("Succeeded", f"database {MADE} is there\n")
    owner = f"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{MADE}'"
    assert sql(owner) == MADE
    sql("CREATE TABLE one (of_them int)", user=MADE, database=MADE)
    for statement in drops(MADE):
        sql(statement, user="almost")
    assert sql(owner) == ""
