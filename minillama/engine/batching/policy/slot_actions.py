"""Save, restore and erase the text of an idle slot."""

from collections.abc import Sequence

import numpy as np

from minillama.engine.batching.batch_errors import SlotBusyError
from minillama.engine.batching.device.saved_slot import SavedSlot
from minillama.engine.batching.executor import Executor
from minillama.engine.batching.slots import Slot


def save_slot(slot: Slot, executor: Executor) -> tuple[tuple[int, ...], SavedSlot]:
    """The tokens of a slot, and a copy of its cache."""
    _check_idle(slot)
    return tuple(slot.text), saved_like(slot, executor, len(slot.text))


def saved_like(slot: Slot, executor: Executor, count: int) -> SavedSlot:
    """A copy in the shapes that a text of `count` tokens has, with any numbers."""
    saved: SavedSlot = executor.save(slot.number, count)
    return saved


def restore_slot(slot: Slot, executor: Executor, tokens: Sequence[int], arrays: Sequence[np.ndarray]) -> None:
    """Put tokens and the arrays of their copy into a slot."""
    _check_idle(slot)
    saved = saved_like(slot, executor, len(tokens)).with_arrays(arrays)
    slot.clear()
    executor.load(slot.number, saved)
    slot.go_on_with(tokens, len(tokens))


def erase_slot(slot: Slot) -> int:
    """Drop the text of a slot; the number of its tokens."""
    _check_idle(slot)
    count = len(slot.text)
    slot.clear()
    return count


def _check_idle(slot: Slot) -> None:
    if slot.task is not None:
        raise SlotBusyError(slot.number)
