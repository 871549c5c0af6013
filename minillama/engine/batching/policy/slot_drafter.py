"""The drafts of a step: which texts get one, and how long it is."""

from collections.abc import Iterator, Sequence

from minillama.engine.batching.slot_executor import LONGEST_ROW
from minillama.engine.batching.slots import Slot
from minillama.engine.drafting.guesser import DraftText, Guesser
from minillama.engine.session import pass_size

MOST_TOKENS = 32  # of a pass; each of so few has the bits of a lone token, whatever is multiplied with it


class SlotDrafter:
    """Guesses for the texts in slots.

    draft_max: most tokens of one guess in any request. slots, capacity: of the model that verifies.
    """

    def __init__(self, guesser: Guesser, draft_max: int, slots: int, capacity: int) -> None:
        self.guesser = guesser
        self._draft_max, self._slots, self._capacity = draft_max, slots, capacity

    def wants(self, slot: Slot) -> bool:
        """Whether a slot's text gets drafts; with a grammar or a rare sampler none."""
        task = slot.task
        return task is not None and not (task.is_constrained or slot.is_rare) and task.request.draft_max != 0

    def warm_ups(self) -> Iterator[str]:
        """Compile the programs of guesses; yields a name after each."""
        return self.guesser.warm_ups()

    def pass_sizes(self) -> list[tuple[int, int]]:
        """Texts of the passes that have drafts, and tokens of each text."""
        counts = [1 << power for power in range(MOST_TOKENS.bit_length())]
        return [(count, size) for count in counts if count < 2 * self._slots and (size := self.row_length(count)) > 1]

    def row_length(self, rows: int) -> int:
        """Tokens of each text in a pass over that many; 1 without drafts."""
        return min(pass_size(1 + self._draft_max), MOST_TOKENS // pass_size(rows), LONGEST_ROW) or 1

    def drafts(self, slots: Sequence[Slot]) -> dict[int, list[int]]:
        """The guesses by the number of the slot, where there is one.

        A text that the draft model does not hold waits for its chunks, one in each step for all of them.
        """
        most = self.row_length(len(slots)) - 1
        wanted = [text for slot in slots if (text := self._text(slot, most)) is not None]
        lacks = {text.slot: self.guesser.lacks(text) for text in wanted}
        lacking = [text for text in wanted if lacks[text.slot]]
        if lacking:
            first = min(lacking, key=lambda text: lacks[text.slot])
            self.guesser.read(first)
            lacks[first.slot] = self.guesser.lacks(first)
        ready = [text for text in wanted if not lacks[text.slot]]
        guesses = dict(zip((text.slot for text in ready), self.guesser.guess(ready) if ready else (), strict=True))
        return {slot.number: guess for slot in slots if (guess := guesses.get(slot.number)) and _is_long(slot, guess)}

    def _text(self, slot: Slot, most: int) -> DraftText | None:
        """The text of a slot that gets a draft; None where none fits."""
        if not self.wants(slot) or slot.task is None:
            return None
        request = slot.task.request
        limits = [most, self._capacity - len(slot.text) - 2, *([request.n - slot.drawn - 1] if request.n >= 0 else [])]
        most = min(*limits, most if request.draft_max is None else request.draft_max)
        return DraftText(slot.number, [*slot.text, slot.latest], most, request.draft_p_min) if most > 0 else None


def _is_long(slot: Slot, guess: Sequence[int]) -> bool:
    return slot.task is not None and len(guess) >= slot.task.request.draft_min
