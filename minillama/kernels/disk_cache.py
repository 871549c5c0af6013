"""Files of a cache folder, each behind its own checksum: a damaged file is as good as none."""

import hashlib
import os
import tempfile
from pathlib import Path

_DIGEST_SIZE = hashlib.sha256().digest_size


def read_cached(file: Path) -> bytes | None:
    """What was kept; None where there is nothing, or where it is damaged."""
    try:
        found = file.read_bytes()
    except OSError:
        return None
    mark, content = found[:_DIGEST_SIZE], found[_DIGEST_SIZE:]
    return content if content and hashlib.sha256(content).digest() == mark else None


def write_cached(file: Path, content: bytes) -> None:
    """Write through a file of its own name, for several processes may do so at once; raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as own:
        own.write(hashlib.sha256(content).digest() + content)
    os.replace(own.name, file)
