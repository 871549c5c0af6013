"""IQ4_NL and IQ4_XS: codes of 4 bits that stand for unevenly spaced values."""

import numpy as np

from minillama.gguf.quantise.column_weights import Columns, columns, extreme, half, repeated, rows_of, total
from minillama.gguf.quantise.scale_search import SMALLEST

VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
TURNS = 7
ZERO = np.float32(0)

# Where two values meet is a multiple of a half, so that twice a number, rounded down, says which is nearest.
_NEAREST_CODE = np.searchsorted(VALUES[:-1] + VALUES[1:], np.arange(-254, 227), side="right")
_NEAREST_VALUE = VALUES[_NEAREST_CODE]


def iq4_nl(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Blocks of 32 with a scale."""
    x = columns(weights, 32)
    scale = _fit(x, _weights(weights, importance, 32))
    codes = rows_of(_NEAREST_CODE[_places(x, _inverse(scale))], 32)
    return _joined(weights, half(scale), _nibbles(codes))


def iq4_xs(weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Blocks of 256 with a scale, and 8 scales of 6 bits from -32."""
    x = columns(weights, 32)
    found = _fit(x, _weights(weights, importance, 256)).reshape(-1, 8)
    largest = extreme(found.T)
    scale = -largest / np.float32(32)
    scales = np.clip(np.rint(_inverse(scale)[:, None] * found), -32, 31)
    step = (scale[:, None] * scales).reshape(-1)
    codes = rows_of(_NEAREST_CODE[_places(x, _inverse(step))], 32)
    stored = (scales + np.float32(32)).astype(np.uint8)
    low = (stored[:, ::2] & 15) | (stored[:, 1::2] & 15) << 4
    high = ((stored.astype(np.uint16) >> 4) << (2 * np.arange(8, dtype=np.uint16))).sum(axis=1, dtype=np.uint16)
    return _joined(
        weights, half(scale), high.astype("<u2")[:, None].view(np.uint8), low, _nibbles(codes).reshape(-1, 128)
    )


def _weights(weights: np.ndarray, importance: np.ndarray | None, block: int) -> Columns:
    """What errors are weighed with: the squares, or importance * sqrt(2 * mean square of the block + square)."""
    x = columns(weights, 32)
    if importance is None:
        return x * x
    squares = columns(weights, block)
    squares *= squares
    mean = total(squares) * np.float32(2 / block)
    return repeated(importance, len(weights), 32) * np.sqrt(np.repeat(mean, block // 32) + x * x)


def _fit(x: Columns, weights: Columns) -> np.ndarray:
    """The scale of each column; 0 for zeros."""
    largest = extreme(x)
    zero = np.abs(largest) < SMALLEST
    largest = np.where(zero, np.float32(1), largest)
    scratch = np.empty_like(x)

    def sums(inverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = _NEAREST_VALUE[_places(x, inverse)]
        np.multiply(weights, values, out=scratch)
        square = total(np.multiply(scratch, values, out=scratch))
        np.multiply(weights, values, out=scratch)
        return total(np.multiply(scratch, x, out=scratch)), square

    along, square = sums(np.float32(1) / (-largest / VALUES[0]))
    scale = np.where(square > 0, along / square, ZERO)
    best = scale * along
    for turn in range(-TURNS, TURNS + 1):
        along, square = sums((np.float32(turn) + VALUES[0]) / largest)
        better = (square > 0) & (along * along > best * square)
        scale = np.where(better, along / square, scale)
        best = np.where(better, scale * along, best)
    return np.where(zero, ZERO, scale)


def _inverse(scale: np.ndarray) -> np.ndarray:
    """1 / scale, and 0 where that is too large for a number."""
    inverse = np.float32(1) / scale
    return np.where(np.isfinite(inverse), inverse, ZERO)


def _places(x: Columns, inverse: np.ndarray) -> np.ndarray:
    """Index into the tables of the nearest values."""
    twice = np.multiply(x, inverse * np.float32(2))
    np.clip(np.floor(twice, out=twice), -254, 226, out=twice)
    twice += np.float32(254)
    return twice.astype(np.int16)


def _nibbles(codes: np.ndarray) -> np.ndarray:
    return codes[:, :16] | codes[:, 16:] << 4


def _joined(weights: np.ndarray, *parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts, axis=1).reshape(len(weights), -1)
