"""What devices exchange when heads, feed-forward rows and vocabulary are spread over them (Shoeybi et al. 2019).

Each device multiplies with its rows of `attn_q`, `attn_k`, `attn_v`, `ffn_gate` and `ffn_up`, whose results nobody else
needs, and then with its columns of `attn_output` and `ffn_down`, which gives a part of each number of the sum: two
exchanges a layer. The axis is None where a device computes alone, and nothing is exchanged.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int

SMALL = 1 << 16  # numbers that are sooner sent to everybody than added up under way


def total(x: Float[Array, "*axes"], axis: str | None) -> Float[Array, "*axes"]:
    """The sum over the devices of an axis, the same to the last bit on all of them.

    On processors a collective costs its messages' latency, and adding up under way takes twice as many as giving every
    device every part; for many numbers on many devices it sends less.
    """
    if axis is None:
        return x
    devices = lax.axis_size(axis)
    if jax.default_backend() != "cpu" or (devices > 2 and x.size * devices > SMALL):
        return lax.psum(x, axis)
    return jnp.sum(lax.all_gather(x, axis), axis=0)


def joined(x: Float[Array, "*batch R"], axis: str | None) -> Float[Array, "*batch V"]:
    """The devices' parts of a last axis, side by side."""
    return x if axis is None else lax.all_gather(x, axis, axis=x.ndim - 1, tiled=True)


def place_on(axis: str | None) -> Int[Array, ""] | int:
    """Which of an axis' devices this is."""
    return 0 if axis is None else lax.axis_index(axis)
