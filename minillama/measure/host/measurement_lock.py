"""A lock that allows one measurement at a time on a machine with several users."""

import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from minillama import env
from minillama.errors import ResourceError
from minillama.printable_text import printable

POLL = 0.2  # seconds between two tries
SHOWN = 120  # letters of the holder's line, which another user may have written
_BYTE = 1 << 20  # locked on Windows: a byte after the text, because a locked byte cannot be read
_threads = threading.RLock()  # of this process: one thread measures at a time
_depth = 0  # measurements within each other on that thread


@contextmanager
def machine_lock(
    holder: str, *, timeout: float | None = None, on_wait: Callable[[str], object] = lambda line: None
) -> Iterator[None]:
    """Hold the machine's lock during a measurement; wait for another holder first.

    holder: name of this measurement, shown to processes that wait. timeout: most seconds to wait; None: no limit.
    on_wait: called once with a line that names the current holder.
    The operating system releases the lock when the process ends, also after a crash. A measurement within another one
    of the same thread holds it already. Without a writable folder, or on a file system without locks, it only covers
    the threads of this process. Raises ResourceError after the timeout.
    """
    global _depth
    _wait(lambda: _threads.acquire(blocking=False), lambda: "another thread of this process", timeout, on_wait)
    try:
        _depth += 1
        path = env.lock_file() if _depth == 1 else None
        file = None if path is None else _open(path)
        if path is None or file is None:
            yield
            return
        with file:
            _wait(lambda: _try(file), lambda: _holder(path), timeout, on_wait)
            file.seek(0)
            file.truncate(0)
            file.write(f"{holder}, process {os.getpid()}, since {datetime.now():%H:%M:%S}\n")
            file.flush()
            yield  # closing the file releases the lock
    finally:
        _depth -= 1
        _threads.release()


def _open(path: Path) -> IO[str] | None:
    """The lock file, which all users may write; None if it is anything else."""
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        try:
            number = os.open(path, flags)
        except FileNotFoundError:
            number = os.open(path, flags | os.O_CREAT, 0o666)
            if hasattr(os, "fchmod"):
                os.fchmod(number, 0o666)  # whatever the umask says
    except OSError:
        return None
    found = os.fstat(number)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:  # a trap of another user
        os.close(number)
        return None
    return os.fdopen(number, "r+")


def _holder(path: Path) -> str:
    try:
        line = path.read_bytes()[: 4 * SHOWN].decode(errors="replace").strip().partition("\n")[0]
    except OSError:
        line = ""
    return printable(line[:SHOWN]) or "another process"


def _wait(
    take: Callable[[], bool], holder: Callable[[], str], timeout: float | None, on_wait: Callable[[str], object]
) -> None:
    started = time.monotonic()
    reported = False
    while not take():
        if timeout is not None and time.monotonic() - started >= timeout:
            raise ResourceError(
                f"another measurement runs on this machine ({holder()}) after {timeout:g} s; "
                "wait for it, or measure without the lock"
            )
        if not reported:
            on_wait(f"waiting for another measurement on this machine: {holder()}")
            reported = True
        time.sleep(POLL)


def _try(file: IO[str]) -> bool:
    """Try to take the lock; also true on file systems without locks."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network file system without locks
        return True
    return True
