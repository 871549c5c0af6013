"""DRY ("don't repeat yourself"): penalise tokens that continue a repeat, more for longer repeats.

llama.cpp's version of the sampler by p-e-w (text-generation-webui #5677).
"""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from minillama.array_types import Bool, Int
from minillama.sampling.candidates import Candidates
from minillama.sampling.pytree import Number, Whole, pytree
from minillama.sampling.sampler_state import NO_TOKEN, StepContext

_LOG_FLOAT32_MAX = 88.7228391


def suffix_matches(recent: Int[Array, "W"], size: Int[Array, ""], limit: Int[Array, ""]) -> Int[Array, "W"]:
    """Length of the match between the newest tokens and those at each distance k.

    No match is longer than `limit`. `recent` has the newest token first, and only its first `size` entries count. The
    result is the Z-function of the reversed window. All distances extend their matches in parallel: the work is W times
    the longest match, which is nearly always short.

    Example (oldest to newest): a b c c b c y a b c. Newest first: c b a y c b c c b a; Z of distance 7 is 3 (a b c),
    of distances 6 and 4 it is 1 and 2.
    """
    width = recent.shape[0]
    distance = jnp.arange(width, dtype=jnp.int32)
    shifted = jnp.concatenate([recent, jnp.full(width, NO_TOKEN, recent.dtype)])

    def growing(carry: tuple[Int[Array, ""], Bool[Array, "W"], Int[Array, "W"]]) -> Bool[Array, ""]:
        length, alive, _ = carry
        return (length < limit) & jnp.any(alive)

    def grow(carry: tuple[Int[Array, ""], Bool[Array, "W"], Int[Array, "W"]]):
        length, alive, matches = carry
        earlier = lax.dynamic_slice(shifted, (length,), (width,))
        alive = alive & (earlier == recent[length]) & (distance + length < size)
        return length + 1, alive, matches + alive.astype(jnp.int32)

    start = (jnp.int32(0), (distance > 0) & (distance < size), jnp.zeros(width, jnp.int32))
    return lax.while_loop(growing, grow, start)[2]


@pytree
@dataclass(frozen=True)
class Dry:
    """Subtract multiplier * base**(L - allowed) from tokens that continue a repeat of length L >= allowed.

    Breakers are single tokens. llama.cpp's default breakers are single characters: every token that contains the
    character is then a breaker, which is exact. A breaker string of several tokens is not supported.
    """

    name: ClassVar[str] = "dry"
    multiplier: Number
    base: Number
    allowed_length: Whole
    last_n: Whole
    breakers: Bool[Array | np.ndarray, "V"]

    @property
    def is_on(self) -> Bool[Array, ""]:
        """Whether it has an effect."""
        return (self.multiplier != 0) & (self.base >= 1) & (self.last_n > 0)

    def __call__(self, candidates: Candidates, step: StepContext) -> Candidates:
        """Find repeats in the window and lower the logits of the tokens after them."""
        recent = step.recent
        index = jnp.arange(recent.shape[0], dtype=jnp.int32)
        size = jnp.minimum(jnp.sum(recent != NO_TOKEN, dtype=jnp.int32), self.last_n)

        # A repeat ends at the newest breaker.
        breaks = self._is_breaker(recent) & (index < size)
        limit = jnp.where(jnp.any(breaks), jnp.argmax(breaks).astype(jnp.int32), size)
        matches = suffix_matches(recent, size, limit)

        # The token that followed the match at distance k is at distance k - 1.
        following = jnp.concatenate([jnp.full(1, NO_TOKEN, recent.dtype), recent[:-1]])
        repeats = (index > 0) & (index < size) & (matches >= self.allowed_length)
        repeats = repeats & (size > self.allowed_length) & (limit >= self.allowed_length)
        total = candidates.logits.shape[0]
        places = jnp.where(repeats & ~self._is_breaker(following), candidates.positions(following), total)
        longest = jnp.zeros(total, jnp.int32).at[places].max(matches, mode="drop")
        longest = longest.at[places].get(mode="fill", fill_value=0)

        # Keep base**exponent a finite f32.
        cap = jnp.where(self.base > 1.000001, jnp.floor(_LOG_FLOAT32_MAX / jnp.log(self.base)), 0.0)
        exponent = jnp.minimum((longest - self.allowed_length).astype(jnp.float32), jnp.where(cap > 0, cap, jnp.inf))
        logits = candidates.logits.at[places].get(mode="fill", fill_value=0)
        lowered = logits - self.multiplier * self.base**exponent
        return candidates.with_logits(candidates.logits.at[places].set(lowered, mode="drop"), same_order=False)

    def _is_breaker(self, tokens: Int[Array, "W"]) -> Bool[Array, "W"]:
        out_of_range = self.breakers.shape[0]
        return self.breakers.at[jnp.where(tokens >= 0, tokens, out_of_range)].get(mode="fill", fill_value=False)
