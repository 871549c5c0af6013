"""Decode GGUF blocks inside XLA: bytes become integer codes, scales and minima.

Every quantised type is affine in groups of 16 or 32 consecutive weights of a row:

    value[i] = scale[g] * (code[i] - zero_point) - minimum[g]

so that one matrix product on codes serves all types. Code book types (IQ4, MXFP4) are affine after the look-up.
Layouts: `minillama.gguf.block_layouts`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type
from jax import Array, lax
from jaxtyping import Float, Num, UInt8

from minillama.gguf.block_layouts import IQ4_VALUES, LAYOUTS, MXFP4_DOUBLED_VALUES


class Groups(NamedTuple):
    """Rows of weights in groups of consecutive weights; `zero_point` is a Python int."""

    codes: Num[Array, "*rows groups size"]
    scale: Float[Array, "*rows groups"]
    minimum: Float[Array, "*rows groups"] | None = None
    zero_point: int = 0


Blocks = UInt8[Array, "*rows blocks bytes"]


def q4_0(b: Blocks) -> Groups:
    """18 bytes, 32 weights: d (q - 8)."""
    return Groups(_nibbles(_field(b, LAYOUTS[Type.Q4_0].qs, 16)), _d(b, Type.Q4_0), zero_point=8)


def q4_1(b: Blocks) -> Groups:
    """20 bytes, 32 weights: d q + m."""
    return Groups(_nibbles(_field(b, LAYOUTS[Type.Q4_1].qs, 16)), _d(b, Type.Q4_1), -_m(b, Type.Q4_1))


def q5_0(b: Blocks) -> Groups:
    """22 bytes, 32 weights: d (q - 16)."""
    layout = LAYOUTS[Type.Q5_0]
    codes = _nibbles(_field(b, layout.qs, 16)) | _fifth_bits(b, layout.qh)
    return Groups(_signed(codes, 16), _d(b, Type.Q5_0))


def q5_1(b: Blocks) -> Groups:
    """24 bytes, 32 weights: d q + m."""
    layout = LAYOUTS[Type.Q5_1]
    codes = _nibbles(_field(b, layout.qs, 16)) | _fifth_bits(b, layout.qh)
    return Groups(_signed(codes, 0), _d(b, Type.Q5_1), -_m(b, Type.Q5_1))


def q8_0(b: Blocks) -> Groups:
    """34 bytes, 32 weights: d q, q int8."""
    return Groups(lax.bitcast_convert_type(_field(b, LAYOUTS[Type.Q8_0].qs, 32), jnp.int8), _d(b, Type.Q8_0))


def q2_k(b: Blocks) -> Groups:
    """84 bytes, 256 weights: codes of 2 bits, 16 scales and minima of 4 bits."""
    layout = LAYOUTS[Type.Q2_K]
    scales, d, dmin = _field(b, layout.scales, 16), _float(_d(b, Type.Q2_K)), _float(_m(b, Type.Q2_K))
    codes = _planes(_field(b, layout.qs, 64).reshape(*b.shape[:-1], 2, 32), (0, 2, 4, 6)) & jnp.uint8(3)
    return _k_groups(
        codes, 16, d[..., None] * _float(scales & jnp.uint8(15)), dmin[..., None] * _float(scales >> jnp.uint8(4))
    )


def q3_k(b: Blocks) -> Groups:
    """110 bytes, 256 weights: codes of 2 + 1 bits, 16 scales of 6 bits."""
    layout = LAYOUTS[Type.Q3_K]
    low = _planes(_field(b, layout.qs, 64).reshape(*b.shape[:-1], 2, 32), (0, 2, 4, 6)) & jnp.uint8(3)
    high = _planes(_field(b, layout.qh, 32), tuple(range(8))).reshape(low.shape) & jnp.uint8(1)
    packed = _field(b, layout.scales, 12)
    scales = _nibbles(packed[..., :8]) | (
        (_planes(packed[..., 8:], (0, 2, 4, 6)) & jnp.uint8(3)) << jnp.uint8(4)
    ).reshape(*b.shape[:-1], 16)
    d = _float(_d(b, Type.Q3_K))[..., None]
    return _k_groups(_signed(low | (high << jnp.uint8(2)), 4), 16, d * (_float(scales) - 32))


def q4_k(b: Blocks) -> Groups:
    """144 bytes, 256 weights: codes of 4 bits, 8 scales and minima of 6 bits."""
    layout = LAYOUTS[Type.Q4_K]
    scale, minimum = _scales_and_minima(_field(b, layout.scales, 12))
    codes = _planes(_field(b, layout.qs, 128).reshape(*b.shape[:-1], 4, 32), (0, 4)) & jnp.uint8(15)
    return _k_groups(
        codes, 32, _float(_d(b, Type.Q4_K))[..., None] * scale, _float(_m(b, Type.Q4_K))[..., None] * minimum
    )


def q5_k(b: Blocks) -> Groups:
    """176 bytes, 256 weights: Q4_K with codes of 4 + 1 bits."""
    layout, rows = LAYOUTS[Type.Q5_K], b.shape[:-1]
    scale, minimum = _scales_and_minima(_field(b, layout.scales, 12))
    low = _planes(_field(b, layout.qs, 128).reshape(*rows, 4, 32), (0, 4)).reshape(*rows, 8, 32) & jnp.uint8(15)
    high = (_planes(_field(b, layout.qh, 32), tuple(range(8))) & jnp.uint8(1)) << jnp.uint8(4)
    return _k_groups(
        _signed(low | high, 0),
        32,
        _float(_d(b, Type.Q5_K))[..., None] * scale,
        _float(_m(b, Type.Q5_K))[..., None] * minimum,
    )


def q6_k(b: Blocks) -> Groups:
    """210 bytes, 256 weights: codes of 4 + 2 bits minus 32, 16 int8 scales."""
    layout, rows = LAYOUTS[Type.Q6_K], b.shape[:-1]
    low = _planes(_field(b, layout.qs, 128).reshape(*rows, 2, 64), (0, 4)).reshape(*rows, 2, 4, 32) & jnp.uint8(15)
    high = (_planes(_field(b, layout.qh, 64).reshape(*rows, 2, 32), (0, 2, 4, 6)) & jnp.uint8(3)) << jnp.uint8(4)
    scales = lax.bitcast_convert_type(_field(b, layout.scales, 16), jnp.int8)
    return _k_groups(_signed(low | high, 32), 16, _float(_d(b, Type.Q6_K))[..., None] * _float(scales))


def iq4_nl(b: Blocks) -> Groups:
    """18 bytes, 32 weights: codes of 4 bits into a code book."""
    return Groups(_look_up(IQ4_VALUES, _nibbles(_field(b, LAYOUTS[Type.IQ4_NL].qs, 16))), _d(b, Type.IQ4_NL))


def iq4_xs(b: Blocks) -> Groups:
    """136 bytes, 256 weights: IQ4_NL's code book, 8 scales of 6 bits."""
    layout, rows = LAYOUTS[Type.IQ4_XS], b.shape[:-1]
    low = _planes(_field(b, layout.scales, 4), (0, 4)).swapaxes(-1, -2).reshape(*rows, 8) & jnp.uint8(15)
    high = _planes(_field(b, layout.scales_high, 2), (0, 2, 4, 6)).swapaxes(-1, -2).reshape(*rows, 8) & jnp.uint8(3)
    scales = _float(low | (high << jnp.uint8(4))) - 32
    codes = _look_up(IQ4_VALUES, _nibbles(_field(b, layout.qs, 128).reshape(*rows, 8, 16)))
    return _k_groups(codes, 32, _float(_d(b, Type.IQ4_XS))[..., None] * scales)


def mxfp4(b: Blocks) -> Groups:
    """17 bytes, 32 weights: a power of two, E2M1 values (OCP microscaling formats)."""
    layout = LAYOUTS[Type.MXFP4]
    e = b[..., layout.exponent].astype(jnp.uint32)
    # 2^(e - 128): half the scale, as the code book is doubled; the two smallest are subnormal floats
    bits = jnp.where(
        e < 2, jnp.uint32(0x00200000) << jnp.minimum(e, jnp.uint32(1)), (e - jnp.uint32(1)) << jnp.uint32(23)
    )
    codes = _look_up(MXFP4_DOUBLED_VALUES, _nibbles(_field(b, layout.qs, 16)))
    return Groups(codes, lax.bitcast_convert_type(bits, jnp.float32))


DECODERS: dict[Type, Callable[[Blocks], Groups]] = {
    Type.Q4_0: q4_0, Type.Q4_1: q4_1, Type.Q5_0: q5_0, Type.Q5_1: q5_1, Type.Q8_0: q8_0,
    Type.Q2_K: q2_k, Type.Q3_K: q3_k, Type.Q4_K: q4_k, Type.Q5_K: q5_k, Type.Q6_K: q6_k,
    Type.IQ4_NL: iq4_nl, Type.IQ4_XS: iq4_xs, Type.MXFP4: mxfp4,
}  # fmt: skip
NIBBLE_TYPES = frozenset({Type.Q4_0, Type.Q4_1, Type.Q4_K, Type.Q2_K})  # codes 0 to 15: two of them fit a byte


def decode(raw: UInt8[Array, "*rows row_bytes"], kind: Type) -> Groups:
    """Decode whole rows of quantised bytes in file order."""
    block = GGML_QUANT_SIZES[kind][1]
    return DECODERS[kind](raw.reshape(*raw.shape[:-1], raw.shape[-1] // block, block))


def dequantize(groups: Groups) -> Float[Array, "*rows K"]:
    """Rows as float32: the reference implementation of all products on codes."""
    values = (groups.codes.astype(jnp.float32) - groups.zero_point) * _float(groups.scale)[..., None]
    if groups.minimum is not None:
        values = values - _float(groups.minimum)[..., None]
    return jax.lax.collapse(values, values.ndim - 2)


def _field(blocks: Array, at: int, size: int) -> Array:
    """`size` bytes of every block."""
    return blocks[..., at : at + size]


def _half(blocks: Array, at: int) -> Array:
    """The float16 at byte `at` of every block."""
    return lax.bitcast_convert_type(_field(blocks, at, 2), jnp.float16)


def _d(blocks: Array, kind: Type) -> Array:
    """The float16 scale of every block."""
    return _half(blocks, LAYOUTS[kind].d)


def _m(blocks: Array, kind: Type) -> Array:
    """The float16 minimum of every block."""
    return _half(blocks, LAYOUTS[kind].m)


def _nibbles(packed: Array) -> Array:
    """Unpack nibbles, low ones first: [..., n] bytes become [..., 2n] codes."""
    return jnp.concatenate([packed & jnp.uint8(15), packed >> jnp.uint8(4)], axis=-1)


def _look_up(code_book: np.ndarray, codes: Array) -> Array:
    return jnp.asarray(code_book)[codes]


def _fifth_bits(blocks: Array, at: int) -> Array:
    """Bit 4 of the 32 codes of a block (0 or 16), from 4 bytes."""
    bits = blocks[..., at : at + 4, None] >> jnp.arange(8, dtype=jnp.uint8).reshape((1,) * (blocks.ndim) + (8,))
    return (bits.reshape(*blocks.shape[:-1], 32) & jnp.uint8(1)) << jnp.uint8(4)


def _planes(packed: Array, shifts: tuple[int, ...]) -> Array:
    """Bytes [..., n] shifted right by each of `shifts`: [..., len(shifts), n]."""
    amounts = jnp.array(shifts, jnp.uint8).reshape((1,) * (packed.ndim - 1) + (len(shifts), 1))
    return packed[..., None, :] >> amounts


def _scales_and_minima(s: Array) -> tuple[Array, Array]:
    """The 8 scales and 8 minima in the 12 bytes of Q4_K and Q5_K."""
    first, second, third = s[..., 0:4], s[..., 4:8], s[..., 8:12]
    high_first, high_second = ((a >> jnp.uint8(6)) << jnp.uint8(4) for a in (first, second))
    scale = jnp.concatenate([first & jnp.uint8(63), (third & jnp.uint8(15)) | high_first], -1)
    minimum = jnp.concatenate([second & jnp.uint8(63), (third >> jnp.uint8(4)) | high_second], -1)
    return _float(scale), _float(minimum)


def _float(x: Array) -> Array:
    return x.astype(jnp.float32)


def _signed(codes: Array, zero_point: int) -> Array:
    return codes.astype(jnp.int8) - jnp.int8(zero_point)


def _k_groups(codes: Array, size: int, scale: Array, minimum: Array | None = None) -> Groups:
    """Groups of whole rows from codes and [..., blocks, groups] scales of a K-quant."""
    rows, groups = scale.shape[:-2], scale.shape[-2] * scale.shape[-1]
    minimum = None if minimum is None else minimum.reshape(*rows, groups)
    return Groups(codes.reshape(*rows, groups, size), scale.reshape(*rows, groups), minimum)
