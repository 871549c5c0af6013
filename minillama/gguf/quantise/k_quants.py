"""k-quants: Q2_K, Q3_K, Q4_K, Q5_K and Q6_K.

A block has 256 weights in sub-blocks of 16 or 32, each with its own small scale. A search finds the scale (and minimum)
of every sub-block. Then these are quantised to small integers, and the codes are computed again with the scales that a
reader gets. Layouts: ggml-common.h.
"""

import numpy as np

from minillama.gguf.block_layouts import (
    pack_bit_planes,
    pack_nibbles,
    pack_scales_and_minima,
    pack_six_bit_scales,
    pack_two_bits,
)
from minillama.gguf.quantise.scale_search import (
    MIN_NONZERO,
    MinimumFit,
    ScaleTrials,
    fit_minimum,
    fit_positive,
    fit_signed,
    minimum_codes,
    refine_signed,
    scale_and_round,
    signed_codes,
)
from minillama.gguf.quantise.sub_blocks import (
    Columns,
    column_sums,
    f16_bytes,
    from_columns,
    round_to_f16,
    signed_absmax,
    tiled_importance,
    to_columns,
)

BLOCK = 256
IMATRIX_TRIALS = ScaleTrials(-0.9, 0.05, 36)
ZERO = np.float32(0)


def q2_k(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Codes of 2 bits; 16 scales and 16 minima of 4 bits."""
    x = to_columns(weights, 16)
    if importance is None:
        fit = fit_minimum(x, np.abs(x), 3, ScaleTrials(-0.5, 0.1, 15, absolute=True))
        scale, scales = _quantised_scales(fit.scale, 16, 15)
        minimum, minima = _quantised_scales(fit.minimum, 16, 15)
    else:
        error_weights = _error_weights(weights, importance, 16, 1)
        fit = fit_minimum(x, error_weights, 3, IMATRIX_TRIALS)
        scale, scales, minimum, minima = _fitted_scales(fit, error_weights, 16, 15)
    codes = _codes_with_minimum(x, fit, 3, scale, scales, minimum, minima)
    return _joined(weights, scales | minima << 4, _pairs(codes), f16_bytes(scale), f16_bytes(minimum))


def q3_k(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Codes of 3 bits from -4; 16 scales of 6 bits from -32."""
    x = to_columns(weights, 16)
    if importance is None:
        found, rough = refine_signed(x, 4)
        per_block = found.reshape(-1, 16)
        largest = signed_absmax(per_block.T)
        inverse = np.float32(-32) / largest
        scales = np.where(largest[:, None] == 0, ZERO, scale_and_round(per_block, inverse[:, None], -32, 31))
        scale = np.where(largest == 0, ZERO, np.float32(1) / inverse)
        stored = np.where(largest[:, None] == 0, ZERO, scales + np.float32(32))
    else:
        error_weights = _error_weights(weights, importance, 16, 2)
        fit = fit_signed(x, error_weights, 4)
        rough = signed_codes(x, fit, 4)
        sub_scales, sub_weights = to_columns(fit.scale, 16), to_columns(column_sums(error_weights), 16)
        outer = fit_signed(sub_scales, sub_weights, 32)
        scale, stored = outer.scale, signed_codes(sub_scales, outer, 32).T
    step = round_to_f16(scale)[:, None] * (stored - np.float32(32))
    codes = _requantise(x, step, -4, 3, rough)
    high = pack_bit_planes((codes > 3).reshape(-1, 8, 32))
    return _joined(weights, high, _pairs(codes & 3), pack_six_bit_scales(stored.astype(np.uint8)), f16_bytes(scale))


def q4_k(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Codes of 4 bits; 8 scales and 8 minima of 6 bits."""
    scale, minimum, packed_scales, codes = _q4_q5_blocks(weights, importance, 15, ScaleTrials(-1.0, 0.1, 20))
    return _joined(weights, f16_bytes(scale), f16_bytes(minimum), packed_scales, _nibbles(codes))


def q5_k(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Codes of 5 bits; 8 scales and 8 minima of 6 bits."""
    scale, minimum, packed_scales, codes = _q4_q5_blocks(weights, importance, 31, ScaleTrials(-0.5, 0.1, 15))
    high = pack_bit_planes((codes > 15).reshape(-1, 8, 32))
    return _joined(weights, f16_bytes(scale), f16_bytes(minimum), packed_scales, high, _nibbles(codes))


def q6_k(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Codes of 6 bits from -32; 16 scales of 8 bits."""
    x = to_columns(weights, 16)
    fit = fit_signed(x, x * x if importance is None else tiled_importance(importance, len(weights), 16), 32)
    per_block = fit.scale.reshape(-1, 16)
    largest = signed_absmax(per_block.T)
    nothing = np.abs(largest) < MIN_NONZERO
    inverse = np.where(nothing, ZERO, np.float32(-128) / largest)
    scale = np.where(nothing, ZERO, np.float32(1) / inverse)
    scales = np.minimum(np.rint(inverse[:, None] * per_block), np.float32(127))
    codes = _requantise(x, round_to_f16(scale)[:, None] * scales, -32, 31, signed_codes(x, fit, 32))
    codes[nothing] = 0
    return _joined(
        weights,
        pack_nibbles(codes.reshape(-1, 2, 128)).reshape(-1, 128),
        _pairs(codes >> 4),
        scales.astype(np.int8).view(np.uint8),
        f16_bytes(scale),
    )


def _error_weights(weights: np.ndarray, importance: np.ndarray, size: int, factor: int) -> Columns:
    """importance * sqrt(factor * mean square of the block + square)."""
    squares = to_columns(weights, BLOCK)
    squares *= squares
    mean = np.float32(factor) * column_sums(squares) / np.float32(BLOCK)
    x = to_columns(weights, size)
    return tiled_importance(importance, len(weights), size) * np.sqrt(np.repeat(mean, BLOCK // size) + x * x)


def _q4_q5_blocks(
    weights: np.ndarray, importance: np.ndarray | None, top: int, trials: ScaleTrials
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Common part of Q4_K and Q5_K.

    Returns scale, minimum, 12 bytes of sub-block scales and minima, and codes [blocks, 256].
    """
    x = to_columns(weights, 32)
    if importance is None:
        root = np.sqrt(column_sums(x * x) / np.float32(32))
        fit = fit_minimum(x, root + np.abs(x), top, trials)
        scale, scales = _quantised_scales(fit.scale, 8, 63)
        minimum, minima = _quantised_scales(fit.minimum, 8, 63)
    else:
        error_weights = _error_weights(weights, importance, 32, 2)
        fit = fit_minimum(x, error_weights, top, IMATRIX_TRIALS)
        scale, scales, minimum, minima = _fitted_scales(fit, error_weights, 8, 63)
    codes = _codes_with_minimum(x, fit, top, scale, scales, minimum, minima)
    return scale, minimum, pack_scales_and_minima(scales, minima), codes


def _quantised_scales(values: np.ndarray, count: int, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantise the scales of sub-blocks: a float [blocks] times integers up to `top` [blocks, count]."""
    per_block = values.reshape(-1, count)
    largest = per_block.max(axis=1)
    largest = np.where(largest > 0, largest, ZERO)
    inverse = np.float32(top) / largest
    inverse = np.where(np.isfinite(inverse), inverse, ZERO)
    scales = np.clip(np.rint(inverse[:, None] * per_block), 0, top)
    return largest / np.float32(top), scales.astype(np.uint8)


def _fitted_scales(
    fit: MinimumFit, error_weights: Columns, count: int, top: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Quantise scales and minima by a weighted search: (scale, scales, minimum, minima)."""
    sub_weights = to_columns(column_sums(error_weights), count)
    scale, scales = fit_positive(to_columns(fit.scale, count), sub_weights, top)
    minimum, minima = fit_positive(to_columns(fit.minimum, count), sub_weights, top)
    return scale, scales.T.astype(np.uint8), minimum, minima.T.astype(np.uint8)


def _codes_with_minimum(
    x: Columns,
    fit: MinimumFit,
    top: int,
    scale: np.ndarray,
    scales: np.ndarray,
    minimum: np.ndarray,
    minima: np.ndarray,
) -> np.ndarray:
    """Codes for the stored scales, or those of the search for a scale of 0."""
    step = (round_to_f16(scale)[:, None] * scales.astype(np.float32)).reshape(-1)
    shift = (round_to_f16(minimum)[:, None] * minima.astype(np.float32)).reshape(-1)
    codes = np.clip(np.rint((x + shift) / step), 0, top)
    _restore_zero_step_codes(codes, step, x, fit, top)
    return from_columns(codes, BLOCK)


def _restore_zero_step_codes(codes: Columns, step: np.ndarray, x: Columns, fit: MinimumFit, top: int) -> None:
    """In columns with a stored scale of 0, restore the codes of the search."""
    lost = np.flatnonzero(step == 0)
    if lost.size:
        part = MinimumFit(fit.scale[lost], fit.minimum[lost], fit.inverse[lost], fit.base[lost])
        codes[:, lost] = minimum_codes(x[:, lost], part, top)


def _requantise(x: Columns, step: np.ndarray, low: int, top: int, rough: Columns) -> np.ndarray:
    """Codes from 0 for the stored scales, or rough codes for a scale of 0."""
    step = step.reshape(-1)
    codes = np.clip(np.rint(x / step), low, top) - np.float32(low)
    return from_columns(np.where(step == 0, rough, codes), BLOCK)


def _joined(weights: np.ndarray, *parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts, axis=1).reshape(len(weights), -1)


def _nibbles(codes: np.ndarray) -> np.ndarray:
    """Codes of 4 bits [blocks, 256] as 128 bytes: 64 codes in each 32 bytes."""
    return pack_nibbles(codes.reshape(-1, 4, 64)).reshape(-1, 128)


def _pairs(codes: np.ndarray) -> np.ndarray:
    """Codes of 2 bits [blocks, 256] as 64 bytes: 128 codes in each 32 bytes."""
    return pack_two_bits(codes.reshape(-1, 2, 128)).reshape(-1, 64)
