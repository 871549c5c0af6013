"""The table of mixers: a layer's state decides how the layer mixes tokens.

A new kind of layer is a state (a value with `capacity`, `resize` and `cut`) and a mixer with the signature of `Mixer`.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jax import Array
from jaxtyping import Float

from minillama.model.cache import LayerState
from minillama.model.context import PassContext
from minillama.model.layer_kinds import Layer
from minillama.model.layers.attention_mixer import attention_mixer
from minillama.model.params import Block
from minillama.model.states.key_values import KeyValues


@runtime_checkable
class Mixer(Protocol):
    """A function that lets the tokens of a text exchange information."""

    def __call__(
        self, p: Block, h: Float[Array, "B T D"], state: Any, ctx: PassContext, layer: Layer
    ) -> tuple[Float[Array, "B _ M"], Any]:
        """The mixed tokens, before the output projection, and the layer's state after them."""


MIXERS: Mapping[type, Mixer] = {KeyValues: attention_mixer}


def mix(
    p: Block, h: Float[Array, "B T D"], state: LayerState, ctx: PassContext, layer: Layer
) -> tuple[Float[Array, "B _ M"], LayerState]:
    """Mix tokens with the mixer that belongs to the layer's state."""
    return MIXERS[type(state)](p, h, state, ctx, layer)
