"""Root-mean-square and layer normalisation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def rms_norm(x: Float[Array, "*batch D"], weight: Float[Array, "D"], epsilon: float) -> Float[Array, "*batch D"]:
    """x / sqrt(mean(x²) + ε) · weight (Zhang and Sennrich 2019)."""
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)
    return x * scale * weight.reshape((1,) * (x.ndim - 1) + (-1,))


def layer_norm(
    x: Float[Array, "*batch D"], weight: Float[Array, "D"], bias: Float[Array, "D"] | None, epsilon: float
) -> Float[Array, "*batch D"]:
    """RMSNorm of x less its mean, plus a bias if any (Ba et al. 2016)."""
    normed = rms_norm(x - jnp.mean(x, axis=-1, keepdims=True), weight, epsilon)
    return normed if bias is None else normed + bias.reshape((1,) * (x.ndim - 1) + (-1,))
