"""The device side of continuous batching: texts in the slots of one cache.

All calls return before the device has computed; only `read` and `wait` wait. Shapes never depend on the texts: chunks
and rows are padded to a few sizes, and `warm_up` compiles them all.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, UInt32

from minillama.engine.backends.base import Backend, Handle
from minillama.engine.backends.programs import draft_programs, slot_programs
from minillama.engine.backends.programs.program import Program, one_text
from minillama.engine.backends.programs.verified_draft import VerifiedDraft
from minillama.engine.batching.device.sampler_pool import SamplerPools
from minillama.engine.batching.device.saved_slot import SavedSlot, saved_sizes
from minillama.engine.batching.executor import Masks, SampledToken
from minillama.engine.generation.top_probs import ReportedTop
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.sampling import Sampling
from minillama.sampling.mersenne_twister import seed_words
from minillama.sampling.sampled_token import mask_words

CHUNKS = (16, 32, 64, 128, 256, 512, 1024, 2048)  # tokens of a chunk, padded; each one is a compilation

LONGEST_ROW = 16  # tokens of one text in a pass over drafts

DEFAULT = Sampling()
Rows = Int[np.ndarray, "B"]


@dataclass(frozen=True)
class Draw:
    """Tokens that the device is sampling.

    drafts: each has a token in all rows of the step. chosen: the draft and the row of each token that counts.
    """

    drafts: tuple[VerifiedDraft, ...]
    chosen: tuple[tuple[int, int], ...]


class SlotExecutor:
    """N slots in one cache, with `capacity` tokens, a sampler and a latest token each.

    Positions after the tokens of a slot are unspecified: a slot goes back by running other tokens from a lower
    position, where `rewinds`. chunk: most tokens of a pass.
    """

    def __init__(self, backend: Backend, slots: int, capacity: int, chunk: int, cache_types: CacheTypes) -> None:
        self.slots, self.capacity, chunk = slots, capacity, min(chunk, capacity)
        self.chunk_sizes = (*(size for size in CHUNKS if size < chunk), chunk)
        self.row_counts = tuple(1 << power for power in range((slots - 1).bit_length() + 1))
        self.rewinds = not backend.config.is_recurrent
        self._backend, self._types = backend, cache_types
        self._room = capacity + max(LONGEST_ROW, self.chunk_sizes[0])  # the last pass is padded beyond the capacity
        self.reset()

    def reset(self) -> None:
        """Begin with empty slots; after an error that has lost the cache."""
        self._cache: Handle = self._backend.new_cache(self._room, self._types, self.slots)
        self._latest: Handle = self._backend.put(np.zeros((self.slots, 1), np.int32))
        self._samplers = SamplerPools(self._backend, self.slots)

    def prefill(self, slot: int, start: int, ids: Sequence[int]) -> Handle:
        """Run tokens in a slot from position `start` on; a handle to wait for."""
        done, last = 0, None
        while done < len(ids):
            size = self._chunk_size(start + done, len(ids) - done)
            part = ids[done : done + size]
            row = np.array([[*part, *[0] * (size - len(part))]], np.int32)
            given = row, one_text(len(part)), one_text(slot), one_text(start + done)
            last, self._cache = self._backend.call(slot_programs.prefill_slot, self._cache, *given)
            done += len(part)
        return last

    def join(self, slot: int, chain: Handle, seed: int, ids: Sequence[int]) -> None:
        """Put a new sampler and the last token of a prompt into a slot.

        The slot's next step runs that token. ids: the prompt; the sampler sees its last tokens.
        """
        pool, tail = self._samplers.join(slot, chain), list(ids)[-chain.window :]
        recent = np.array([[*tail, *[0] * (chain.window - len(tail))]], np.int32)
        given = chain, seed_words(seed)[None], recent, one_text(len(tail)), one_text(slot), one_text(ids[-1])[None]
        pool.chains, pool.states, self._latest = self._backend.call(
            slot_programs.join_slot, pool.chains, pool.states, self._latest, *given
        )

    def step(self, slots: Sequence[int], positions: Sequence[int], allowed: Masks = None) -> Draw:
        """Run the latest token of some slots at these positions; draw the next ones.

        allowed: for each slot the bits of the tokens that may come next, None for all of them.
        """
        rows, places = self._padded(slots), self._padded(positions, 0)
        logits, self._cache = self._backend.call(slot_programs.decode_slots, self._cache, self._latest, rows, places)
        return self._draw(slots, rows, slot_programs.draw_slots, logits, self._mask_rows(allowed, len(rows)))

    def verify(self, slots: Sequence[int], positions: Sequence[int], texts: Sequence[Sequence[int]], size: int) -> Draw:
        """Run the latest token of some slots and a draft; draw while it is right.

        texts: the latest token and the draft of each slot, at most `size` tokens. Only where `rewinds`.
        """
        rows, places = self._padded(slots), self._padded(positions, 0)
        ids, n_draft = np.zeros((len(rows), size), np.int32), np.zeros_like(rows)
        for row, text in enumerate(texts):
            ids[row, : len(text)], n_draft[row] = text, len(text) - 1
        hidden, self._cache = self._backend.call(draft_programs.run_drafts, self._cache, ids, rows, places)
        return self._draw(slots, rows, draft_programs.verify_slots, hidden, ids, n_draft)

    def read(self, draw: Draw) -> list[SampledToken]:
        """Wait for the tokens of a draw without drafts, in the order of its slots."""
        return [tokens[0] for tokens in self.read_all(draw)]

    def read_all(self, draw: Draw) -> list[tuple[SampledToken, ...]]:
        """Wait for all tokens of a draw, in the order of its slots.

        Several where a draft was right. The log-probability is NaN where a logit is.
        """
        arrays = [tuple(map(np.asarray, (draft.tokens, draft.logprobs))) for draft in draw.drafts]
        counts = [None if draft.count is None else np.asarray(draft.count) for draft in draw.drafts]
        found = []
        for place, row in draw.chosen:
            (tokens, logprobs), count, top = arrays[place], counts[place], draw.drafts[place].top
            found.append(
                tuple(
                    SampledToken(int(tokens[row, i]), float(logprobs[row, i]), ReportedTop(top, row, i))
                    for i in range(1 if count is None else count[row])
                )
            )
        return found

    def wait(self, work: Handle | Draw) -> None:
        """Wait for a chunk or a draw."""
        jax.block_until_ready([draft.tokens for draft in work.drafts] if isinstance(work, Draw) else work)

    def copy(self, source: int, target: int, count: int) -> None:
        """Copy the first `count` tokens of a slot to another one.

        Where not `rewinds`: all of its tokens.
        """
        self._cache = self._backend.call(
            slot_programs.copy_slot, self._cache, one_text(source), one_text(target), one_text(count)
        )

    def save(self, slot: int, count: int) -> SavedSlot:
        """A copy of the first `count` tokens of a slot, outside of the cache.

        Where not `rewinds`: all of its tokens.
        """
        size = next(size for size in saved_sizes(self._room) if size >= count)
        return SavedSlot(
            self._backend, self._backend.call(slot_programs.save_slot, self._cache, one_text(slot), size), count
        )

    def load(self, slot: int, saved: SavedSlot) -> None:
        """Put saved tokens into a slot, from its position 0 on."""
        self._cache = self._backend.call(slot_programs.load_slot, self._cache, saved.handle(), one_text(slot))

    def warm_up(self, sampling: Sampling = DEFAULT) -> None:
        """Compile all programs, with a sampler chain of these options."""
        for _ in self.warm_ups(sampling=sampling):
            pass

    def warm_ups(self, draft_sizes: Iterable[tuple[int, int]] = (), sampling: Sampling = DEFAULT) -> Iterator[str]:
        """Compile one program after another, the most needed first; yields their names.

        draft_sizes: texts in a pass over drafts, and tokens of each.
        No slot changes, so that requests may be served between two of them.
        """
        chain, no_slot = self._backend.chain(sampling, is_shared=True), self.slots
        for size in self.chunk_sizes[:1]:
            yield self._warm_up_chunk(size)
        for count in self.row_counts:
            yield self._warm_up_step(chain, count)
        for size in self.chunk_sizes[1:]:
            yield self._warm_up_chunk(size)
        self.copy(no_slot, no_slot, 0)
        yield "copy"
        for count, size in draft_sizes:
            self.verify([no_slot] * count, [0] * count, [[0]] * count, size)
            yield f"drafts of {count} texts"
        for size in saved_sizes(self._room):
            self.load(no_slot, self.save(no_slot, size))
            yield f"saved slot of {size}"

    def _warm_up_chunk(self, size: int) -> str:
        self.wait(self.prefill(self.slots, 0, [0] * size))
        return f"prefill of {size}"

    def _warm_up_step(self, chain: Handle, count: int) -> str:
        for _ in range(2):  # the second time with what the first one has returned
            self.join(self.slots, chain, 0, [0])
            self.read(self.step([self.slots] * count, [0] * count))
        return f"step of {count}"

    def _draw(self, slots: Sequence[int], rows: Rows, program: Program, *given: Any) -> Draw:
        """Sample with a program, once for each structure of samplers."""
        drafts, chosen = [], {}
        for pool in self._samplers.of(slots):
            is_mine = np.isin(rows, list(pool.slots))
            own = np.where(is_mine, rows, np.int32(self.slots))
            draft, pool.states, self._latest = self._backend.call(
                program, pool.chains, pool.states, self._latest, own, *given
            )
            chosen |= {row: (len(drafts), row) for row in np.flatnonzero(is_mine).tolist()}
            drafts.append(draft)
        return Draw(tuple(drafts), tuple(chosen[row] for row in range(len(slots))))

    def _padded(self, numbers: Sequence[int], filler: int | None = None) -> Rows:
        """Numbers of rows, padded to a size that is compiled.

        filler: None for the slot that stands for none.
        """
        missing = self._row_count(len(numbers)) - len(numbers)
        return np.array([*numbers, *[self.slots if filler is None else filler] * missing], np.int32)

    def _chunk_size(self, start: int, left: int) -> int:
        """The size of the next chunk, which fits into the cache with its padding."""
        fitting = [size for size in self.chunk_sizes if start + size <= self._room]
        return next((size for size in fitting if size >= left), fitting[-1])

    def _mask_rows(self, allowed: Masks, rows: int) -> UInt32[np.ndarray, "B W"] | None:
        """One mask a row; rows without one allow every token."""
        if allowed is None:
            return None
        masks = np.full((rows, mask_words(self._backend.config.vocab_size)), 0xFFFFFFFF, np.uint32)
        for row, mask in zip(masks, allowed, strict=False):
            if mask is not None:
                row[:] = mask
        return masks

    def _row_count(self, count: int) -> int:
        return next(size for size in self.row_counts if size >= count)
