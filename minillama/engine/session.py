"""A session: the key/value cache of one text between calls, and its tokens."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import SupportsIndex

import jax
import numpy as np

from minillama.array_types import Integer, UInt32
from minillama.engine.backends.base import Backend, Handle
from minillama.engine.backends.programs import text_programs
from minillama.engine.backends.programs.program import one_text
from minillama.engine.backends.programs.verified_draft import VerifiedDraft
from minillama.engine.batches import Batches
from minillama.engine.drafting.guesser import Guesser
from minillama.engine.text_cache import TextCache
from minillama.errors import OptionError, quoted
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.option_values import as_int
from minillama.sampling.mersenne_twister import seed_words
from minillama.tokenizer.token_ids import checked_id, checked_ids

CHUNKS = (16, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512)  # other sizes are padded: each one is a compilation
LEAST_CHUNK = CHUNKS[0]


Mask = UInt32[np.ndarray, "1 words"]


def pass_size(count: int) -> int:
    """Tokens of a pass over a draft, padded to a power of two."""
    return 1 << (count - 1).bit_length()


class Session:
    """The state of one text; another text with its beginning costs only new tokens.

    Made by `LLM.session()`. `tokens` are those that the cache holds. `generate` may run ahead of them: `commit(token)`
    keeps what it ran; otherwise the next call discards it.
    """

    def __init__(
        self,
        backend: Backend,
        ctx_size: int,
        batches: Batches,
        cache_types: CacheTypes,
        guesser: Guesser | None = None,
    ) -> None:
        self.ctx_size = ctx_size
        self.config = backend.config
        self.tokens: list[int] = []
        self._backend = backend
        self._ahead = 0  # positions after `tokens` that the cache has, not committed yet
        self._ran: Handle | Sequence[int] = ()  # the tokens of the last `generate`, whose end they are
        self._ends_prompt = False  # whether `tokens` end with a prompt
        self._read = 0  # tokens before the last one of a prompt, which `generate` ran
        self.guesser = guesser  # a draft model's cache of the text; None without one
        self._batches = batches
        self._cache = TextCache(backend, ctx_size, batches.within(ctx_size).ubatch_size, cache_types)

    @property
    def room(self) -> int:
        """Tokens that still fit."""
        return self.ctx_size - len(self.tokens)

    @property
    def capacity(self) -> int:
        """Positions that the cache has room for now, before it grows."""
        return self._cache.capacity

    @property
    def nbytes(self) -> int:
        """Bytes of the cache, without checkpoints."""
        return self._cache.nbytes

    def temporary_bytes(self, size: int) -> int | None:
        """Temporary memory of a prefill of that many tokens, not counting arguments and results."""
        return self._backend.temporary_bytes(size, self._cache.handle)

    def check_model(self, backend: Backend) -> None:
        """Raise OptionError if the session belongs to another model."""
        if backend is not self._backend:
            raise OptionError("the session belongs to another model; make one with session() of this model")

    def clear(self) -> None:
        """Drop all tokens."""
        self.truncate(0)

    def reserve(self, positions: SupportsIndex) -> None:
        """Grow the cache to that many positions now, so that no later call has to."""
        self._ensure(_count(positions, "positions"))

    def truncate(self, count: SupportsIndex) -> None:
        """Drop all but the first `count` tokens.

        Raises OptionError for a count that is negative or no integer.
        """
        wanted = self.tokens[: _count(count, "count")]
        held = self._go_back(len(wanted))
        if held < len(wanted):  # the states could not go back there
            deque(self.prefill(wanted[held:], with_logits=False), maxlen=0)

    def reuse(self, ids: Sequence[int]) -> int:
        """Keep the longest common prefix with `ids`, short of the last token; its length.

        With recurrent layers it ends at a checkpoint, or where the text ends. It does not end with the last token of
        the earlier prompt, which `generate` ran: `prefill` computes it with other last bits.
        """
        if self._cache.is_lost:
            self.clear()
        common = common_prefix(self.tokens, ids[:-1])
        if common == self._read + 1 and not self.config.is_recurrent:
            common = self._read
        if self.config.is_recurrent and common == len(self.tokens) and self._ahead:
            for token in np.asarray(self._ran).reshape(-1)[-self._ahead :].tolist():
                if common == len(ids) - 1 or token != ids[common]:
                    break
                self.commit(token)
                common += 1
        return self._go_back(common)

    def _go_back(self, count: int) -> int:
        """Drop all but the first `count` tokens; the number left.

        Fewer are left where states cannot go back there.
        """
        if self._cache.is_lost:
            self._cache.clear()
            self.tokens, self._ahead = [], 0
        count = min(count, len(self.tokens))
        goes_back = count < len(self.tokens) or self._ahead > 0
        count = self._cache.go_back(count) if goes_back else self._cache.stay(count)
        self.tokens = self.tokens[:count]
        self._ahead, self._ran, self._ends_prompt = 0, (), False
        return count

    def prefill(self, ids: Sequence[int] | Integer[np.ndarray, "T"], *, with_logits: bool = True) -> Iterator[Handle]:
        """Run tokens chunk by chunk; yields the logits of each chunk's last token, [1, V].

        with_logits: False saves the output head; yields handles to wait for.
        Waits for the device at the end of each batch. Raises OptionError for ids outside the vocabulary, and for more
        than `room`.
        """
        ids = checked_ids(ids, self.config.vocab_size)
        self._check_room(len(ids))
        self._discard_ahead()
        done, batch_size = 0, self._batches.batch_size
        while done < len(ids):
            self._ensure(len(self.tokens) + 1)
            count, padded = self._next_chunk(min(len(ids) - done, batch_size - done % batch_size))
            chunk = list(ids[done : done + count])
            self._prepare(padded)
            row, valid = np.array([chunk + [0] * (padded - count)], np.int32), one_text(count)
            run = text_programs.prefill if with_logits else text_programs.read
            last, self._cache.handle = self._backend.call(run, self._cache.handle, row, valid)
            self.tokens += chunk
            done += count
            if done % batch_size == 0:
                jax.block_until_ready(last)
            self._ends_prompt = done == len(ids)
            yield last

    def start(self, chain: Handle, seed: int, ids: Sequence[int]) -> Handle:
        """A new sampler that has seen a prompt.

        `generate` runs the last token of the prompt with it.
        """
        self._read = len(ids) - 1
        tail = ids[-chain.window :]
        recent = np.zeros((1, chain.window), np.int32)
        recent[0, : len(tail)] = tail
        return self._backend.call(text_programs.start, chain, seed_words(seed)[None], recent, one_text(len(tail)))

    def generate(
        self,
        chain: Handle,
        state: Handle,
        token: Handle | int,
        draft: Sequence[int] = (),
        allowed: Mask | None = None,
    ) -> tuple[VerifiedDraft, Handle]:
        """Run a sampled token and a draft of what may follow it.

        Sample after each while the draft is right.

        The sampled tokens and the sampler's next state; the last token is not in the cache. A token may still
        be on the device, [1, 1]. `commit` is to follow for the token and all sampled ones but the last. There must be
        room for as many tokens as `pass_size` says.
        allowed: bits of the tokens that may be sampled, as of `sampling.sample`; None for all; not with a draft.
        """
        self._discard_ahead()
        size = pass_size(1 + len(draft))
        self._ensure(len(self.tokens) + size)
        self._prepare(size)
        self._ahead, self._ran = size, (token,) if isinstance(token, int) else token
        cache = self._cache
        if not draft:
            ids = self._backend.put(np.array([[token]], np.int32)) if isinstance(token, int) else token
            result, state, cache.handle = self._backend.call(
                text_programs.generate, cache.handle, chain, state, ids, None, allowed
            )
            return result, state
        ids = np.zeros((1, size), np.int32)
        ids[0, : 1 + len(draft)] = token, *draft
        result, state, cache.handle = self._backend.call(
            text_programs.generate, cache.handle, chain, state, ids, one_text(len(draft)), None
        )
        self._ahead = int(np.asarray(result.count)[0])
        self._ran = ids[0, : self._ahead]
        return result, state

    def commit(self, token: int) -> None:
        """Keep the next token that `generate` ran ahead."""
        if not self._ahead:
            raise OptionError(f"token {quoted(token)} has not been run; commit follows generate")
        self.tokens.append(token)
        self._ahead -= 1

    def decode(self, token: SupportsIndex) -> Handle:
        """Run one token without sampling; the logits after it, [1, V].

        Raises OptionError for an id outside the vocabulary, and in a full context.
        """
        token = checked_id(token, self.config.vocab_size)
        self._check_room(1)
        self._discard_ahead()
        self._ensure(len(self.tokens) + 1)
        self._prepare(1)
        ids = np.array([[token]], np.int32)
        logits, self._cache.handle = self._backend.call(text_programs.prefill, self._cache.handle, ids, one_text(1))
        self.tokens.append(token)
        return logits

    def program(self, size: int) -> tuple[int, int]:
        """The key of the program for the next `size` tokens, within a model and chain."""
        return self._cache.capacity_for(len(self.tokens) + size), size

    def _discard_ahead(self) -> None:
        """Drop what was run and not committed."""
        if self._ahead:
            self.truncate(len(self.tokens))

    def _prepare(self, count: int) -> None:
        """Get the cache ready for `count` more tokens; there is room."""
        self._cache.prepare(len(self.tokens), count, ends_prompt=self._ends_prompt)
        self._ends_prompt = False

    def _next_chunk(self, left: int) -> tuple[int, int]:
        """Tokens of the next chunk, and their padded number (one of `CHUNKS`, or ubatch_size)."""
        largest = self._batches.ubatch_size
        padded = next((size for size in CHUNKS if min(left, largest) <= size < largest), largest)
        self._ensure(min(self.ctx_size, len(self.tokens) + min(left, padded)))
        beyond = self._cache.capacity - len(self.tokens)
        if padded > beyond:
            padded = max((size for size in CHUNKS if size <= beyond), default=1 << (beyond.bit_length() - 1))
        return min(left, padded), padded

    def _ensure(self, positions: int) -> None:
        """Grow the cache to that many positions, if it has fewer.

        Raises OptionError for more than the context.
        """
        if positions > self.ctx_size:
            raise OptionError(f"{positions} tokens do not fit in a context of {self.ctx_size}; raise ctx_size")
        self._cache.grow(positions)

    def _check_room(self, count: int) -> None:
        """Raise OptionError if that many more tokens do not fit."""
        if count > self.room:
            raise OptionError(
                f"{len(self.tokens)} tokens and {count} more do not fit in a context of {self.ctx_size}; raise ctx_size"
            )


def common_prefix(held: Sequence[int], wanted: Sequence[int]) -> int:
    """Number of tokens at the beginning that two texts have in common."""
    differing = (place for place, (a, b) in enumerate(zip(held, wanted, strict=False)) if a != b)
    return next(differing, min(len(held), len(wanted)))


def _count(value: SupportsIndex, name: str) -> int:
    if (count := as_int(value)) is None or count < 0:
        raise OptionError(f"{name} is {quoted(value)}; expected a number of tokens, at least 0")
    return count
