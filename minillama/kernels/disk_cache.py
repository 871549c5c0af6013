"""A checksummed disk cache: a corrupt entry is a miss."""

import hashlib
from pathlib import Path

from minillama.atomic_file import atomic_write

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
    """Write an entry atomically, as several processes may do at once; raises OSError or ResourceError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file, 0o600) as entry:
        entry.write(hashlib.sha256(content).digest() + content)
