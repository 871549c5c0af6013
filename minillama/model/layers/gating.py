"""The gate of feed-forward networks: act(gate) · up."""

import jax
from jax import Array
from jaxtyping import Float

from minillama.model.architectures import Activation


def gated(
    gate: Float[Array, "*batch F"], up: Float[Array, "*batch F"], activation: Activation
) -> Float[Array, "*batch F"]:
    """act(gate) · up: SwiGLU or GeGLU (Shazeer 2020)."""
    return (jax.nn.silu(gate) if activation is Activation.SILU else jax.nn.gelu(gate, approximate=True)) * up
