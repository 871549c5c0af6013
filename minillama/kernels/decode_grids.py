"""Decode the IQ1, IQ2 and IQ3 types inside XLA.

Codes become points of a grid, with signs and scales. Grids and layouts: `minillama.gguf.block_layouts`.
"""

from collections.abc import Callable

import jax.numpy as jnp
from gguf import GGMLQuantizationType as Type
from jax import Array, lax

from minillama.gguf.block_layouts import EVEN_SIGN_BITS, LAYOUTS, code_grid
from minillama.kernels.block_fields import (
    Blocks,
    Groups,
    bit_fields,
    field,
    k_groups,
    look_up,
    scale_of,
    to_float,
    words,
)

_SIGN_SHIFTS = tuple(EVEN_SIGN_BITS * i for i in range(4))  # of the signs of 32 weights in a 32-bit word
_NIBBLES = (0, 4)


def iq1_s(b: Blocks) -> Groups:
    """50 bytes, 256 weights: scale (point + delta), delta 1/8 or -1/8 for 32 weights."""
    layout, rows = LAYOUTS[Type.IQ1_S], b.shape[:-1]
    high = words(field(b, layout.qh, 16), jnp.uint16)
    numbers = _with_high_bits(field(b, layout.qs, 32), bit_fields(high, (0, 3, 6, 9), 7).reshape(*rows, 32))
    scale = to_float(scale_of(b, Type.IQ1_S))[..., None] * _odd(bit_fields(high, (12,), 7)[..., 0])
    minimum = scale * jnp.where(high >> jnp.uint16(15) == 0, jnp.float32(0.875), jnp.float32(1.125))
    codes = _points(Type.IQ1_S, numbers) + jnp.int8(1)
    return k_groups(codes.astype(jnp.uint8), 32, scale, minimum)


def iq1_m(b: Blocks) -> Groups:
    """56 bytes, 256 weights: IQ1_S with a scale for 16, a delta for 8."""
    layout, rows = LAYOUTS[Type.IQ1_M], b.shape[:-1]
    high = bit_fields(field(b, layout.qh, 16), _NIBBLES, 15).reshape(*rows, 32)
    packed = words(field(b, layout.scales, 8), jnp.uint16)
    tops = packed >> jnp.uint16(12)  # the float16 scale of the block in four parts
    bits = tops[..., 0] | tops[..., 1] << jnp.uint16(4) | tops[..., 2] << jnp.uint16(8) | tops[..., 3] << jnp.uint16(12)
    d = to_float(lax.bitcast_convert_type(bits, jnp.float16))
    scale = d[..., None] * _odd(bit_fields(packed, (0, 3, 6, 9), 7).reshape(*rows, 16)) / 8
    points = _points(Type.IQ1_M, _with_high_bits(field(b, layout.qs, 32), high & jnp.uint8(7)))
    delta = jnp.where(high & jnp.uint8(8) == 0, jnp.int8(1), jnp.int8(-1))
    return k_groups(points * jnp.int8(8) + delta[..., None], 16, scale)


def iq2_xxs(b: Blocks) -> Groups:
    """66 bytes, 256 weights: codes of 8 bits; words of signs and scales."""
    packed = field(b, LAYOUTS[Type.IQ2_XXS].qs, 64).reshape(*b.shape[:-1], 8, 8)
    word = words(packed[..., 4:], jnp.uint32)[..., 0]
    points = _points(Type.IQ2_XXS, packed[..., :4])
    codes = _with_signs(points, _even_signs(bit_fields(word, _SIGN_SHIFTS, 127)))
    d = to_float(scale_of(b, Type.IQ2_XXS))[..., None]
    return k_groups(codes, 32, d * _odd(word >> jnp.uint32(28)) / 8)


def iq2_xs(b: Blocks) -> Groups:
    """74 bytes, 256 weights: codes of 9 bits with 7 signs, 16 scales."""
    layout = LAYOUTS[Type.IQ2_XS]
    packed = words(field(b, layout.qs, 64), jnp.uint16)
    signs = _even_signs((packed >> jnp.uint16(9)).astype(jnp.uint8))
    codes = _with_signs(_points(Type.IQ2_XS, packed & jnp.uint16(511)), signs)
    return k_groups(codes, 16, _nibble_scales(b, Type.IQ2_XS, 8) / 8)


def iq2_s(b: Blocks) -> Groups:
    """82 bytes, 256 weights: codes of 8 + 2 bits, signs, 16 scales."""
    layout, rows = LAYOUTS[Type.IQ2_S], b.shape[:-1]
    high = bit_fields(field(b, layout.qh, 8), (0, 2, 4, 6), 3).reshape(*rows, 32)
    points = _points(Type.IQ2_S, _with_high_bits(field(b, layout.qs, 32), high))
    return k_groups(_with_signs(points, field(b, layout.signs, 32)), 16, _nibble_scales(b, Type.IQ2_S, 8) / 8)


def iq3_xxs(b: Blocks) -> Groups:
    """98 bytes, 256 weights: codes of 8 bits; words of signs and scales."""
    layout = LAYOUTS[Type.IQ3_XXS]
    word = words(field(b, layout.scales, 32), jnp.uint32)
    points = _points(Type.IQ3_XXS, field(b, layout.qs, 64))
    codes = _with_signs(points, _even_signs(bit_fields(word, _SIGN_SHIFTS, 127)))
    d = to_float(scale_of(b, Type.IQ3_XXS))[..., None]
    return k_groups(codes, 32, d * _odd(word >> jnp.uint32(28)) / 4)


def iq3_s(b: Blocks) -> Groups:
    """110 bytes, 256 weights: codes of 8 + 1 bits, signs, 8 scales."""
    layout, rows = LAYOUTS[Type.IQ3_S], b.shape[:-1]
    high = bit_fields(field(b, layout.qh, 8), tuple(range(8)), 1).reshape(*rows, 64)
    points = _points(Type.IQ3_S, _with_high_bits(field(b, layout.qs, 64), high))
    return k_groups(_with_signs(points, field(b, layout.signs, 32)), 32, _nibble_scales(b, Type.IQ3_S, 4))


GRID_DECODERS: dict[Type, Callable[[Blocks], Groups]] = {
    Type.IQ1_S: iq1_s, Type.IQ1_M: iq1_m, Type.IQ2_XXS: iq2_xxs, Type.IQ2_XS: iq2_xs, Type.IQ2_S: iq2_s,
    Type.IQ3_XXS: iq3_xxs, Type.IQ3_S: iq3_s,
}  # fmt: skip


def _with_high_bits(low: Array, high: Array) -> Array:
    """Codes of 8 bits with the bits above, which are apart."""
    return low.astype(jnp.uint16) | high.astype(jnp.uint16) << jnp.uint16(8)


def _points(kind: Type, numbers: Array) -> Array:
    """Points by number: int8 [..., 8], or [..., 4] for IQ3."""
    return look_up(code_grid(kind), numbers)


def _with_signs(points: Array, signs: Array) -> Array:
    """Negate the weights whose bit is set: signs [..., n], 8 n weights."""
    negative = bit_fields(signs, tuple(range(8)), 1).reshape(points.shape)
    return jnp.where(negative == 0, points, -points)


def _even_signs(seven: Array) -> Array:
    """Add the eighth sign bit, which makes the number of negative weights even."""
    ones = lax.population_count(seven) & jnp.array(1, seven.dtype)
    return (seven | ones << jnp.array(EVEN_SIGN_BITS, seven.dtype)).astype(jnp.uint8)


def _odd(code: Array) -> Array:
    """Scales are odd numbers: 2 code + 1."""
    return 2 * to_float(code) + 1


def _nibble_scales(b: Blocks, kind: Type, size: int) -> Array:
    """d (2 code + 1) of scales of 4 bits in `size` bytes: float32 [..., 2 size]."""
    codes = bit_fields(field(b, LAYOUTS[kind].scales, size), _NIBBLES, 15).reshape(*b.shape[:-1], 2 * size)
    return to_float(scale_of(b, kind))[..., None] * _odd(codes)
