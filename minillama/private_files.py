"""Folders and files that only this user can write: caches of programs and machine code.

Cached programs are executed, so another user who can write them runs code as this user. The folders above count too, as
in OpenSSH's StrictModes: their owners can put another folder in place. Windows has no such modes; nothing is checked.
"""

import errno
import logging
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from minillama.errors import ResourceError

logger = logging.getLogger("minillama")

_MOST_LINKS = 40  # as Linux follows
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class UntrustedError(ResourceError):
    """A folder or file that another user can write."""


def make_private(folder: Path) -> None:
    """Create a folder, and missing folders above, with mode 0700; raises OSError."""
    for missing in reversed([step for step in (folder, *folder.parents) if not step.exists()]):
        missing.mkdir(0o700, exist_ok=True)


def check_private(folder: Path) -> None:
    """Raise UntrustedError if another user can write in a folder, or OSError."""
    with _opened_folder(folder):
        pass


def ensure_private(folder: Path) -> None:
    """Create a private folder, or check the one that is there.

    Raises UntrustedError if another user can write in it, or OSError.
    """
    make_private(folder)
    check_private(folder)


def read_private(file: Path) -> bytes:
    """Content of a file that only this user can write; raises UntrustedError and OSError."""
    if os.name != "posix":
        return file.read_bytes()
    with _opened_folder(file.parent) as folder:
        descriptor = os.open(file.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        with open(descriptor, "rb") as opened:
            _check_own(file, os.fstat(descriptor))
            return opened.read()


@cache
def warn_untrusted(problem: str) -> None:
    """Log a warning, once for each problem."""
    logger.warning("%s", problem)


@contextmanager
def _opened_folder(folder: Path) -> Iterator[int]:
    """Descriptor of a folder that only this user can write."""
    if os.name != "posix":
        yield -1
        return
    for step, status in _way(folder):
        _check_above(step, status)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _check_own(folder, os.fstat(descriptor))
        yield descriptor
    finally:
        os.close(descriptor)


def _way(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Folders and symbolic links on the way to a path, as the system follows them."""
    here, rest, links = Path("/"), deque(path.absolute().parts[1:]), 0
    yield here, os.lstat(here)
    while rest:
        step = here / rest.popleft()
        status = os.lstat(step)
        yield step, status
        if not stat.S_ISLNK(status.st_mode):
            here = step
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = Path(os.readlink(step))
        if target.is_absolute():
            here = Path("/")
        rest.extendleft(reversed(target.parts[target.is_absolute() :]))


def _check_above(step: Path, status: os.stat_result) -> None:
    """Check a folder or link above: its owner, and who may rename its entries."""
    if status.st_uid not in (0, os.geteuid()):
        raise UntrustedError(_owner_problem(step, status))
    others = 0 if stat.S_ISLNK(status.st_mode) else status.st_mode & _OTHERS_WRITE
    if others == stat.S_IWGRP and _is_own_group(status.st_gid):
        return
    if others and not status.st_mode & stat.S_ISVTX:
        raise UntrustedError(_mode_problem(step))


def _check_own(path: Path, status: os.stat_result) -> None:
    """Check the cache's folder or a file in it."""
    if status.st_uid != os.geteuid():
        raise UntrustedError(_owner_problem(path, status))
    if status.st_mode & _OTHERS_WRITE:
        raise UntrustedError(_mode_problem(path))
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise UntrustedError(f"{path} is not used as a cache: it is no regular file; delete it")


def _owner_problem(path: Path, status: os.stat_result) -> str:
    return (
        f"{path} is not used as a cache: its owner is user {status.st_uid}, not user {os.geteuid()}; "
        "set XDG_CACHE_HOME to a folder of your own"
    )


def _mode_problem(path: Path) -> str:
    return f"{path} is not used as a cache: other users can write it; run: chmod go-w {path}"


@cache
def _is_own_group(group: int) -> bool:
    """True for a user's private group, which has the user's name and no other member."""
    import grp
    import pwd

    try:
        found, name = grp.getgrgid(group), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return found.gr_name == name and set(found.gr_mem) <= {name}
