"""Output files, replaced whole: a reader finds old or new content, never a part.

Every writer of the package uses `atomic_write`. Nothing but a regular file is ever replaced.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import BinaryIO

from minillama.errors import ResourceError

_KINDS = {
    stat.S_IFDIR: "a folder; name a file in it",
    stat.S_IFCHR: "a device; name a file",
    stat.S_IFBLK: "a device; name a file",
    stat.S_IFIFO: "a pipe; name a file",
    stat.S_IFSOCK: "a socket; name a file",
}
_unfinished: set[Path] = set()  # temporary files of this process


def check_target(path: str | Path) -> Path:
    """Return the file to write, with symbolic links resolved; it may not exist yet.

    Call it before a long computation. Raises ResourceError unless it is a writable regular file, or a free name, in a
    writable folder.
    """
    path = Path(path)
    try:
        found = _status(path)
        target = Path(os.path.realpath(path))
        if found is None and not target.parent.is_dir():
            folder = target.parent if path.is_symlink() else path.parent
            raise ResourceError(f"cannot write {path}: no folder {folder}; create it, or name another file")
        if found is not None:
            _check_kind(path, found, target)
    except (OSError, ValueError) as error:  # ValueError: a null byte
        raise ResourceError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    if found is not None and not os.access(target, os.W_OK):
        raise ResourceError(f"{path} is read-only; change its permissions, or name another file")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ResourceError(f"cannot write {path}: the folder {target.parent} is not writable; name another file")
    return target


def check_room(path: str | Path, size: int, spare: int = 0) -> None:
    """Check that a file of `size` bytes can be written.

    spare: bytes that must stay free.

    Raises ResourceError (see `check_target`; no room).
    """
    free = shutil.disk_usage(check_target(path).parent).free
    if size + spare > free:
        raise ResourceError(
            f"{path} takes {size / 2**30:.2f} GiB and {Path(path).parent} has {free / 2**30:.2f} GiB free; "
            "free some space"
        )


@contextmanager
def atomic_write(path: str | Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file next to `path` that replaces it on success.

    After an error or Ctrl-C it is deleted, and an old file stays whole. A symbolic link stays, and its target is
    replaced. An old file keeps its permissions. mode: permissions of the file, in place of those.
    Raises ResourceError (see `check_target`; no space).
    """
    target = check_target(path)
    unfinished = target.with_name(f".{target.name[:40]}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    _unfinished.add(unfinished)
    try:
        with open(unfinished, "xb", opener=partial(os.open, mode=0o666 if mode is None else mode)) as file:
            _set_permissions(file, target, mode)
            yield file
        check_target(target)  # something else may stand there by now
        os.replace(unfinished, target)
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        _discard(unfinished)


def make_folder(folder: Path) -> None:
    """Create a folder and the missing ones above; raises ResourceError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot create the folder {folder}: {error.strerror or error}") from error


def set_aside(path: Path) -> Path:
    """Rename a damaged file to a free name that ends in `.bad`; return that name."""
    names = (path.with_name(f"{path.name}.bad{number or ''}") for number in count())
    kept = next(name for name in names if not os.path.lexists(name))
    path.rename(kept)
    return kept


def discard_unfinished() -> None:
    """Delete all temporary files of this process, which is about to end."""
    for unfinished in tuple(_unfinished):
        _discard(unfinished)


def _discard(unfinished: Path) -> None:
    with suppress(OSError):
        unfinished.unlink(missing_ok=True)
    _unfinished.discard(unfinished)


def _status(path: Path) -> os.stat_result | None:
    """Status of a file after symbolic links; None if there is none."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _check_kind(path: Path, found: os.stat_result, target: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ResourceError(f"{path} is {_KINDS.get(stat.S_IFMT(found.st_mode), 'no regular file; name a file')}")
    named = _status(target)
    if named is None or not os.path.samestat(found, named):  # such as /proc/self/fd/3 of a deleted file
        raise ResourceError(f"{path} is a file without a name; name a file")


def _set_permissions(file: BinaryIO, target: Path, mode: int | None) -> None:
    """Set the mode, or the owner and permissions of the file to replace."""
    if os.name != "posix":
        return
    if mode is not None:
        os.fchmod(file.fileno(), mode)
    elif (found := _status(target)) is not None:
        with suppress(OSError):  # only root may give files away
            os.fchown(file.fileno(), found.st_uid, found.st_gid)
        os.fchmod(file.fileno(), stat.S_IMODE(found.st_mode))
