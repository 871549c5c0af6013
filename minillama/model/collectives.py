"""Collectives of tensor parallelism (Shoeybi et al. 2019): all-reduce, all-gather, axis index.

Each device multiplies with its rows of `attn_q`, `attn_k`, `attn_v`, `ffn_gate` and `ffn_up`, which needs no exchange,
and then with its columns of `attn_output` and `ffn_down`, which gives a part of every sum: two all-reduces a layer.
The axis is None on a single device, and nothing is exchanged.
"""

import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Float, Int
from minillama.kernels import target_platform

SMALL = 1 << 16  # numbers; up to here an all-gather and a local sum is faster than an all-reduce


def all_reduce(x: Float[Array, "*axes"], axis: str | None) -> Float[Array, "*axes"]:
    """The sum over the devices of an axis, bitwise equal on all of them.

    On processors a collective costs the latency of its messages, and a ring all-reduce takes twice as many as an
    all-gather. It sends less where many numbers meet on many devices.
    """
    if axis is None:
        return x
    devices = lax.axis_size(axis)
    if target_platform() != "cpu" or (devices > 2 and x.size * devices > SMALL):
        return lax.psum(x, axis)
    return jnp.sum(lax.all_gather(x, axis), axis=0)


def mean_of_neighbours(x: Float[Array, "*axes"], axis: str | None, count: int) -> Float[Array, "*axes"]:
    """The mean over this device and its neighbours, `count` in all.

    Neighbours are the first devices of an axis, the next ones, and so on.
    """
    if axis is None or count == 1:
        return x
    first = lax.axis_index(axis) // count * count
    return jnp.mean(lax.dynamic_slice_in_dim(lax.all_gather(x, axis), first, count), axis=0)


def all_gather(x: Float[Array, "*batch R"], axis: str | None) -> Float[Array, "*batch V"]:
    """The devices' shards of the last axis, concatenated."""
    return x if axis is None else lax.all_gather(x, axis, axis=x.ndim - 1, tiled=True)


def axis_index(axis: str | None) -> Int[Array, ""] | int:
    """This device's index on an axis; 0 on a single device."""
    return 0 if axis is None else lax.axis_index(axis)


def axis_size(axis: str | None) -> int:
    """Number of devices on an axis; 1 on a single device."""
    return 1 if axis is None else lax.axis_size(axis)
