"""Admission: which waiting request gets a slot next."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from minillama.engine.batching.batch_task import BatchTask
from minillama.engine.batching.executor import Executor
from minillama.engine.batching.policy.slot_choice import choose_slot
from minillama.engine.batching.slots import Slot


class Admission:
    """The queue of requests: first come, first served.

    A request that waits for a certain slot lets others pass, but not into that slot. One whose sampler is rare lets
    others pass until the sampler is compiled. similarity: see `choose_slot`. fail: ends a request that cannot be
    served. wake: called in another thread when a sampler is compiled.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        similarity: float,
        fail: Callable[[BatchTask, Exception], None],
        wake: Callable[[], None],
    ) -> None:
        self.waiting: deque[BatchTask] = deque()
        self._slots, self._similarity, self._fail, self._wake = slots, similarity, fail, wake
        self._held: set[BatchTask] = set()  # while their samplers are compiled, and no text runs

    @property
    def has_work(self) -> bool:
        """Whether a request waits for anything but its sampler."""
        return any(task not in self._held or task.stream.is_cancelled for task in self.waiting)

    def sampler_compiled(self) -> None:
        """A compilation has ended; look at the requests again that waited for it."""
        self._held.clear()

    def drop_cancelled(self) -> list[BatchTask]:
        """Take the cancelled requests out of the queue."""
        dropped = [task for task in self.waiting if task.stream.is_cancelled]
        for task in dropped:
            self._remove(task)
        return dropped

    def admitted(self, executor: Executor) -> Iterator[tuple[Slot, BatchTask]]:
        """Requests that get a slot now; the caller begins each before the next one."""
        kept: set[int] = set()
        for task in list(self.waiting):
            idle = [slot for slot in self._slots if slot.task is None and slot.number not in kept]
            slot = choose_slot(idle, task, self._similarity, rewinds=executor.rewinds)
            if slot is None and task.options.slot is None:
                return
            if slot is not None and self._is_ready(executor, task):
                self._remove(task)
                yield slot, task
            elif task.options.slot is not None:
                kept.add(task.options.slot)

    def _is_ready(self, executor: Executor, task: BatchTask) -> bool:
        """Whether the sampler of a request is compiled."""
        busy = [slot.number for slot in self._slots if slot.task is not None]
        try:
            if executor.is_ready(task.chain, busy, self._wake):
                return True
            if not busy:  # a text that ends may make room for the sampler
                self._held.add(task)
        except Exception as error:
            self._remove(task)
            self._fail(task, error)
            task.stream.notify()
        return False

    def _remove(self, task: BatchTask) -> None:
        self.waiting.remove(task)
        self._held.discard(task)
