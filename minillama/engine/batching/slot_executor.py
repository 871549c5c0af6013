"""The device side of continuous batching: texts in the slots of one cache.

All calls return before the device has computed; only `read` and `wait` wait. Shapes never depend on the texts: chunks
and rows are padded to a few sizes, and `warm_up` compiles them all.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from minillama.array_types import Int, UInt32
from minillama.engine.backends.base import Backend, Handle
from minillama.engine.backends.programs import draft_programs, slot_programs
from minillama.engine.backends.programs.program import Program, one_text
from minillama.engine.batching.device.sampler_pool import SamplerPool, SamplerPools
from minillama.engine.batching.device.saved_slot import SavedSlot, saved_sizes
from minillama.engine.batching.device.slot_draw import Draw, Part, joined
from minillama.engine.batching.executor import Masks, SampledToken
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.sampling import Sampling
from minillama.sampling.mersenne_twister import seed_words
from minillama.sampling.sampled_token import mask_words

CHUNKS = (16, 32, 64, 128, 256, 512, 1024, 2048)  # tokens of a chunk, padded; each one is a compilation

LONGEST_ROW = 16  # tokens of one text in a pass over drafts

DEFAULT = Sampling()
RARE = (Sampling(top_k=0), Sampling(top_k=100))  # compiled in advance nevertheless
Rows = Int[np.ndarray, "B"]


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
        self._samplers.usual.add(self._backend.chain(DEFAULT, is_shared=True).structure)

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

    def is_ready(self, chain: Handle, busy: Collection[int], then: Callable[[], None]) -> bool:
        """Whether a sampler is compiled; see `SamplerPools.is_ready`."""
        return self._samplers.is_ready(chain, busy, then)

    def is_rare(self, chain: Handle) -> bool:
        """Whether a sampler draws alone, and takes no drafts."""
        return self._samplers.is_rare(chain)

    def join(self, slot: int, chain: Handle, seed: int, ids: Sequence[int]) -> None:
        """Put a new sampler and the last token of a prompt into a slot.

        The slot's next step runs that token. ids: the prompt; the sampler sees its last tokens.
        """
        pool, tail = self._samplers.join(slot, chain), list(ids)[-chain.window :]
        recent = np.array([[*tail, *[0] * (chain.window - len(tail))]], np.int32)
        given = chain, seed_words(seed)[None], recent, one_text(len(tail)), one_text(slot), one_text(ids[-1])[None]
        pool.chains, pool.states, self._latest = pool.caller.call(
            slot_programs.join_slot, pool.chains, pool.states, self._latest, *given
        )

    def step(self, slots: Sequence[int], positions: Sequence[int], allowed: Masks = None) -> Draw:
        """Run the latest token of some slots at these positions; draw the next ones.

        allowed: for each slot the bits of the tokens that may come next, None for all of them.
        """
        rows, logits = self._run_latest(slots, positions)
        return self._draw(slots, rows, logits, allowed)

    def verify(self, slots: Sequence[int], positions: Sequence[int], texts: Sequence[Sequence[int]], size: int) -> Draw:
        """Run the latest token of some slots and a draft; draw while it is right.

        texts: the latest token and the draft of each slot, at most `size` tokens. Only where `rewinds`, and for
        samplers that are not rare.
        """
        rows, places = self._padded(slots), self._padded(positions, 0)
        ids, n_draft = np.zeros((len(rows), size), np.int32), np.zeros_like(rows)
        for row, text in enumerate(texts):
            ids[row, : len(text)], n_draft[row] = text, len(text) - 1
        hidden, self._cache = self._backend.call(draft_programs.run_drafts, self._cache, ids, rows, places)
        parts = [
            self._draw_together(pool, rows, draft_programs.verify_slots, hidden, ids, n_draft)
            for pool in self._samplers.of(slots)
        ]
        return joined(parts, len(slots))

    def read(self, draw: Draw) -> list[SampledToken]:
        """Wait for the tokens of a draw without drafts, in the order of its slots."""
        return [tokens[0] for tokens in self.read_all(draw)]

    def read_all(self, draw: Draw) -> list[tuple[SampledToken, ...]]:
        """Wait for all tokens of a draw, in the order of its slots.

        Several where a draft was right. The log-probability is NaN where a logit is.
        """
        return draw.read()

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
        self._samplers.usual.add(chain.structure)
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
        for count in self.row_counts:
            self.read(self.step([no_slot] * count, [0] * count, [self._every_token] * count))
            yield f"grammars of {count} texts"
            if self._backend.apart() is not None:
                slot_programs.rows_of(self._run_latest([no_slot] * count, [0] * count)[1], one_text(0))
        for rare in RARE:
            self._samplers.compile(self._backend.chain(rare, is_shared=True))
            yield f"sampler with top-k {rare.top_k}"
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

    def _run_latest(self, slots: Sequence[int], positions: Sequence[int]) -> tuple[Rows, Handle]:
        """The rows of a step, and the logits of each."""
        rows, places = self._padded(slots), self._padded(positions, 0)
        logits, self._cache = self._backend.call(slot_programs.decode_slots, self._cache, self._latest, rows, places)
        return rows, logits

    def _draw(self, slots: Sequence[int], rows: Rows, logits: Handle, allowed: Masks) -> Draw:
        """Sample a token of each slot; those with a rare sampler one by one."""
        parts = []
        for pool in self._samplers.of(slots):
            if pool.is_rare:
                mine = [row for row, slot in enumerate(slots) if slot in pool.slots]
                parts += [self._draw_alone(pool, row, slots[row], logits, allowed) for row in mine]
            else:
                masks = None if allowed is None else self._mask_rows(allowed, len(rows))
                parts.append(self._draw_together(pool, rows, slot_programs.draw_slots, logits, masks))
        return joined(parts, len(slots))

    def _draw_together(self, pool: SamplerPool, rows: Rows, program: Program, *given: Any) -> Part:
        """Sample the rows of a pool's slots in one call."""
        is_mine = np.isin(rows, list(pool.slots))
        own = np.where(is_mine, rows, np.int32(self.slots))
        draft, pool.states, self._latest = pool.caller.call(
            program, pool.chains, pool.states, self._latest, own, *given
        )
        return draft, {row: row for row in np.flatnonzero(is_mine).tolist()}

    def _draw_alone(self, pool: SamplerPool, row: int, slot: int, logits: Handle, allowed: Masks) -> Part:
        """Sample one row, in a call of the same shapes with and without a grammar."""
        mask = self._mask_rows([None if allowed is None else allowed[row]], 1)
        one = slot_programs.rows_of(logits, one_text(row))
        draft, pool.states, self._latest = pool.caller.call(
            slot_programs.draw_slots, pool.chains, pool.states, self._latest, one_text(slot), one, mask
        )
        return draft, {row: 0}

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

    @property
    def _every_token(self) -> UInt32[np.ndarray, "W"]:
        return np.full(mask_words(self._backend.config.vocab_size), 0xFFFFFFFF, np.uint32)

    def _mask_rows(self, allowed: Sequence[UInt32[np.ndarray, "W"] | None], rows: int) -> UInt32[np.ndarray, "B W"]:
        """One mask a row; rows without one allow every token."""
        masks = np.tile(self._every_token, (rows, 1))
        for row, mask in zip(masks, allowed, strict=False):
            if mask is not None:
                row[:] = mask
        return masks

    def _row_count(self, count: int) -> int:
        return next(size for size in self.row_counts if size >= count)
