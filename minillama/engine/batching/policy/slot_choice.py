"""Choice of slots: longest common prefix for a request, oldest prompt for a chunk."""

from collections.abc import Sequence

from minillama.engine.batching.batch_task import BatchTask
from minillama.engine.batching.slots import Slot


def common_tokens(slot: Slot, ids: Sequence[int], *, rewinds: bool) -> int:
    """Length of the common prefix that a slot can go on from.

    Short of the last of `ids`.

    rewinds: whether the cache can go back; otherwise it is all of its text or nothing.
    """
    text = slot.text
    most = min(len(text), len(ids) - 1)
    place = next((place for place in range(most) if text[place] != ids[place]), most)
    if not rewinds:
        return place if place == len(text) else 0
    return reusable(place, slot.read)


def reusable(common: int, read: int) -> int:
    """A common prefix without the last token of an earlier prompt, where it ends there.

    A step ran that token; a chunk, which runs it in a longer prompt, gives other last bits.
    read: tokens of the earlier prompt before that.
    """
    return read if common == read + 1 else common


def choose_slot(idle: Sequence[Slot], task: BatchTask, similarity: float, *, rewinds: bool) -> Slot | None:
    """One of the idle slots for a request; None if it must wait.

    similarity: the share of the prompt that a slot must hold more than, to be chosen for that.
    """
    if task.options.slot is not None:
        return next((slot for slot in idle if slot.number == task.options.slot), None)
    if not idle:
        return None
    if task.options.cache_prompt:

        def common(slot: Slot) -> int:
            return common_tokens(slot, task.ids, rewinds=rewinds)

        best = max(idle, key=common)
        if common(best) > similarity * len(task.ids):
            return best
    return min(idle, key=lambda slot: slot.last_used)


def oldest_prompt(slots: Sequence[Slot]) -> tuple[Slot, BatchTask] | None:
    """The slot and the task of the oldest prompt that is not read yet."""
    reading = [(slot, slot.task) for slot in slots if slot.task is not None and slot.prompt]
    return min(reading, key=lambda pair: pair[1].number, default=None)
