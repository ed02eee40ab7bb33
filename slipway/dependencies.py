"""Dependencies: what a lock file pins, under which licences, and what is known against it.

Vulnerabilities are looked up in OSV's export for PyPI, `all.zip`, one JSON file a vulnerability.
Without one they are "not checked", which no gate may take for a pass.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, cast

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from slipway import digests
from slipway.errors import BadInput
from slipway.evidence import NOT_CHECKED, Dependencies, Package, Vulnerability

Severity = Literal["low", "medium", "high", "critical", "unknown"]
_SEVERITIES: dict[str, Severity] = {
    "LOW": "low",
    "MODERATE": "medium",
    "MEDIUM": "medium",
    "HIGH": "high",
    "CRITICAL": "critical",
}
# From the least to the worst; what nobody has judged counts as less than what somebody has.
_WORST: tuple[Severity, ...] = ("unknown", "low", "medium", "high", "critical")


def collect(lock: Path) -> Dependencies:
    """What a lock file pins, vulnerabilities not checked yet.

    Raises:
        BadInput: the lock cannot be read, or holds nothing.
    """
    packages = [Package(name=n, version=v, licence=licence(n, v)) for n, v in locked(lock).items()]
    return Dependencies(lock=digests.of_file(lock), packages=packages)


def checked(found: Dependencies, database: bytes | None, name: Path | str = "") -> Dependencies:
    """The same, with what a database knows against it today; whoever checked it before.

    Args:
        database: OSV's export, a ZIP; None where there is none. `name` says where it came from.

    Raises:
        BadInput: it cannot be read, or holds nothing.
    """
    known, said = NOT_CHECKED, ""
    if database is not None:
        entries = read_osv(database, name)
        known = vulnerabilities({p.name: p.version for p in found.packages}, entries)
        said = described(entries)
    return found.model_copy(update={"vulnerabilities": known, "database": said})


def read_export(file: Path, field: str = "") -> bytes:
    """The content of an export that a person names. `BadInput` where it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", file=file, field=field) from None


def checked_here(found: Dependencies) -> Dependencies:
    """As `checked`, by the export that SLIPWAY_OSV names, if it names one."""
    if not (name := os.environ.get("SLIPWAY_OSV")):
        return checked(found, None)
    return checked(found, read_export(Path(name), "SLIPWAY_OSV"), name)


def locked(lock: Path) -> dict[str, str]:
    """Canonical names and versions of a requirements lock, sorted by name."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", lock.read_text(), re.M)
    if not pins:
        raise BadInput("locks nothing", file=lock, fix="write it with requirements/lock")
    return dict(sorted((canonicalize_name(name), version) for name, version in pins))


def licence(name: str, version: str) -> str:
    """The licence by the installed package's metadata; "" where another version is installed.

    An SPDX expression where it has one; else its one-line licence, else its classifiers.
    """
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
    if distribution.version != version:
        return ""
    metadata: Any = distribution.metadata
    said = str(metadata.get("License-Expression") or metadata.get("License") or "").strip()
    if said and "\n" not in said and said != "UNKNOWN":
        return said
    classifiers = metadata.get_all("Classifier") or []
    named = [str(c).rpartition(" :: ")[2] for c in classifiers if str(c).startswith("License ::")]
    return " AND ".join(named)


# Vulnerabilities

Entry = dict[str, Any]


def read_osv(export: bytes, name: Path | str) -> list[Entry]:
    """The entries of an OSV export: every *.json in the ZIP, those withdrawn left out."""
    entries: list[Entry] = []
    try:
        with zipfile.ZipFile(io.BytesIO(export)) as archive:
            files = {n: archive.read(n) for n in sorted(archive.namelist()) if n.endswith(".json")}
    except zipfile.BadZipFile as error:
        raise BadInput(f"not a ZIP: {error}", file=name, fix=_EXPORT) from None
    for file, content in files.items():
        try:
            entry = json.loads(content)
        except ValueError as error:
            raise BadInput(f"{file} in it is not JSON: {error}", file=name, fix=_EXPORT) from None
        if not isinstance(entry, dict) or not {"id", "affected"} <= entry.keys():
            raise BadInput(
                f"{file} in it is no OSV entry: no id, or nothing affected", file=name, fix=_EXPORT
            )
        entries.append(cast("Entry", entry))
    if not any(_package(affected) for entry in entries for affected in entry["affected"]):
        # What knows nothing against anything must not look like a good result.
        raise BadInput("no vulnerability of a PyPI package in it", file=name, fix=_EXPORT)
    return [entry for entry in entries if not entry.get("withdrawn")]


_EXPORT = "take OSV's export of all that is known of PyPI, all.zip, as it is"


def described(entries: list[Entry]) -> str:
    """Whose they are, how many, and of when."""
    newest = max((str(e.get("modified", "")) for e in entries), default="")
    return f"OSV for PyPI, {len(entries):,} entries, newest of {newest[:10]}"


def vulnerabilities(pins: dict[str, str], entries: Iterable[Entry]) -> list[Vulnerability]:
    """What the entries know against the pinned versions.

    Entries that are aliases of each other (GHSA, PYSEC, CVE) are one vulnerability, under the name
    of the worst of them.
    """
    found: list[tuple[Vulnerability, set[str]]] = []
    for entry in sorted(entries, key=lambda e: _WORST.index(_severity(e)), reverse=True):
        names = {str(entry["id"]), *map(str, entry.get("aliases") or [])}
        for name in sorted({_package(a) for a in entry["affected"]} & pins.keys()):
            same = [known for v, known in found if v.package == name and known & names]
            for known in same:
                known |= names
            if same or not any(
                _package(a) == name and is_affected(pins[name], a) for a in entry["affected"]
            ):
                continue
            one = Vulnerability(
                package=name, version=pins[name], id=str(entry["id"]), severity=_severity(entry)
            )
            found.append((one, names))
    return sorted((v for v, _ in found), key=lambda v: (v.package, v.id))


def _package(affected: Entry) -> str:
    package = affected.get("package") or {}
    return canonicalize_name(package.get("name", "")) if package.get("ecosystem") == "PyPI" else ""


def _severity(entry: Entry) -> Severity:
    """As the database that the entry comes from judges it; unknown where it does not."""
    own = entry.get("database_specific") or {}
    return _SEVERITIES.get(str(own.get("severity", "")).upper(), "unknown")


def is_affected(version: str, affected: Entry) -> bool:
    """Whether OSV's ranges or its list of versions hold this version.

    A range whose versions cannot be read counts as holding it: a false alarm is the better error.
    """
    if version in (affected.get("versions") or []):
        return True
    ranges = [r for r in affected.get("ranges") or [] if r.get("type") == "ECOSYSTEM"]
    try:
        return any(_holds(Version(version), r["events"]) for r in ranges)
    except InvalidVersion:
        return True


def _holds(version: Version, events: list[dict[str, str]]) -> bool:
    """OSV's algorithm: the last event at or below the version decides."""
    points = [
        (Version("0.dev0") if at == "0" else Version(at), kind)
        for event in events
        for kind, at in event.items()
        if kind != "limit"
    ]
    limits = [Version(e["limit"]) for e in events if e.get("limit", "*") != "*"]
    if limits and version >= max(limits):
        return False
    inside = False
    for at, kind in sorted(points):
        if kind == "introduced" and version >= at:
            inside = True
        elif (kind == "fixed" and version >= at) or (kind == "last_affected" and version > at):
            inside = False
    return inside
