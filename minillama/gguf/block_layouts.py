"""Block layouts of the quantised types: byte offsets, code books and bit packing.

Names of fields and their order are those of ggml-common.h. All code that reads or writes blocks uses these.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from gguf import quants

from minillama.gguf.types import TensorType as Type

# Code books: a code of 4 bits is an index. E2M1 values are doubled, so that they are integers.
IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)
MXFP4_DOUBLED_VALUES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8)
EVEN_SIGN_BITS = 7  # stored for 8 weights where the number of negative ones is even: IQ2_XXS, IQ2_XS and IQ3_XXS


@cache
def code_grid(kind: Type) -> np.ndarray:
    """Points of an IQ1, IQ2 or IQ3 type: int8 [points, 8]; IQ3: [points, 4].

    A code is the number of a point. The magnitudes of trained weights, 4 or 8 at a time, are near few of all possible
    points. The grid holds the 256 to 2048 points that llama.cpp chose. Signs are apart, except in IQ1.
    """
    quant = getattr(quants, kind.name)
    quant.init_grid()
    return quant.grid.reshape(quant.grid_shape).astype(np.int8)


@dataclass(frozen=True)
class BlockLayout:
    """Offsets in bytes of the fields of a block; None for absent fields."""

    group: int  # weights that share a scale
    qs: int  # low bits of the codes, or the whole codes
    qh: int | None = None  # high bits of the codes: `qh`, in Q3_K `hmask`
    d: int | None = None  # float16 scale of the block
    m: int | None = None  # float16 minimum of the block, `m` or `dmin`
    scales: int | None = None  # scales of the groups, with their minima if any
    scales_high: int | None = None  # high bits of these scales, where they are apart: `scales_h` of IQ4_XS
    signs: int | None = None  # a bit for each weight, where they are apart
    exponent: int | None = None  # power of two in place of `d`: `e` of MXFP4


LAYOUTS: dict[Type, BlockLayout] = {
    Type.Q4_0: BlockLayout(32, d=0, qs=2),
    Type.Q4_1: BlockLayout(32, d=0, m=2, qs=4),
    Type.Q5_0: BlockLayout(32, d=0, qh=2, qs=6),
    Type.Q5_1: BlockLayout(32, d=0, m=2, qh=4, qs=8),
    Type.Q8_0: BlockLayout(32, d=0, qs=2),
    Type.Q2_K: BlockLayout(16, scales=0, qs=16, d=80, m=82),
    Type.Q3_K: BlockLayout(16, qh=0, qs=32, scales=96, d=108),
    Type.Q4_K: BlockLayout(32, d=0, m=2, scales=4, qs=16),
    Type.Q5_K: BlockLayout(32, d=0, m=2, scales=4, qh=16, qs=48),
    Type.Q6_K: BlockLayout(16, qs=0, qh=128, scales=192, d=208),
    Type.IQ4_NL: BlockLayout(32, d=0, qs=2),
    Type.IQ4_XS: BlockLayout(32, d=0, scales_high=2, scales=4, qs=8),
    Type.MXFP4: BlockLayout(32, exponent=0, qs=1),
    Type.NVFP4: BlockLayout(16, scales=0, qs=4),
    Type.TQ1_0: BlockLayout(32, qs=0, qh=48, d=52),
    Type.TQ2_0: BlockLayout(32, qs=0, d=64),
    Type.IQ1_S: BlockLayout(32, d=0, qs=2, qh=34),
    Type.IQ1_M: BlockLayout(16, qs=0, qh=32, scales=48),
    Type.IQ2_XXS: BlockLayout(32, d=0, qs=2),
    Type.IQ2_XS: BlockLayout(16, d=0, qs=2, scales=66),
    Type.IQ2_S: BlockLayout(16, d=0, qs=2, signs=34, qh=66, scales=74),
    Type.IQ3_XXS: BlockLayout(32, d=0, qs=2, scales=66),
    Type.IQ3_S: BlockLayout(32, d=0, qs=2, qh=66, signs=74, scales=106),
}


def pack_nibbles(codes: np.ndarray) -> np.ndarray:
    """Pack 4-bit codes [..., n] into [..., n/2]; the first half in low nibbles."""
    half = codes.shape[-1] // 2
    low = codes & 15
    return low[..., :half] | low[..., half:] << 4


def pack_two_bits(codes: np.ndarray) -> np.ndarray:
    """Pack 2-bit codes [..., n] into [..., n/4]; the first quarter in low bits."""
    a, b, c, d = np.split(codes, 4, axis=-1)
    return a | b << 2 | c << 4 | d << 6


def pack_bit_planes(bits: np.ndarray) -> np.ndarray:
    """Pack eight bit planes [blocks, 8, n] into [blocks, n]; plane k is bit k."""
    return np.packbits(bits, axis=1, bitorder="little")[:, 0]


def pack_fifth_bits(codes: np.ndarray) -> np.ndarray:
    """Bit 4 of 32 codes [blocks, 32] as 4 bytes: `qh` of Q5_0 and Q5_1."""
    return np.packbits(codes >> 4, axis=1, bitorder="little")


def pack_scales_and_minima(scales: np.ndarray, minima: np.ndarray) -> np.ndarray:
    """Pack 6-bit scales and minima into the 12 bytes of Q4_K and Q5_K.

    scales, minima: [blocks, 8]. Bytes 0 to 7 hold the first four of each and the high two bits of the last four. The
    other bytes hold the low nibbles of the last four.
    """
    return np.concatenate(
        [
            scales[:, :4] | scales[:, 4:] >> 4 << 6,
            minima[:, :4] | minima[:, 4:] >> 4 << 6,
            (scales[:, 4:] & 15) | (minima[:, 4:] & 15) << 4,
        ],
        axis=1,
    )


def pack_six_bit_scales(scales: np.ndarray) -> np.ndarray:
    """Pack 6-bit scales [blocks, 16] into the 12 bytes of Q3_K.

    The low nibbles take 8 bytes, the high two bits 4 bytes.
    """
    return np.concatenate([pack_nibbles(scales), pack_two_bits(scales >> 4)], axis=1)
