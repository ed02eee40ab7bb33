"""The backups in one place: a folder each, and the objects that they share."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from slipway.backup import manifest
from slipway.backup.manifest import Entry, Manifest
from slipway.backup.place import Place, pass_on
from slipway.errors import BadInput, did_you_mean

OTHER = "take another backup, or restore another one: --from"


def backups(place: Place) -> dict[str, Manifest | BadInput]:
    """Every finished backup by its name, the oldest first; of a damaged one, what is wrong."""
    return {name: _look(place, name) for name in _names(place)}


def _names(place: Place) -> list[str]:
    # Their names begin with the year.
    files = (name.partition("/") for name in place.sizes("2"))
    return sorted(name for name, _, file in files if file == manifest.FILE)


def _look(place: Place, name: str) -> Manifest | BadInput:
    try:
        return _read(place, name)
    except BadInput as error:
        return error


def _read(place: Place, name: str) -> Manifest:
    file = f"{name}/{manifest.FILE}"
    with place.open(file) as content:
        read = manifest.parse(content.read(), f"{place}/{file}")
    if read.name != name:
        raise BadInput(
            f"of {read.taken}", file=f"{place}/{file}", field="taken", fix=f"call it {read.name}"
        )
    return read


def find(place: Place, name: str | None) -> Manifest:
    """The backup of that name; without one, the newest.

    Raises:
        BadInput: there is none, or it is damaged.
    """
    names = _names(place)
    if not names:
        raise BadInput(f"no backup in {place}", field="PLACE", fix="slipway backup takes one")
    if name and name not in names:
        raise BadInput(
            f"no backup {name} in {place}", field="--from", fix=did_you_mean(name, names)
        )
    return _read(place, name or names[-1])


def entries(place: Place, backup: Manifest) -> Iterator[Entry]:
    """The objects that a backup names.

    Raises:
        BadInput: the list of them is damaged.
    """
    index = backup.part(manifest.OBJECTS)
    if index is None:
        return
    name = f"{backup.name}/{index.name}"
    with tempfile.TemporaryFile() as lines:
        with place.open(name) as file:
            found = pass_on(file, lines)
        if found != (index.sha256, index.bytes):
            raise BadInput("is damaged", file=f"{place}/{name}", fix=OTHER)
        lines.seek(0)
        yield from manifest.parse_entries(lines, f"{place}/{name}")


def put(place: Place, name: str, content: bytes) -> None:
    with written(content) as file:
        place.put(name, file)


@contextmanager
def written(content: bytes) -> Generator[Path]:
    """A file with some content, for a while."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield Path(file.name)


def keep(place: Place, count: int) -> list[str]:
    """Removes all but the newest `count` backups, what was never finished before them, and the
    objects that none of those names.

    Returns:
        The names of the backups that are gone.

    Raises:
        BadInput: a manifest is damaged: what it names is not known.
    """
    found = backups(place)
    for problem in found.values():
        if isinstance(problem, BadInput):
            raise problem
    whole = [backup for backup in found.values() if isinstance(backup, Manifest)]
    gone, kept = whole[:-count], whole[-count:]
    named = {entry.place for backup in kept for entry in entries(place, backup)}
    # Of these none is taken any more: a later one is finished.
    newest, names = kept[-1].name, {backup.name for backup in kept}
    former = {f for f in place.sizes("2") if (n := f.partition("/")[0]) < newest and n not in names}
    # The manifest goes first: what is half gone is no backup.
    place.remove([f"{backup.name}/{manifest.FILE}" for backup in gone])
    place.remove(sorted(former))
    place.remove(sorted(place.sizes("objects/").keys() - named))
    return [backup.name for backup in gone]
