"""Sub-blocks as columns of a matrix: numpy processes thousands of them at once.

llama.cpp sums a sub-block from its first weight to its last, in float32. Adding the rows of the matrix keeps this
order: the sums, and all choices based on them, are the same bit for bit.
"""

import numpy as np

Columns = np.ndarray  # float32 [weights of a sub-block, sub-blocks]


def to_columns(weights: np.ndarray, size: int) -> Columns:
    """Copy float32 [rows, K] to [size, rows * K / size], one sub-block per column."""
    return np.ascontiguousarray(weights.reshape(-1, size).T)


def tiled_importance(importance: np.ndarray, rows: int, size: int) -> Columns:
    """Repeat the importance of the K columns, float32 [K], for each of `rows` rows."""
    return np.tile(to_columns(importance, size), rows)


def from_columns(codes: np.ndarray, length: int) -> np.ndarray:
    """Codes in the order of the weights, as uint8 [blocks, length]; NaN becomes 0."""
    ordered = np.ascontiguousarray(codes.T).reshape(-1, length)
    return np.where(np.isnan(ordered), np.float32(0), ordered).astype(np.uint8)


def column_sums(values: Columns) -> np.ndarray:
    """Sum of each column from top to bottom."""
    if values.shape[1] == 1:  # numpy uses pairwise sums for a single column
        return np.add.accumulate(values, axis=0)[-1]
    return np.add.reduce(values, axis=0)


def signed_absmax(values: Columns) -> np.ndarray:
    """Signed value of largest magnitude in each column.

    The first of equal values; +0 for zeros.
    """
    return np.take_along_axis(values, np.abs(values).argmax(axis=0)[None], axis=0)[0] + np.float32(0)


def f16_bytes(values: np.ndarray) -> np.ndarray:
    """Bytes of the values as float16: uint8 [n, 2]."""
    return values.astype("<f2")[:, None].view(np.uint8)


def round_to_f16(values: np.ndarray) -> np.ndarray:
    """Round values to float16, as a reader of the file gets them."""
    return values.astype(np.float16).astype(np.float32)
