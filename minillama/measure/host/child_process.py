"""Other programs: their results as JSON, and what a whole process takes from start to end."""

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

MINILLAMA = (sys.executable, "-m", "minillama")
LONGEST_COMPLAINT = 200  # characters of another program's last words in an error line

_IN_OWN_PROCESS = """\
import json, sys
from {module} import {name} as function
json.dump(function(*json.load(sys.stdin)), sys.stdout)
"""


@dataclass(frozen=True)
class Life:
    """A process from its start to its end; peak: the most bytes of memory that were resident at a time."""

    first_text: float  # seconds until something but blanks appeared on stdout; until the end where nothing did
    seconds: float
    peak: int


def json_objects(command: Sequence[str], environment: Mapping[str, str] | None = None) -> list[Mapping[str, object]]:
    """Run a program to its end; the objects of the JSON array that it prints.

    environment: all of its variables; None for those of this process.
    Raises ResourceError, in one line, where it cannot be started, fails, or prints something else.
    """
    name = _name(command)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
            env=environment,
        )
    except OSError as error:
        raise ResourceError(f"cannot start {command[0]}: {error.strerror}; name a program") from error
    if done.returncode:
        raise ResourceError(f"{name} failed with status {done.returncode}{_last_words(done.stderr)}")
    try:
        found = json.loads(done.stdout)
    except ValueError as error:
        raise ResourceError(f"{name} printed no JSON; is it a llama-bench that knows -o json?") from error
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ResourceError(f"{name} printed JSON, but no list of results; is it a llama-bench?")
    return found


def json_lines(command: Sequence[str]) -> Iterator[Mapping[str, object]]:
    """Run a program whose stderr is ours, and yield the JSON object of each line as it comes.

    Raises ResourceError where it fails; it has said why on stderr.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise ResourceError(f"{_name(command)} failed with status {process.returncode}; it says above why")


def in_own_process(function: Callable[..., object], *arguments: object) -> object:
    """Call a function of a module in a fresh Python; arguments and result are plain values."""
    program = _IN_OWN_PROCESS.format(module=function.__module__, name=function.__name__)
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(arguments), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ResourceError(f"{function.__name__} failed{_last_words(done.stderr.encode())}")
    return json.loads(done.stdout)


def whole_process(command: Sequence[str]) -> Life:
    """Run a program to its end, and time and weigh it; raises ResourceError where it fails.

    It is started from a small process of its own: Linux counts the memory of the process that starts another as the
    other's, and this one may be large.
    """
    status, complaint, *life = in_own_process(run_and_weigh, list(command))  # type: ignore[misc]
    if status:
        raise ResourceError(f"{_name(command)} failed with status {status}{complaint}")
    return Life(*life)


def run_and_weigh(command: list[str]) -> tuple[int, str, float, float, int]:
    """Exit status, last words if it failed, seconds until the first text on stdout, seconds, and peak memory in bytes.

    POSIX only.
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
        complaint = _last_words(errors.read()) if process.returncode else ""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = usage.ru_maxrss * unit
    return process.returncode, complaint, seconds if first_text is None else first_text, seconds, peak


def _name(command: Sequence[str]) -> str:
    return "minillama" if tuple(command[:3]) == MINILLAMA else Path(command[0]).name


def _last_words(errors: bytes) -> str:
    """The last line of a program's stderr, as the end of an error line."""
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1][:LONGEST_COMPLAINT]}" if lines else ""
