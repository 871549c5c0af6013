"""Run ranges of cases in worker processes, and find the case that ends or stops one.

A machine may pause. So a case that took too long runs again, alone in a new process, and is a finding if it is late
again.
"""

import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.fuzz import ROOT
from tests.fuzz.kinds import row
from tests.fuzz.leaks import MIN_REPORTS, WARM_UP, growth, memory_slope
from tests.fuzz.run_state import KindState, RunState
from tests.fuzz.worker import CASE, NO_CASE

START_SECONDS = 300  # of a worker process
MAX_CASES_OF_A_PROCESS = 20_000  # then a new one takes over

Range = tuple[int, int]


class Worker:
    """One worker process and its folder."""

    def __init__(self, kind: str) -> None:
        self.limits, self.cases = row(kind).limits, 0
        self.is_late = False  # whether it was ended because a case took too long
        self.reports: list[tuple[int, dict[str, int]]] = []
        self._place = tempfile.TemporaryDirectory(prefix=f"fuzz-{kind}-")
        self.folder = Path(self._place.name)
        self._case, self._errors = self.folder / "case", self.folder / "errors"
        self._case.write_bytes(CASE.pack(NO_CASE))
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-m", "tests.fuzz.worker", kind, str(self.folder)]
        pipe = subprocess.PIPE
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, cwd=ROOT, env=environment)
        if self._answer(START_SECONDS, watch=False) is None:
            raise RuntimeError(f"the worker of {kind} does not start:\n{self.last_words()}")

    def run(self, first: int, last: int) -> bytes | None:
        """The report of a range; None if the process has ended or was stopped."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(b"%d %d\n" % (first, last))
            self._process.stdin.flush()
        return self._answer(self.limits.hang_seconds, watch=True)

    @property
    def current(self) -> int | None:
        """The case that it runs."""
        number = CASE.unpack(self._case.read_bytes())[0]
        return None if number == NO_CASE else number

    def how_it_ended(self) -> str:
        """Why there was no report."""
        status = self._process.wait()
        if self.is_late:
            return f"no end after {self.limits.hang_seconds:g} s"
        name = signal.Signals(-status).name if status < 0 else f"status {status}"
        return f"the process ended with {name}"

    def last_words(self) -> str:
        """The end of its stderr."""
        return self._errors.read_bytes()[-3000:].decode("utf-8", "replace")

    def close(self) -> None:
        """End the process and delete its folder."""
        self._process.kill()
        self._process.communicate()
        self._place.cleanup()

    def _stop(self, case: int | None) -> bool:
        """End the process, unless it has gone on to another case meanwhile."""
        self._process.send_signal(signal.SIGUSR1)  # its stack goes to stderr
        time.sleep(0.3)
        self._process.send_signal(signal.SIGSTOP)
        if self.current != case:
            self._process.send_signal(signal.SIGCONT)
            return False
        self._process.kill()
        self.is_late = True
        return True

    def _answer(self, seconds: float, *, watch: bool) -> bytes | None:
        """The next line; None after the end of the process, or of the time for one case."""
        assert self._process.stdout is not None
        case, waited, last = self.current, 0.0, time.monotonic()
        while not select.select([self._process.stdout], [], [], 0.5)[0]:
            if watch and self.current != case:
                case, waited = self.current, 0.0
            now = time.monotonic()
            waited, last = waited + min(now - last, 1.0), now  # a pause of both processes does not count
            if waited > seconds and self._stop(case):
                return None
        return self._process.stdout.readline() or None


class Campaign:
    """Cases of one kind on several worker processes."""

    def __init__(self, kind: str, state: RunState, advance: Callable[[int], object]) -> None:
        self.kind, self._state, self._advance = kind, state, advance
        self.results: KindState = state.of(kind)
        self._lock = threading.Lock()

    def run(self, total: int, jobs: int, seconds: float = float("inf")) -> None:
        """Run the cases below `total` that are not done, for at most some seconds."""
        waiting: queue.SimpleQueue[Range] = queue.SimpleQueue()
        for part in self.results.missing(total, row(self.kind).batch):
            waiting.put(part)
        end = time.monotonic() + seconds
        failed: list[BaseException] = []

        def serve() -> None:
            try:
                self._serve(waiting, end)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=serve, daemon=True) for _ in range(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.5)
        if failed:
            raise failed[0]

    def _serve(self, waiting: "queue.SimpleQueue[Range]", end: float) -> None:
        worker: Worker | None = None
        while time.monotonic() < end:
            try:
                first, last = waiting.get_nowait()
            except queue.Empty:
                break
            while first < last and time.monotonic() < end:
                if worker is None:
                    worker = Worker(self.kind)
                report = worker.run(first, last)
                if report is None:
                    first = self._blame(worker, first)
                else:
                    self._record(worker, first, last, report)
                    first = last
                if report is None or worker.cases >= MAX_CASES_OF_A_PROCESS:
                    worker.close()
                    worker = None
        if worker is not None:
            worker.close()

    def _record(self, worker: Worker, first: int, last: int, report: bytes) -> None:
        found = json.loads(report)
        late = {number: self._again(number) for number, problem, is_late in found["findings"] if is_late}
        worker.cases += last - first
        worker.reports.append((worker.cases, found["used"]))
        with self._lock:
            results = self.results
            results.add_range(first, last)
            results.add_outcomes(found["outcomes"])
            for number, problem, _ in found["findings"]:
                self._file(number, problem, late.get(number, problem))
            results.slowest = max(tuple(results.slowest), tuple(found["slowest"]))
            results.largest = max(tuple(results.largest), tuple(found["largest"]))
            if (problem := growth(worker.reports, worker.limits.growth)) is not None:
                results.findings[f"{first}-{last}"] = problem
                worker.cases = MAX_CASES_OF_A_PROCESS  # a new process
            if len(worker.reports) >= WARM_UP + MIN_REPORTS:
                slope = memory_slope(worker.reports[WARM_UP:])[0]
                results.bytes_per_case = max(results.bytes_per_case, slope)
            self._state.save()
            self._advance(last - first)

    def _blame(self, worker: Worker, first: int) -> int:
        """Record the case that ended the process; the cases after it remain."""
        case = worker.current
        problem = f"{worker.how_it_ended()}\n{worker.last_words()}"
        again = self._again(case) if case is not None and worker.is_late else problem
        with self._lock:
            if case is None:
                self.results.findings[f"after {first}"] = problem
                raise RuntimeError(problem)
            self._file(case, problem, again)
            self.results.add_range(first, case + 1)  # their counts are lost with the process
            self.results.add_outcomes({"lost counts": case - first, "ended the process": 1})
            self._state.save()
            self._advance(case + 1 - first)
        return case + 1

    def _again(self, number: int) -> str | None:
        """Run a late case alone in a new process; its problem there, None if it is in time."""
        worker = Worker(self.kind)
        try:
            report = worker.run(number, number + 1)
            if report is None:
                return f"{worker.how_it_ended()}\n{worker.last_words()}"
            return next((again for _, again, _ in json.loads(report)["findings"]), None)
        finally:
            worker.close()

    def _file(self, number: int, problem: str, again: str | None) -> None:
        """Note a problem of a case: a finding, unless it did not come again."""
        if again is None:
            self.results.in_time_alone[str(number)] = problem
        else:
            self.results.findings[str(number)] = again
