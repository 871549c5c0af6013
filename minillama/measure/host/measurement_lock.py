"""One measurement at a time on a machine: two at once would each measure the other."""

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
_BYTE = 1 << 20  # what Windows locks: behind the text, for there nobody may read what is locked


@contextmanager
def machine_lock(
    what: str, *, timeout: float | None = None, waiting: Callable[[str], object] = lambda line: None
) -> Iterator[None]:
    """Hold the machine while a measurement runs, and wait for another that does.

    what: who holds it, for those who wait. timeout: seconds to wait; None waits as long as it takes. waiting: called
    once with a line that says who is waited for. The system lets go of the lock of a process that ends, however it
    ends. It holds among the processes of one user; where there is no place for the file, or the file system knows no
    locks, nothing is locked. Not to be entered twice by one thread: it would wait for itself.
    Raises ResourceError where the time is over.
    """
    path = env.lock_file()
    if path is None:
        yield
        return
    with path.open("a+") as file:
        _wait(file, path, timeout, waiting)
        file.truncate(0)
        file.write(f"{what}, process {os.getpid()}, since {datetime.now():%H:%M:%S}\n")
        file.flush()
        yield  # closing the file lets go of it


def _wait(file: IO[str], path: Path, timeout: float | None, waiting: Callable[[str], object]) -> None:
    started = time.monotonic()
    told = False
    while not _try(file):
        holder = (path.read_text(errors="replace").strip().splitlines() or ["another process"])[0]
        if timeout is not None and time.monotonic() - started >= timeout:
            raise ResourceError(
                f"another measurement runs on this machine ({holder}) after {timeout:g} s; "
                "wait for it, or measure without the lock"
            )
        if not told:
            waiting(f"waiting for another measurement on this machine: {holder}")
            told = True
        time.sleep(POLL)


def _try(file: IO[str]) -> bool:
    """Whether the lock is ours now; also where there are no locks."""
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
