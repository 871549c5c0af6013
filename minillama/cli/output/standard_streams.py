"""Standard streams of the command: closed, on a full disk, or a broken pipe.

Python leaves a closed stream out (`sys.stdout` is None), and the next opened file would get its descriptor. Here each
closed descriptor is opened again, such that its use fails: a command that writes nothing works, others report it.
"""

import io
import os
import select
import sys
from typing import TextIO

# Opened for the wrong direction: reading from stdin and writing to stdout fail. What goes to stderr is dropped.
_MODES = {0: os.O_WRONLY, 1: os.O_RDONLY, 2: os.O_WRONLY}


class OutputError(Exception):
    """stdout cannot be written; `broken_pipe`: because its reader has closed it."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to stdout: {error.strerror or error}")
        self.broken_pipe = isinstance(error, BrokenPipeError)


class OutputBuffer(io.BufferedWriter):
    """Buffer of results: raises OutputError once, and drops what is written after it.

    The file below stays Python's own: Ctrl-C between a write and its account in the buffer would repeat the text.
    """

    def write(self, data: bytes) -> int:
        left = memoryview(data).cast("B")
        try:
            while True:
                try:
                    super().write(left)
                    return memoryview(data).nbytes
                except BlockingIOError as full:  # a pipe that another program has made non-blocking
                    left = left[full.characters_written :]
                    select.select([], [self], [])
        except OSError as error:
            self._fail(error)
        return memoryview(data).nbytes

    def flush(self) -> None:
        try:
            while True:
                try:
                    return super().flush()
                except BlockingIOError:
                    select.select([], [self], [])
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._drop()
        raise OutputError(error) from error

    def _drop(self) -> None:
        """Send what is in the buffer, and all that follows, to the null device."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        super().flush()


class MessageBuffer(OutputBuffer):
    """Buffer of messages, which are dropped if they cannot be written."""

    def _fail(self, error: OSError) -> None:
        self._drop()


def open_standard_streams() -> None:
    """Open closed standard streams; make stdout report its errors, and stderr ignore them."""
    for descriptor, mode in _MODES.items():
        if not _is_open(descriptor):
            opened = os.open(os.devnull, mode)
            if opened == descriptor:
                os.set_inheritable(descriptor, True)
            else:
                os.dup2(opened, descriptor)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    if os.name == "posix" or sys.stdout is None:  # a console of Windows has files of its own
        sys.stdout = _text(OutputBuffer(io.FileIO(1, "w", closefd=False)))
    if os.name == "posix" or sys.stderr is None:
        sys.stderr = _text(MessageBuffer(io.FileIO(2, "w", closefd=False)), by_line=True)


def _text(buffer: OutputBuffer, *, by_line: bool = False) -> TextIO:
    return io.TextIOWrapper(buffer, encoding="utf-8", errors="replace", line_buffering=by_line or buffer.isatty())


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
