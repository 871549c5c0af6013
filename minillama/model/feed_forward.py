"""The gated feed-forward network (Shazeer 2020): down(act(gate x) · up x)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from minillama.model.architectures import Activation
from minillama.model.params import Block, together


def gated(
    opened: Float[Array, "*batch F"], up: Float[Array, "*batch F"], activation: Activation
) -> Float[Array, "*batch F"]:
    """act(opened) · up."""
    gate = jax.nn.silu(opened) if activation is Activation.SILU else jax.nn.gelu(opened, approximate=True)
    return gate * up


def feed_forward(
    block: Block,
    activation: Activation,
    h: Float[Array, "*batch D"],
    tap: Callable[[str, Array], Array] = lambda name, value: value,
    valid: Int[Array, ""] | None = None,
) -> Float[Array, "*batch D"]:
    """One dense network; where the file has no ffn_gate, ffn_up holds the rows of gate and up.

    `tap` sees what goes into ffn_down. valid: how many of the tokens count; None for all.
    """
    if block.ffn_gate is not None:
        opened, up = together(h, block.ffn_gate, block.ffn_up, valid=valid)
    else:
        opened, up = jnp.split(block.ffn_up(h, valid), 2, axis=-1)
    name = "ffn_swiglu" if activation is Activation.SILU else "ffn_geglu"
    return block.ffn_down(tap(name, gated(opened, up, activation)), valid)
