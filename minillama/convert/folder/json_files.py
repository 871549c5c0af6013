"""JSON files of a Hugging Face folder."""

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minillama.errors import FormatError, ResourceError, first_line

MOST_BYTES = 256 * 2**20  # the largest tokenizer.json has about 35 MB


def read_json(path: Path) -> dict:
    """The object in a JSON file; raises ResourceError, or FormatError for no object."""
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is no JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path} holds a {type(value).__name__}, not an object; download it again")
    return value


def read_json_if_there(path: Path) -> dict:
    """The object in a JSON file; empty without the file."""
    return read_json(path) if path.is_file() else {}


@contextmanager
def checked(files: str) -> Iterator[None]:
    """Turn an error of a computation on JSON values into a FormatError.

    files: the files with the values, for the message.

    Such values may be of any kind, and the rows of the families compute with them.
    """
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, struct.error) as error:
        raise FormatError(f"{files} has a value of a wrong kind ({first_line(error)}); download it again") from error


def read_text(path: Path) -> str:
    """The text of a small file; ResourceError if it cannot be read."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise FormatError(f"{path} has more than {MOST_BYTES // 2**20} MB; download it again")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no UTF-8 text; download it again") from error
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror or error}") from error
