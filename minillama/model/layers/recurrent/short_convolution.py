"""A gated short convolution as a layer's mixer (LFM2): c · conv(b · x)."""

import jax.numpy as jnp
from jax import Array

from minillama.array_types import Float
from minillama.model.context import PassContext
from minillama.model.layer_kinds import ShortConvolution
from minillama.model.layers.recurrent.causal_convolution import causal_convolution
from minillama.model.params import Block
from minillama.model.states.recurrent import ConvolutionState


def short_convolution_mixer(
    p: Block, h: Float[Array, "B T D"], state: ConvolutionState, ctx: PassContext, layer: ShortConvolution
) -> tuple[Float[Array, "B _ C"], ConvolutionState]:
    """The gated convolution of this device's C channels, before `shortconv.out_proj`."""
    b, c, x = jnp.split(p.shortconv_in_proj(h, ctx.n_valid), 3, axis=-1)
    y, tail = causal_convolution(b * x, state.tail, p.shortconv_conv, valid=ctx.valid)
    return ctx.see("conv_out", ctx.output_rows(c) * ctx.output_rows(y)), ConvolutionState(tail)
