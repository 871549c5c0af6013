"""The one thread that runs a scheduler; others send it messages."""

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from minillama.engine.batching.scheduler import Scheduler
from minillama.engine.compile.compile_timer import compile_seconds
from minillama.errors import ResourceError, first_line

Message = Callable[[Scheduler], None]


class EngineClock:
    """Seconds without those that the engine's thread spends on compiling."""

    def __init__(self) -> None:
        self._compiled = 0.0

    def __call__(self) -> float:
        """The time now, in the engine's thread."""
        self._compiled = compile_seconds()
        return time.perf_counter() - self._compiled

    def elsewhere(self) -> float:
        """The time now, in another thread."""
        return time.perf_counter() - self._compiled


class EngineThread:
    """A scheduler and its thread, which waits while there is no work.

    `stop` ends it; afterwards `send` raises ResourceError. make_scheduler: is given a function that wakes the thread
    when a sampler is compiled.
    """

    def __init__(self, make_scheduler: Callable[[Callable[[], None]], Scheduler]) -> None:
        self.scheduler = make_scheduler(self._sampler_compiled)
        self._inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._ended: str | None = None  # the reason
        self._thread = threading.Thread(target=self._run, name="minillama-batch-engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests and other messages in the queue."""
        return len(self.scheduler.waiting) + self._inbox.qsize()

    def send(self, message: Message) -> None:
        """Call a function between two turns; does not wait.

        Raises ResourceError where the thread has ended.
        """
        with self._lock:
            if self._ended is not None:
                raise ResourceError(f"{self._ended}; open another one with batch_engine()")
            self._inbox.put(message)

    def _sampler_compiled(self) -> None:
        with suppress(ResourceError):  # the thread has ended meanwhile
            self.send(lambda scheduler: scheduler.admission.sampler_compiled())

    def stop(self) -> None:
        """End all requests and the thread, after the work that the device has begun."""
        with self._lock:
            if self._ended is None:
                self._ended = "the batch engine is closed"
                self._inbox.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        error = None
        try:
            while self._read_messages():
                self.scheduler.turn()
                self.scheduler.settle()
        except Exception as problem:  # the device side could not be opened again
            error = ResourceError(f"the batch engine has failed ({first_line(problem, with_type=True)})")
            error.__cause__ = problem
        with self._lock:
            self._ended = self._ended or str(error)
        while not self._inbox.empty():
            if (message := self._inbox.get()) is not None:
                message(self.scheduler)
        self.scheduler.stop(error)

    def _read_messages(self) -> bool:
        """Act on the messages; False at the end.

        Waits for one while there is no work.
        """
        while not self._inbox.empty() or not self.scheduler.has_work:
            message = self._inbox.get()
            if message is None:
                return False
            message(self.scheduler)
        return True
