"""The commands, one module each: arguments in, domain code called, findings shown."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer
from rich.console import Console, RenderableType

from slipway import release

# What was asked for goes to stdout, everything said about it to stderr.
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A folder under bentos/.", show_default=False)
]
Environment = Annotated[
    str,
    typer.Option("--env", metavar="ENV", help=f"One of {', '.join(release.ENVIRONMENTS)}."),
]
Output = Annotated[
    Literal["text", "json"], typer.Option("-o", "--output", help="How to show what was found.")
]


def say(text: str) -> None:
    """News for a person, out of the way of what a program reads."""
    err.print(text, markup=False, soft_wrap=True)


def show(found: RenderableType) -> None:
    """What was found, for a person. A pipe or a file is as wide as it needs."""
    (out if out.is_terminal else Console(highlight=False, width=200)).print(found)


def show_json(document: Any) -> None:
    """A document for a program."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def short(digest: str | None) -> str:
    """A digest as a person compares it."""
    return digest.removeprefix("sha256:")[:12] if digest else "-"
