"""A checksummed disk cache: a corrupt entry is a miss."""

import hashlib
import os
import tempfile
from pathlib import Path

_DIGEST_SIZE = hashlib.sha256().digest_size


def read_cached(file: Path) -> bytes | None:
    """Content of an entry; None if it is missing or corrupt."""
    try:
        found = file.read_bytes()
    except OSError:
        return None
    digest, content = found[:_DIGEST_SIZE], found[_DIGEST_SIZE:]
    return content if content and hashlib.sha256(content).digest() == digest else None


def write_cached(file: Path, content: bytes) -> None:
    """Write an entry atomically, as several processes may do at once; raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as temporary:
        temporary.write(hashlib.sha256(content).digest() + content)
    os.replace(temporary.name, file)
