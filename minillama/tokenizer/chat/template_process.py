"""Render untrusted chat templates in a child process with limits of time, memory and text.

No budget inside a template language is complete: one operation can be as expensive as the template likes. The system's
limits are. The child starts at the first rendering, stays for the next ones, and is replaced after it was stopped.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, Queue
from threading import Lock, Thread

from minillama.errors import OptionError, ResourceError, first_line, quoted

MAX_REASON = 200  # characters
CHILD = Path(__file__).with_name("template_child.py")
START_SECONDS = 60.0
POLL_SECONDS = 0.05  # between looks at the child's memory
MEBIBYTE = 1 << 20
MAX_BYTES = 8  # of a character in an answer; a child that takes more is out of control


@dataclass(frozen=True)
class Limits:
    """Limits of one rendering: time, memory of the process, length of the text."""

    seconds: float = 5.0
    megabytes: int = 1024
    characters: int = 10_000_000


class TemplateRefused(Exception):
    """No text; the message continues the template's name: `was stopped after 5 s`."""


class TemplateProcess:
    """A child process that renders templates, for all threads of this process."""

    def __init__(self, limits: Limits) -> None:
        """Set the limits; nothing starts."""
        self.limits = limits
        self._lock = Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._lost: subprocess.Popen[bytes] | None = None
        self._is_ready = False

    def prepare(self) -> None:
        """Start the child without waiting, so that the first rendering waits less.

        Raises ResourceError if it cannot start.
        """
        with self._lock:
            self._spawn()

    def render(self, source: str, variables: Mapping[str, object]) -> str:
        """Render a template with JSON values.

        Raises TemplateRefused if the template fails or was stopped, OptionError if a value is not one of JSON,
        ResourceError if no child process starts. An interrupt (Ctrl-C) ends the wait.
        """
        request = _encode({"source": source, "variables": variables})
        with self._lock:
            try:
                child = self._started()
                answer = json.loads(_exchange(child, request, self.limits).decode("utf-8", "surrogatepass"))
            except BaseException:  # after an interrupt, too, the next answer would be that of this request
                self.stop()
                raise
            if "last" in answer:
                self.stop()
        if "error" in answer:
            raise TemplateRefused(answer["error"])
        return str(answer["text"])

    def stop(self) -> None:
        """Kill the child process, if there is one; the next rendering starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            _close(child)

    def forget(self) -> None:
        """In a forked process: leave the child to the process that started it."""
        child, busy = self._child, self._lock.locked()
        self._child, self._lock = None, Lock()
        if child is not None:
            child.returncode = 0  # not known here; keeps Python from waiting for it
            if busy:  # a thread that is not in this process holds the locks of the pipes
                self._lost = child
            else:
                _close(child)

    def _spawn(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.stop()
            self._child, self._is_ready = _start(self.limits), False
        return self._child

    def _started(self) -> subprocess.Popen[bytes]:
        child = self._spawn()
        if not self._is_ready:
            try:
                _exchange(child, b"", Limits(START_SECONDS))
            except TemplateRefused as error:
                raise ResourceError(f"the process that renders chat templates {error}") from None
            self._is_ready = True
        return child


def _start(limits: Limits) -> subprocess.Popen[bytes]:
    specs = [find_spec(name) for name in ("jinja2", "markupsafe")]
    folders = [str(CHILD.parent), *(str(Path(spec.origin).parents[1]) for spec in specs if spec and spec.origin)]
    call = f"main({limits.seconds}, {limits.megabytes}, {limits.characters})"
    program = f"import sys; sys.path[:0] = {folders!r}; from {CHILD.stem} import main; {call}"
    command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", program]
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    try:  # in a session of its own, it gets no Ctrl-C of the terminal
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=none, start_new_session=True)
    except OSError as error:
        raise ResourceError(f"the process that renders chat templates does not start: {error.strerror}") from error


def _exchange(child: subprocess.Popen[bytes], request: bytes, limits: Limits) -> bytes:
    """Send a request and return the next line.

    Raises TemplateRefused if the child takes too much or ends.
    """
    lines: Queue[bytes] = Queue()
    # A thread waits for the child, because a pipe has no time limit. It ends with the child at the latest.
    Thread(target=_talk, args=(child, request, MAX_BYTES * limits.characters, lines), daemon=True).start()
    deadline = time.monotonic() + limits.seconds
    while True:
        try:
            line = lines.get(timeout=min(POLL_SECONDS, limits.seconds))
            break
        except Empty:
            if time.monotonic() > deadline:
                raise TemplateRefused(f"was stopped after {limits.seconds:g} s") from None
            if _memory(child.pid) > limits.megabytes * MEBIBYTE:
                raise TemplateRefused(f"was stopped at {limits.megabytes} MB of memory") from None
    if not line.endswith(b"\n"):
        raise TemplateRefused(_end(child, limits))
    return line


def _talk(child: subprocess.Popen[bytes], request: bytes, most_bytes: int, lines: "Queue[bytes]") -> None:
    """Write a request and read a line, b"" if the child has ended."""
    assert child.stdin is not None and child.stdout is not None
    line = b""
    with contextlib.suppress(OSError, ValueError):  # the child has ended, and its pipes are closed
        child.stdin.write(request)
        child.stdin.flush()
        line = child.stdout.readline(most_bytes)
    lines.put(line)


def _end(child: subprocess.Popen[bytes], limits: Limits) -> str:
    """Reason of a child that has closed its output."""
    child.kill()
    status = child.wait()
    name = signal.Signals(-status).name if status < 0 else f"status {status}"
    return f"was stopped after {limits.seconds:g} s" if name == "SIGXCPU" else f"ended its process with {name}"


def _memory(pid: int) -> int:
    """Resident bytes of a process, 0 if it has ended."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _encode(request: Mapping[str, object]) -> bytes:
    try:
        return json.dumps(request, default=_plain).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else first_line(error, limit=MAX_REASON)
        raise OptionError(f"messages, tools and template variables are JSON values: {reason}") from None


def _plain(value: object) -> object:
    """A dictionary for another kind of mapping; TypeError for anything else."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{quoted(value)} is a {type(value).__name__}; give a text, number, list or dictionary")


def _close(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None and child.stdout is not None
    with contextlib.suppress(OSError):  # a part of a request that the child did not read
        child.stdin.close()
    child.stdout.close()


SHARED = TemplateProcess(Limits())
atexit.register(SHARED.stop)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=SHARED.forget)
