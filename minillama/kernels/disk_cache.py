"""A checksummed, private disk cache: a corrupt or foreign entry is a miss."""

import hashlib
from pathlib import Path

from minillama.atomic_file import atomic_write
from minillama.private_files import UntrustedError, ensure_private, read_private, warn_untrusted

_DIGEST_SIZE = hashlib.sha256().digest_size


def read_cached(file: Path) -> bytes | None:
    """Content of an entry; None if it is missing, corrupt or foreign."""
    try:
        found = read_private(file)
    except UntrustedError as problem:
        warn_untrusted(str(problem))
        return None
    except OSError:
        return None
    digest, content = found[:_DIGEST_SIZE], found[_DIGEST_SIZE:]
    return content if content and hashlib.sha256(content).digest() == digest else None


def write_cached(file: Path, content: bytes) -> None:
    """Write an entry atomically, as several processes may do at once.

    Raises OSError or ResourceError (a full disk, a folder that another user can write).
    """
    ensure_private(file.parent)
    with atomic_write(file, 0o600) as entry:
        entry.write(hashlib.sha256(content).digest() + content)
