"""Sampling where each device has the logits of some of the vocabulary: only the best candidates of each travel.

The links up to the first top-k change single tokens, so that each device applies them to its own, and the best k of all
are among the best k of each. Behind that every device has the same candidates, and draws the same token.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from minillama.sampling.candidates import Candidates, Order
from minillama.sampling.chain import Chain, Stage
from minillama.sampling.sampler_state import SamplerState
from minillama.sampling.stages.dry import Dry
from minillama.sampling.stages.penalties import LogitBias, Penalties
from minillama.sampling.stages.truncation import TopK

PER_TOKEN_STAGES = (LogitBias, Penalties, Dry)  # links for which other tokens' logits do not matter


def shardable_stages(chain: Chain) -> tuple[Stage, ...]:
    """The links that devices can go through apart, the last of which is a top-k; none where the chain has no such."""
    for place, stage in enumerate(chain.stages):
        if isinstance(stage, TopK):
            return chain.stages[: place + 1]
        if not isinstance(stage, PER_TOKEN_STAGES):
            return ()
    return ()


def sample_sharded(
    chain: Chain, state: SamplerState, logits: Float[Array, "R"], axis: str
) -> tuple[Int[Array, ""], Float[Array, ""], SamplerState]:
    """A token, its log-probability before the filters, and the state, the same on all devices of an axis.

    logits: of the R tokens that follow those of the devices before this one. `shardable_stages` must not be empty.
    """
    first = lax.axis_index(axis) * logits.shape[0]
    here = Candidates.from_range(logits, first, chain.vocab_size)
    apart = shardable_stages(chain)
    best = chain.run(here, state, apart, with_sampler=False)[-1]
    sum_here = jax.nn.logsumexp(here.logits)
    ids, kept = best.ids.astype(jnp.float32), best.kept.astype(jnp.float32)  # exact below 2**24
    packed = jnp.concatenate([best.logits, here.logits[best.ids - first], ids, kept, sum_here[None]])
    everywhere = lax.all_gather(packed, axis)
    rows = everywhere[:, :-1].reshape(everywhere.shape[0], 4, -1).swapaxes(0, 1).reshape(4, -1)
    among = Candidates(rows[2].astype(jnp.int32), rows[0], rows[3] > 0, Order.NONE, chain.vocab_size)
    found = chain.run(among, state, chain.stages[len(apart) - 1 :])[-1]
    token, state = chain.draw(found, state)
    raw = rows[1][jnp.argmax(among.ids == token)]
    return token, raw - jax.nn.logsumexp(everywhere[:, -1]), state
