"""Steps in child processes, within a limit of seconds for each and for all.

A compilation or a call of a device cannot be interrupted in its own process. So the process that takes too long ends,
and another one goes on with the next step. A process that crashes costs one step.
"""

import json
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from types import TracebackType

from minillama.errors import ResourceError
from minillama.measure.device.report_steps import Step

Event = Mapping[str, object]
Start = Callable[[Sequence[Step]], "Child"]

START_SECONDS = 120.0  # of a process, until it has a device
END_SECONDS = 10.0  # of a process after its last line
LEAST_SECONDS = 5.0  # that a step is begun for
EVENT = '{"event"'


class Child:
    """A process that prints events as lines of JSON; a context manager that ends it.

    end_reason: afterwards, the exit status and the last line of stderr.
    """

    end_reason = ""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lines_ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(subprocess.TimeoutExpired):  # of a process that has written its last line
            self._process.wait(END_SECONDS if self._lines_ended.is_set() else 0)
        self._process.kill()
        status = self._process.wait()
        self._thread.join()
        with self._errors as file:
            file.seek(0)
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        self.end_reason = f"the process ended with status {status}" + (f": {lines[-1][:200]}" if lines else "")

    def next(self, seconds: float) -> Event | None:
        """The next event, None at the end.

        Raises TimeoutError where there is none within some seconds.
        """
        try:
            line = self._lines.get(timeout=max(0.0, seconds))
        except queue.Empty:
            raise TimeoutError from None
        return None if line is None else json.loads(line)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.startswith(EVENT) and line.endswith("\n"):  # and not what a library prints
                    self._lines.put(line)
        self._lines_ended.set()
        self._lines.put(None)


def limited_steps(
    steps: Sequence[Step], start: Start, seconds: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[Event]:
    """Run steps; yields the events of all processes.

    Each step that does not end gives one "refused".

    start: starts a process that runs steps. seconds: for all of them, from now.
    Raises ResourceError where the first process does not find its device.
    """
    end, waiting = clock() + seconds, list(steps)
    while waiting and end - clock() >= LEAST_SECONDS:
        group = list(next(groupby(waiting, lambda step: step.by_xla))[1])
        with start(group) as child:
            over, late, has_begun = yield from _one_process(child, group, end, clock)
        if over < len(group):
            if not has_begun and late is None and len(waiting) == len(steps):
                raise ResourceError(f"the device report cannot start: {child.end_reason}")
            yield _refused(group[over], child.end_reason if late is None else f"stopped after {late:.0f} s")
        waiting = waiting[over + (over < len(group)) :]
    for step in waiting:
        yield _refused(step, f"not run: the limit of {seconds:g} s")


def _one_process(
    child: Child, group: Sequence[Step], end: float, clock: Callable[[], float]
) -> Generator[Event, None, tuple[int, float | None, bool]]:
    """Events of one process, until it ends or a step takes too long.

    The number of steps that are over, the seconds of one that takes too long, and whether any has begun.
    """
    over, has_begun, since = 0, False, clock()
    until = min(end, since + START_SECONDS)
    while over < len(group):
        try:
            event = child.next(until - clock())
        except TimeoutError:
            return over, clock() - since, has_begun
        if event is None:
            return over, None, has_begun
        if event["event"] == "begin":
            has_begun, since = True, clock()
            until = min(end, since + group[over].seconds)
        over += event["event"] == "end"
        yield event
    return over, None, True


def _refused(step: Step, reason: str) -> Event:
    return {"event": "refused", "step": step.name, "reason": reason}
