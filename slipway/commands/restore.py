"""`slipway restore`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slipway import pulumi, up
from slipway.backup import place, restore, shelf
from slipway.backup.manifest import Manifest
from slipway.commands import err, say
from slipway.commands.backup import Where
from slipway.errors import BadInput


def command(
    where: Where,
    name: Annotated[
        str | None,
        typer.Option("--from", metavar="NAME", help="Of `slipway backups`. [the newest]"),
    ] = None,
    stack: Annotated[
        str | None,
        typer.Option("--stack", "-s", help="Whose backup. [of the only stack that has some there]"),
    ] = None,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What was kept of the machine that took the backup. [this machine's own]",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Destroy a platform that has data, for this one.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only read the whole backup; touch nothing.")
    ] = False,
) -> None:
    """Bring the platform up with the data of a backup, and with the secrets that it had then.

    All of the backup is read first, and compared with its checksums. Goes on where it was, when it
    is run again after an interruption.
    """
    source = place.at(where)
    backup = shelf.find(source, name, stack)
    passphrase = _passphrase(passphrase_file)
    report = up.Report(err)
    if verify:
        restore.verify(source, backup, passphrase, report)
        say(f"backup {backup.name} is whole: {_counted(backup)}")
        return
    answering = restore.restore(source, backup, passphrase, report, replace=replace)
    for line in answering:
        say(line)
    say(f"restored {backup.name}: {_counted(backup)}")
    say("Argo CD's administrator has a new password; `make up` publishes what is newer here")


def _passphrase(file: Path | None) -> str:
    used = file or pulumi.passphrase_file()
    if not used.is_file():
        raise BadInput(
            f"no such file: {used}",
            field="--passphrase-file",
            fix="it is what `slipway backup` said to keep elsewhere",
        )
    return used.read_text().strip()


def _counted(backup: Manifest) -> str:
    counts = backup.counts
    named = {
        "releases": counts.releases,
        "pull requests": counts.pull_requests,
        "runs": counts.runs,
        "model versions": counts.model_versions,
        "objects": counts.objects,
    }
    return ", ".join(f"{number:,} {what}" for what, number in named.items() if number is not None)
