"""The gate of feed-forward networks: act(gate) · up."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from minillama.model.architectures import Activation


def gated(
    gate: Float[Array, "*batch F"], up: Float[Array, "*batch F"], activation: Activation
) -> Float[Array, "*batch F"]:
    """act(gate) · up: SwiGLU or GeGLU (Shazeer 2020)."""
    return activate(gate, activation) * up


def activate(x: Float[Array, "*batch F"], activation: Activation) -> Float[Array, "*batch F"]:
    """The activation function of a family."""
    if activation is Activation.SILU:
        return jax.nn.silu(x)
    if activation is Activation.GELU:
        return jax.nn.gelu(x, approximate=True)
    return jnp.square(jax.nn.relu(x))
