"""One background job at a time, so that a panel stays awake while its work runs and a Stop button can stop it."""

import threading
from collections.abc import Callable
from enum import Enum

from minillama.lab.grading.check import one_line


class State(Enum):
    """What a panel is doing, in the words it shows."""

    IDLE = "idle"
    COMPILING = "compiling"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"


ReportState = Callable[[State, str], None]
Job = Callable[[threading.Event, ReportState], None]


class JobRunner:
    """Runs jobs in a thread, the newest wins: starting one stops the one before and waits for its end elsewhere.

    A job gets an Event that it tests between steps and a function to report its state with. It must not print: the
    text of a thread lands in whichever cell runs at that moment.
    """

    def __init__(self, report: ReportState) -> None:
        self.state = State.IDLE
        self._report = report
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, job: Job) -> None:
        """Stop what runs and run `job` next; returns at once."""
        with self._lock:
            self._stop.set()
            before, stop = self._thread, threading.Event()
            self._stop = stop
            self._thread = threading.Thread(target=self._run, args=(job, stop, before), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ask the running job to end; returns at once."""
        self._stop.set()

    def join(self, seconds: float) -> bool:
        """Wait until nothing runs; False when `seconds` were not enough."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return thread is None or not thread.is_alive()

    def _run(self, job: Job, stop: threading.Event, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        if stop.is_set():
            return
        self._set_state(State.RUNNING, "")
        try:
            job(stop, self._set_state)
        except Exception as error:  # a panel shows any failure as one line, a thread has nobody to raise to
            self._set_state(State.FAILED, one_line(error))
        else:
            self._set_state(State.STOPPED if stop.is_set() else State.IDLE, "")

    def _set_state(self, state: State, message: str) -> None:
        self.state = state
        self._report(state, message)
