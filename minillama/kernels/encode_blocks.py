"""Encode GGUF blocks of 32 numbers inside XLA, rounded as ggml rounds.

The inverse of `decode_blocks`. A quantised KV cache is written with it. `gguf/quantise` writes files: there a scale may
also come from a search.
Layouts: `minillama.gguf.block_layouts`.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from gguf import GGMLQuantizationType as Type
from jax import Array, lax

from minillama.array_types import Float, UInt8
from minillama.gguf.block_layouts import IQ4_VALUES
from minillama.kernels.block_fields import look_up

BLOCK = 32
_MIDDLES = (IQ4_VALUES[:-1].astype(np.float32) + IQ4_VALUES[1:]) / 2  # between two values of the code book
_SMALLEST = 1e-15  # a block of smaller numbers counts as zeros


def q8_0(x: Array) -> list[Array]:
    """Codes from -127 to 127 times the scale."""
    scale = _divide(jnp.max(jnp.abs(x), axis=-1), 127)
    codes = jnp.round(x * _inverse(scale)[..., None]).astype(jnp.int8)
    return [_f16(scale), lax.bitcast_convert_type(codes, jnp.uint8)]


def q4_0(x: Array) -> list[Array]:
    """16 steps from -8 to 7 times the scale."""
    scale, codes = _signed(x, 8)
    return [_f16(scale), _nibbles(codes)]


def q5_0(x: Array) -> list[Array]:
    """32 steps from -16 to 15 times the scale."""
    scale, codes = _signed(x, 16)
    return [_f16(scale), _fifth_bits(codes), _nibbles(codes)]


def q4_1(x: Array) -> list[Array]:
    """16 steps from a minimum."""
    scale, minimum, codes = _with_minimum(x, 15)
    return [_f16(scale), _f16(minimum), _nibbles(codes)]


def q5_1(x: Array) -> list[Array]:
    """32 steps from a minimum."""
    scale, minimum, codes = _with_minimum(x, 31)
    return [_f16(scale), _f16(minimum), _fifth_bits(codes), _nibbles(codes)]


def iq4_nl(x: Array) -> list[Array]:
    """The nearest of 16 unevenly spaced values, then the best scale.

    The error of a number counts by its square. ggml adds the sums of the scale in another order: the scale may differ
    in its last bit.
    """
    largest = _signed_absmax(x)
    scaled = x * _inverse(_divide(largest, IQ4_VALUES[0]))[..., None]
    middles = _MIDDLES.reshape((1,) * x.ndim + (-1,))
    codes = jnp.sum(scaled[..., None] >= middles, axis=-1, dtype=jnp.uint8)
    values, weights = look_up(IQ4_VALUES, codes).astype(jnp.float32), x * x
    dot, square = (jnp.sum(weights * values * other, axis=-1) for other in (x, values))
    nothing = (jnp.abs(largest) < _SMALLEST) | (square <= 0)
    return [_f16(jnp.where(nothing, 0, dot / jnp.where(nothing, 1, square))), _nibbles(codes)]


ENCODERS: dict[Type, Callable[[Array], list[Array]]] = {
    Type.Q4_0: q4_0, Type.Q4_1: q4_1, Type.Q5_0: q5_0, Type.Q5_1: q5_1, Type.Q8_0: q8_0, Type.IQ4_NL: iq4_nl,
}  # fmt: skip


def encode(numbers: Float[Array, "*rows K"], kind: Type) -> UInt8[Array, "*rows row_bytes"]:
    """Encode whole rows of float32; K must be a multiple of 32."""
    rows = numbers.shape[:-1]
    fields = ENCODERS[kind](numbers.reshape(*rows, -1, BLOCK))
    return jnp.concatenate(fields, axis=-1).reshape(*rows, -1)


def _signed(x: Array, top: int) -> tuple[Array, Array]:
    """(scales, codes from 0 to 2 top - 1): the largest magnitude is -top times the scale."""
    scale = _signed_absmax(x) / -top
    return scale, _codes(x, scale, -top, top, top + 0.5, 2 * top - 1)


def _with_minimum(x: Array, top: int) -> tuple[Array, Array, Array]:
    """(scales, minima, codes from 0 to top)."""
    minimum = jnp.min(x, axis=-1)
    scale = _divide(jnp.max(x, axis=-1) - minimum, top)
    return scale, minimum, _codes(x - minimum[..., None], scale, 0, top, 0.5, top)


def _codes(x: Array, scale: Array, low: int, high: int, shift: float, last: int) -> Array:
    """Steps of a scale: the whole part of x / scale + shift.

    Limits that no number exceeds keep LLVM from joining product and sum, which would round once and not twice.
    """
    steps = jnp.clip(x * _inverse(scale)[..., None], low, high)
    return jnp.minimum(jnp.trunc(steps + np.float32(shift)), last).astype(jnp.uint8)


def _signed_absmax(x: Array) -> Array:
    """The number of largest magnitude with its sign; the first of equal ones.

    By two reductions of single numbers: XLA computes an argmax on a CPU number by number.
    """
    size = jnp.abs(x)
    largest = jnp.max(size, axis=-1, keepdims=True)
    places = 2 * lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1) + (x < 0).astype(jnp.int32)
    # an odd place is that of a number below 0
    first = jnp.min(jnp.where(size == largest, places, 2 * BLOCK), axis=-1)
    return jnp.where(first % 2 == 1, -largest[..., 0], largest[..., 0])


def _divide(x: Array, by: int) -> Array:
    """x / by, rounded as written.

    XLA would multiply by the inverse of a constant, and make by / x of 1 / (x / by).
    """
    return jnp.where(x == 0, 0, x / jnp.where(x == 0, jnp.float32(1), jnp.float32(by)))


def _inverse(scale: Array) -> Array:
    """1 / scale, or 0 where that is not finite."""
    inverse = 1 / scale
    return jnp.where(jnp.isfinite(inverse), inverse, 0)


def _f16(x: Array) -> Array:
    """Numbers as the two bytes of a float16: [...] becomes [..., 2]."""
    return lax.bitcast_convert_type(x.astype(jnp.float16), jnp.uint8)


def _nibbles(codes: Array) -> Array:
    """The low 4 bits of 32 codes; the first half in low nibbles."""
    return (codes[..., :16] & 15) | (codes[..., 16:] << 4)


def _fifth_bits(codes: Array) -> Array:
    """Bit 4 of 32 codes as 4 bytes."""
    return jnp.packbits(codes >> 4, axis=-1, bitorder="little")
