"""Quantise rows of weights to blocks of any type; independent of files."""

from collections.abc import Callable

import numpy as np

from minillama.array_types import Float32, UInt8
from minillama.errors import FormatError, UnsupportedError
from minillama.gguf.block_layouts import LAYOUTS
from minillama.gguf.quantise.iq4_quants import iq4_nl, iq4_xs
from minillama.gguf.quantise.k_quants import q2_k, q3_k, q4_k, q5_k, q6_k
from minillama.gguf.quantise.legacy_quants import q4_0, q4_1, q5_0, q5_1, q8_0
from minillama.gguf.types import BLOCKS, TensorType

Quantiser = Callable[[np.ndarray, np.ndarray | None], np.ndarray]


def f32(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Unchanged float32."""
    return weights.astype("<f4").view(np.uint8)


def f16(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """float16, ties to even; too large values become infinite."""
    return weights.astype("<f2").view(np.uint8)


def bf16(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Upper half of the float32, ties to even."""
    bits = weights.view(np.uint32)
    return ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype("<u2").view(np.uint8)


QUANTISERS: dict[TensorType, Quantiser] = {
    TensorType.F32: f32,
    TensorType.F16: f16,
    TensorType.BF16: bf16,
    TensorType.Q4_0: q4_0,
    TensorType.Q4_1: q4_1,
    TensorType.Q5_0: q5_0,
    TensorType.Q5_1: q5_1,
    TensorType.Q8_0: q8_0,
    TensorType.Q2_K: q2_k,
    TensorType.Q3_K: q3_k,
    TensorType.Q4_K: q4_k,
    TensorType.Q5_K: q5_k,
    TensorType.Q6_K: q6_k,
    TensorType.IQ4_NL: iq4_nl,
    TensorType.IQ4_XS: iq4_xs,
}


def quantise_rows(
    weights: Float32[np.ndarray, "rows K"],
    type: TensorType,
    importance: Float32[np.ndarray, " K"] | None = None,
) -> UInt8[np.ndarray, "rows bytes"]:
    """Quantise rows of weights to blocks of a type.

    importance: weights of the errors of each column. The bytes are those of ggml_quantize_chunk. Raises
    UnsupportedError (a type without a quantiser, a row length that is not a multiple of the block), FormatError
    (weights that are not finite, or too large for float16 scales).
    """
    if type not in QUANTISERS:
        known = ", ".join(known.name for known in QUANTISERS)
        raise UnsupportedError(f"cannot quantise to {type.name}; supported: {known}")
    block, block_bytes = BLOCKS[type]
    if weights.shape[1] % block:
        raise UnsupportedError(f"a row of {weights.shape[1]} is not a multiple of the {type.name} block of {block}")
    if not np.isfinite(weights).all():
        place = np.argwhere(~np.isfinite(weights))[0]
        raise FormatError(f"weight {place[1]} of row {place[0]} is {weights[tuple(place)]}, which is not finite")
    with np.errstate(all="ignore"):  # flat and tiny sub-blocks divide by 0; the searches replace these results
        rows = QUANTISERS[type](np.ascontiguousarray(weights), importance)
    blocks = rows.reshape(-1, block_bytes)
    for start in _float16_offsets(type):
        if not np.isfinite(np.ascontiguousarray(blocks[:, start : start + 2]).view("<f2")).all():
            raise FormatError(f"weights of up to {np.abs(weights).max():.3g} are too large for {type.name}")
    return rows


def _float16_offsets(type: TensorType) -> tuple[int, ...]:
    """Offsets in bytes of the float16 numbers of a block."""
    if type is TensorType.F16:
        return (0,)
    layout = LAYOUTS.get(type)
    return () if layout is None else tuple(offset for offset in (layout.d, layout.m) if offset is not None)
