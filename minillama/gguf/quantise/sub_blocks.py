"""Sub-blocks as columns of a matrix, so that numpy works on thousands of them at once.

llama.cpp adds up a sub-block from its first weight to its last, in float32. Adding rows of the matrix keeps that
order, so that sums, and the choices made from them, are the same to the last bit.
"""

import numpy as np

Columns = np.ndarray  # float32 [weights of a sub-block, sub-blocks]


def to_columns(weights: np.ndarray, size: int) -> Columns:
    """float32 [rows, K] as [size, rows * K / size], a copy."""
    return np.ascontiguousarray(weights.reshape(-1, size).T)


def tiled_importance(importance: np.ndarray, rows: int, size: int) -> Columns:
    """The importance of a row's K columns, float32 [K], for each of `rows` rows."""
    return np.tile(to_columns(importance, size), rows)


def from_columns(codes: np.ndarray, length: int) -> np.ndarray:
    """Codes of columns back in the order of the weights, as uint8 [blocks, length]; what is no number becomes 0."""
    ordered = np.ascontiguousarray(codes.T).reshape(-1, length)
    return np.where(np.isnan(ordered), np.float32(0), ordered).astype(np.uint8)


def column_sums(values: Columns) -> np.ndarray:
    """The sum of each column from top to bottom."""
    if values.shape[1] == 1:  # numpy would add this one pairwise
        return np.add.accumulate(values, axis=0)[-1]
    return np.add.reduce(values, axis=0)


def signed_absmax(values: Columns) -> np.ndarray:
    """Of each column the value of largest magnitude, the first of equals; of zeros the positive one."""
    return np.take_along_axis(values, np.abs(values).argmax(axis=0)[None], axis=0)[0] + np.float32(0)


def f16_bytes(values: np.ndarray) -> np.ndarray:
    """Values as the bytes of float16: uint8 [n, 2]."""
    return values.astype("<f2")[:, None].view(np.uint8)


def round_to_f16(values: np.ndarray) -> np.ndarray:
    """Values as a reader of the file will see them, rounded to float16."""
    return values.astype(np.float16).astype(np.float32)
