"""Equality of results, and of arguments before and after a call."""

import numpy as np


def is_equal(got: object, want: object, tolerance: float) -> bool:
    """`is_close` for arrays, `==` for all other outcomes."""
    if isinstance(got, np.ndarray) and isinstance(want, np.ndarray):
        return is_close(got, want, tolerance)
    return bool(got == want)


def is_close(got: np.ndarray, want: np.ndarray, tolerance: float) -> bool:
    """True if the shapes are equal and no difference exceeds the tolerance.

    `tolerance` is relative to the largest magnitude of `want`."""
    if got.shape != want.shape:
        return False
    finite = np.isfinite(want)
    if not np.array_equal(got[~finite], want[~finite], equal_nan=True):
        return False
    scale = float(np.max(np.abs(want[finite]), initial=0.0))
    return bool(np.all(np.abs(got[finite] - want[finite]) <= tolerance * scale))


def is_unchanged(mine: object, original: object) -> bool:
    """True if the call did not change this argument."""
    if isinstance(mine, np.ndarray) and isinstance(original, np.ndarray):
        return bool(mine.shape == original.shape and np.array_equal(mine, original, equal_nan=mine.dtype.kind == "f"))
    if isinstance(mine, dict) and isinstance(original, dict):
        return mine.keys() == original.keys() and all(is_unchanged(mine[key], original[key]) for key in mine)
    if isinstance(mine, list | tuple) and isinstance(original, list | tuple):
        return len(mine) == len(original) and all(
            is_unchanged(one, other) for one, other in zip(mine, original, strict=True)
        )
    if isinstance(mine, int | float | str | bytes | bytearray):
        return bool(mine == original)
    return True
