"""An error of a model's own code, as one that says where in it and how it came there."""

from __future__ import annotations

import traceback
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from slipway import imports
from slipway.bento import Folder
from slipway.errors import SlipwayError

LINES = 30


class Failed(SlipwayError):
    """The model's own code raised: the message names function, file and line."""


@contextmanager
def blaming(folder: Folder) -> Generator[None]:
    """Errors that come out of the folder's code become `Failed`; all others stay as they are."""
    try:
        yield
    except SlipwayError:
        raise
    except Exception as error:
        home = folder.path.resolve()
        frames = traceback.extract_tb(error.__traceback__)
        own = [n for n, f in enumerate(frames) if Path(f.filename).resolve().parent == home]
        if not own:
            raise
        function, training = frames[own[0]].name, folder.path / "training.py"
        where = f"{imports.place(error, training)}: in {function}()"
        way = "".join(traceback.format_list(frames[own[0] :])).splitlines()[-LINES:]
        raise Failed(
            "\n".join([f"{where}: {type(error).__name__}: {error}", *way]),
            fix=f"mend {function}() and try again: the steps before are not done again",
        ) from error
