"""JSON files of a Hugging Face folder."""

import json
from pathlib import Path

from minillama.errors import FormatError, ResourceError

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
