"""A lock that allows one measurement at a time on a machine."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from minillama import env
from minillama.errors import ResourceError

POLL = 0.2  # seconds between two tries
_BYTE = 1 << 20  # locked on Windows: a byte after the text, because a locked byte cannot be read


@contextmanager
def machine_lock(
    holder: str, *, timeout: float | None = None, on_wait: Callable[[str], object] = lambda line: None
) -> Iterator[None]:
    """Hold the machine's lock during a measurement; wait for another holder first.

    holder: name of this measurement, shown to processes that wait. timeout: most seconds to wait; None: no limit.
    on_wait: called once with a line that names the current holder.
    The operating system releases the lock when the process ends, also after a crash. The lock covers the processes of
    one user. Without a writable folder, or on a file system without locks, it does nothing. It is not reentrant.
    Raises ResourceError after the timeout.
    """
    path = env.lock_file()
    if path is None:
        yield
        return
    with path.open("a+") as file:
        _wait(file, path, timeout, on_wait)
        file.truncate(0)
        file.write(f"{holder}, process {os.getpid()}, since {datetime.now():%H:%M:%S}\n")
        file.flush()
        yield  # closing the file releases the lock


def _wait(file: IO[str], path: Path, timeout: float | None, on_wait: Callable[[str], object]) -> None:
    started = time.monotonic()
    reported = False
    while not _try(file):
        holder = (path.read_text(errors="replace").strip().splitlines() or ["another process"])[0]
        if timeout is not None and time.monotonic() - started >= timeout:
            raise ResourceError(
                f"another measurement runs on this machine ({holder}) after {timeout:g} s; "
                "wait for it, or measure without the lock"
            )
        if not reported:
            on_wait(f"waiting for another measurement on this machine: {holder}")
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
