"""Decode GGUF blocks inside XLA: bytes become integer codes, a scale per group and, for some types, a minimum.

Every quantised type is affine in groups of 16 or 32 neighbours along a row:

    value[i] = scale[g] * (code[i] - zero) - minimum[g]

so one pair of matrix products serves them all. Layouts: ggml's block formats. The look-up-table types (IQ4, MXFP4) are
affine after the table has been applied to their codes.
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


class Groups(NamedTuple):
    """Rows of weights in groups of neighbours; `zero` is a plain int."""

    codes: Num[Array, "*rows groups size"]
    scale: Float[Array, "*rows groups"]
    minimum: Float[Array, "*rows groups"] | None = None
    zero_point: int = 0


IQ4_TABLE = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)
MXFP4_TABLE = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8)  # twice the E2M1 values

Blocks = UInt8[Array, "*rows blocks bytes"]


def _half(blocks: Array, at: int) -> Array:
    """The float16 at byte `at` of every block."""
    return lax.bitcast_convert_type(blocks[..., at : at + 2], jnp.float16)


def _nibbles(packed: Array) -> Array:
    """Low nibbles, then high nibbles: [..., n] bytes become [..., 2n] codes."""
    return jnp.concatenate([packed & jnp.uint8(15), packed >> jnp.uint8(4)], axis=-1)


def _fifth_bits(blocks: Array, at: int) -> Array:
    """The 32 bits at byte `at`, as 0 or 16 for each of a block's 32 codes."""
    bits = blocks[..., at : at + 4, None] >> jnp.arange(8, dtype=jnp.uint8).reshape((1,) * (blocks.ndim) + (8,))
    return (bits.reshape(*blocks.shape[:-1], 32) & jnp.uint8(1)) << jnp.uint8(4)


def _planes(packed: Array, shifts: tuple[int, ...]) -> Array:
    """Bit planes of [..., n] bytes, one per shift: [..., len(shifts), n]."""
    amounts = jnp.array(shifts, jnp.uint8).reshape((1,) * (packed.ndim - 1) + (len(shifts), 1))
    return packed[..., None, :] >> amounts


def q4_0(b: Blocks) -> Groups:
    """18 bytes, 32 weights: d, nibbles; d (q - 8)."""
    return Groups(_nibbles(b[..., 2:18]), _half(b, 0), zero_point=8)


def q4_1(b: Blocks) -> Groups:
    """20 bytes, 32 weights: d, m, nibbles; d q + m."""
    return Groups(_nibbles(b[..., 4:20]), _half(b, 0), -_half(b, 2))


def q5_0(b: Blocks) -> Groups:
    """22 bytes, 32 weights: d, fifth bits, nibbles; d (q - 16)."""
    return Groups(_signed(_nibbles(b[..., 6:22]) | _fifth_bits(b, 2), 16), _half(b, 0))


def q5_1(b: Blocks) -> Groups:
    """24 bytes, 32 weights: d, m, fifth bits, nibbles; d q + m."""
    return Groups(_signed(_nibbles(b[..., 8:24]) | _fifth_bits(b, 4), 0), _half(b, 0), -_half(b, 2))


def q8_0(b: Blocks) -> Groups:
    """34 bytes, 32 weights: d, int8; d q."""
    return Groups(lax.bitcast_convert_type(b[..., 2:34], jnp.int8), _half(b, 0))


def q2_k(b: Blocks) -> Groups:
    """84 bytes, 256 weights: 16 scale/minimum nibbles, 2-bit codes in planes, d, dmin."""
    scales, d, dmin = b[..., :16], _float(_half(b, 80)), _float(_half(b, 82))
    codes = _planes(b[..., 16:80].reshape(*b.shape[:-1], 2, 32), (0, 2, 4, 6)) & jnp.uint8(3)
    return _k_groups(
        codes, 16, d[..., None] * _float(scales & jnp.uint8(15)), dmin[..., None] * _float(scales >> jnp.uint8(4))
    )


def q3_k(b: Blocks) -> Groups:
    """110 bytes, 256 weights: third bits, 2-bit codes in planes, 16 six-bit scales, d."""
    low = _planes(b[..., 32:96].reshape(*b.shape[:-1], 2, 32), (0, 2, 4, 6)) & jnp.uint8(3)
    high = _planes(b[..., :32], tuple(range(8))).reshape(low.shape) & jnp.uint8(1)
    packed = b[..., 96:108]
    scales = _nibbles(packed[..., :8]) | (
        (_planes(packed[..., 8:], (0, 2, 4, 6)) & jnp.uint8(3)) << jnp.uint8(4)
    ).reshape(*b.shape[:-1], 16)
    d = _float(_half(b, 108))[..., None]
    return _k_groups(_signed(low | (high << jnp.uint8(2)), 4), 16, d * (_float(scales) - 32))


def _six_bit_pairs(s: Array) -> tuple[Array, Array]:
    """The 8 scales and 8 minima in the 12 bytes of Q4_K and Q5_K."""
    first, second, third = s[..., 0:4], s[..., 4:8], s[..., 8:12]
    top_first, top_second = ((a >> jnp.uint8(6)) << jnp.uint8(4) for a in (first, second))
    scale = jnp.concatenate([first & jnp.uint8(63), (third & jnp.uint8(15)) | top_first], -1)
    minimum = jnp.concatenate([second & jnp.uint8(63), (third >> jnp.uint8(4)) | top_second], -1)
    return _float(scale), _float(minimum)


def q4_k(b: Blocks) -> Groups:
    """144 bytes, 256 weights: d, dmin, 8 six-bit scales and minima, nibbles."""
    scale, minimum = _six_bit_pairs(b[..., 4:16])
    codes = _planes(b[..., 16:144].reshape(*b.shape[:-1], 4, 32), (0, 4)) & jnp.uint8(15)
    return _k_groups(codes, 32, _float(_half(b, 0))[..., None] * scale, _float(_half(b, 2))[..., None] * minimum)


def q5_k(b: Blocks) -> Groups:
    """176 bytes, 256 weights: as Q4_K with a fifth bit for each code."""
    scale, minimum = _six_bit_pairs(b[..., 4:16])
    low = _planes(b[..., 48:176].reshape(*b.shape[:-1], 4, 32), (0, 4)).reshape(*b.shape[:-1], 8, 32) & jnp.uint8(15)
    high = (_planes(b[..., 16:48], tuple(range(8))) & jnp.uint8(1)) << jnp.uint8(4)
    return _k_groups(
        _signed(low | high, 0), 32, _float(_half(b, 0))[..., None] * scale, _float(_half(b, 2))[..., None] * minimum
    )


def q6_k(b: Blocks) -> Groups:
    """210 bytes, 256 weights: 4 low bits, 2 high bits, 16 int8 scales, d; d s (q - 32)."""
    low = _planes(b[..., :128].reshape(*b.shape[:-1], 2, 64), (0, 4)).reshape(*b.shape[:-1], 2, 4, 32) & jnp.uint8(15)
    high = (_planes(b[..., 128:192].reshape(*b.shape[:-1], 2, 32), (0, 2, 4, 6)) & jnp.uint8(3)) << jnp.uint8(4)
    scales = lax.bitcast_convert_type(b[..., 192:208], jnp.int8)
    return _k_groups(_signed(low | high, 32), 16, _float(_half(b, 208))[..., None] * _float(scales))


def iq4_nl(b: Blocks) -> Groups:
    """18 bytes, 32 weights: d, nibbles into a table of 16 unequal steps."""
    return Groups(jnp.asarray(IQ4_TABLE)[_nibbles(b[..., 2:18])], _half(b, 0))


def iq4_xs(b: Blocks) -> Groups:
    """136 bytes, 256 weights: d, 8 six-bit scales, nibbles into the table of IQ4_NL."""
    low = _planes(b[..., 4:8], (0, 4)).swapaxes(-1, -2).reshape(*b.shape[:-1], 8) & jnp.uint8(15)
    high = _planes(b[..., 2:4], (0, 2, 4, 6)).swapaxes(-1, -2).reshape(*b.shape[:-1], 8) & jnp.uint8(3)
    scales = _float(low | (high << jnp.uint8(4))) - 32
    codes = jnp.asarray(IQ4_TABLE)[_nibbles(b[..., 8:136].reshape(*b.shape[:-1], 8, 16))]
    return _k_groups(codes, 32, _float(_half(b, 0))[..., None] * scales)


def mxfp4(b: Blocks) -> Groups:
    """17 bytes, 32 weights: a power of two, nibbles into the E2M1 values (OCP microscaling formats)."""
    e = b[..., 0].astype(jnp.uint32)
    # 2^(e - 128); the two smallest are subnormal floats, which the exponent field alone cannot say
    bits = jnp.where(
        e < 2, jnp.uint32(0x00200000) << jnp.minimum(e, jnp.uint32(1)), (e - jnp.uint32(1)) << jnp.uint32(23)
    )
    return Groups(jnp.asarray(MXFP4_TABLE)[_nibbles(b[..., 1:17])], lax.bitcast_convert_type(bits, jnp.float32))


def _float(x: Array) -> Array:
    return x.astype(jnp.float32)


def _signed(codes: Array, zero_point: int) -> Array:
    return codes.astype(jnp.int8) - jnp.int8(zero_point)


def _k_groups(codes: Array, size: int, scale: Array, minimum: Array | None = None) -> Groups:
    """Lay the codes and the [..., blocks, groups] scales of a K-quant out as the groups of a whole row."""
    rows, groups = scale.shape[:-2], scale.shape[-2] * scale.shape[-1]
    minimum = None if minimum is None else minimum.reshape(*rows, groups)
    return Groups(codes.reshape(*rows, groups, size), scale.reshape(*rows, groups), minimum)


DECODERS: dict[Type, Callable[[Blocks], Groups]] = {
    Type.Q4_0: q4_0, Type.Q4_1: q4_1, Type.Q5_0: q5_0, Type.Q5_1: q5_1, Type.Q8_0: q8_0,
    Type.Q2_K: q2_k, Type.Q3_K: q3_k, Type.Q4_K: q4_k, Type.Q5_K: q5_k, Type.Q6_K: q6_k,
    Type.IQ4_NL: iq4_nl, Type.IQ4_XS: iq4_xs, Type.MXFP4: mxfp4,
}  # fmt: skip
NIBBLE_TYPES = frozenset({Type.Q4_0, Type.Q4_1, Type.Q4_K, Type.Q2_K})  # codes 0 to 15: two of them fit a byte


def decode(raw: UInt8[Array, "*rows row_bytes"], kind: Type) -> Groups:
    """The groups of whole rows of quantised bytes, as they lie in the file."""
    block = GGML_QUANT_SIZES[kind][1]
    return DECODERS[kind](raw.reshape(*raw.shape[:-1], raw.shape[-1] // block, block))


def dequantize(groups: Groups) -> Float[Array, "*rows K"]:
    """The rows as float32: the plain meaning of a block format, and the twin of every product on codes."""
    values = (groups.codes.astype(jnp.float32) - groups.zero_point) * _float(groups.scale)[..., None]
    if groups.minimum is not None:
        values = values - _float(groups.minimum)[..., None]
    return jax.lax.collapse(values, values.ndim - 2)
