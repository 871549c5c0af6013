"""Check an output file before the long computation that makes it."""

import os
from pathlib import Path

from minillama.atomic_file import check_target
from minillama.errors import OptionError


def check_output_file(path: Path, *, force: bool, option: str = "") -> None:
    """Check that a file can be written, and is new or may be overwritten.

    Raises ResourceError if it cannot be written, OptionError if it exists and `force` is not given.
    option: the words after "name another file", such as `with -o`.
    """
    check_target(path)
    if os.path.lexists(path) and not force:
        raise OptionError(f"{path} exists; overwrite it with --force, or name another file {option}".rstrip())
