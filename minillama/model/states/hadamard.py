"""Rotation of heads before they are quantised (QuaRot, arXiv:2404.00456; as in llama.cpp).

A few channels of keys are often much larger than the others, and set the scale of their block. The Walsh-Hadamard
matrix W / sqrt(n) spreads each channel over n. It is orthonormal: (W q)·(W k) = q·k, and symmetric: twice is nothing.
So queries are rotated like keys, and the mean of rotated values is rotated back.
"""

import math
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from minillama.array_types import Float
from minillama.kernels import cpu_kernels_error, target_platform
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


def hadamard(x: Float[Array, "B T *axes"], size: int) -> Float[Array, "B T *axes"]:
    """W x / sqrt(size) of every `size` channels.

    size: 1 for no rotation, or a power of two from 64 on.
    """
    if size == 1:
        return x
    on_cpu = product = partial(hadamard_product, size=size)
    if cpu_kernels_error() is None:
        from minillama.kernels.cpu.attention.rotate_heads import rotate_heads

        on_cpu = partial(rotate_heads, size=size)
    if target_platform() == "cpu":
        return on_cpu(x)
    return lax.platform_dependent(x, cpu=on_cpu, default=product)


def hadamard_product(x: Float[Array, "*axes C"], size: int) -> Float[Array, "*axes C"]:
    """`hadamard` as a product with the matrix.

    The sign of [i, j] is the parity of the bits that i and j share.
    """
    shared = np.arange(size)[:, None] & np.arange(size)
    parity = sum((shared >> bit) & 1 for bit in range(size.bit_length())) % 2
    matrix = jnp.asarray(((1 - 2 * parity) / math.sqrt(size)).astype(np.float32))
    return jnp.matmul(x.reshape(-1, size), matrix, precision=lax.Precision.HIGHEST).reshape(x.shape)
