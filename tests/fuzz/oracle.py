"""The oracle of a case: an accepted input, or one clear line, within bounds of time and memory."""

import logging
import random
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from minillama.errors import MinillamaError
from tests.fuzz.case_kind import Finding, Kind, Late
from tests.fuzz.kinds import row

MAX_LINE = 500  # characters of an error
MAX_SHOWN = 3000  # characters of a report of a fault


@dataclass(frozen=True)
class Verdict:
    """The outcome of a case; `problem` is None if it is right."""

    outcome: str
    cpu_seconds: float
    peak: int  # bytes beyond those before the case
    problem: str | None = None
    is_late: bool = False  # whether the problem is one of time


def rng_of(kind: str, number: int) -> random.Random:
    """The random numbers of a case."""
    return random.Random(f"{kind} {number}")


def judge(name: str, kind: Kind, number: int) -> Verdict:
    """Run one case of a kind."""
    limits, given = row(name).limits, kind.make(rng_of(name, number))
    before, started = _reset_peak(), time.process_time()
    outcome, problem, is_late = "", None, False
    try:
        with _strict_warnings():
            outcome = kind.run(given)
    except MinillamaError as error:
        outcome = type(error).__name__
        try:
            check_line(str(error))
        except Finding as finding:
            problem = f"{finding}\n{_trace(error)}"
    except Finding as finding:
        outcome, problem, is_late = "wrong", f"{finding}\n{_trace(finding)}", isinstance(finding, Late)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome, problem = type(error).__name__, _trace(error)
    seconds, peak = time.process_time() - started, max(0, _peak() - before)
    if problem is None and seconds > limits.cpu_seconds:
        problem, is_late = f"{seconds:.2f} s of processor time; at most {limits.cpu_seconds} s", True
    if problem is None and peak > limits.memory:
        problem = f"{peak >> 20} MiB of memory; at most {limits.memory >> 20} MiB"
    return Verdict(outcome, seconds, peak, problem, is_late)


def check_line(line: str, most: int = MAX_LINE) -> None:
    """Check that an error is one printable line."""
    if not line.strip():
        raise Finding("an error without text")
    if len(line) > most:
        raise Finding(f"an error of {len(line)} characters: {line[:200]!r}")
    if not line.isprintable():
        raise Finding(f"an error that is not one printable line: {line!r}")


@contextmanager
def _strict_warnings() -> Iterator[None]:
    """Python's warnings are errors, and a log record must be a printable line."""
    handler = _CheckedRecords()
    logger = logging.getLogger("minillama")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        logger.removeHandler(handler)
    for line in handler.lines:
        check_line(line, 2000)


class _CheckedRecords(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _trace(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN // 3]}\n ...\n{text[-2 * MAX_SHOWN // 3 :]}"


def own_memory() -> int:
    """Bytes of memory of this process alone; 0 where the system does not tell.

    Without the pages of libraries and other files: the system maps and drops those as it likes.
    """
    return _status("RssAnon:")


def _reset_peak() -> int:
    """Let the peak of memory begin here; returns the memory now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    return _status("VmHWM:")


def _status(name: str) -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) << 10
    return 0
