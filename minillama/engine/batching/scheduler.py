"""The scheduler of a batch engine: which request gets a slot, which tokens run next.

Read `Scheduler.turn` first. Nothing here knows the device: `Executor` is the interface.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

from minillama.engine.batching.batch_task import BatchTask
from minillama.engine.batching.counters import ChunkRecord, Counters, SlotInfo, TurnRecord
from minillama.engine.batching.executor import Executor, SampledToken
from minillama.engine.batching.policy.admission import Admission
from minillama.engine.batching.policy.chunk_rule import ChunkRule
from minillama.engine.batching.policy.context_limit import ContextLimit
from minillama.engine.batching.policy.prefix_reuse import PrefixReuse
from minillama.engine.batching.policy.slot_choice import oldest_prompt
from minillama.engine.batching.policy.slot_drafter import SlotDrafter
from minillama.engine.batching.policy.step_plan import plan_steps
from minillama.engine.batching.policy.turn_log import TurnLog
from minillama.engine.batching.prefix_cache import PrefixCache
from minillama.engine.batching.slots import ChunkUnderWay, DrawUnderWay, Slot, grammar_masks
from minillama.engine.result import Reason
from minillama.errors import ResourceError, first_line

LONG_TURN = 0.02  # seconds; the host's part of a turn is little of that


@dataclass(frozen=True)
class Rules:
    """The limits of a scheduler."""

    slots: int
    ubatch_size: int  # most tokens of a chunk
    similarity: float = 0.1  # llama.cpp's --slot-prompt-similarity
    cache_bytes: int = 0  # of the prefix cache


class Scheduler:
    """Requests in a queue, requests in slots, and the work of the device.

    One thread calls it. `make_executor` opens the device side, again after a failed call. wake: called in another
    thread where a turn has something to do again; `admission.sampler_compiled` must follow in the first one.
    """

    def __init__(
        self,
        make_executor: Callable[[], Executor],
        rules: Rules,
        clock: Callable[[], float],
        drafter: SlotDrafter | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.slots = [Slot(number) for number in range(rules.slots)]
        self.counters = Counters()
        self.executor = make_executor()
        self._make_executor, self._rules, self._clock = make_executor, rules, clock
        self._drafter = drafter
        self.admission = Admission(self.slots, rules.similarity, self._fail, wake)
        self._chunk_rule = ChunkRule(rules.ubatch_size)
        self.prefix_cache = PrefixCache(rules.cache_bytes)
        self._prefixes = PrefixReuse(self.prefix_cache, self.counters)
        self._under_way: list[ChunkUnderWay | DrawUnderWay] = []
        self._log = TurnLog(clock)
        self.limit = ContextLimit(self.executor.capacity, self.executor.rewinds, self._log)
        self._unstepped = 0  # tokens of chunks since the last step

    @property
    def has_work(self) -> bool:
        """Whether a turn would do anything."""
        return self.admission.has_work or bool(self._under_way) or any(slot.task for slot in self.slots)

    @property
    def waiting(self) -> Collection[BatchTask]:
        """The requests in the queue, the oldest first."""
        return self.admission.waiting

    @property
    def log(self) -> Sequence[TurnRecord]:
        """The last turns, the oldest first."""
        return self._log.turns

    def warm_ups(self) -> Iterator[str]:
        """Compile one program after another; yields their names."""
        if self._drafter is None:
            return self.executor.warm_ups()
        return chain(self._drafter.warm_ups(), self.executor.warm_ups(self._drafter.pass_sizes()))

    def add(self, task: BatchTask) -> None:
        """Put a request at the end of the queue."""
        self.counters.submitted += 1
        self.admission.waiting.append(task)

    def settle(self) -> None:
        """Wait for the work under way before the next turn, where turns are long.

        Requests that come meanwhile are in the next step then, and not in the one after it. Short turns are dispatched
        ahead, as the device would wait for the host. A failure shows when the next turn receives the work.
        """
        if not self._under_way:
            return
        self._log.settle()
        if self._log.turns[-1].seconds > LONG_TURN:
            with suppress(Exception):
                for work in self._under_way:
                    self.executor.wait(work.handle)

    def turn(self) -> None:
        """Dispatch one step of all texts and at most one chunk of a prompt.

        Between the chunks of short prompts is no step. Meanwhile the tokens of the last turn become text. A failed
        call of the device fails the requests in slots, and the slots start anew.
        """
        self._log.begin()
        tasks = [slot.task for slot in self.slots if slot.task is not None]
        try:
            self._drop_cancelled()
            for slot, task in self.admission.admitted(self.executor):
                self._begin(slot, task)
            before, self._under_way = self._under_way, []
            if self._needs_last_tokens:
                while before:
                    self._receive(before.pop(0))
            if not (self._unstepped and self._is_burst()):
                self._step()
            self._prefill()
            for work in before:
                self._receive(work)
        except Exception as error:
            self._start_anew(error)
        self._record()
        for task in {*tasks, *(slot.task for slot in self.slots if slot.task is not None)}:
            task.stream.notify()

    @property
    def _needs_last_tokens(self) -> bool:
        """Whether a grammar or a draft goes on from the text of the last tokens."""
        drafter = self._drafter
        return bool(grammar_masks(self.slots)) or (drafter is not None and any(map(drafter.wants, self.slots)))

    def stop(self, error: Exception | None = None) -> None:
        """End all requests: as interrupted ones, or with an error."""
        tasks = [*self.waiting, *(slot.task for slot in self.slots if slot.task is not None)]
        self.admission.waiting.clear()
        for slot in self.slots:
            slot.clear()
        self._under_way = []
        for task in tasks:
            if error is None:
                task.end(Reason.INTERRUPTED, self._clock())
            else:
                task.fail(error)
            task.stream.notify()

    def slots_info(self) -> list[SlotInfo]:
        """The state of every slot."""
        return [slot.info(self.limit.capacity, is_drafted=self._drafter is not None) for slot in self.slots]

    # ---- requests come and go ----

    def _drop_cancelled(self) -> None:
        for task in self.admission.drop_cancelled():
            self._end(task, Reason.INTERRUPTED)
            task.stream.notify()
        for slot in self.slots:
            if slot.task is not None and slot.task.stream.is_cancelled:
                self._end(slot.task, Reason.INTERRUPTED)
                self._release(slot)

    def _begin(self, slot: Slot, task: BatchTask) -> None:
        slot.task = task  # first of all, so that a failed call finds it
        cached = self._prefixes.fill(self.executor, self.slots, slot, task)
        self.counters.cached_tokens += cached
        slot.begin(task, cached, is_rare=self.executor.is_rare(task.chain))
        self.executor.join(slot.number, task.chain, task.seed, task.ids)
        self._save_snapshot(slot, task)
        task.begin(slot.number, cached, self._clock())

    def _release(self, slot: Slot) -> None:
        slot.release(self._clock(), rewinds=self.executor.rewinds)

    def _end(self, task: BatchTask, reason: Reason) -> None:
        """End a request that no token ends."""
        task.end(reason, self._clock())
        self._count_end(task, reason)

    def _count_end(self, task: BatchTask, reason: Reason) -> None:
        self.counters.count_end(task.prompt_seconds, task.generated_seconds, is_cancelled=reason is Reason.INTERRUPTED)

    # ---- work for the device ----

    def _step(self) -> None:
        """Run the latest token of every text that goes on, and its draft."""
        rows = [slot for slot in self.slots if slot.is_generating and self.limit.goes_on(slot)]
        self._unstepped = 0
        for step in plan_steps(rows, self._drafter):
            draw = step.dispatch(self.executor, self.counters)
            for slot in step.rows:
                slot.run_latest()
            owners = tuple((slot, slot.task, self.limit.is_full(slot)) for slot in step.rows if slot.task)
            self._under_way.append(DrawUnderWay(draw, owners))
        self._log.add(rows=tuple((slot.number, slot.task.number) for slot in rows if slot.task))

    def _is_burst(self) -> bool:
        """Whether the oldest unread prompt is read whole, without a step before it."""
        oldest = oldest_prompt(self.slots)
        if oldest is None:
            return False
        generating = any(slot.drawn for slot in self.slots)
        return self._chunk_rule.is_burst(self._unstepped, len(oldest[0].prompt), generating=generating)

    def _prefill(self) -> None:
        """Run a chunk of the oldest unread prompt."""
        oldest = oldest_prompt(self.slots)
        if oldest is None:
            return
        slot, task = oldest
        start, generating = len(slot.text), bool(self._log.turn.rows)
        rule = self._chunk_rule
        tokens = slot.next_chunk(rule.burst_size() if self._is_burst() else rule.size(generating=generating))
        chunk = self.executor.prefill(slot.number, start, tokens)
        self._unstepped += len(tokens)
        self._under_way.append(ChunkUnderWay(task, chunk, len(tokens) if slot.drawn == 0 else 0))
        self.counters.chunks += 1
        self.counters.prompt_tokens += len(tokens)
        self._log.add(chunk=ChunkRecord(slot.number, task.number, start, len(tokens)))
        self._save_snapshot(slot, task)

    def _save_snapshot(self, slot: Slot, task: BatchTask) -> None:
        """Save a slot whose states cannot go back, before the last token of a prompt."""
        is_there = not slot.prompt and slot.drawn == 0
        if is_there and not self.executor.rewinds and task.options.cache_prompt:
            self._prefixes.save(self.executor, slot)

    # ---- the device's answers ----

    def _receive(self, work: ChunkUnderWay | DrawUnderWay) -> None:
        if isinstance(work, ChunkUnderWay):
            self._receive_chunk(work)
            return
        for (slot, task, is_full), tokens in zip(work.rows, self.executor.read_all(work.handle), strict=True):
            for place, sampled in enumerate(tokens):
                if slot.task is not task:  # cancelled, or ended by its last token, while this one was under way
                    break
                if place > 0:  # the token before was a right guess, which the pass has run
                    slot.run_latest()
                    is_full = self.limit.is_full(slot)
                    task.stream.accepted_tokens += 1
                    self.counters.accepted_drafts += 1
                self._receive_token(slot, task, sampled, is_full=is_full)

    def _receive_token(self, slot: Slot, task: BatchTask, sampled: SampledToken, *, is_full: bool) -> None:
        if task.request.n == 0:  # only its prompt was wanted
            task.stream.progress(1)
            self._end(task, Reason.LIMIT)
            self._release(slot)
            return
        slot.learn(sampled.token)
        self.counters.generated_tokens += 1
        self.counters.longest_text = max(self.counters.longest_text, len(slot.text) + 1)
        try:
            reason = task.accept(sampled, self._clock(), is_full=is_full)
        except Exception as error:  # one text that has no next token; the others go on
            self._fail(task, error)
            slot.clear()
            return
        if reason is not None:
            self._count_end(task, reason)
            self._release(slot)

    def _receive_chunk(self, work: ChunkUnderWay) -> None:
        self.executor.wait(work.handle)
        if any(slot.task is work.task for slot in self.slots):
            work.task.stream.progress(work.tokens)

    def _fail(self, task: BatchTask, error: Exception) -> None:
        self.counters.failed += 1
        task.fail(error)

    def _start_anew(self, error: Exception) -> None:
        """Fail the requests in slots, and open new slots."""
        failure = ResourceError(f"the step failed ({first_line(error, with_type=True)}); send the request again")
        failure.__cause__ = error
        self._under_way = []
        for slot in self.slots:
            task = slot.task
            slot.clear()
            if task is not None:
                self._fail(task, failure)
        del self.executor  # its memory first
        self.executor = self._make_executor()

    def _record(self) -> None:
        """Log the turn, which has waited for the work of the one before."""
        before = self.log[-1] if self.log else None
        seconds = self._log.end(len(self.waiting))
        if before is not None:
            tokens = 0 if before.chunk is None else before.chunk.tokens
            self._chunk_rule.measured(seconds, rows=len(before.rows), tokens=tokens)
