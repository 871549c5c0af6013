"""Candidate tokens: the value that the stages of the sampler chain transform."""

from dataclasses import dataclass, field, replace
from enum import Enum

import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Bool, Float, Int
from minillama.sampling.pytree import STATIC, pytree
from minillama.sampling.stages.threshold_search import ONE, best_reaching, shares

MOST_TO_SORT = 1024  # candidates; a search among more is faster


class Order(Enum):
    """Order in which a list of candidates is stored."""

    VOCABULARY = "by token id: position i holds token i, or token i of a range"
    DESCENDING = "by logit, largest first"
    NONE = "unordered"


@pytree
@dataclass(frozen=True)
class Candidates:
    """M candidates; the mask `kept` marks those that were not dropped.

    llama.cpp shortens its list. Compiled code has fixed shapes: a dropped candidate stays in place with a logit of
    -inf. A kept candidate can also have a logit of -inf (a bias of -inf, top-n-sigma): it counts but is never drawn.

    llama.cpp draws in the order of its list, which some stages sort. Here such a stage only says by what: `sort_key`.
    """

    ids: Int[Array, "M"]
    logits: Float[Array, "M"]
    kept: Bool[Array, "M"]
    sort_key: Float[Array, "M"] | None  # llama.cpp's list has the largest first; None: its order is the stored one
    xtc_numbers: Int[Array, ""]  # random numbers that xtc has drawn
    order: Order = field(metadata=STATIC)
    vocab_size: int = field(metadata=STATIC)

    @staticmethod
    def from_logits(logits: Float[Array, "V"]) -> "Candidates":
        """Candidates for the whole vocabulary, in f32; a NaN logit counts as -inf."""
        return Candidates.from_range(logits, jnp.int32(0), logits.shape[0])

    @staticmethod
    def from_range(logits: Float[Array, "R"], first: Int[Array, ""], vocab_size: int) -> "Candidates":
        """Candidates for R consecutive tokens from `first`; ids past the vocabulary are dropped."""
        logits = logits.astype(jnp.float32)
        ids = first + jnp.arange(logits.shape[0], dtype=jnp.int32)
        real = ids < vocab_size
        clean = jnp.where(jnp.isnan(logits) | ~real, -jnp.inf, logits)
        return Candidates(ids, clean, real, None, jnp.int32(0), Order.VOCABULARY, vocab_size)

    @property
    def count(self) -> Int[Array, ""]:
        """Number of kept candidates."""
        return jnp.sum(self.kept, dtype=jnp.int32)

    @property
    def rank(self) -> Int[Array, "M"]:
        """Number of kept candidates before each position."""
        return jnp.cumsum(self.kept, dtype=jnp.int32) - self.kept.astype(jnp.int32)

    @property
    def probs(self) -> Float[Array, "M"]:
        """Softmax over the kept candidates."""
        top = jnp.max(self.logits)
        # Set the largest to 0 explicitly: inf - inf is NaN.
        shifted = jnp.where(self.logits == top, 0.0, self.logits - top)
        weights = jnp.where(self.kept, jnp.exp(shifted), 0.0)
        return weights / jnp.sum(weights)

    def keep(self, mask: Bool[Array, "M"]) -> "Candidates":
        """Drop the candidates outside a mask."""
        return replace(self, logits=jnp.where(mask, self.logits, -jnp.inf), kept=self.kept & mask)

    def with_logits(self, logits: Float[Array, "M"], *, same_order: bool) -> "Candidates":
        """Replace the logits; `same_order` means that a descending list stays descending."""
        still = self.order is Order.VOCABULARY or same_order
        return replace(self, logits=jnp.where(self.kept, logits, -jnp.inf), order=self.order if still else Order.NONE)

    def top_k(self, width: int) -> "Candidates":
        """The `width` candidates with the largest logits, in descending order."""
        logits, positions = lax.top_k(self.logits, width)
        ids, kept = self.ids[positions], self.kept[positions]
        return replace(self, ids=ids, logits=logits, kept=kept, sort_key=None, order=Order.DESCENDING)

    def with_sort_key(self) -> "Candidates":
        """The same candidates with a sort key, which says the same order."""
        return self if self.sort_key is not None else replace(self, sort_key=self._stored_order)

    @property
    def _stored_order(self) -> Float[Array, "M"]:
        return -jnp.arange(self.logits.shape[0], dtype=jnp.float32)

    def sorted_by(self, key: Float[Array, "M"], condition: Bool[Array, ""] | bool = True) -> "Candidates":
        """Sort llama.cpp's list by a key, largest first, where a condition holds.

        Equal ones are in the stored order.
        """
        before = self._stored_order if self.sort_key is None else self.sort_key
        return replace(self, sort_key=jnp.where(condition, key, before))

    def sorted_by_logit(self, condition: Bool[Array, ""] | bool = True) -> "Candidates":
        """Sort llama.cpp's list by logit, where a condition holds."""
        is_sorted = self.order is Order.DESCENDING and self.sort_key is None
        return self if is_sorted else self.sorted_by(self.logits, condition)

    def best(
        self, share: Float[Array, ""] | None, count: Int[Array, ""], score: Float[Array, "M"] | None = None
    ) -> Bool[Array, "M"]:
        """Mask of the fewest best ones with a share of the probability.

        They are `count` or more. share: None for any. score: the logits by default. All are chosen if they are too few.
        """
        sorted_already = self.order is Order.DESCENDING and score is None
        key = self.logits if score is None else score
        if not sorted_already and len(key) > MOST_TO_SORT:
            return self._best_of_many(share, count, key)
        places = jnp.arange(len(key), dtype=jnp.int32)
        ranked = places if sorted_already else lax.top_k(key, len(key))[1]
        kept = self.kept[ranked]
        done = kept & (jnp.cumsum(kept, dtype=jnp.int32) >= count)
        if share is not None:
            done = done & (jnp.cumsum(self.probs[ranked]) >= share)
        last = jnp.where(jnp.any(done), jnp.argmax(done), len(key) - 1)
        return jnp.zeros(len(key), bool).at[ranked].set(places <= last)

    def _best_of_many(
        self, share: Float[Array, ""] | None, count: Int[Array, ""], key: Float[Array, "M"]
    ) -> Bool[Array, "M"]:
        def enough() -> Bool[Array, "M"]:
            return best_reaching(self.kept.astype(jnp.uint32), key, count.astype(jnp.float32))

        if share is None:
            return enough()
        likely = best_reaching(shares(self.probs), key, share * ONE)
        return lax.cond(count > 1, lambda: likely | enough(), lambda: likely)

    def positions(self, tokens: Int[Array, "W"]) -> Int[Array, "W"]:
        """Position of each token in the list; M (out of range) if it is absent."""
        size = self.logits.shape[0]
        if self.order is Order.VOCABULARY:
            places = tokens - self.ids[0]
            return jnp.where((places >= 0) & (places < size), places, size)
        known = (tokens >= 0) & (tokens < self.vocab_size)
        safe = jnp.where(known, tokens, 0)
        table = jnp.full(self.vocab_size, size, jnp.int32).at[self.ids].set(jnp.arange(size, dtype=jnp.int32))
        return jnp.where(known, table[safe], size)


def bucket(count: int, minimum: int = 64) -> int:
    """Round a size up to a power of two: similar sizes share one compilation."""
    return max(minimum, 1 << max(0, count - 1).bit_length())
