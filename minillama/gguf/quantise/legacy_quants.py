"""Blocks of 32 weights with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.

The scale comes from the largest weight or, with an importance matrix, from a search.
"""

import numpy as np

from minillama.gguf.block_layouts import pack_fifth_bits, pack_nibbles
from minillama.gguf.quantise.scale_search import ScaleTrials, fit_minimum, fit_signed, minimum_codes, signed_codes
from minillama.gguf.quantise.sub_blocks import Columns, f16_bytes, from_columns, signed_absmax, to_columns

BLOCK = 32
IMATRIX_TRIALS = ScaleTrials(-0.9, 0.05, 36)


def q8_0(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Scale from the largest magnitude, ties away from zero; importances have no effect."""
    blocks = weights.reshape(-1, BLOCK)
    scale = np.abs(blocks).max(axis=1) / np.float32(127)
    scaled = blocks * _inverse(scale)[:, None]
    whole = np.floor(np.abs(scaled))
    codes = np.copysign(whole + np.floor(np.float32(2) * (np.abs(scaled) - whole)), scaled)
    return _joined(weights, f16_bytes(scale), codes.astype(np.int8).view(np.uint8))


def q4_0(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """16 steps from -8 to 7 times the scale."""
    scale, codes = _signed(weights, importance, 8)
    return _joined(weights, f16_bytes(scale), pack_nibbles(codes))


def q5_0(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """32 steps from -16 to 15 times the scale."""
    scale, codes = _signed(weights, importance, 16)
    return _joined(weights, f16_bytes(scale), pack_fifth_bits(codes), pack_nibbles(codes))


def q4_1(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """16 steps from a minimum."""
    scale, minimum, codes = _with_minimum(weights, importance, 15)
    return _joined(weights, f16_bytes(scale), f16_bytes(minimum), pack_nibbles(codes))


def q5_1(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """32 steps from a minimum."""
    scale, minimum, codes = _with_minimum(weights, importance, 31)
    return _joined(weights, f16_bytes(scale), f16_bytes(minimum), pack_fifth_bits(codes), pack_nibbles(codes))


def error_weights(weights: np.ndarray, importance: np.ndarray) -> Columns:
    """llama.cpp's weights of the errors: importance * sqrt(mean square of the row + square)."""
    squares = weights * weights
    mean = np.add.accumulate(squares, axis=1)[:, -1:] / np.float32(weights.shape[1])
    return to_columns(importance * np.sqrt(mean + squares), BLOCK)


def _signed(weights: np.ndarray, importance: np.ndarray | None, top: int) -> tuple[np.ndarray, np.ndarray]:
    """(scales, codes [blocks, 32])."""
    if importance is not None:
        x = to_columns(weights, BLOCK)
        fit = fit_signed(x, error_weights(weights, importance), top)
        return fit.scale, from_columns(signed_codes(x, fit, top), BLOCK)
    blocks = weights.reshape(-1, BLOCK)
    scale = signed_absmax(blocks.T) / np.float32(-top)
    inverse = _inverse(scale)
    codes = np.trunc(blocks * inverse[:, None] + np.float32(top + 0.5))
    return scale, _clip_codes(codes, inverse, 2 * top - 1)


def _with_minimum(
    weights: np.ndarray, importance: np.ndarray | None, top: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scales, minima, codes [blocks, 32])."""
    if importance is not None:
        x = to_columns(weights, BLOCK)
        fit = fit_minimum(x, error_weights(weights, importance), top, IMATRIX_TRIALS)
        return fit.scale, -fit.minimum, from_columns(minimum_codes(x, fit, top), BLOCK)
    blocks = weights.reshape(-1, BLOCK)
    minimum = blocks.min(axis=1)
    scale = (blocks.max(axis=1) - minimum) / np.float32(top)
    inverse = _inverse(scale)
    codes = np.trunc((blocks - minimum[:, None]) * inverse[:, None] + np.float32(0.5))
    return scale, minimum, _clip_codes(codes, inverse, top)


def _inverse(scale: np.ndarray) -> np.ndarray:
    return np.where(scale == 0, np.float32(0), np.float32(1) / scale)


def _clip_codes(codes: np.ndarray, inverse: np.ndarray, top: int) -> np.ndarray:
    """Codes from 0 to top; 0 in blocks whose inverse scale is not finite."""
    codes = np.clip(codes, 0, top, out=codes)
    codes[~np.isfinite(inverse)] = 0
    return codes.astype(np.uint8)


def _joined(weights: np.ndarray, *parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts, axis=1).reshape(len(weights), -1)
