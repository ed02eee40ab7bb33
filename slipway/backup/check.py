"""Whether a backup can be restored: asked before anything is touched."""

from __future__ import annotations

import re
from collections.abc import Callable

from slipway import images, paths, pulumi, toolchain
from slipway.backup import manifest, objects, shelf
from slipway.backup.manifest import Entry, Manifest, Versions
from slipway.backup.place import Place, pass_on
from slipway.backup.seal import Seal
from slipway.errors import BadInput

# Of what is damaged, as many are named.
NAMED = 5


def unseal(place: Place, backup: Manifest, passphrase: str) -> Seal:
    """The keys of a backup.

    Raises:
        BadInput: the passphrase is not the one, or somebody has changed what the backup says.
    """
    seal = Seal(passphrase, backup.salt)
    if not seal.holds(backup.sealed(), backup.seal):
        raise BadInput(
            "sealed by another passphrase, or changed since",
            file=f"{place}/{backup.name}/{manifest.FILE}",
            field="seal",
            fix="--passphrase-file names what was kept of the machine that took the backup",
        )
    return seal


def whole(place: Place, backup: Manifest, say: Callable[[str], None]) -> list[Entry]:
    """Reads all of a backup; returns the objects that it names.

    Raises:
        BadInput: something is missing or damaged.
    """
    bad: list[str] = []
    for part in backup.parts:
        say(part.name)
        name = f"{backup.name}/{part.name}"
        with place.open(name) as file:
            if pass_on(file) != (part.sha256, part.bytes):
                bad.append(name)
    if bad:
        raise _damaged(place, bad)
    entries = list(shelf.entries(place, backup))
    if bad := objects.damaged(place, entries, say):
        raise _damaged(place, bad)
    return entries


def _damaged(place: Place, names: list[str]) -> BadInput:
    more = f" and {len(names) - NAMED} more" if names[NAMED:] else ""
    return BadInput(
        f"missing or damaged: {', '.join(names[:NAMED])}{more}", file=str(place), fix=shelf.OTHER
    )


def pinned(stack: str) -> Versions:
    """What this checkout brings up."""
    postgres = images.official_references()["postgres"].rpartition(":")[2]
    locked = (paths.REPOSITORY / "requirements" / "mlflow.txt").read_text()
    mlflow = re.search(r"^mlflow==(\d+\.\d+\.\d+)", locked, re.M)
    return Versions(
        gitea=None
        if pulumi.names_a_forge(stack)
        else toolchain.tool("gitea").version.removeprefix("v"),
        mlflow=mlflow[1] if mlflow else "0.0",
        postgres=postgres.partition("-")[0],
    )


def fits(backup: Manifest, present: Versions) -> None:
    """Whether these versions read what the backup has.

    Raises:
        BadInput: PostgreSQL is of another major version, a database of a newer schema, or the forge
            not the platform's own in one of the two.
    """
    fix = f"git checkout {backup.commit}, restore there, and upgrade afterwards"
    taken = backup.versions
    if taken.postgres and _numbers(taken.postgres)[0] != _numbers(present.postgres or "0")[0]:
        raise BadInput(
            f"the backup is of PostgreSQL {taken.postgres}, this is {present.postgres}",
            field="versions.postgres",
            fix=fix,
        )
    if (taken.gitea is None) != (present.gitea is None):
        raise BadInput(
            "the backup has the platform's own forge, and the stack names another"
            if taken.gitea
            else "the backup is of a platform whose forge was another's, and the stack names none",
            file=paths.told(paths.stack_file(backup.stack)),
            field="slipway:forge",
            fix="for the restore, write it as it was when the backup was taken",
        )
    for program in ("gitea", "mlflow"):
        theirs, ours = getattr(taken, program), getattr(present, program)
        if theirs and _numbers(theirs) > _numbers(ours):
            raise BadInput(
                f"the backup is of {program} {theirs}, which {ours} cannot read",
                field=f"versions.{program}",
                fix=fix,
            )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))
