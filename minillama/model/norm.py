"""Root-mean-square and layer normalisation."""

import jax
import jax.numpy as jnp
from jax import Array

from minillama.array_types import Float
from minillama.model.collectives import all_reduce, axis_index, axis_size, mean_of_neighbours


def rms_norm(x: Float[Array, "*batch D"], weight: Float[Array, "D"] | None, epsilon: float) -> Float[Array, "*batch D"]:
    """x / sqrt(mean(x²) + ε) · weight (Zhang and Sennrich 2019); without a weight, 1."""
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)
    return x * scale if weight is None else x * scale * weight.reshape((1,) * (x.ndim - 1) + (-1,))


def shared_rms_norm(
    x: Float[Array, "*batch R"], weight: Float[Array, "D"], epsilon: float, axis: str | None
) -> Float[Array, "*batch R"]:
    """RMSNorm of D channels that the devices of an axis share.

    Each has R of them, in order, and several devices may have the same; all hold the whole weight.
    """
    mean = all_reduce(jnp.mean(jnp.square(x), axis=-1, keepdims=True), axis) / axis_size(axis)
    size = x.shape[-1]
    first = axis_index(axis) * (weight.shape[0] // size) // axis_size(axis) * size
    mine = jax.lax.dynamic_slice_in_dim(weight, first, size)
    return x * jax.lax.rsqrt(mean + epsilon) * mine.reshape((1,) * (x.ndim - 1) + (-1,))


def rms_norm_in_parts(
    x: Float[Array, "*batch P"], weight: Float[Array, "*groups P"], epsilon: float, axis: str | None, devices: int
) -> Float[Array, "*batch P"]:
    """RMSNorm where each of some devices has P of the channels, with their weights.

    devices: neighbours on the axis that share the channels; 1 where x has all of them.
    """
    mean = mean_of_neighbours(jnp.mean(jnp.square(x), axis=-1, keepdims=True), axis, devices)
    return x * jax.lax.rsqrt(mean + epsilon) * weight.reshape((1,) * (x.ndim - weight.ndim) + weight.shape)


def layer_norm(
    x: Float[Array, "*batch D"], weight: Float[Array, "D"], bias: Float[Array, "D"] | None, epsilon: float
) -> Float[Array, "*batch D"]:
    """RMSNorm of x less its mean, plus a bias if any (Ba et al. 2016)."""
    normed = rms_norm(x - jnp.mean(x, axis=-1, keepdims=True), weight, epsilon)
    return normed if bias is None else normed + bias.reshape((1,) * (x.ndim - 1) + (-1,))
