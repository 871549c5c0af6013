"""Fields of GGUF blocks inside XLA, and the groups of weights that the decoders return.

Layouts: `minillama.gguf.block_layouts`.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from gguf import GGMLQuantizationType as Type
from jax import Array, lax

from minillama.array_types import Float, Num, UInt8
from minillama.gguf.block_layouts import LAYOUTS


class Groups(NamedTuple):
    """Rows of weights in groups of consecutive weights; `zero_point` is a Python int."""

    codes: Num[Array, "*rows groups size"]
    scale: Float[Array, "*rows groups"]
    minimum: Float[Array, "*rows groups"] | None = None
    zero_point: int = 0


Blocks = UInt8[Array, "*rows blocks bytes"]


def field(blocks: Array, at: int, size: int) -> Array:
    """`size` bytes of every block."""
    return blocks[..., at : at + size]


def half(blocks: Array, at: int) -> Array:
    """The float16 at byte `at` of every block."""
    return lax.bitcast_convert_type(field(blocks, at, 2), jnp.float16)


def scale_of(blocks: Array, kind: Type) -> Array:
    """The float16 scale of every block."""
    return half(blocks, LAYOUTS[kind].d)


def minimum_of(blocks: Array, kind: Type) -> Array:
    """The float16 minimum of every block."""
    return half(blocks, LAYOUTS[kind].m)


def nibbles(packed: Array) -> Array:
    """Unpack nibbles, low ones first: [..., n] bytes become [..., 2n] codes."""
    return jnp.concatenate([packed & jnp.uint8(15), packed >> jnp.uint8(4)], axis=-1)


def look_up(code_book: np.ndarray, codes: Array) -> Array:
    """Entries of a code book by number."""
    return jnp.asarray(code_book)[codes]


def fifth_bits(blocks: Array, at: int) -> Array:
    """Bit 4 of the 32 codes of a block (0 or 16), from 4 bytes."""
    bits = blocks[..., at : at + 4, None] >> jnp.arange(8, dtype=jnp.uint8).reshape((1,) * (blocks.ndim) + (8,))
    return (bits.reshape(*blocks.shape[:-1], 32) & jnp.uint8(1)) << jnp.uint8(4)


def planes(packed: Array, shifts: tuple[int, ...]) -> Array:
    """Bytes [..., n] shifted right by each of `shifts`: [..., len(shifts), n]."""
    amounts = jnp.array(shifts, jnp.uint8).reshape((1,) * (packed.ndim - 1) + (len(shifts), 1))
    return packed[..., None, :] >> amounts


def scales_and_minima(s: Array) -> tuple[Array, Array]:
    """The 8 scales and 8 minima in the 12 bytes of Q4_K and Q5_K."""
    first, second, third = s[..., 0:4], s[..., 4:8], s[..., 8:12]
    high_first, high_second = ((a >> jnp.uint8(6)) << jnp.uint8(4) for a in (first, second))
    scale = jnp.concatenate([first & jnp.uint8(63), (third & jnp.uint8(15)) | high_first], -1)
    minimum = jnp.concatenate([second & jnp.uint8(63), (third >> jnp.uint8(4)) | high_second], -1)
    return to_float(scale), to_float(minimum)


def words(packed: Array, dtype: jnp.dtype) -> Array:
    """Bytes [..., n] as integers of more bytes, low ones first."""
    size = jnp.dtype(dtype).itemsize
    return lax.bitcast_convert_type(packed.reshape(*packed.shape[:-1], packed.shape[-1] // size, size), dtype)


def bit_fields(x: Array, shifts: tuple[int, ...], mask: int) -> Array:
    """Bits of each integer from each of `shifts` on: [..., n] becomes [..., n, len(shifts)]."""
    amounts = jnp.array(shifts, x.dtype).reshape((1,) * x.ndim + (len(shifts),))
    return (x[..., None] >> amounts) & jnp.array(mask, x.dtype)


def to_float(x: Array) -> Array:
    """Numbers as float32."""
    return x.astype(jnp.float32)


def signed(codes: Array, zero_point: int) -> Array:
    """Unsigned codes minus a zero point, as int8."""
    return codes.astype(jnp.int8) - jnp.int8(zero_point)


def k_groups(codes: Array, size: int, scale: Array, minimum: Array | None = None) -> Groups:
    """Groups of whole rows from codes and [..., blocks, groups] scales of a K-quant."""
    rows, groups = scale.shape[:-2], scale.shape[-2] * scale.shape[-1]
    minimum = None if minimum is None else minimum.reshape(*rows, groups)
    return Groups(codes.reshape(*rows, groups, size), scale.reshape(*rows, groups), minimum)
