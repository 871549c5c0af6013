"""Temperature stages, which sharpen or flatten the distribution."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from minillama.array_types import Bool, Float
from minillama.sampling.candidates import Candidates
from minillama.sampling.pytree import Number, pytree
from minillama.sampling.sampler_state import StepContext

_MIN_TEMPERATURE = 1e-30  # a smaller divisor could overflow; this one is already greedy


def apply_temperature(candidates: Candidates, temperature: Float[Array, ""]) -> Candidates:
    """Divide the logits by a temperature; at 0 or below keep only the first maximum."""
    logits = candidates.logits
    largest = jnp.arange(logits.shape[0], dtype=jnp.int32) == jnp.argmax(logits)
    greedy = jnp.where(largest, logits, -jnp.inf)
    scaled = logits / jnp.maximum(temperature, _MIN_TEMPERATURE)
    return candidates.with_logits(jnp.where(temperature > 0, scaled, greedy), same_order=True)


@pytree
@dataclass(frozen=True)
class Temperature:
    """Divide the logits by the temperature; greedy at 0."""

    name: ClassVar[str] = "temp-ext"
    temp: Number

    @property
    def is_on(self) -> Bool[Array, ""]:
        """Whether it has an effect."""
        return self.temp != 1

    def __call__(self, candidates: Candidates, step: StepContext) -> Candidates:
        """Scale the logits."""
        return apply_temperature(candidates, self.temp)


@pytree
@dataclass(frozen=True)
class DynamicTemperature:
    """Temperature from temp - range to temp + range that grows with the entropy (kalomaze)."""

    name: ClassVar[str] = "temp-ext"
    temp: Number
    range: Number
    exponent: Number

    @property
    def is_on(self) -> Bool[Array, ""]:
        """Whether it has an effect."""
        return self.range > 0

    def __call__(self, candidates: Candidates, step: StepContext) -> Candidates:
        """Compute the entropy as a share of its maximum ln(count), raised to the exponent.

        A single candidate is left unchanged.
        """
        probs = candidates.probs
        entropy = -jnp.sum(probs * jnp.log(jnp.where(probs > 0, probs, 1.0)))
        count = candidates.count.astype(jnp.float32)
        share = entropy / jnp.log(jnp.maximum(count, 2.0))
        low = jnp.maximum(0.0, self.temp - self.range)
        high = self.temp + self.range
        chosen = low + (high - low) * jnp.maximum(share, 0.0) ** self.exponent
        return apply_temperature(candidates.sorted_by_logit(count > 1), jnp.where(count > 1, chosen, 1.0))
