"""Reuse of prefixes: those of the slot, of another slot, of the prefix cache."""

from collections.abc import Sequence

from minillama.engine.batching.batch_task import BatchTask
from minillama.engine.batching.counters import Counters
from minillama.engine.batching.executor import Executor
from minillama.engine.batching.policy.slot_choice import common_tokens
from minillama.engine.batching.prefix_cache import PrefixCache
from minillama.engine.batching.slots import Slot

KEPT_SHARE = 0.5  # a slot that keeps less of its text is saved first, as in llama.cpp


class PrefixReuse:
    """Fills a slot with the beginning of a prompt, and saves what the slot loses."""

    def __init__(self, cache: PrefixCache, counters: Counters) -> None:
        self.cache, self._counters = cache, counters

    def fill(self, executor: Executor, slots: Sequence[Slot], slot: Slot, task: BatchTask) -> int:
        """Tokens of the prompt that the slot then holds.

        The slot's own prefix, a longer one of another slot, or a longer one of the prefix cache. A request that names a
        slot goes on from what that slot holds.
        """
        rewinds, wanted = executor.rewinds, task.options.cache_prompt
        own = common_tokens(slot, task.ids, rewinds=rewinds) if wanted else 0
        if own < KEPT_SHARE * len(slot.text):
            self.save(executor, slot)
        if not wanted or task.options.slot is not None:
            return own
        source = max(slots, key=lambda other: common_tokens(other, task.ids, rewinds=rewinds))
        copied = common_tokens(source, task.ids, rewinds=rewinds)
        stored = self.cache.length(task.ids[:-1], rewinds=rewinds)
        if stored > max(own, copied):
            executor.load(slot.number, self.cache.take(task.ids[:-1], rewinds=rewinds))
            self._counters.ram_hits += 1
            self._counters.ram_tokens += stored - own
            return stored
        if copied > own:
            executor.copy(source.number, slot.number, copied)
            self._counters.copied_tokens += copied - own
            return copied
        return own

    def save(self, executor: Executor, slot: Slot) -> None:
        """Put a copy of a slot, whose tokens are all known, into the prefix cache."""
        if slot.text and self.cache.limit > 0:
            self.cache.add(slot.text, executor.save(slot.number, len(slot.text)), slot.read)
