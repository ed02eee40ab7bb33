"""What a lock file pins, and what an OSV export knows against it."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from slipway import dependencies, digests, paths
from slipway.cli import app
from slipway.endpoints import Cluster
from slipway.errors import BadInput
from tests import samples

LOCK = paths.REPOSITORY / "requirements" / "serving.txt"


def entry(identity: str = "GHSA-1", *, events: Any = None, **changes: Any) -> dict[str, Any]:
    """Against numpy from 1.0 until 2.0, if nothing else is said."""
    span = events or [{"introduced": "1.0"}, {"fixed": "2.0"}]
    affected = {
        "package": {"ecosystem": "PyPI", "name": "NumPy"},
        "ranges": [{"type": "ECOSYSTEM", "events": span}],
    }
    return {"id": identity, "modified": "2026-01-02T00:00:00Z", "affected": [affected]} | changes


def found(version: str, *entries: dict[str, Any]) -> list[tuple[str, str]]:
    pins = {"numpy": version, "other": "1.5"}
    return [(v.id, v.severity) for v in dependencies.vulnerabilities(pins, entries)]


def test_without_a_database_nothing_counts_as_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLIPWAY_OSV", raising=False)
    document = dependencies.collect(LOCK)
    assert dependencies.checked_here(document) == document
    claimed = document.model_copy(update={"vulnerabilities": [], "database": "mine"})
    assert dependencies.checked(claimed, None) == document
    assert document.vulnerabilities == "not checked"
    assert document.database == ""
    assert document.lock == digests.of_file(LOCK)
    packages = {p.name: p for p in document.packages}
    assert list(packages) == sorted(packages)
    assert packages["numpy"].version == version("numpy")
    assert "BSD-3-Clause" in packages["numpy"].licence
    assert packages["bentoml"].licence == "Apache-2.0"


def test_a_lock_is_read_by_canonical_name(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(
        "# made by a tool\nZope.Interface==1.0 \\\n    --hash=sha256:00\n    # via a==b\n"
        'psycopg[binary]==3.2 ; python_version < "4"\n'
    )
    assert dependencies.locked(lock) == {"psycopg": "3.2", "zope-interface": "1.0"}
    lock.write_text("numpy>=2\n")
    with pytest.raises(BadInput, match=r"lock.txt: locks nothing"):
        dependencies.locked(lock)


def test_only_the_locked_version_says_its_licence() -> None:
    assert dependencies.licence("numpy", version("numpy"))
    assert dependencies.licence("numpy", "0.1") == ""
    assert dependencies.licence("no-such-package", "1.0") == ""


@pytest.mark.parametrize(
    ("events", "inside", "outside"),
    [
        ([{"introduced": "0"}], ["0.1", "99"], []),
        ([{"introduced": "1.0"}, {"fixed": "2.0"}], ["1.0", "1.9.9", "2.0rc1"], ["0.9", "2.0"]),
        ([{"introduced": "1.0"}, {"last_affected": "1.5"}], ["1.5"], ["1.5.1"]),
        (
            [{"introduced": "3.0"}, {"fixed": "1.2"}, {"introduced": "1.0"}, {"fixed": "3.1"}],
            ["1.1", "3.0.5"],
            ["1.2", "2.0", "3.1"],
        ),
        ([{"introduced": "0"}, {"limit": "2.0"}], ["1.9"], ["2.0"]),
        ([{"introduced": "no version"}], ["1.0"], []),
    ],
)
def test_ranges(events: Any, inside: list[str], outside: list[str]) -> None:
    one = entry(events=events)
    assert all(found(v, one) for v in inside)
    assert not any(found(v, one) for v in outside)


def test_versions_named_one_by_one() -> None:
    affected = {"package": {"ecosystem": "PyPI", "name": "numpy"}, "versions": ["1.1"]}
    assert found("1.1", entry(affected=[affected]))
    assert not found("1.2", entry(affected=[affected]))
    elsewhere = {"package": {"ecosystem": "npm", "name": "numpy"}, "versions": ["1.1"]}
    assert not found("1.1", entry(affected=[elsewhere]))


def test_aliases_are_one_vulnerability_judged_by_the_worst() -> None:
    severe = {"database_specific": {"severity": "HIGH"}}
    entries = (
        entry("PYSEC-1", aliases=["CVE-1"]),
        entry("GHSA-1", aliases=["CVE-1"], **severe),
        entry("GHSA-2", database_specific={"severity": "MODERATE"}),
        entry("GHSA-3"),
    )
    expected = [("GHSA-1", "high"), ("GHSA-2", "medium"), ("GHSA-3", "unknown")]
    assert found("1.5", *entries) == expected


def export(**files: str) -> bytes:
    """OSV's, of these files; two underscores in a name are a dot."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "."), content)
    return made.getvalue()


KNOWN = export(
    a__json=json.dumps(entry(events=[{"introduced": "0"}])),
    b__json=json.dumps(entry("GHSA-2", withdrawn="2026-01-01T00:00:00Z")),
)


def test_a_database_is_named_with_its_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "all.zip"
    file.write_bytes(KNOWN)
    monkeypatch.setenv("SLIPWAY_OSV", str(file))
    document = dependencies.checked_here(dependencies.collect(LOCK))
    assert document.database == "OSV for PyPI, 1 entries, newest of 2026-01-02"
    assert [(v.package, v.id) for v in document.vulnerabilities if not isinstance(v, str)] == [
        ("numpy", "GHSA-1")
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[]", "not a ZIP"),
        (export(a__json="{"), "a.json in it is not JSON"),
        (export(a__json="[]"), "a.json in it is no OSV entry"),
        (export(a__json='{"id": "x"}'), "a.json in it is no OSV entry"),
        (export(a__txt=""), "no vulnerability of a PyPI package in it"),
        (export(a__json='{"id": "x", "affected": [{}]}'), "no vulnerability of a PyPI package"),
    ],
)
def test_a_database_that_cannot_be_read_is_no_good_result(content: bytes, said: str) -> None:
    found = dependencies.collect(LOCK)
    with pytest.raises(BadInput, match=rf"all.zip: {said}(.|\n)*fix: take OSV's export"):
        dependencies.checked(found, content, "all.zip")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["vulnerabilities", *arguments])


def test_the_command_puts_a_database_where_thresholds_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, rights = samples.Objects(), list[str]()

    class Connected:
        @contextlib.contextmanager
        def store(self, rights_of: str) -> Iterator[samples.Objects]:
            rights.append(rights_of)
            yield objects

    monkeypatch.setattr(Cluster, "connect", Connected)
    file, digest = tmp_path / "all.zip", digests.of(KNOWN)
    file.write_bytes(KNOWN)
    done = run(str(file))
    assert (done.exit_code, done.stdout.strip()) == (0, digest), done.output
    assert f"vulnerabilities: {{database: {digest}, …}}" in done.stderr
    assert objects.get("evidence", digest) == KNOWN
    assert rights == ["object-store"]
    assert json.loads(run(str(file), "-o", "json").stdout)["database"] == digest
    file.write_bytes(b"")
    assert run(str(file)).exit_code == 2
    assert run(str(tmp_path / "nothing")).exit_code == 2
    assert len(objects.content) == 1
