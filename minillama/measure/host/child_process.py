"""Child processes: JSON from programs, calls in a fresh Python, time and peak memory."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from minillama.errors import ResourceError

MAX_ERROR_CHARS = 200  # of a program's last line of stderr, in an error line

_CHILD_MAIN = (sys.executable, "-m", "minillama.measure.host.child_main")


@dataclass(frozen=True)
class ProcessStats:
    """Wall time and peak resident memory of a process."""

    first_text: float  # seconds until the first character other than white space on stdout; `seconds` if there is none
    seconds: float
    peak: int  # bytes


def run_for_json(command: Sequence[str], environment: Mapping[str, str] | None = None) -> list[Mapping[str, object]]:
    """Run a program that prints a JSON array of objects, and return the objects.

    environment: all environment variables of the program; None for those of this process.
    Raises ResourceError if the program does not start, fails, or prints something else.
    """
    name = _name(command)
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False, env=environment)
    except OSError as error:
        raise ResourceError(f"cannot start {command[0]}: {error.strerror}; name a program") from error
    if done.returncode:
        raise ResourceError(f"{name} failed with status {done.returncode}{_last_error_line(done.stderr)}")
    try:
        found = json.loads(done.stdout)
    except ValueError as error:
        raise ResourceError(f"{name} printed no JSON; is it a recent llama-bench?") from error
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ResourceError(f"{name} printed JSON, but no list of results; is it a llama-bench?")
    return found


def stream_json_lines(command: Sequence[str]) -> Iterator[Mapping[str, object]]:
    """Run a program that prints JSON lines, and yield each object on arrival.

    The program's stderr is that of this process. Raises ResourceError if the program fails.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise ResourceError(f"{_name(command)} failed with status {process.returncode}; see the messages above")


def call_in_child(function: Callable[..., object], *arguments: object) -> object:
    """Call a module-level function in a fresh Python process; arguments and result are JSON values.

    Raises ResourceError, with the last line of the traceback, if the call fails.
    """
    call = {"module": function.__module__, "function": function.__name__, "arguments": arguments}
    done = subprocess.run(_CHILD_MAIN, input=json.dumps(call), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ResourceError(f"{function.__name__} failed{_last_error_line(done.stderr.encode())}")
    return json.loads(done.stdout)


def measure_process(command: Sequence[str]) -> ProcessStats:
    """Run a program and measure its wall time and peak memory.

    Raises ResourceError if it fails.
    A small child process starts the program: on Linux the peak memory of a process includes that of the process that
    started it, and the current process may be large.
    """
    status, error_line, *stats = call_in_child(run_and_measure, list(command))  # type: ignore[misc]
    if status:
        raise ResourceError(f"{_name(command)} failed with status {status}{error_line}")
    return ProcessStats(*stats)


def run_and_measure(command: list[str]) -> tuple[int, str, float, float, int]:
    """Run a program: exit status, error line, and the fields of `ProcessStats`.

    The error line is empty if the program succeeded. POSIX only.
    """
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        with process.stdout as output:
            first_text = None
            while read := os.read(output.fileno(), 1 << 16):
                if first_text is None and read.strip():
                    first_text = time.perf_counter() - started
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        error_line = _last_error_line(errors.read()) if process.returncode else ""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = usage.ru_maxrss * unit
    return process.returncode, error_line, seconds if first_text is None else first_text, seconds, peak


def _name(command: Sequence[str]) -> str:
    """Name of a program for messages; of `python -m NAME` the module's."""
    return command[2] if tuple(command[:2]) == (sys.executable, "-m") else Path(command[0]).name


def _last_error_line(errors: bytes) -> str:
    """The last line of a program's stderr, as the end of an error line."""
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1][:MAX_ERROR_CHARS]}" if lines else ""
