"""Root-mean-square normalisation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def rms_norm(x: Float[Array, "*batch D"], weight: Float[Array, "D"], epsilon: float) -> Float[Array, "*batch D"]:
    """x / sqrt(mean(x²) + ε) · weight (Zhang and Sennrich 2019)."""
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)
    return x * scale * weight.reshape((1,) * (x.ndim - 1) + (-1,))
