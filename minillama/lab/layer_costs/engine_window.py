"""The positions that the engine's attention gives a weight."""

import jax.numpy as jnp
import numpy as np

from minillama.array_types import Bool
from minillama.gguf.kv_cache_types import CacheType
from minillama.model.layers.attention import attention_weights
from minillama.model.states.stores import empty_store


def seen_by_engine(start: int, tokens: int, window: int) -> Bool[np.ndarray, "T S"]:
    """Mask of the weights that are not 0, of queries at positions from `start` on."""
    keys = empty_store(CacheType.F32, 1, 1, start + tokens, 32)
    positions = jnp.asarray(start + np.arange(tokens, dtype=np.int32))[None]
    weights = attention_weights(jnp.zeros((1, tokens, 1, 32)), keys, positions, 1.0, 0.0, window, None)
    return np.asarray(weights).reshape(tokens, start + tokens) > 0
