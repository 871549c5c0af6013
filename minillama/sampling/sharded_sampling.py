"""Sampling from logits that are sharded over the vocabulary; devices exchange only their best candidates.

The stages up to the first top-k change single tokens. Each device applies them to its own shard, and the k best
candidates of all are among the k best of each. After the exchange, every device has the same candidates and draws the
same token.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Float
from minillama.sampling.candidates import Candidates, Order
from minillama.sampling.chain import Chain, Stage
from minillama.sampling.sampled_token import SampledToken
from minillama.sampling.sampler_state import SamplerState
from minillama.sampling.stages.dry import Dry
from minillama.sampling.stages.penalties import LogitBias, Penalties
from minillama.sampling.stages.truncation import TopK

PER_TOKEN_STAGES = (LogitBias, Penalties, Dry)  # stages that ignore the logits of other tokens


def shardable_stages(chain: Chain) -> tuple[Stage, ...]:
    """Leading stages, up to a top-k, that devices can run on shards; () if none.

    None in a chain of all stages, and where the likeliest tokens of the whole vocabulary are reported.
    """
    if chain.is_shared or chain.report is not None:
        return ()
    for place, stage in enumerate(chain.stages):
        if isinstance(stage, TopK):
            return () if stage.width is None else chain.stages[: place + 1]
        if not isinstance(stage, PER_TOKEN_STAGES):
            return ()
    return ()


def sample_sharded(
    chain: Chain, logits: Float[Array, "R"], state: SamplerState, axis: str
) -> tuple[SampledToken, SamplerState]:
    """Sample a token, as `sample` does.

    logits: this device's shard, R consecutive tokens. The result is the same on all devices of the axis.
    The chain must have `shardable_stages`.
    """
    first = lax.axis_index(axis) * logits.shape[0]
    shard = Candidates.from_range(logits, first, chain.vocab_size)
    stages = shardable_stages(chain)
    best = chain.run(shard, state, stages, with_sampler=False)[-1]
    shard_sum = jax.nn.logsumexp(jnp.where(shard.kept, logits.astype(jnp.float32), -jnp.inf))  # NaN where a logit is
    ids, kept = best.ids.astype(jnp.float32), best.kept.astype(jnp.float32)  # exact below 2**24
    packed = jnp.concatenate([best.logits, shard.logits[best.ids - first], ids, kept, shard_sum[None]])
    gathered = lax.all_gather(packed, axis)
    rows = gathered[:, :-1].reshape(gathered.shape[0], 4, -1).swapaxes(0, 1).reshape(4, -1)
    ids, kept = rows[2].astype(jnp.int32), rows[3] > 0
    merged = Candidates(ids, rows[0], kept, None, jnp.int32(0), Order.NONE, chain.vocab_size)
    found = chain.run(merged, state, chain.stages[len(stages) - 1 :])[-1]
    token, state = chain.draw(found, state)
    raw = rows[1][jnp.argmax(merged.ids == token)]
    return SampledToken(token, raw - jax.nn.logsumexp(gathered[:, -1]), None), state
