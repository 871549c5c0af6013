"""Final samplers, which draw one token: dist and mirostat.

Mirostat first truncates the candidates, so that the surprise stays near a target.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Float, Int
from minillama.sampling.candidates import MOST_TO_SORT, Candidates
from minillama.sampling.pytree import Number, pytree
from minillama.sampling.stages.threshold_search import first_in_order, first_reaching, shares

_ZIPF_CANDIDATES = 100  # mirostat 1 fits Zipf's exponent to the likeliest candidates only


def draw(candidates: Candidates, uniform: Float[Array, ""]) -> Int[Array, ""]:
    """Invert the cumulative distribution at a number in [0, 1).

    The candidates are in the order of llama.cpp's list. Returns the first position whose running sum reaches the
    number, and never one of probability 0, however the sums round.
    """
    probs, key = candidates.probs, candidates.sort_key
    if len(probs) > MOST_TO_SORT:
        weights = shares(probs)
        target = uniform * jnp.sum(weights, dtype=jnp.uint32).astype(jnp.float32)
        return first_in_order(weights, target) if key is None else first_reaching(weights, key, target)
    if key is None:
        return _draw_as_stored(probs, uniform)
    positions = lax.top_k(key, len(key))[1]
    return positions[_draw_as_stored(probs[positions], uniform)]


def _draw_as_stored(probs: Float[Array, "M"], uniform: Float[Array, ""]) -> Int[Array, ""]:
    running = jnp.cumsum(probs)
    reached = (running >= uniform * running[-1]) & (probs > 0)
    return jnp.where(jnp.any(reached), jnp.argmax(reached), jnp.argmax(probs)).astype(jnp.int32)


@pytree
@dataclass(frozen=True)
class Dist:
    """Draw a candidate according to the probabilities."""

    name: ClassVar[str] = "dist"

    def numbers(self, candidates: Candidates) -> Int[Array, ""]:
        """Return 1: the random numbers that a draw takes, also among one candidate."""
        return jnp.int32(1)

    def truncate(self, candidates: Candidates, mu: Float[Array, ""]) -> Candidates:
        """Return the candidates unchanged."""
        return candidates

    def initial_mu(self) -> Float[Array, ""]:
        """Return 0: this sampler has no mu."""
        return jnp.float32(0)

    def update_mu(self, mu: Float[Array, ""], probability: Float[Array, ""]) -> Float[Array, ""]:
        """Return mu unchanged."""
        return mu


@pytree
@dataclass(frozen=True)
class _Mirostat:
    """Common part of both versions: mu, the maximum surprise in bits, and its update."""

    tau: Number
    eta: Number

    def numbers(self, candidates: Candidates) -> Int[Array, ""]:
        """Return the random numbers that a draw takes: 0 among one candidate (std::discrete_distribution), else 1."""
        return (candidates.count > 1).astype(jnp.int32)

    def initial_mu(self) -> Float[Array, ""]:
        """Return mu before the first token: twice the target."""
        return 2.0 * self.tau

    def update_mu(self, mu: Float[Array, ""], probability: Float[Array, ""]) -> Float[Array, ""]:
        """Move mu against the error of the observed surprise, with learning rate eta."""
        return mu - self.eta * (-jnp.log2(probability) - self.tau)


@pytree
@dataclass(frozen=True)
class Mirostat1(_Mirostat):
    """Top-k with k from Zipf's law, so that the surprise is mu (Basu et al. 2020, arXiv:2007.14966)."""

    name: ClassVar[str] = "mirostat"

    def truncate(self, candidates: Candidates, mu: Float[Array, ""]) -> Candidates:
        """Fit the exponent s to the likeliest candidates, solve for k, keep max(k, 1)."""
        size = candidates.logits.shape[0]
        probs = candidates.probs[lax.top_k(candidates.logits, min(size, _ZIPF_CANDIDATES))[1]]
        rank = jnp.arange(1, probs.shape[0], dtype=jnp.float32)
        t = jnp.log((rank + 1) / rank)
        seen = probs[1:] > 0
        b = jnp.where(seen, jnp.log(probs[:-1] / jnp.where(seen, probs[1:], 1.0)), 0.0)
        s = jnp.sum(t * b) / jnp.sum(jnp.where(seen, t * t, 0.0))
        epsilon = s - 1
        n = jnp.float32(candidates.vocab_size)
        flat = jnp.abs(epsilon) < 1e-6  # use the limit of the quotient, because the formula is 0 / 0
        quotient = jnp.where(flat, 1 / jnp.log(n), epsilon / (1 - n ** -jnp.where(flat, 1.0, epsilon)))
        k = (quotient * 2.0**mu) ** (1 / s)
        overflows = jnp.isnan(k) | (k >= 2.0**31)  # then llama.cpp's conversion to int gives the smallest one, on x86
        whole = jnp.clip(jnp.where(overflows, 1.0, k), 1.0, jnp.float32(size)).astype(jnp.int32)
        return candidates.keep(candidates.best(None, whole)).sorted_by_logit()


@pytree
@dataclass(frozen=True)
class Mirostat2(_Mirostat):
    """Drop candidates with a surprise above mu, except the likeliest (same paper, as in its code)."""

    name: ClassVar[str] = "mirostat-v2"

    def truncate(self, candidates: Candidates, mu: Float[Array, ""]) -> Candidates:
        """Apply a threshold to the surprise."""
        probs = candidates.probs
        likeliest = jnp.arange(probs.shape[0], dtype=jnp.int32) == jnp.argmax(candidates.logits)
        return candidates.keep(candidates.kept & ((-jnp.log2(probs) <= mu) | likeliest)).sorted_by_logit()


FinalSampler = Dist | Mirostat1 | Mirostat2
