"""The table of mixers: the kind of a layer decides how it mixes tokens.

A new kind of layer is a kind (`layer_kinds.py`), a state (`states/`) and a mixer with the signature of `Mixer`.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jax import Array

from minillama.array_types import Float
from minillama.model.cache import LayerState
from minillama.model.context import PassContext
from minillama.model.layer_kinds import Attention, DeltaNet, LatentAttention, Layer, Mamba2, ShortConvolution
from minillama.model.layers.attention_mixer import attention_mixer
from minillama.model.layers.latent_attention_mixer import latent_attention_mixer
from minillama.model.layers.recurrent.delta_net import delta_net_mixer
from minillama.model.layers.recurrent.mamba2 import mamba2_mixer
from minillama.model.layers.recurrent.short_convolution import short_convolution_mixer
from minillama.model.params import Block
from minillama.model.states.recurrent import FixedState


@runtime_checkable
class Mixer(Protocol):
    """A function that lets the tokens of a text exchange information."""

    def __call__(
        self, p: Block, h: Float[Array, "B T D"], state: Any, ctx: PassContext, layer: Layer
    ) -> tuple[Float[Array, "B _ M"], Any]:
        """The mixed tokens, before the output projection, and the layer's state after them."""


MIXERS: Mapping[type[Layer], Mixer] = {
    Attention: attention_mixer,
    LatentAttention: latent_attention_mixer,
    DeltaNet: delta_net_mixer,
    Mamba2: mamba2_mixer,
    ShortConvolution: short_convolution_mixer,
}


def mix(
    p: Block, h: Float[Array, "B T D"], state: LayerState, ctx: PassContext, layer: Layer
) -> tuple[Float[Array, "B _ M"], LayerState]:
    """Mix tokens with the mixer that belongs to the layer's kind.

    Mixers of attention read and write rows of the cache in place. States of fixed size are copied out and back.
    """
    mixer = MIXERS[type(layer)]
    if ctx.slots is None or not isinstance(state, FixedState):
        return mixer(p, h, state, ctx, layer)
    mixed, after = mixer(p, h, state.of_rows(ctx.slots, ctx.positions[:, 0]), ctx, layer)
    return mixed, state.with_rows(after, ctx.slots)
