"""Decode GGUF blocks inside XLA: bytes become integer codes, scales and minima.

Every quantised type is affine in groups of 16 or 32 consecutive weights of a row:

    value[i] = scale[g] * (code[i] - zero_point) - minimum[g]

so that one matrix product on codes serves all types. Code book types (IQ4, MXFP4, NVFP4) and grid types
(`decode_grids`) are affine after the look-up. Layouts: `minillama.gguf.block_layouts`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type
from jax import Array, lax

from minillama.array_types import Float, UInt8
from minillama.gguf.block_layouts import IQ4_VALUES, LAYOUTS, MXFP4_DOUBLED_VALUES
from minillama.kernels.block_fields import (
    Blocks,
    Groups,
    field,
    fifth_bits,
    k_groups,
    look_up,
    minimum_of,
    nibbles,
    planes,
    scale_of,
    scales_and_minima,
    signed,
    to_float,
)
from minillama.kernels.decode_grids import GRID_DECODERS


def q4_0(b: Blocks) -> Groups:
    """18 bytes, 32 weights: d (q - 8)."""
    return Groups(nibbles(field(b, LAYOUTS[Type.Q4_0].qs, 16)), scale_of(b, Type.Q4_0), zero_point=8)


def q4_1(b: Blocks) -> Groups:
    """20 bytes, 32 weights: d q + m."""
    return Groups(nibbles(field(b, LAYOUTS[Type.Q4_1].qs, 16)), scale_of(b, Type.Q4_1), -minimum_of(b, Type.Q4_1))


def q5_0(b: Blocks) -> Groups:
    """22 bytes, 32 weights: d (q - 16)."""
    layout = LAYOUTS[Type.Q5_0]
    codes = nibbles(field(b, layout.qs, 16)) | fifth_bits(b, layout.qh)
    return Groups(signed(codes, 16), scale_of(b, Type.Q5_0))


def q5_1(b: Blocks) -> Groups:
    """24 bytes, 32 weights: d q + m."""
    layout = LAYOUTS[Type.Q5_1]
    codes = nibbles(field(b, layout.qs, 16)) | fifth_bits(b, layout.qh)
    return Groups(signed(codes, 0), scale_of(b, Type.Q5_1), -minimum_of(b, Type.Q5_1))


def q8_0(b: Blocks) -> Groups:
    """34 bytes, 32 weights: d q, q int8."""
    return Groups(lax.bitcast_convert_type(field(b, LAYOUTS[Type.Q8_0].qs, 32), jnp.int8), scale_of(b, Type.Q8_0))


def q2_k(b: Blocks) -> Groups:
    """84 bytes, 256 weights: codes of 2 bits, 16 scales and minima of 4 bits."""
    layout = LAYOUTS[Type.Q2_K]
    scales, d, dmin = field(b, layout.scales, 16), to_float(scale_of(b, Type.Q2_K)), to_float(minimum_of(b, Type.Q2_K))
    codes = planes(field(b, layout.qs, 64).reshape(*b.shape[:-1], 2, 32), (0, 2, 4, 6)) & jnp.uint8(3)
    return k_groups(
        codes, 16, d[..., None] * to_float(scales & jnp.uint8(15)), dmin[..., None] * to_float(scales >> jnp.uint8(4))
    )


def q3_k(b: Blocks) -> Groups:
    """110 bytes, 256 weights: codes of 2 + 1 bits, 16 scales of 6 bits."""
    layout = LAYOUTS[Type.Q3_K]
    low = planes(field(b, layout.qs, 64).reshape(*b.shape[:-1], 2, 32), (0, 2, 4, 6)) & jnp.uint8(3)
    high = planes(field(b, layout.qh, 32), tuple(range(8))).reshape(low.shape) & jnp.uint8(1)
    packed = field(b, layout.scales, 12)
    scales = nibbles(packed[..., :8]) | (
        (planes(packed[..., 8:], (0, 2, 4, 6)) & jnp.uint8(3)) << jnp.uint8(4)
    ).reshape(*b.shape[:-1], 16)
    d = to_float(scale_of(b, Type.Q3_K))[..., None]
    return k_groups(signed(low | (high << jnp.uint8(2)), 4), 16, d * (to_float(scales) - 32))


def q4_k(b: Blocks) -> Groups:
    """144 bytes, 256 weights: codes of 4 bits, 8 scales and minima of 6 bits."""
    layout = LAYOUTS[Type.Q4_K]
    scale, minimum = scales_and_minima(field(b, layout.scales, 12))
    codes = planes(field(b, layout.qs, 128).reshape(*b.shape[:-1], 4, 32), (0, 4)) & jnp.uint8(15)
    return k_groups(
        codes,
        32,
        to_float(scale_of(b, Type.Q4_K))[..., None] * scale,
        to_float(minimum_of(b, Type.Q4_K))[..., None] * minimum,
    )


def q5_k(b: Blocks) -> Groups:
    """176 bytes, 256 weights: Q4_K with codes of 4 + 1 bits."""
    layout, rows = LAYOUTS[Type.Q5_K], b.shape[:-1]
    scale, minimum = scales_and_minima(field(b, layout.scales, 12))
    low = planes(field(b, layout.qs, 128).reshape(*rows, 4, 32), (0, 4)).reshape(*rows, 8, 32) & jnp.uint8(15)
    high = (planes(field(b, layout.qh, 32), tuple(range(8))) & jnp.uint8(1)) << jnp.uint8(4)
    return k_groups(
        signed(low | high, 0),
        32,
        to_float(scale_of(b, Type.Q5_K))[..., None] * scale,
        to_float(minimum_of(b, Type.Q5_K))[..., None] * minimum,
    )


def q6_k(b: Blocks) -> Groups:
    """210 bytes, 256 weights: codes of 4 + 2 bits minus 32, 16 int8 scales."""
    layout, rows = LAYOUTS[Type.Q6_K], b.shape[:-1]
    low = planes(field(b, layout.qs, 128).reshape(*rows, 2, 64), (0, 4)).reshape(*rows, 2, 4, 32) & jnp.uint8(15)
    high = (planes(field(b, layout.qh, 64).reshape(*rows, 2, 32), (0, 2, 4, 6)) & jnp.uint8(3)) << jnp.uint8(4)
    scales = lax.bitcast_convert_type(field(b, layout.scales, 16), jnp.int8)
    return k_groups(signed(low | high, 32), 16, to_float(scale_of(b, Type.Q6_K))[..., None] * to_float(scales))


def iq4_nl(b: Blocks) -> Groups:
    """18 bytes, 32 weights: codes of 4 bits into a code book."""
    return Groups(look_up(IQ4_VALUES, nibbles(field(b, LAYOUTS[Type.IQ4_NL].qs, 16))), scale_of(b, Type.IQ4_NL))


def iq4_xs(b: Blocks) -> Groups:
    """136 bytes, 256 weights: IQ4_NL's code book, 8 scales of 6 bits."""
    layout, rows = LAYOUTS[Type.IQ4_XS], b.shape[:-1]
    low = planes(field(b, layout.scales, 4), (0, 4)).swapaxes(-1, -2).reshape(*rows, 8) & jnp.uint8(15)
    high = planes(field(b, layout.scales_high, 2), (0, 2, 4, 6)).swapaxes(-1, -2).reshape(*rows, 8) & jnp.uint8(3)
    scales = to_float(low | (high << jnp.uint8(4))) - 32
    codes = look_up(IQ4_VALUES, nibbles(field(b, layout.qs, 128).reshape(*rows, 8, 16)))
    return k_groups(codes, 32, to_float(scale_of(b, Type.IQ4_XS))[..., None] * scales)


def mxfp4(b: Blocks) -> Groups:
    """17 bytes, 32 weights: a power of two, E2M1 values (OCP microscaling formats)."""
    layout = LAYOUTS[Type.MXFP4]
    e = b[..., layout.exponent].astype(jnp.uint32)
    # 2^(e - 128): half the scale, as the code book is doubled; the two smallest are subnormal floats
    bits = jnp.where(
        e < 2, jnp.uint32(0x00200000) << jnp.minimum(e, jnp.uint32(1)), (e - jnp.uint32(1)) << jnp.uint32(23)
    )
    codes = look_up(MXFP4_DOUBLED_VALUES, nibbles(field(b, layout.qs, 16)))
    return Groups(codes, lax.bitcast_convert_type(bits, jnp.float32))


def nvfp4(b: Blocks) -> Groups:
    """36 bytes, 64 weights: E2M1 values, 4 scales of E4M3 without a sign (NVIDIA's NVFP4)."""
    layout, rows = LAYOUTS[Type.NVFP4], b.shape[:-1]
    e4m3 = field(b, layout.scales, 4)
    # as a float16 the bits are 2^8 times smaller, as its exponent has another bias; the code book is doubled
    bits = jnp.where(e4m3 == 0x7F, jnp.uint16(0), (e4m3 & jnp.uint8(0x7F)).astype(jnp.uint16) << jnp.uint16(7))
    scale = to_float(lax.bitcast_convert_type(bits, jnp.float16)) * 128
    codes = look_up(MXFP4_DOUBLED_VALUES, nibbles(field(b, layout.qs, 32).reshape(*rows, 4, 8)))
    return k_groups(codes, 16, scale)


def tq1_0(b: Blocks) -> Groups:
    """54 bytes, 256 weights of -1, 0 and 1: five a byte, in base 3."""
    layout, rows = LAYOUTS[Type.TQ1_0], b.shape[:-1]
    parts = [(layout.qs, 32, 5), (layout.qs + 32, 16, 5), (layout.qh, 4, 4)]  # offset, bytes, weights of a byte
    digits = []
    for at, size, count in parts:
        powers = jnp.array([3**i for i in range(count)], jnp.uint8).reshape((1,) * (b.ndim - 1) + (count, 1))
        fraction = field(b, at, size)[..., None, :] * powers  # of 256, without the digits before
        digits.append(((fraction.astype(jnp.uint16) * jnp.uint16(3)) >> jnp.uint16(8)).reshape(*rows, count * size))
    return _ternary(jnp.concatenate(digits, axis=-1).astype(jnp.uint8), b, Type.TQ1_0)


def tq2_0(b: Blocks) -> Groups:
    """66 bytes, 256 weights of -1, 0 and 1: codes of 2 bits."""
    packed = field(b, LAYOUTS[Type.TQ2_0].qs, 64).reshape(*b.shape[:-1], 2, 32)
    return _ternary(planes(packed, (0, 2, 4, 6)) & jnp.uint8(3), b, Type.TQ2_0)


def _ternary(codes: Array, b: Blocks, kind: Type) -> Groups:
    """Groups of 32 of codes 0 to 2 with the scale of the block."""
    scale = jnp.broadcast_to(to_float(scale_of(b, kind))[..., None], (*b.shape[:-1], 8))
    return k_groups(codes, 32, scale)._replace(zero_point=1)


DECODERS: dict[Type, Callable[[Blocks], Groups]] = {
    Type.Q4_0: q4_0, Type.Q4_1: q4_1, Type.Q5_0: q5_0, Type.Q5_1: q5_1, Type.Q8_0: q8_0,
    Type.Q2_K: q2_k, Type.Q3_K: q3_k, Type.Q4_K: q4_k, Type.Q5_K: q5_k, Type.Q6_K: q6_k,
    Type.IQ4_NL: iq4_nl, Type.IQ4_XS: iq4_xs, Type.MXFP4: mxfp4, Type.NVFP4: nvfp4,
    Type.TQ1_0: tq1_0, Type.TQ2_0: tq2_0, **GRID_DECODERS,
}  # fmt: skip
# codes 0 to 15: two of them fit a byte
NIBBLE_TYPES = frozenset({Type.Q4_0, Type.Q4_1, Type.Q4_K, Type.Q2_K, Type.TQ1_0, Type.TQ2_0, Type.IQ1_S})


def decode(raw: UInt8[Array, "*rows row_bytes"], kind: Type) -> Groups:
    """Decode whole rows of quantised bytes in file order."""
    block = GGML_QUANT_SIZES[kind][1]
    return DECODERS[kind](raw.reshape(*raw.shape[:-1], raw.shape[-1] // block, block))


def dequantize(groups: Groups) -> Float[Array, "*rows K"]:
    """Rows as float32: the reference implementation of all products on codes."""
    values = (groups.codes.astype(jnp.float32) - groups.zero_point) * to_float(groups.scale)[..., None]
    if groups.minimum is not None:
        values = values - to_float(groups.minimum)[..., None]
    return jax.lax.collapse(values, values.ndim - 2)
