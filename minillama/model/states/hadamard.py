"""Rotation of heads before they are quantised (QuaRot, arXiv:2404.00456; as in llama.cpp).

A few channels of keys are often much larger than the others, and set the scale of their block. The Walsh-Hadamard
matrix W / sqrt(n) spreads each channel over n. It is orthonormal: (W q)·(W k) = q·k, and symmetric: twice is nothing.
So queries are rotated like keys, and the mean of rotated values is rotated back.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from minillama.model.states.stores import Store

SMALLEST = 64  # channels that are rotated together; heads of other lengths stay as they are


def key_rotation(keys: Store) -> int:
    """Channels that are rotated together in queries and keys; 1 for none.

    The largest power of two that divides a head.
    """
    size = keys.shape[-1]
    return size & -size if _rotates(keys) else 1


def value_rotation(values: Store) -> int:
    """Channels that are rotated together in values; 1 for none."""
    return SMALLEST if _rotates(values) else 1


def _rotates(store: Store) -> bool:
    return store.kind.is_quantised and store.shape[-1] % SMALLEST == 0


def hadamard(x: Float[Array, "*axes C"], size: int) -> Float[Array, "*axes C"]:
    """W x / sqrt(size) of every `size` channels, a power of two.

    At each scale [a, b] becomes [a + b, a - b]. Sums alone, in a fixed order: a token gives the same bits in any batch.
    """
    y, step = x, 1
    while step < size:
        pairs = y.reshape(*x.shape[:-1], -1, 2, step)
        signs = np.array([1, -1], np.float32).reshape((1,) * (pairs.ndim - 2) + (2, 1))
        y, step = pairs * signs + pairs[..., ::-1, :], 2 * step
    return x if size == 1 else y.reshape(x.shape) * jnp.float32(1 / math.sqrt(size))
