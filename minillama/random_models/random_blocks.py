"""Random weights as quantised blocks, without rounding floats: a 4 GB file takes seconds."""

from collections.abc import Callable
from functools import partial

import numpy as np
from gguf import quants

from minillama.gguf.block_layouts import LAYOUTS, pack_scales_and_minima
from minillama.gguf.types import BLOCKS, TensorType

Fill = Callable[[np.ndarray, np.random.Generator], None]
Blocks = np.ndarray  # uint8 [count, bytes of a block]


def random_blocks(type: TensorType, count: int, deviation: float, rng: np.random.Generator) -> Blocks:
    """Blocks of weights with mean 0 and about this standard deviation: uint8 [count, bytes]."""
    if type in _FLOATS:
        return _FLOATS[type](rng.standard_normal(count, dtype=np.float32) * np.float32(deviation)).reshape(count, -1)
    _, fill = _FILLS[type]
    blocks = rng.integers(0, 256, (count, BLOCKS[type][1]), dtype=np.uint8)
    fill(blocks, rng)
    set_scales = _SET_SCALES.get(type, partial(_set_halves, type))
    sample = blocks[:512].copy()
    set_scales(sample, np.ones(len(sample), np.float32))
    unit = float(np.std(quants.dequantize(sample, type)))
    # Codes of these types are biased by half a step to the negative side; scales of both signs restore a mean of 0.
    sign = rng.choice(np.array([-1, 1], np.float32), count)
    set_scales(blocks, sign * rng.uniform(0.75, 1.25, count).astype(np.float32) * (deviation / unit))
    return blocks


def _set_halves(type: TensorType, blocks: Blocks, scales: np.ndarray) -> None:
    """The float16 scale of each block, and its minimum if the type has one."""
    layout, (ratio, _) = LAYOUTS[type], _FILLS[type]
    blocks[:, layout.d : layout.d + 2] = scales.astype(np.float16)[:, None].view(np.uint8)
    if layout.m is not None:
        blocks[:, layout.m : layout.m + 2] = (scales * ratio).astype(np.float16)[:, None].view(np.uint8)


def _set_scattered_half(blocks: Blocks, scales: np.ndarray) -> None:
    """IQ1_M: the float16 scale, four bits in each of four words."""
    bits, at = scales.astype(np.float16).view(np.uint16), LAYOUTS[TensorType.IQ1_M].scales
    for part in range(4):
        high = blocks[:, at + 2 * part + 1]
        high[:] = (high & 15) | (bits >> 4 * part & 15).astype(np.uint8) << 4


def _set_e4m3(blocks: Blocks, scales: np.ndarray) -> None:
    """NVFP4: four equal scales of E4M3, twice as large, as values are doubled."""
    at = LAYOUTS[TensorType.NVFP4].scales
    codes = quants.NVFP4.fp32_to_ue4m3(2 * np.abs(scales))
    blocks[:, at : at + 4] = codes.astype(np.uint8)[:, None]


def _set_exponents(blocks: Blocks, scales: np.ndarray) -> None:
    """MXFP4: powers of two, below and above the scales, with the same mean square."""
    low = np.floor(np.log2(np.abs(scales)))
    share = (np.exp2(2 * (np.log2(np.abs(scales)) - low)) - 1) / 3  # of blocks with the power above
    evenly_spread = np.arange(len(blocks)) * 0.618034 % 1
    blocks[:, LAYOUTS[TensorType.MXFP4].exponent] = (low + 127 + (evenly_spread < share)).astype(np.uint8)


_SET_SCALES: dict[TensorType, Callable[[Blocks, np.ndarray], None]] = {
    TensorType.IQ1_M: _set_scattered_half,
    TensorType.NVFP4: _set_e4m3,
    TensorType.MXFP4: _set_exponents,
}


def _ternary_bytes(blocks: Blocks, rng: np.random.Generator) -> None:
    """TQ1_0: five weights a byte, as a fraction of 256 in base 3.

    The last four bytes have four weights.
    """
    layout = LAYOUTS[TensorType.TQ1_0]
    fractions = [np.arange(0, 243, step) for step in (1, 3)]  # of 243
    five, four = (((256 * each + 242) // 243).astype(np.uint8) for each in fractions)
    blocks[:, layout.qs : layout.qh] = rng.choice(five, (len(blocks), layout.qh - layout.qs))
    blocks[:, layout.qh : layout.d] = rng.choice(four, (len(blocks), layout.d - layout.qh))


def _ternary_fields(blocks: Blocks, rng: np.random.Generator) -> None:
    """TQ2_0: four weights a byte; no code is 3."""
    layout = LAYOUTS[TensorType.TQ2_0]
    codes = np.arange(256, dtype=np.uint8)
    valid = codes[codes & codes >> 1 & 0x55 == 0]
    blocks[:, layout.qs : layout.d] = rng.choice(valid, (len(blocks), layout.d - layout.qs))


def _keep_random(blocks: Blocks, rng: np.random.Generator) -> None:
    """Keep the random bytes: all of them are valid codes."""


def _equal_minimum(blocks: Blocks, rng: np.random.Generator) -> None:
    """Q2_K: 16 scales of 4 bits, each minimum equal to its scale (centred codes)."""
    scales = rng.integers(8, 16, (len(blocks), 16), dtype=np.uint8)
    blocks[:, :16] = scales | scales << 4


def _equal_minima(blocks: Blocks, rng: np.random.Generator) -> None:
    """Q4_K and Q5_K: 8 scales of 6 bits, each minimum equal to its scale."""
    scales, at = rng.integers(24, 64, (len(blocks), 8), dtype=np.uint8), LAYOUTS[TensorType.Q4_K].scales
    blocks[:, at : at + 12] = pack_scales_and_minima(scales, scales)


def _signed_scales(blocks: Blocks, rng: np.random.Generator) -> None:
    """Q6_K: 16 scales of 8 bits, none of them near 0."""
    at = LAYOUTS[TensorType.Q6_K].scales
    blocks[:, at : at + 16] = rng.integers(48, 128, (len(blocks), 16), dtype=np.uint8)


# type -> the minimum for a scale of 1 that makes the mean of the weights 0, and a function that sets other fields
_FILLS: dict[TensorType, tuple[float, Fill]] = {
    TensorType.Q4_0: (0.0, _keep_random),
    TensorType.Q4_1: (-7.5, _keep_random),
    TensorType.Q5_0: (0.0, _keep_random),
    TensorType.Q5_1: (-15.5, _keep_random),
    TensorType.Q8_0: (0.0, _keep_random),
    TensorType.Q2_K: (1.5, _equal_minimum),
    TensorType.Q3_K: (0.0, _keep_random),
    TensorType.Q4_K: (7.5, _equal_minima),
    TensorType.Q5_K: (15.5, _equal_minima),
    TensorType.Q6_K: (0.0, _signed_scales),
    TensorType.IQ4_NL: (0.0, _keep_random),
    TensorType.IQ4_XS: (0.0, _keep_random),
    TensorType.NVFP4: (0.0, _keep_random),
    TensorType.MXFP4: (0.0, _keep_random),
    TensorType.TQ1_0: (0.0, _ternary_bytes),
    TensorType.TQ2_0: (0.0, _ternary_fields),
    **{type: (0.0, _keep_random) for type in LAYOUTS if type.name.startswith(("IQ1_", "IQ2_", "IQ3_"))},
}
_FLOATS: dict[TensorType, Callable[[np.ndarray], np.ndarray]] = {
    TensorType.F32: lambda weights: weights.view(np.uint8),
    TensorType.F16: lambda weights: weights.astype(np.float16).view(np.uint8),
    TensorType.BF16: lambda weights: (weights.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8),
}
