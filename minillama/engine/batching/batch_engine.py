"""A batch engine: many requests at once, computed by one thread."""

import itertools
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import TypeVar, Unpack

import numpy as np

from minillama.engine.backends.base import Backend
from minillama.engine.batching.batch_errors import ContextSizeError, QueueFullError
from minillama.engine.batching.batch_stream import BatchStream
from minillama.engine.batching.batch_task import UNCUT, BatchTask, SubmitOptions
from minillama.engine.batching.counters import Metrics, SlotInfo, TurnRecord
from minillama.engine.batching.device.saved_slot import SavedSlot
from minillama.engine.batching.engine_thread import EngineClock, EngineThread
from minillama.engine.batching.executor import Executor
from minillama.engine.batching.policy.slot_actions import erase_slot, restore_slot, save_slot, saved_like
from minillama.engine.batching.policy.slot_drafter import SlotDrafter
from minillama.engine.batching.scheduler import Rules, Scheduler
from minillama.engine.generate_options import GenerateOptions
from minillama.engine.generation.text_request import RequestReader, TextOrIds
from minillama.errors import OptionError, quoted
from minillama.option_values import as_int
from minillama.sampling import resolve_seed
from minillama.tokenizer.chat.answer_parts import Splitter

Result = TypeVar("Result")


class BatchEngine:
    """Continuous batching on slots of one model. Made by `LLM.batch_engine()`; a context manager.

    Methods may be called from any thread. A text does not depend on the requests that run with it.
    """

    def __init__(
        self,
        backend: Backend,
        requests: RequestReader,
        make_executor: Callable[[], Executor],
        rules: Rules,
        max_waiting: int,
        check_file: Callable[[], None],
        drafter: SlotDrafter | None = None,
    ) -> None:
        self._backend, self._requests, self._rules = backend, requests, rules
        self._max_waiting, self._check_file = max_waiting, check_file
        self._clock = EngineClock()
        self._thread = EngineThread(lambda wake: Scheduler(make_executor, rules, self._clock, drafter, wake))
        self._scheduler = self._thread.scheduler
        self._numbers = itertools.count()
        self._close = weakref.finalize(self, self._thread.stop)  # also at the end of the process

    def __enter__(self) -> "BatchEngine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel all requests and end the thread.

        Waits for the work that the device has begun.
        """
        self._close()

    @property
    def slots(self) -> int:
        """Number of slots: texts that are generated at once."""
        return self._rules.slots

    @property
    def ctx_size(self) -> int:
        """Tokens of context of each slot."""
        return self._scheduler.limit.capacity

    def submit(
        self,
        prompt: TextOrIds,
        *,
        cache_prompt: bool = True,
        slot: int | None = None,
        splitter: Splitter = UNCUT,
        n_probs: int = 0,
        post_sampling_probs: bool = False,
        time_limit: float | None = None,
        on_change: Callable[[BatchStream], None] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> BatchStream:
        """Put a request into the queue; its text comes through the stream. Does not wait.

        prompt, options: as of `LLM.stream`; `lookup` has no effect here. n=0 reads the prompt only.
        cache_prompt: go on from the beginning that a slot holds. slot: wait for this one, and go on
        from its own text only.
        n_probs: likeliest tokens of each position, in `Piece.top`; with post_sampling_probs after the sampler chain.
        time_limit: seconds from the first token on, after which the text ends.
        on_change: called in the engine's thread when the stream has news; it must not wait.
        Raises OptionError for impossible options, ContextSizeError for a prompt that does not fit, and QueueFullError.
        """
        text = self._requests.read(prompt, options)
        if len(text.ids) >= self.ctx_size:
            raise ContextSizeError(len(text.ids), self.ctx_size)
        if slot is not None and ((number := as_int(slot)) is None or not 0 <= number < self.slots):
            raise OptionError(f"slot is {quoted(slot)}; expected 0 to {self.slots - 1}, or None for any")
        if (waiting := self._thread.waiting) >= self._max_waiting:
            raise QueueFullError(waiting, self._max_waiting)
        self._check_file()
        chosen = SubmitOptions(cache_prompt, slot, splitter, n_probs, post_sampling_probs, time_limit, on_change)
        sampling = replace(text.sampling, n_probs=n_probs, post_sampling_probs=post_sampling_probs)
        chain = self._backend.chain(sampling, is_shared=True)
        seed = self._backend.broadcast(resolve_seed(text.sampling.seed))
        stream = BatchStream(next(self._numbers), len(text.ids), seed, self._wake, on_change)
        task = BatchTask(stream, text, chosen, chain, self._requests.tokenizer, self._clock.elsewhere())
        self._thread.send(lambda scheduler: scheduler.add(task))
        return stream

    def call(self, function: Callable[[], Result]) -> Result:
        """The result of a function that uses the model between two steps.

        It is called in the engine's thread, so that it must be short. Waits for it.
        """
        return self._between_turns(lambda scheduler: function())

    def warm_up(self) -> None:
        """Compile all programs that default options need, one after another; requests run in between."""
        programs = self._between_turns(Scheduler.warm_ups)
        while self._between_turns(lambda scheduler: next(programs, None)) is not None:
            pass

    def slots_info(self) -> list[SlotInfo]:
        """The state of every slot, between two turns."""
        return self._between_turns(Scheduler.slots_info)

    def save_slot(self, number: int) -> tuple[tuple[int, ...], SavedSlot]:
        """The tokens of a slot and a copy of its cache; raises SlotBusyError."""
        return self._between_turns(lambda scheduler: save_slot(scheduler.slots[number], scheduler.executor))

    def slot_like(self, count: int) -> SavedSlot:
        """A copy in the shapes that a text of `count` tokens has."""
        return self._between_turns(lambda scheduler: saved_like(scheduler.slots[0], scheduler.executor, count))

    def restore_slot(self, number: int, tokens: Sequence[int], arrays: Sequence[np.ndarray]) -> None:
        """Put a saved text into a slot; raises SlotBusyError, FormatError for other shapes."""
        self._between_turns(lambda scheduler: restore_slot(scheduler.slots[number], scheduler.executor, tokens, arrays))

    def erase_slot(self, number: int) -> int:
        """Drop the text of a slot, and return the number of its tokens; raises SlotBusyError."""
        return self._between_turns(lambda scheduler: erase_slot(scheduler.slots[number]))

    def metrics(self) -> Metrics:
        """Counters since the engine was opened, and its state now."""

        def read(scheduler: Scheduler) -> Metrics:
            processing = sum(slot.task is not None for slot in scheduler.slots)
            cache = scheduler.prefix_cache
            counters, waiting = replace(scheduler.counters), len(scheduler.waiting)
            return Metrics(counters, self.slots, processing, waiting, len(cache), cache.nbytes)

        return self._between_turns(read)

    def schedule(self) -> list[TurnRecord]:
        """The last turns, the oldest first: who was in each step, chunks, milliseconds, the queue."""
        return self._between_turns(lambda scheduler: list(scheduler.log))

    def _wake(self, stream: BatchStream) -> None:
        """Let the thread see that a stream is cancelled."""
        if self._close.alive:
            self._thread.send(lambda scheduler: None)

    def _between_turns(self, read: Callable[[Scheduler], Result]) -> Result:
        """The result of a function that the engine's thread calls; waits for it."""
        future: Future[Result] = Future()

        def answer(scheduler: Scheduler) -> None:
            try:
                future.set_result(read(scheduler))
            except Exception as error:
                future.set_exception(error)

        self._thread.send(answer)
        return future.result()
