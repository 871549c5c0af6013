"""Runs one command, and sees to it that neither the command nor what it started outlives whoever asked for it.

    python -P guard.py PID COMMAND...

The command gets a process group of its own. The guard kills the group when it is told to end (SIGTERM), when the
process PID, its parent, is gone however it went, and when the command itself has ended; on Linux the command is also
killed when the guard is. Standard library only: it is up in a few milliseconds.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys

KILL_AFTER_SECONDS = 2.0  # seconds from asking the command to end to killing it
POLL_SECONDS = 0.1  # seconds between looks at the parent
PARENT_DEATH = 1  # PR_SET_PDEATHSIG of Linux


def main(parent: int, command: list[str]) -> int:
    """Run the command to its end, or to that of its parent; the exit status is the command's."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asked for it was interrupted, and decides
    # The guard has one thread, so running Python between fork and exec is safe here, as it is not in a notebook.
    child = subprocess.Popen(command, start_new_session=True, preexec_fn=_kill_child_with_guard)
    try:
        while os.getppid() == parent:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.wait(POLL_SECONDS)
        return 128 + signal.SIGHUP
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end(child)


def _kill_child_with_guard() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask the whole group to end, and then make it."""
    if child.poll() is None:
        _signal(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(KILL_AFTER_SECONDS)
    _signal(child.pid, signal.SIGKILL)
    child.wait()


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
