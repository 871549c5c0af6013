"""Model files of the labs: of one notebook, or of a class.

MINILLAMA_LAB_MODELS names that folder; `python -m minillama.lab.prepare_models FOLDER` fills it. Each version of
minillama has a folder of its own in it, because another version may write other files.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from minillama import __version__

VARIABLE = "MINILLAMA_LAB_MODELS"

logger = logging.getLogger("minillama")


@dataclass(frozen=True)
class LabModel:
    """A file that a lab can write: its name, and the function that writes it."""

    name: str
    write: Callable[[Path], object]

    def shared(self) -> Path | None:
        """The file in the class's folder, if it is there."""
        folder = shared_folder()
        path = None if folder is None else folder / self.name
        return path if path is not None and path.is_file() else None

    def path(self, folder: Path) -> Path:
        """The class's file, else the one in `folder`, which is written first."""
        if (found := self.shared()) is not None:
            return found
        path = folder / self.name
        if not path.exists():
            self.write(path)
        return path


def shared_folder() -> Path | None:
    """The folder of MINILLAMA_LAB_MODELS for this version; None without one."""
    given = os.environ.get(VARIABLE, "").strip()
    if not given:
        return None
    folder = Path(given, __version__)
    if not folder.is_dir():
        _warn(folder)
        return None
    return folder


@cache
def _warn(folder: Path) -> None:
    logger.warning(
        "%s: no folder %s, so models are written to a temporary one; run python -m minillama.lab.prepare_models %s",
        VARIABLE,
        folder,
        folder.parent,
    )
