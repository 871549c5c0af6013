"""The random numbers of llama.cpp: std::mt19937, so that a seed gives llama.cpp's text.

Matsumoto and Nishimura 1998. The host makes the first words from a seed. All others are made where the sampler runs: a
token needs no number from the host, and a step that is dropped has drawn nothing.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.array_types import Float, Int, UInt32
from minillama.sampling.pytree import pytree

WORDS = 624
_SHIFT = 397
_BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))  # the largest uniform number, as in libstdc++


def seed_words(seed: int) -> UInt32[np.ndarray, "624"]:
    """The words of a generator that has drawn nothing, from a seed (0 to 2**32 - 1)."""
    words = [seed]
    for place in range(1, WORDS):
        last = words[-1]
        words.append((1812433253 * (last ^ last >> 30) + place) & 0xFFFFFFFF)
    return np.array(words, np.uint32)


@pytree
@dataclass(frozen=True)
class MersenneTwister:
    """A generator: a ring of its last 624 words.

    place: of the oldest one, which the next word replaces.
    """

    words: UInt32[Array, "624"]
    place: Int[Array, ""]

    def float32(self) -> Float[Array, ""]:
        """The next number in [0, 1) of std::uniform_real_distribution<float>, which takes 1 word."""
        return self._uniform(0)

    def float64(self) -> Float[Array, ""]:
        """The next number in [0, 1) of std::uniform_real_distribution<double>, which takes 2 words.

        The first one is the lower half of 64 bits: it makes no difference in float32.
        """
        return self._uniform(1)

    def skip(self, count: Int[Array, ""] | int) -> "MersenneTwister":
        """The generator after `count` more words, 0 to 227 (a word depends on the one 227 before it)."""
        is_new = (jnp.arange(WORDS, dtype=jnp.int32) - self.place) % WORDS < count
        return MersenneTwister(jnp.where(is_new, self._successors(), self.words), (self.place + count) % WORDS)

    def _successors(self) -> UInt32[Array, "624"]:
        """The word that replaces each one, where that is among the next 227."""
        joined = self.words & jnp.uint32(0x80000000) | jnp.roll(self.words, -1) & jnp.uint32(0x7FFFFFFF)
        return jnp.roll(self.words, -_SHIFT) ^ joined >> 1 ^ (joined & 1) * jnp.uint32(0x9908B0DF)

    def _uniform(self, ahead: int) -> Float[Array, ""]:
        word = self._successors()[(self.place + ahead) % WORDS]
        word = word ^ word >> 11
        word = word ^ word << 7 & jnp.uint32(0x9D2C5680)
        word = word ^ word << 15 & jnp.uint32(0xEFC60000)
        word = word ^ word >> 18
        return jnp.minimum(word.astype(jnp.float32) * jnp.float32(2**-32), _BELOW_ONE)
