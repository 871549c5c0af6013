"""Trace a forward pass: every named activation."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import Cache, Config, Params, empty_cache
from minillama.model.forward import forward, unembed


def trace(params: Params, config: Config, ids: Sequence[int], types: CacheTypes) -> dict[str, np.ndarray]:
    """Activations of one pass in the order of computation, without the batch axis; see `LLM.trace`."""
    cache = empty_cache(config, len(ids), types)
    found = _trace(params, config, jnp.asarray(np.array([ids], np.int32)), cache)
    arrays = {name: np.asarray(value)[0] for name, value in found.items()}
    return {name: a.reshape(-1, *a.shape[2:]) if name.startswith("kq_soft_max") else a for name, a in arrays.items()}


@partial(jax.jit, static_argnames="config")
def _trace(params: Params, config: Config, ids: Array, cache: Cache) -> OrderedDict[str, Array]:
    found: OrderedDict[str, Array] = OrderedDict()  # jit sorts a plain dict by name

    def see(name: str, value: Array) -> Array:
        found[name] = value
        return value

    states, _ = forward(params, config, ids, cache, see)
    unembed(params, config, states, see)
    return found
