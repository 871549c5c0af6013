"""IQ4_NL and IQ4_XS: codes of 4 bits for unevenly spaced values."""

import numpy as np

from minillama.gguf.block_layouts import IQ4_VALUES, pack_nibbles
from minillama.gguf.quantise.scale_search import MIN_NONZERO
from minillama.gguf.quantise.sub_blocks import (
    Columns,
    column_sums,
    f16_bytes,
    from_columns,
    signed_absmax,
    tiled_importance,
    to_columns,
)

VALUES = IQ4_VALUES.astype(np.float32)
TRIALS = 7
ZERO = np.float32(0)

# The boundary between two values is a multiple of 0.5: twice a number, rounded down, determines the nearest value.
_NEAREST_CODE = np.searchsorted(VALUES[:-1] + VALUES[1:], np.arange(-254, 227), side="right")
_NEAREST_VALUE = VALUES[_NEAREST_CODE]


def iq4_nl(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Blocks of 32 with a scale."""
    x = to_columns(weights, 32)
    scale = _fit_scales(x, _error_weights(weights, importance, 32))
    codes = from_columns(_NEAREST_CODE[_table_index(x, _inverse(scale))], 32)
    return _joined(weights, f16_bytes(scale), pack_nibbles(codes))


def iq4_xs(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Blocks of 256 with a scale, and 8 scales of 6 bits from -32."""
    x = to_columns(weights, 32)
    found = _fit_scales(x, _error_weights(weights, importance, 256)).reshape(-1, 8)
    largest = signed_absmax(found.T)
    scale = -largest / np.float32(32)
    scales = np.clip(np.rint(_inverse(scale)[:, None] * found), -32, 31)
    step = (scale[:, None] * scales).reshape(-1)
    codes = from_columns(_NEAREST_CODE[_table_index(x, _inverse(step))], 32)
    stored = (scales + np.float32(32)).astype(np.uint8)
    low = (stored[:, ::2] & 15) | (stored[:, 1::2] & 15) << 4
    high = ((stored.astype(np.uint16) >> 4) << (2 * np.arange(8, dtype=np.uint16))).sum(axis=1, dtype=np.uint16)
    return _joined(
        weights, f16_bytes(scale), high.astype("<u2")[:, None].view(np.uint8), low, pack_nibbles(codes).reshape(-1, 128)
    )


def _error_weights(weights: np.ndarray, importance: np.ndarray | None, block: int) -> Columns:
    """Weights of the errors: squares, or importance * sqrt(2 * mean square of the block + square)."""
    x = to_columns(weights, 32)
    if importance is None:
        return x * x
    squares = to_columns(weights, block)
    squares *= squares
    mean = column_sums(squares) * np.float32(2 / block)
    return tiled_importance(importance, len(weights), 32) * np.sqrt(np.repeat(mean, block // 32) + x * x)


def _fit_scales(x: Columns, weights: Columns) -> np.ndarray:
    """Scale of each column; 0 for a column of zeros."""
    largest = signed_absmax(x)
    zero = np.abs(largest) < MIN_NONZERO
    largest = np.where(zero, np.float32(1), largest)
    scratch = np.empty_like(x)

    def sums(inverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = _NEAREST_VALUE[_table_index(x, inverse)]
        np.multiply(weights, values, out=scratch)
        square = column_sums(np.multiply(scratch, values, out=scratch))
        np.multiply(weights, values, out=scratch)
        return column_sums(np.multiply(scratch, x, out=scratch)), square

    dot, square = sums(np.float32(1) / (-largest / VALUES[0]))
    scale = np.where(square > 0, dot / square, ZERO)
    best = scale * dot
    for trial in range(-TRIALS, TRIALS + 1):
        dot, square = sums((np.float32(trial) + VALUES[0]) / largest)
        better = (square > 0) & (dot * dot > best * square)
        scale = np.where(better, dot / square, scale)
        best = np.where(better, scale * dot, best)
    return np.where(zero, ZERO, scale)


def _inverse(scale: np.ndarray) -> np.ndarray:
    """1 / scale, or 0 if that is not finite."""
    inverse = np.float32(1) / scale
    return np.where(np.isfinite(inverse), inverse, ZERO)


def _table_index(x: Columns, inverse: np.ndarray) -> np.ndarray:
    """Index into the tables of nearest codes and values."""
    twice = np.multiply(x, inverse * np.float32(2))
    np.clip(np.floor(twice, out=twice), -254, 226, out=twice)
    twice += np.float32(254)
    return twice.astype(np.int16)


def _joined(weights: np.ndarray, *parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts, axis=1).reshape(len(weights), -1)
