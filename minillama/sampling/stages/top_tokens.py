"""The likeliest tokens in the place of each sampled one."""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Float, Int
from minillama.sampling.candidates import Candidates
from minillama.sampling.pytree import STATIC, Whole, pytree

NOTHING, BEFORE_CHAIN, AFTER_CHAIN = 0, 1, 2


class TopTokens(NamedTuple):
    """The n likeliest tokens, likeliest first, and their log-probabilities (natural).

    chosen: the log-probability of the sampled token among them. All are 0 where nothing is reported.
    """

    ids: Int[Array, "*B n"]
    logprobs: Float[Array, "*B n"]
    chosen: Float[Array, "*B"]


@pytree
@dataclass(frozen=True)
class TopReport:
    """Whether a draw reports the likeliest tokens, of the model or of the chain's result."""

    when: Whole  # NOTHING, BEFORE_CHAIN or AFTER_CHAIN
    width: int = field(metadata=STATIC)  # number of tokens, at least as many as are wanted

    def __call__(self, logits: Float[Array, "V"], found: Candidates, token: Int[Array, ""]) -> TopTokens:
        """The likeliest tokens of logits, or of the chain's result; costs nothing for NOTHING."""

        def nothing() -> TopTokens:
            return self.blank()

        def before() -> TopTokens:
            raw = logits.astype(jnp.float32)
            total = jax.nn.logsumexp(raw)
            best, ids = lax.top_k(raw, self.width)
            return TopTokens(ids.astype(jnp.int32), best - total, raw[token] - total)

        def after() -> TopTokens:
            missing = max(0, self.width - len(found.ids))
            ids, probs = jnp.pad(found.ids, (0, missing)), jnp.pad(found.probs, (0, missing))
            best, places = lax.top_k(probs, self.width)
            chosen = jnp.sum(jnp.where(found.ids == token, found.probs, 0.0))
            return TopTokens(ids[places], jnp.log(best), jnp.log(chosen))

        return lax.switch(self.when, [nothing, before, after])

    def blank(self, *batch: int) -> TopTokens:
        """A report of nothing."""
        ids = jnp.zeros((*batch, self.width), jnp.int32)
        return TopTokens(ids, jnp.zeros(ids.shape, jnp.float32), jnp.zeros(batch, jnp.float32))
