"""Run one command and kill it, with all its children, when the parent ends.

    python -P process_guard.py PID COMMAND...

The command gets its own process group. The guard kills the group on SIGTERM, when its parent (process PID) ends in any
way, and when the command itself has ended. On Linux the kernel also kills the command when the guard is killed. The
guard uses the standard library only, to start within a few milliseconds.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys

KILL_AFTER_SECONDS = 2.0  # from SIGTERM to SIGKILL
POLL_SECONDS = 0.1  # between checks of the parent
PARENT_DEATH = 1  # PR_SET_PDEATHSIG of Linux


def main(parent: int, command: list[str]) -> int:
    """Run the command until it or the parent ends; return its exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles the interrupt
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
    """Send SIGTERM to the group, then SIGKILL."""
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
