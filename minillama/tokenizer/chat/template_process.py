"""Render untrusted chat templates in a child process with limits of time, memory and text.

No budget inside a template language is complete: one operation can be as expensive as the template likes. The system's
limits are. The child starts at the first rendering, stays for the next ones, and is replaced after it was stopped.
"""

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Lock

from minillama.errors import OptionError, ResourceError

CHILD = Path(__file__).with_name("template_child.py")
START_SECONDS = 60.0
POLL_SECONDS = 0.05  # between looks at the child's memory
CHUNK = 1 << 16
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
        child, self._child, self._lock = self._child, None, Lock()
        if child is not None:
            child.returncode = 0  # not known here; keeps Python from waiting for it
            _close(child)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.stop()
            self._child = _start(self.limits)
            try:
                _exchange(self._child, b"", Limits(START_SECONDS))
            except TemplateRefused as error:
                raise ResourceError(f"the process that renders chat templates {error}") from None
        return self._child


def _start(limits: Limits) -> subprocess.Popen[bytes]:
    specs = [find_spec(name) for name in ("jinja2", "markupsafe")]
    folders = [str(CHILD.parent), *(str(Path(spec.origin).parents[1]) for spec in specs if spec and spec.origin)]
    call = f"main({limits.seconds}, {limits.megabytes}, {limits.characters})"
    program = f"import sys; sys.path[:0] = {folders!r}; from {CHILD.stem} import main; {call}"
    command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", program]
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    try:  # in a session of its own, it gets no Ctrl-C of the terminal
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=none, bufsize=0, start_new_session=True)
    except OSError as error:
        raise ResourceError(f"the process that renders chat templates does not start: {error.strerror}") from error


def _exchange(child: subprocess.Popen[bytes], request: bytes, limits: Limits) -> bytes:
    """Send a request and return the next line.

    Raises TemplateRefused if the child takes too much or ends.
    """
    assert child.stdin is not None and child.stdout is not None
    deadline, waiting, received = time.monotonic() + limits.seconds, memoryview(request), bytearray()
    os.set_blocking(child.stdin.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        if waiting:
            selector.register(child.stdin, selectors.EVENT_WRITE)
        while not received.endswith(b"\n"):
            ready = [key.fileobj for key, _ in selector.select(POLL_SECONDS)]
            if child.stdout in ready:
                part = os.read(child.stdout.fileno(), CHUNK)
                if not part:
                    raise TemplateRefused(_end(child, limits))
                received += part
                if len(received) > MAX_BYTES * limits.characters:
                    raise TemplateRefused(f"writes more than {limits.characters} characters")
            elif child.stdin in ready:
                try:
                    waiting = waiting[os.write(child.stdin.fileno(), waiting[:CHUNK]) :]
                except BrokenPipeError:
                    raise TemplateRefused(_end(child, limits)) from None
                if not waiting:
                    selector.unregister(child.stdin)
            elif _memory(child.pid) > limits.megabytes * MEBIBYTE:
                raise TemplateRefused(f"was stopped at {limits.megabytes} MB of memory")
            if time.monotonic() > deadline and not received.endswith(b"\n"):
                raise TemplateRefused(f"was stopped after {limits.seconds:g} s")
    return bytes(received)


def _end(child: subprocess.Popen[bytes], limits: Limits) -> str:
    """Reason of a child that has ended."""
    status = child.wait()
    if status == -signal.SIGXCPU:
        return f"was stopped after {limits.seconds:g} s"
    return f"ended its process with {signal.Signals(-status).name if status < 0 else f'status {status}'}"


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
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise OptionError(f"messages, tools and template variables are JSON values: {reason}") from None


def _plain(value: object) -> object:
    """A dictionary for another kind of mapping; TypeError for anything else."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{str(value)[:80]!r} is a {type(value).__name__}; give a text, number, list or dictionary")


def _close(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None and child.stdout is not None
    child.stdin.close()
    child.stdout.close()


SHARED = TemplateProcess(Limits())
atexit.register(SHARED.stop)
os.register_at_fork(after_in_child=SHARED.forget)
