"""Truncation stages, which drop candidates: top-k, top-p, min-p, typical, top-n-sigma, xtc.

With min_keep, the min_keep best candidates in the order of the stage are always kept.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Bool
from minillama.sampling.candidates import Candidates
from minillama.sampling.pytree import STATIC, Number, Whole, pytree
from minillama.sampling.sampler_state import StepContext


@pytree
@dataclass(frozen=True)
class TopNSigma:
    """Forbid logits more than n standard deviations below the largest (Tang et al. 2024, arXiv:2411.07641).

    As in llama.cpp, forbidden tokens get a logit of -inf and still count as candidates.
    """

    name: ClassVar[str] = "top-n-sigma"
    n: Number

    @property
    def is_on(self) -> Bool[Array, ""]:
        """Whether it has an effect."""
        return self.n > 0

    def __call__(self, candidates: Candidates, step: StepContext) -> Candidates:
        """Use the mean and the population standard deviation of the finite logits."""
        logits = candidates.logits
        finite = logits > -jnp.inf
        count = jnp.maximum(jnp.sum(finite, dtype=jnp.float32), 1.0)
        mean = jnp.sum(jnp.where(finite, logits, 0.0)) / count
        deviation = jnp.sqrt(jnp.sum(jnp.where(finite, jnp.square(logits - mean), 0.0)) / count)
        low = logits < jnp.max(logits) - self.n * deviation
        return candidates.with_logits(jnp.where(low, -jnp.inf, logits), same_order=True)


@pytree
@dataclass(frozen=True)
class TopK:
    """Keep the k largest logits in descending order.

    width: of the list that is left; None for the whole one, where k may be large or 0 (off).
    """

    name: ClassVar[str] = "top-k"
    k: Whole
    width: int | None = field(metadata=STATIC)

    @property
    def is_on(self) -> Bool[Array, ""]:
        """Whether it has an effect."""
        return self.k > 0

    def __call__(self, candidates: Candidates, step: StepContext) -> Candidates:
        """Keep `width` candidates, so that later stages do not process the whole vocabulary."""
        if self.width is None:
            return candidates.keep(candidates.best(None, self.k)).sorted_by_logit()
        ranked = candidates.top_k(min(self.width, candidates.logits.shape[0]))
        return ranked.keep(ranked.kept & (ranked.rank < self.k))


@pytree
@dataclass(frozen=True)
class TopP:
    """Nucleus sampling: the fewest likeliest candidates that sum to p (Holtzman et al., arXiv:1904.09751)."""

    name: ClassVar[str] = "top-p"
    p: Number
    min_keep: Whole

    @property
    def is_on(self) -> Bool[Array, ""]:
        """Whether it has an effect."""
        return self.p < 1

    def __call__(self, candidates: Candidates, step: StepContext) -> Candidates:
        """Find the nucleus; after a short top-k this needs no sorting."""
        nucleus = candidates.best(self.p, self.min_keep)
        return candidates.sorted_by_logit(self.p < 1).keep(nucleus | (self.p >= 1))


@pytree
@dataclass(frozen=True)
class MinP:
    """Keep candidates at least p times as likely as the likeliest (Nguyen et al. 2024, arXiv:2407.01082)."""

    name: ClassVar[str] = "min-p"
    p: Number
    min_keep: Whole
    by_rank: bool = field(metadata=STATIC)  # whether min_keep may be above 1

    @property
    def is_on(self) -> Bool[Array, ""]:
        """Whether it has an effect."""
        return self.p > 0

    def __call__(self, candidates: Candidates, step: StepContext) -> Candidates:
        """Apply a threshold to the logits; only a min_keep above 1 needs a ranking."""
        likely = candidates.logits >= jnp.max(candidates.logits) + jnp.log(self.p)
        if self.by_rank:
            too_few = jnp.sum(likely & candidates.kept, dtype=jnp.int32) < self.min_keep
            candidates = candidates.sorted_by_logit(too_few & self.is_on)
            likely = likely | lax.cond(
                self.min_keep > 1, lambda: candidates.best(None, self.min_keep), lambda: jnp.zeros_like(likely)
            )
        return candidates.keep(likely | (self.p <= 0))


@pytree
@dataclass(frozen=True)
class Typical:
    """Keep the candidates with surprise closest to the entropy, until their sum exceeds p.

    Meister et al. 2022, arXiv:2202.00666.
    """

    name: ClassVar[str] = "typical"
    p: Number
    min_keep: Whole

    @property
    def is_on(self) -> Bool[Array, ""]:
        """Whether it has an effect."""
        return self.p < 1

    def __call__(self, candidates: Candidates, step: StepContext) -> Candidates:
        """Rank by -|-ln p - H|."""
        probs = candidates.probs
        surprise = -jnp.log(jnp.where(probs > 0, probs, 1.0))
        entropy = jnp.sum(probs * surprise)
        distance = jnp.where(probs > 0, jnp.abs(surprise - entropy), jnp.inf)
        more = jnp.nextafter(self.p, jnp.float32(2))  # the sum is to exceed p
        typical = candidates.best(more, self.min_keep, -distance)
        return candidates.sorted_by(-distance, self.p < 1).keep(typical | (self.p >= 1))


@pytree
@dataclass(frozen=True)
class Xtc:
    """Exclude top choices: sometimes drop all candidates above a threshold except the last.

    The last one is the least likely of them. The sampler by p-e-w (text-generation-webui #6335).
    """

    name: ClassVar[str] = "xtc"
    probability: Number
    threshold: Number
    min_keep: Whole

    @property
    def is_on(self) -> Bool[Array, ""]:
        """Whether it has an effect."""
        return (self.probability > 0) & (self.threshold <= 0.5)

    def __call__(self, candidates: Candidates, step: StepContext) -> Candidates:
        """Find the least likely of the strong candidates, the last of equals.

        One candidate alone draws no random number.
        """
        probs = candidates.probs
        strong = (probs >= self.threshold) & (probs > 0)
        size = probs.shape[0]
        weakest = size - 1 - jnp.argmin(jnp.where(strong, probs, jnp.inf)[::-1])
        survivors = candidates.kept & (~strong | (jnp.arange(size, dtype=jnp.int32) == weakest))
        draws = self.is_on & (candidates.count > 1)
        happens = draws & (step.xtc_uniform <= self.probability)
        candidates = replace(candidates.sorted_by_logit(happens), xtc_numbers=draws.astype(jnp.int32))
        happens = happens & (jnp.sum(survivors, dtype=jnp.int32) >= self.min_keep)
        return candidates.keep(jnp.where(happens, survivors, candidates.kept))
