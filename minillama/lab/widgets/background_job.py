"""One background job at a time, with a way to stop it.

A panel stays responsive while its job runs."""

import threading
from collections.abc import Callable
from enum import Enum

from minillama.lab.error_text import one_line
from minillama.lab.language import message


class State(Enum):
    """State of a panel; the value is the text on the screen."""

    IDLE = message("idle")
    COMPILING = message("compiling")
    RUNNING = message("running")
    STOPPED = message("stopped")
    FAILED = message("failed")


ReportState = Callable[[State, str], None]
Job = Callable[[threading.Event, ReportState], None]


class JobRunner:
    """Run jobs in a thread; a new job stops the previous one.

    The new job's thread waits for the end of the previous one.

    A job gets an Event, which it must test between steps, and a function that reports its state. A job must not print:
    Jupyter shows a thread's text in the cell that runs at that moment.
    """

    def __init__(self, report: ReportState) -> None:
        self.state = State.IDLE
        self._report = report
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, job: Job) -> None:
        """Stop the running job and run `job` next; return at once."""
        with self._lock:
            self._stop.set()
            before, stop = self._thread, threading.Event()
            self._stop = stop
            self._thread = threading.Thread(target=self._run, args=(job, stop, before), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Signal the running job to stop; return at once."""
        self._stop.set()

    def join(self, seconds: float) -> bool:
        """Wait for the job's end; False after `seconds` without it."""
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
        except (
            Exception
        ) as error:  # a panel shows any failure as one line: no caller can catch an exception of a thread
            self._set_state(State.FAILED, one_line(error))
        else:
            self._set_state(State.STOPPED if stop.is_set() else State.IDLE, "")

    def _set_state(self, state: State, message: str) -> None:
        self.state = state
        self._report(state, message)
