"""Dependencies: what a lock file pins, under which licences, and what is known against it.

Vulnerabilities are looked up in a folder with OSV's export for PyPI (one JSON file a vulnerability)
that SLIPWAY_OSV names. Without it they are "not checked", which no gate may take for a pass.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
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
    """Everything known of a lock file, vulnerabilities by the folder that SLIPWAY_OSV names.

    Raises:
        BadInput: the lock or the database cannot be read, or holds nothing.
    """
    pins = locked(lock)
    packages = [Package(name=n, version=v, licence=licence(n, v)) for n, v in pins.items()]
    found, database = NOT_CHECKED, ""
    if folder := os.environ.get("SLIPWAY_OSV"):
        entries = read_osv(Path(folder))
        found = vulnerabilities(pins, entries)
        newest = max((str(e.get("modified", "")) for e in entries), default="")
        database = f"OSV for PyPI, {len(entries):,} entries, newest of {newest[:10]}"
    return Dependencies(
        lock=digests.of_file(lock), packages=packages, vulnerabilities=found, database=database
    )


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


def read_osv(folder: Path) -> list[Entry]:
    """The entries of an OSV export: every *.json in the folder, those withdrawn left out."""
    entries: list[Entry] = []
    for file in sorted(folder.glob("*.json")):
        try:
            entry = json.loads(file.read_bytes())
        except ValueError as error:
            raise BadInput(f"not JSON: {error}", file=file) from None
        if not isinstance(entry, dict) or not {"id", "affected"} <= entry.keys():
            raise BadInput("not an OSV entry: no id, or nothing affected", file=file)
        entries.append(cast("Entry", entry))
    if not entries:
        # An empty database knows nothing against anything: that must not look like a good result.
        raise BadInput(
            "no vulnerabilities (*.json) in it",
            file=folder,
            field="SLIPWAY_OSV",
            fix="unpack OSV's export for PyPI there, or unset it: then they are not checked",
        )
    return [entry for entry in entries if not entry.get("withdrawn")]


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
