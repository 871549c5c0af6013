"""Ctrl-C and SIGTERM: the command ends without a traceback, and leaves no unfinished file.

A signal raises KeyboardInterrupt or Terminated, so that `with` and `finally` end child processes. During an import it
ends the process at once, because libraries turn exceptions in their imports into others. A signal that is ignored, as
under nohup, stays ignored; a worker is a server, and obeys it all the same.
"""

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from minillama.atomic_file import discard_unfinished

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_AGAIN_SECONDS = 0.01  # until a signal is repeated whose exception was lost
_received: list[int] = []  # numbers of the signals, in order


class Terminated(BaseException):
    """SIGTERM."""


def handle_end_signals(*, even_ignored: bool = False) -> None:
    """Install the handlers; for the process of a command only.

    even_ignored: handle signals that the parent process ignores, as a shell does for a script's background commands.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if even_ignored or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    sys.unraisablehook = _repeat_lost_signal


def end_status() -> int | None:
    """Exit status of the first signal, such as 130; None if there was none."""
    return 128 + _received[0] if _received else None


def exit_on_signal() -> None:
    """From now on, a signal ends the process at once: nothing is left to do."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is _end:
            signal.signal(number, lambda number, frame: exit_now(128 + number))


def exit_now(status: int) -> NoReturn:
    """End the process without Python's clean-up, which may crash threads that still compute."""
    discard_unfinished()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status)


def _end(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if _is_importing(frame):
        exit_now(128 + number)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _repeat_lost_signal(lost: "UnraisableHookArgs") -> None:
    """Send a signal again if Python dropped its exception, as in `__del__`."""
    if issubclass(lost.exc_type, (KeyboardInterrupt, Terminated)):
        number = signal.SIGINT if lost.exc_type is KeyboardInterrupt else signal.SIGTERM
        while True:
            try:
                threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number)).start()
                return
            except (KeyboardInterrupt, Terminated):  # it came while this function still ran, and would be lost again
                pass
    else:
        sys.__unraisablehook__(lost)
