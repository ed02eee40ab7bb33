"""A new bento folder from a template that works as it is: it trains, serves and has tests."""

from __future__ import annotations

from pathlib import Path
from string import Template

from slipway import bento, release
from slipway.errors import BadInput, did_you_mean

TEMPLATES = Path(__file__).parent / "templates"
_SUFFIX = ".template"
# Modules and folders that a bento of that name would be mistaken for.
_RESERVED = {
    *("serving", "envelope", "bento", "features", "schema"),
    *("service", "training", "model", "tests"),
}


def templates() -> list[str]:
    """Names of the templates there are."""
    return sorted(folder.name for folder in TEMPLATES.iterdir() if folder.is_dir())


def create(model: str, template: str, *, bentos: Path = bento.BENTOS) -> list[Path]:
    """Writes bentos/<model>/ and returns its files.

    Raises:
        BadInput: the name cannot be a model's, the folder exists, or there is no such template.
    """
    release.check_model_name(model)
    if model in _RESERVED:
        raise BadInput(f"{model!r} is reserved", field="model", fix="take another name")
    if template not in templates():
        fix = did_you_mean(template, templates())
        raise BadInput(f"no template {template!r}", field="--from", fix=fix)
    folder = bentos / model
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise BadInput(
            "exists already, and nothing in it is overwritten",
            file=folder,
            fix="take another name, or remove the folder first",
        ) from None
    values = {"model": model, "service": "".join(word.capitalize() for word in model.split("_"))}
    written: list[Path] = []
    for source in sorted((TEMPLATES / template).rglob(f"*{_SUFFIX}")):
        target = folder / source.relative_to(TEMPLATES / template).with_suffix("")
        target.parent.mkdir(exist_ok=True)
        target.write_text(Template(source.read_text()).substitute(values))
        written.append(target)
    return written
