"""The backups in one place: a folder each, and the objects that they share."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from slipway.backup import manifest
from slipway.backup.manifest import Entry, Manifest
from slipway.backup.place import Place, pass_on
from slipway.errors import BadInput, did_you_mean

OTHER = "take another backup, or restore another one: --from"
# What has no manifest for so long is not under way, at another stack's hand, but was interrupted.
LONGEST = timedelta(days=1)


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


def find(place: Place, name: str | None, stack: str | None = None) -> Manifest:
    """The backup of that name; without one, the newest.

    Args:
        stack: whose it is to be; may be left out where the place has backups of one stack only.

    Raises:
        BadInput: there is none, it is damaged or another stack's, or whose is to be said.
    """
    names = _names(place)
    if not names:
        raise BadInput(f"no backup in {place}", field="PLACE", fix="slipway backup takes one")
    if not name:
        return _newest(place, names, stack)
    if name not in names:
        raise BadInput(
            f"no backup {name} in {place}", field="--from", fix=did_you_mean(name, names)
        )
    found = _read(place, name)
    if stack and found.stack != stack:
        raise BadInput(
            f"{name} is of stack {found.stack}", field="--stack", fix="name one of the two only"
        )
    return found


def _newest(place: Place, names: list[str], stack: str | None) -> Manifest:
    """One that is damaged counts as anybody's: nobody gets an older one for it unasked."""
    stacks = {b.stack for b in backups(place).values() if isinstance(b, Manifest)}
    if not stack and len(stacks) > 1:
        raise BadInput(
            f"{place} has backups of {', '.join(sorted(stacks))}",
            field="--stack",
            fix="name the one to restore",
        )
    for name in reversed(names):
        found = _read(place, name)
        if stack in (None, found.stack):
            return found
    raise BadInput(
        f"no backup of {stack} in {place}",
        field="--stack",
        fix=did_you_mean(stack or "", sorted(stacks)),
    )


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


def keep(place: Place, count: int, stack: str) -> list[str]:
    """Removes all but the newest `count` backups of a stack, what was never finished, and the
    objects that no backup names, whosever it is.

    Returns:
        The names of the backups that are gone.

    Raises:
        BadInput: a manifest is damaged: whose it is and what it names is not known.
    """
    found = backups(place)
    for problem in found.values():
        if isinstance(problem, BadInput):
            raise problem
    whole = [backup for backup in found.values() if isinstance(backup, Manifest)]
    gone = [backup.name for backup in whole if backup.stack == stack][:-count]
    kept = [backup for backup in whole if backup.name not in gone]
    if not kept:
        return []
    named = {entry.place for backup in kept for entry in entries(place, backup)}
    # The manifest goes first: what is half gone is no backup.
    place.remove([f"{name}/{manifest.FILE}" for name in gone])
    names = {backup.name for backup in kept}
    loose = {file: n for file in place.sizes("2") if (n := file.partition("/")[0]) not in names}
    settled = manifest.name_of(datetime.fromisoformat(kept[-1].taken) - LONGEST)
    under_way = {file for file, name in loose.items() if name >= settled and name not in gone}
    place.remove(sorted(loose.keys() - under_way))
    if not under_way:  # else there are objects that are named only when it is finished
        place.remove(sorted(place.sizes("objects/").keys() - named))
    return gone
