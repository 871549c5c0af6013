"""A short causal convolution over time, as recurrent layers have it before their memory."""

import jax.numpy as jnp
from jax import Array

from minillama.array_types import Float, Int


def causal_convolution(
    x: Float[Array, "B T C"],
    tail: Float[Array, "B C W"],
    weight: Float[Array, "C taps"],
    bias: Float[Array, "C"] | None = None,
    valid: Int[Array, "B"] | None = None,
) -> tuple[Float[Array, "B T C"], Float[Array, "B C W"]]:
    """The convolution of T new inputs, and the last W inputs after them.

    W = taps - 1. The last tap belongs to the present token. valid: inputs of each text that count; None for all T.
    """
    time, taps = x.shape[1], weight.shape[1]
    joined = jnp.concatenate([tail.swapaxes(1, 2), x], axis=1)
    y = sum(joined[:, tap : tap + time] * weight[None, None, :, tap] for tap in range(taps))
    if bias is not None:
        y = y + bias[None, None]
    if valid is None:
        return y, joined[:, time:].swapaxes(1, 2)
    places = valid[:, None] + jnp.arange(taps - 1, dtype=jnp.int32)[None]
    return y, jnp.take_along_axis(joined, places[:, :, None], axis=1).swapaxes(1, 2)
