"""A learner's process, seen from the grader: calls with a time limit.

The grader's check calls a `FarFunction`; the learner's function runs in the other process.
"""

import dataclasses
import os
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass

from minillama import env
from minillama.course.isolation import plain_values as values

LARGEST = 64 << 20  # bytes of one message of a learner's process
MOST_CALLS_BACK = 100_000  # uses of the check's objects in one call
KEPT_VARIABLES = re.compile("PATH|PYTHONPATH|LANG|LC_.*|VIRTUAL_ENV|SYSTEMROOT|XLA_FLAGS|JAX_.*|MINILLAMA_.*")


class LearnerEndedError(BaseException):
    """The learner's process has ended or was stopped.

    It is no Exception: a check would take it for the learner's error.

    text: the reason for the learner, with places for `values`.
    """

    def __init__(self, text: str, **values: object) -> None:
        super().__init__(text.format(**values))
        self.text, self.values = text, values


@dataclass(frozen=True)
class ProcessOptions:
    """Limits of a process, and the needs of a check that runs in it."""

    seconds: float
    memory: int
    processes: bool = False
    cpu_devices: int = 0


class LearnerProcess:
    """One process with a learner's code; a context manager that ends it."""

    is_alive = True

    def __init__(self, options: ProcessOptions) -> None:
        self.options = options
        self._exports: list[object] = []

    def __enter__(self) -> "LearnerProcess":
        self._folder = tempfile.TemporaryDirectory(prefix="minillama-course-", ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        given = (theirs_in, theirs_out, self.options.memory, int(self.options.processes), self.options.cpu_devices)
        command = [sys.executable, "-m", "minillama.course.isolation.learner_process", *map(str, given)]
        environment = {name: value for name, value in os.environ.items() if KEPT_VARIABLES.fullmatch(name)}
        if not self.options.cpu_devices:  # no check runs there: the hidden inputs' seed stays here
            environment.pop("MINILLAMA_COURSE_SEED", None)
        home = self._folder.name
        environment |= {
            "HOME": home,
            "TMPDIR": home,
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": f"{home}/jax",
        }
        environment |= {"OPENBLAS_NUM_THREADS": "2", "PYTHONPATH": env.python_path()}
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=(theirs_in, theirs_out), cwd=home, env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._left = self.options.seconds  # the time of the check's own work does not count
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        for end in (self._in, self._out):
            with suppress(OSError):
                os.close(end)
        self._folder.cleanup()

    def request(self, *message: object) -> tuple[object, ...]:
        """Send a request and return the answer; serve the uses of exported objects meanwhile.

        Raises LearnerEndedError.
        """
        self._send(message)
        for _ in range(MOST_CALLS_BACK):
            reply = self._receive()
            if reply[0] not in ("attribute", "method"):
                return reply
            self._send(self._used(*reply))
        raise self._ended("stopped after {count:,} calls of what it was given", count=MOST_CALLS_BACK)

    def export(self, value: object) -> int | None:
        """The number of an object that stays here; None for a value that is sent."""
        if not values.stays(value):
            return None
        for number, known in enumerate(self._exports):
            if known is value:
                return number
        self._exports.append(value)
        return len(self._exports) - 1

    def define(self, parts: list[tuple[str, str]]) -> list[str]:
        """Run the code of an exercise on empty names; return the errors of its cell."""
        self._exports.clear()
        kind, *rest = self.request("define", parts)
        problems = rest[0] if kind == "defined" and isinstance(rest[0], list) else [f"{rest[0]}: {rest[1:2]}"]
        return [str(problem)[:400] for problem in problems]

    def _used(self, kind: object, number: object, name: object, *rest: object) -> tuple[object, ...]:
        """The answer to a use of an exported object."""
        try:
            target = self._exports[int(number)]  # type: ignore[call-overload]
            if kind == "attribute":
                if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
                    raise AttributeError(f"no attribute {str(name)[:40]!r}")
                return ("value", getattr(target, name))
            if name not in values.SPECIAL:
                raise AttributeError(f"no method {str(name)[:40]!r}")
            words, named = rest
            if name == "__call__":
                return ("value", target(*words, **named))  # type: ignore[operator, misc]
            return ("value", getattr(target, str(name))(*words, **named))  # type: ignore[misc]
        except Exception as error:
            return ("error", type(error).__name__, str(error)[:300])

    def _send(self, message: object) -> None:
        data = values.pickled(message, self.export)
        data = struct.pack("<Q", len(data)) + data
        while data:
            self._wait([], [self._out])
            try:
                data = data[os.write(self._out, data[: 1 << 16]) :]
            except OSError:
                raise self._last_words() from None

    def _receive(self) -> tuple[object, ...]:
        (size,) = struct.unpack("<Q", self._exactly(8))
        if size > LARGEST:
            raise self._ended("the result has more than {size} MB", size=LARGEST >> 20)
        data = self._exactly(size)
        try:
            found = values.read(data, lambda number: self._exports[number])
            if isinstance(found, tuple) and found and isinstance(found[0], str):
                return found
        except (Exception, RecursionError):
            pass
        raise self._ended("the code sent something that is no answer")

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            self._wait([self._in], [])
            part = os.read(self._in, min(size, 1 << 20))
            if not part:
                raise self._last_words()
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _wait(self, reads: list[int], writes: list[int]) -> None:
        began = time.monotonic()
        is_ready = self._left > 0 and any(select.select(reads, writes, [], self._left))
        self._left -= time.monotonic() - began
        if not is_ready:
            raise self._ended("stopped after {seconds:g} s", seconds=self.options.seconds)

    def _last_words(self) -> LearnerEndedError:
        """The error of a process that has gone."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        status = self._process.returncode
        if status is None or status >= 0:
            return self._ended("the code ended its process (exit status {status})", status=status)
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return self._ended("the process was ended by {signal}", signal=name)

    def _ended(self, reason: str, **values: object) -> LearnerEndedError:
        self._kill()
        self.is_alive = False
        return LearnerEndedError(reason, **values)

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class FarFunction:
    """A learner's function, for a check to call."""

    def __init__(self, process: LearnerProcess, name: str) -> None:
        self._process = process
        self.__name__ = self.__qualname__ = name

    def __call__(self, *arguments: object) -> object:
        given = values.pickled(arguments, self._process.export)
        kind, *rest = self._process.request("call", self.__name__, given)
        if kind == "returned":
            _change(arguments, rest[1])
            return rest[0]
        if kind == "unsendable":
            return type(str(rest[0]) if str(rest[0]).isidentifier() else "value", (), {})()
        raised(*rest[:5])  # type: ignore[arg-type]
        raise AssertionError


def _change(arguments: tuple[object, ...], changed: object) -> None:
    """Repeat a function's changes to its arguments."""
    if not isinstance(changed, tuple) or len(changed) != len(arguments):
        return
    for mine, theirs in zip(arguments, changed, strict=True):
        with suppress(Exception):
            if isinstance(mine, list):
                mine[:] = theirs
            elif isinstance(mine, dict):
                mine.clear()
                mine.update(theirs)
            elif type(mine).__name__ == "ndarray":
                mine[...] = theirs  # type: ignore[index]
            elif dataclasses.is_dataclass(mine) and isinstance(theirs, dict):
                for name, value in vars(mine).items():
                    if type(theirs.get(name)) is type(value):
                        setattr(mine, name, theirs[name])


def raised(kind: object, text: object, function: object, line: object, file: object) -> None:
    """Raise a learner's error again, from a frame with its function, line and file."""
    import builtins

    name = str(kind)[:60] if str(kind).isidentifier() else "Error"
    known = getattr(builtins, name, None)
    is_error = isinstance(known, type) and issubclass(known, Exception) and not issubclass(known, UnicodeError)
    error = (known if is_error else type(name, (Exception,), {}))(str(text)[:300])  # type: ignore[misc, operator]
    place = max(1, min(int(line) if isinstance(line, int) else 1, 100_000))
    code = compile("\n" * (place - 1) + "raise error", str(file)[:80].replace("\x00", ""), "exec")
    exec(code.replace(co_name=str(function)[:60]), {"error": error})
