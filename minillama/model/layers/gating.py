"""The gate of feed-forward networks: act(gate) · up, or the clamped one of gpt-oss."""

import jax
import jax.numpy as jnp
from jax import Array

from minillama.array_types import Float
from minillama.model.architectures import Activation

CLAMP, SHARPNESS = 7.0, 1.702  # of gpt-oss; x sigmoid(1.702 x) is close to GELU


def gated(
    gate: Float[Array, "*batch F"], up: Float[Array, "*batch F"], activation: Activation
) -> Float[Array, "*batch F"]:
    """act(gate) · up: SwiGLU or GeGLU (Shazeer 2020)."""
    if activation is Activation.CLAMPED_SWIGLU:
        return clamped_swiglu(gate, up)
    return activate(gate, activation) * up


def clamped_swiglu(gate: Float[Array, "*batch F"], up: Float[Array, "*batch F"]) -> Float[Array, "*batch F"]:
    """x sigmoid(1.702 x) (y + 1), with x = min(gate, 7) and y = up within ±7 (gpt-oss, arXiv:2508.10925)."""
    x, y = jnp.minimum(gate, CLAMP), jnp.clip(up, -CLAMP, CLAMP)
    return x * jax.nn.sigmoid(SHARPNESS * x) * (y + 1)


def activate(x: Float[Array, "*batch F"], activation: Activation) -> Float[Array, "*batch F"]:
    """The activation function of a family."""
    if activation is Activation.SILU:
        return jax.nn.silu(x)
    if activation is Activation.GELU:
        return jax.nn.gelu(x, approximate=True)
    return jnp.square(jax.nn.relu(x))
