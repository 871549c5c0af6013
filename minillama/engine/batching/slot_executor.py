"""The device side of continuous batching: texts in the slots of one cache.

All calls return before the device has computed; only `read` and `wait` wait. Shapes never depend on the texts: chunks
and rows are padded to a few sizes, and `warm_up` compiles them all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt32

from minillama.engine.backends.base import Backend, Handle
from minillama.engine.backends.programs import slot_programs
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

DEFAULT = Sampling()


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
        self._room = capacity + self.chunk_sizes[0]  # the last chunk is padded beyond the capacity
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
            given = row, _one(len(part)), _one(slot), _one(start + done)
            last, self._cache = self._backend.call(slot_programs.prefill_slot, self._cache, *given)
            done += len(part)
        return last

    def join(self, slot: int, chain: Handle, seed: int, ids: Sequence[int]) -> None:
        """Put a new sampler and the last token of a prompt into a slot.

        The slot's next step runs that token. ids: the prompt; the sampler sees its last tokens.
        """
        pool, tail = self._samplers.join(slot, chain), list(ids)[-chain.window :]
        recent = np.array([[*tail, *[0] * (chain.window - len(tail))]], np.int32)
        given = chain, seed_words(seed)[None], recent, _one(len(tail)), _one(slot), _one(ids[-1])[None]
        pool.chains, pool.states, self._latest = self._backend.call(
            slot_programs.join_slot, pool.chains, pool.states, self._latest, *given
        )

    def step(self, slots: Sequence[int], positions: Sequence[int], allowed: Masks = None) -> Draw:
        """Run the latest token of some slots at these positions; draw the next ones.

        allowed: for each slot the bits of the tokens that may come next, None for all of them.
        """
        padding = [self.slots] * (self._row_count(len(slots)) - len(slots))
        rows = np.array([*slots, *padding], np.int32)
        places = np.array([*positions, *[0] * len(padding)], np.int32)
        logits, self._cache = self._backend.call(slot_programs.decode_slots, self._cache, self._latest, rows, places)
        masks = self._mask_rows(allowed, len(rows))
        drafts, chosen = [], {}
        for pool in self._samplers.of(slots):
            is_mine = np.array([slot in pool.slots for slot in slots] + [False] * len(padding))
            own = np.where(is_mine, rows, np.int32(self.slots))
            draft, pool.states, self._latest = self._backend.call(
                slot_programs.draw_slots, pool.chains, pool.states, self._latest, own, logits, masks
            )
            chosen |= {row: (len(drafts), row) for row in np.flatnonzero(is_mine).tolist()}
            drafts.append(draft)
        return Draw(tuple(drafts), tuple(chosen[row] for row in range(len(slots))))

    def read(self, draw: Draw) -> list[SampledToken]:
        """Wait for the tokens of a draw, in the order of its slots.

        The log-probability is NaN where a logit is.
        """
        arrays = [(np.asarray(draft.tokens), np.asarray(draft.logprobs)) for draft in draw.drafts]
        found = []
        for draft, row in draw.chosen:
            tokens, logprobs = arrays[draft]
            report = ReportedTop(draw.drafts[draft].top, row)
            found.append(SampledToken(int(tokens[row, 0]), float(logprobs[row, 0]), report))
        return found

    def wait(self, chunk: Handle) -> None:
        """Wait for a chunk."""
        jax.block_until_ready(chunk)

    def copy(self, source: int, target: int, count: int) -> None:
        """Copy the first `count` tokens of a slot to another one.

        Where not `rewinds`: all of its tokens.
        """
        self._cache = self._backend.call(slot_programs.copy_slot, self._cache, _one(source), _one(target), _one(count))

    def save(self, slot: int, count: int) -> SavedSlot:
        """A copy of the first `count` tokens of a slot, outside of the cache.

        Where not `rewinds`: all of its tokens.
        """
        size = next(size for size in saved_sizes(self._room) if size >= count)
        return SavedSlot(
            self._backend, self._backend.call(slot_programs.save_slot, self._cache, _one(slot), size), count
        )

    def load(self, slot: int, saved: SavedSlot) -> None:
        """Put saved tokens into a slot, from its position 0 on."""
        self._cache = self._backend.call(slot_programs.load_slot, self._cache, saved.handle(), _one(slot))

    def warm_up(self, sampling: Sampling = DEFAULT) -> None:
        """Compile all programs, with a sampler chain of these options."""
        for _ in self.warm_ups(sampling):
            pass

    def warm_ups(self, sampling: Sampling = DEFAULT) -> Iterator[str]:
        """Compile one program after another, the most needed first; yields their names.

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


def _one(number: int) -> Any:
    return np.full(1, number, np.int32)
