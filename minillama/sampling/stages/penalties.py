"""Stages that change the logits of single tokens: logit bias and repetition penalties."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.array_types import Bool, Float, Int
from minillama.sampling.candidates import Candidates
from minillama.sampling.pytree import Number, Whole, pytree
from minillama.sampling.sampler_state import StepContext


@pytree
@dataclass(frozen=True)
class LogitBias:
    """Add a bias to the logits of some tokens; -inf forbids one.

    Ids outside the vocabulary are padding.
    """

    name: ClassVar[str] = "logit-bias"
    tokens: Int[Array | np.ndarray, "W"]
    biases: Float[Array | np.ndarray, "W"]

    @property
    def is_on(self) -> Bool[Array, ""]:
        """Whether it has an effect."""
        return jnp.any(self.biases != 0)

    def __call__(self, candidates: Candidates, step: StepContext) -> Candidates:
        """Add the biases; several biases of one token add up."""
        places = candidates.positions(self.tokens)
        return candidates.with_logits(candidates.logits.at[places].add(self.biases, mode="drop"), same_order=False)


@pytree
@dataclass(frozen=True)
class Penalties:
    """Penalise the last n tokens: `repeat` (Keskar et al. 2019), OpenAI's `presence` and `frequency`.

    For a token that occurs c > 0 times: a positive logit is divided by repeat, any other one multiplied by it. Then
    c * frequency + presence is subtracted.
    """

    name: ClassVar[str] = "penalties"
    last_n: Whole
    repeat: Number
    frequency: Number
    presence: Number

    @property
    def is_on(self) -> Bool[Array, ""]:
        """Whether it has an effect."""
        return (self.last_n > 0) & ((self.repeat != 1) | (self.frequency != 0) | (self.presence != 0))

    def __call__(self, candidates: Candidates, step: StepContext) -> Candidates:
        """Gather the logits of the tokens in the window, change them, scatter them back."""
        size = candidates.logits.shape[0]
        in_window = jnp.arange(step.recent.shape[0], dtype=jnp.int32) < self.last_n
        places = jnp.where(in_window, candidates.positions(step.recent), size)
        counts = jnp.zeros(size, jnp.float32).at[places].add(1.0, mode="drop").at[places].get(mode="fill", fill_value=0)
        logits = candidates.logits.at[places].get(mode="fill", fill_value=0)
        scaled = jnp.where(logits <= 0, logits * self.repeat, logits / self.repeat)
        lowered = scaled - (counts * self.frequency + self.presence)
        # A token that occurs twice in the window is written twice, with the same value.
        return candidates.with_logits(candidates.logits.at[places].set(lowered, mode="drop"), same_order=False)
