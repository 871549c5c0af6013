"""State of the sampler between tokens, as one immutable value."""

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.array_types import Float, Int, UInt32
from minillama.sampling.mersenne_twister import MersenneTwister
from minillama.sampling.pytree import pytree

NO_TOKEN = -1  # fills the positions of the window without a token


@pytree
@dataclass(frozen=True)
class SamplerState:
    """Random numbers, penalty window and mirostat's mu.

    draws: random numbers of the draws. xtc: those of xtc, as llama.cpp a second generator of the same seed.
    recent: the last W accepted tokens, newest first; NO_TOKEN if there are fewer.
    """

    draws: MersenneTwister
    xtc: MersenneTwister
    recent: Int[Array, "W"]
    mu: Float[Array, ""]

    def accept(self, token: Int[Array, ""]) -> "SamplerState":
        """Put one token at the front of the window."""
        newest = jnp.reshape(token, (1,)).astype(jnp.int32)
        return replace(self, recent=jnp.concatenate([newest, self.recent[:-1]]))

    def accept_many(self, ids: Int[Array, "T"], n_valid: Int[Array, ""]) -> "SamplerState":
        """Accept the first n_valid of the ids in order (a prompt with padding)."""
        length, width = ids.shape[0], self.recent.shape[0]
        if length == 0:
            return self
        place = jnp.arange(width, dtype=jnp.int32)
        n = jnp.clip(n_valid, 0, length).astype(jnp.int32)
        arrived = ids.astype(jnp.int32)[jnp.clip(n - 1 - place, 0, length - 1)]
        earlier = self.recent[jnp.clip(place - n, 0, width - 1)]
        return replace(self, recent=jnp.where(place < n, arrived, earlier))


@pytree
@dataclass(frozen=True)
class StepContext:
    """Inputs of a stage other than the candidates, for one token."""

    recent: Int[Array, "W"]
    xtc_uniform: Float[Array, ""]  # uniform in [0, 1), for xtc
    mu: Float[Array, ""]


def new_state(words: UInt32[Array | np.ndarray, "624"], width: int, mu: Float[Array, ""]) -> SamplerState:
    """The state before the first token, with an empty window of the given width.

    words: of `seed_words`.
    """
    generators = (MersenneTwister(jnp.asarray(words), jnp.int32(0)) for _ in range(2))
    return SamplerState(*generators, jnp.full(width, NO_TOKEN, jnp.int32), mu)
