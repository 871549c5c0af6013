"""The context of a slot: a full text ends, or drops its older half."""

from dataclasses import dataclass

from minillama.engine.batching.batch_task import BatchTask
from minillama.engine.batching.policy.slot_choice import common_tokens
from minillama.engine.batching.policy.turn_log import TurnLog
from minillama.engine.batching.slots import Slot
from minillama.engine.generation.context_shift import kept_tokens, shift


@dataclass(frozen=True)
class ContextLimit:
    """The tokens that a slot has room for.

    rewinds: the states of a text can go back.
    """

    capacity: int
    rewinds: bool
    log: TurnLog

    def is_full(self, slot: Slot) -> bool:
        """Whether the text and its latest token fill the slot."""
        return len(slot.text) + 1 >= self.capacity

    def goes_on(self, slot: Slot) -> bool:
        """Whether a text needs one more token; a full slot first drops its older half."""
        assert slot.task is not None
        if slot.drawn and 0 <= slot.task.request.n <= slot.drawn:
            return False
        if not self.is_full(slot):
            return True
        if slot.task.shifts:
            self._shift(slot, slot.task)
        return False

    def _shift(self, slot: Slot, task: BatchTask) -> None:
        """Drop the older half of a text, and run the rest again."""
        keep = kept_tokens(task.request.keep, len(task.ids), self.capacity, add_bos=task.add_bos)
        rest = shift(slot.text, keep)
        slot.go_on_with(rest, common_tokens(slot, rest, rewinds=self.rewinds))
        task.stream.is_shifted = True
        self.log.note(f"context shift in slot {slot.number}")
