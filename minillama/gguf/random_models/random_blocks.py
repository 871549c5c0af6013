"""Random weights as quantised blocks, without rounding floats: a 4 GB file takes seconds."""

from collections.abc import Callable

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
    layout = LAYOUTS[type]
    ratio, fill = _FILLS[type]
    blocks = rng.integers(0, 256, (count, BLOCKS[type][1]), dtype=np.uint8)
    fill(blocks, rng)

    def set_scales(chosen: Blocks, scales: np.ndarray) -> None:
        chosen[:, layout.d : layout.d + 2] = scales.astype(np.float16)[:, None].view(np.uint8)
        if layout.m is not None:
            chosen[:, layout.m : layout.m + 2] = (scales * ratio).astype(np.float16)[:, None].view(np.uint8)

    sample = blocks[:512].copy()
    set_scales(sample, np.ones(len(sample), np.float32))
    unit = float(np.std(quants.dequantize(sample, type)))
    # Codes of these types are biased by half a step to the negative side; scales of both signs restore a mean of 0.
    sign = rng.choice(np.array([-1, 1], np.float32), count)
    set_scales(blocks, sign * rng.uniform(0.75, 1.25, count).astype(np.float32) * (deviation / unit))
    return blocks


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
}
_FLOATS: dict[TensorType, Callable[[np.ndarray], np.ndarray]] = {
    TensorType.F32: lambda weights: weights.view(np.uint8),
    TensorType.F16: lambda weights: weights.astype(np.float16).view(np.uint8),
    TensorType.BF16: lambda weights: (weights.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8),
}
