"""The slot of a request: the longest common prefix, else the least recently used."""

from collections.abc import Sequence

from minillama.engine.batching.batch_task import BatchTask
from minillama.engine.batching.slots import Slot


def common_tokens(text: Sequence[int], ids: Sequence[int], *, rewinds: bool) -> int:
    """Length of the common prefix that a cache with `text` can go on from.

    Short of the last of `ids`, which is run for its logits.

    rewinds: whether the cache can go back; otherwise it is all of its text or nothing.
    """
    most = min(len(text), len(ids) - 1)
    place = next((place for place in range(most) if text[place] != ids[place]), most)
    return place if rewinds or place == len(text) else 0


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
            return common_tokens(slot.text, task.ids, rewinds=rewinds)

        best = max(idle, key=common)
        if common(best) > similarity * len(task.ids):
            return best
    return min(idle, key=lambda slot: slot.last_used)
