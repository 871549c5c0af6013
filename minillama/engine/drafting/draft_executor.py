"""A draft model at work: a cache of the texts in slots, and greedy guesses."""

from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np

from minillama.array_types import Int
from minillama.engine.backends.base import Backend
from minillama.engine.backends.programs import draft_programs, slot_programs, text_programs
from minillama.engine.backends.programs.program import one_text
from minillama.engine.backends.programs.verified_draft import VerifiedDraft
from minillama.engine.drafting.guesser import DraftText
from minillama.engine.session import CHUNKS, common_prefix
from minillama.gguf.kv_cache_types import CacheTypes

FIRST_CAPACITY = 512  # positions that a growing cache starts with
FEW = 2  # tokens of the first pass of a guess: the latest one, and one that the last guess has not run
LONGEST_GUESS = 15
CHANGING = 2 * LONGEST_GUESS  # tokens at the end of a slot that may differ from the text


class DraftExecutor:
    """The slots of a draft model, a `Guesser`.

    capacity: tokens of each of the slots at first; it grows up to `limit`. vocab_size: of the model that verifies; no
    guess is outside of it.
    """

    def __init__(
        self, backend: Backend, slots: int, capacity: int, limit: int, types: CacheTypes, chunk: int, vocab_size: int
    ) -> None:
        self.slots, self.capacity, self.limit = slots, min(capacity, limit), limit
        self.row_counts = tuple(1 << power for power in range((slots - 1).bit_length() + 1))
        self._backend, self._types, self._vocab_size = backend, types, vocab_size
        self._chunks = (*(size for size in CHUNKS if size < chunk), chunk)
        self._begin_anew()

    def lacks(self, text: DraftText) -> int:
        """Tokens of a text that its slot has to read before the next guess."""
        if any(leaf.is_deleted() for leaf in jax.tree.leaves(self._cache)):  # after a call that did not return
            self._begin_anew()
        if len(text.tokens) >= self.limit:
            return 0
        missing = len(text.tokens) - self._keep_common(text.slot, text.tokens[:-1])
        return 0 if missing <= FEW else missing - 1

    def read(self, text: DraftText) -> None:
        """Read a chunk of what the slot lacks."""
        held = self._held[text.slot]
        chunk = text.tokens[len(held) : -1][: self._chunks[-1]]
        self._prefill(text.slot, len(held), chunk)
        held += chunk

    def guess(self, texts: Sequence[DraftText]) -> list[list[int]]:
        """The likeliest tokens to follow each text; none where no room is left."""
        most = {text.slot: min(text.most, LONGEST_GUESS, self.limit - len(text.tokens)) for text in texts}
        going = [text for text in texts if most[text.slot] > 0]
        found: dict[int, list[int]] = {text.slot: [] for text in texts}
        if going:
            self._grow(max(len(text.tokens) + most[text.slot] for text in going))
        is_first = True
        while going:
            draft = self._first(going) if is_first else self._next(going, found)
            is_first = False
            for text, token, prob in zip(going, *_numbers(draft), strict=False):
                if token >= self._vocab_size or prob < text.p_min:
                    most[text.slot] = 0
                else:
                    found[text.slot].append(token)
            going = [text for text in going if len(found[text.slot]) < most[text.slot]]
        return [found[text.slot] for text in texts]

    def warm_ups(self) -> Iterator[str]:
        """Compile one program after another; yields their names. No slot changes."""
        for count in self.row_counts:
            rows = np.full(count, self.slots, np.int32)
            self._run_first(rows, np.zeros((count, FEW), np.int32), np.ones_like(rows), np.zeros_like(rows))
            self._run_next(rows, np.zeros_like(rows))
            yield f"guesses for {count} texts"
        for size in self._chunks:
            self._prefill(self.slots, 0, [0] * size)
            yield f"draft model's prefill of {size}"

    def _prefill(self, slot: int, start: int, ids: Sequence[int]) -> None:
        size = next(size for size in self._chunks if size >= len(ids))
        self._grow(start + len(ids))
        row = np.zeros((1, size), np.int32)
        row[0, : len(ids)] = self._known(ids)
        given = row, one_text(len(ids)), one_text(slot), one_text(start)
        _, self._cache = self._backend.call(slot_programs.prefill_slot, self._cache, *given)

    def _first(self, texts: Sequence[DraftText]) -> VerifiedDraft:
        """Run what slots lack of texts, at most `FEW` tokens each, and guess."""
        rows = self._rows(texts)
        ids, starts, valid = np.zeros((len(rows), FEW), np.int32), np.zeros_like(rows), np.ones_like(rows)
        for row, text in enumerate(texts):
            starts[row] = self._keep_common(text.slot, text.tokens[:-1])
            missing = text.tokens[starts[row] :]
            valid[row] = len(missing)
            ids[row, : len(missing)] = self._known(missing)
        draft = self._run_first(rows, ids, valid, starts)
        for text, start in zip(texts, starts, strict=False):
            self._held[text.slot] += text.tokens[start:]
        return draft

    def _next(self, texts: Sequence[DraftText], found: Mapping[int, Sequence[int]]) -> VerifiedDraft:
        """Run the last guesses, and guess again."""
        rows = self._rows(texts)
        positions = np.zeros_like(rows)
        positions[: len(texts)] = [len(self._held[text.slot]) for text in texts]
        draft = self._run_next(rows, positions)
        for text in texts:
            self._held[text.slot].append(found[text.slot][-1])
        return draft

    def _run_first(
        self, rows: Int[np.ndarray, "B"], ids: Int[np.ndarray, "B T"], valid: Int[np.ndarray, "B"],
        starts: Int[np.ndarray, "B"],
    ) -> VerifiedDraft:  # fmt: skip
        draft, self._latest, self._cache = self._backend.call(
            draft_programs.guess_first, self._cache, self._latest, ids, valid, rows, starts
        )
        return draft

    def _run_next(self, rows: Int[np.ndarray, "B"], positions: Int[np.ndarray, "B"]) -> VerifiedDraft:
        draft, self._latest, self._cache = self._backend.call(
            draft_programs.guess_next, self._cache, self._latest, rows, positions
        )
        return draft

    def _keep_common(self, slot: int, tokens: Sequence[int]) -> int:
        """Keep the beginning that a slot shares with a text; its length."""
        held = self._held[slot]
        sure = max(0, min(len(held), len(tokens)) - CHANGING)
        if held[:sure] != list(tokens[:sure]):  # another text
            sure = 0
        count = sure + common_prefix(held[sure:], tokens[sure:])
        del held[count:]
        return count

    def _known(self, tokens: Sequence[int]) -> list[int]:
        """Tokens of the draft model's own vocabulary, which may be a little smaller."""
        last = self._backend.config.vocab_size - 1
        return [min(token, last) for token in tokens]

    def _rows(self, texts: Sequence[DraftText]) -> Int[np.ndarray, "B"]:
        """The slots of texts, padded with rows that stand for none."""
        size = next(size for size in self.row_counts if size >= len(texts))
        return np.array([*(text.slot for text in texts), *[self.slots] * (size - len(texts))], np.int32)

    def _grow(self, positions: int) -> None:
        """Make room for that many positions, at most `limit`."""
        before = self.capacity
        while self.capacity < min(positions, self.limit):
            self.capacity = min(2 * self.capacity, self.limit)
        if self.capacity > before:
            self._cache = self._backend.call(text_programs.resize, self._cache, self._room)

    @property
    def _room(self) -> int:
        """Positions of the cache: a chunk is padded beyond the capacity."""
        return self.capacity + self._chunks[-1]

    def _begin_anew(self) -> None:
        self._held: list[list[int]] = [[] for _ in range(self.slots)]
        self._cache = self._backend.new_cache(self._room, self._types, self.slots)
        self._latest = self._backend.put(np.zeros((self.slots, 1), np.int32))


def _numbers(draft: VerifiedDraft) -> tuple[list[int], list[float]]:
    """The guessed token of each row, and its probability among the likeliest ones."""
    return np.asarray(draft.tokens)[:, 0].tolist(), np.exp(np.asarray(draft.logprobs)[:, 0]).tolist()
