"""Searches for the scale (and minimum) with the smallest error, for all sub-blocks at once.

Each search tries a few scales near the obvious one, fits scale and minimum to the rounded codes by least squares, and
keeps the fit with the smallest error. Trials, weights and the order of all operations are those of llama.cpp
(ggml-quants.c, October 2026): the results have the same bits.
"""

from dataclasses import dataclass

import numpy as np

from minillama.gguf.quantise.sub_blocks import Columns, column_sums, signed_absmax

MIN_NONZERO = np.float32(1e-15)  # a sub-block with only smaller magnitudes counts as zero
REFINEMENTS = 5


@dataclass(frozen=True, eq=False)
class SignedFit:
    """Fit of each column: weight = scale * code, with codes from weight * inverse."""

    scale: np.ndarray
    inverse: np.ndarray


@dataclass(frozen=True, eq=False)
class MinimumFit:
    """Fit of each column: weight = scale * code - minimum.

    The codes come from (weight - base) * inverse.
    """

    scale: np.ndarray
    minimum: np.ndarray
    inverse: np.ndarray
    base: np.ndarray


@dataclass(frozen=True)
class ScaleTrials:
    """Inverse scales to try: (start + step * i + largest code) / range, i from 0 to last."""

    start: float
    step: float
    last: int
    absolute: bool = False  # minimise the absolute error instead of the squared error

    def factors(self, top: int) -> list[np.float32]:
        step, start = np.float32(self.step), np.float32(self.start)
        return [start + step * np.float32(i) + np.float32(top) for i in range(self.last + 1)]


def fit_signed(x: Columns, weights: Columns, top: int) -> SignedFit:
    """Fit codes from -top to top - 1 without a minimum, in 19 trials.

    Columns of zeros get scale 0.
    """
    largest = signed_absmax(x)
    zero = np.abs(largest) < MIN_NONZERO
    weighted = weights * x
    codes, scratch = np.empty_like(x), np.empty_like(x)

    def sums(inverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale_and_round(x, inverse, -top, top - 1, out=codes)
        dot = column_sums(np.multiply(weighted, codes, out=scratch))
        np.multiply(weights, codes, out=scratch)
        return dot, column_sums(np.multiply(scratch, codes, out=scratch))

    inverse = np.float32(-top) / largest
    dot, square = sums(inverse)
    scale = np.where(square != 0, dot / square, np.float32(0))
    best = scale * dot
    for trial in range(-9, 10):
        if trial:
            tried = -(np.float32(top) + np.float32(0.1) * np.float32(trial)) / largest
            dot, square = sums(tried)
            better = (square > 0) & (dot * dot > best * square)
            scale = np.where(better, dot / square, scale)
            best = np.where(better, scale * dot, best)
            inverse = np.where(better, tried, inverse)
    return SignedFit(np.where(zero, np.float32(0), scale), np.where(zero, np.float32(0), inverse))


def signed_codes(x: Columns, fit: SignedFit, top: int) -> np.ndarray:
    """Codes of `fit_signed`, shifted to start at 0; columns of zeros have code 0."""
    codes = scale_and_round(x, fit.inverse, -top, top - 1) + np.float32(top)
    return np.where(fit.inverse == 0, np.float32(0), codes)


def fit_minimum(x: Columns, weights: Columns, top: int, trials: ScaleTrials) -> MinimumFit:
    """Fit codes from 0 to top with a minimum of at most 0."""
    low, high = x.min(axis=0), x.max(axis=0)
    low = np.where(low > 0, np.float32(0), low)
    weight_sum, x_sum = column_sums(weights), column_sums(weights * x)
    codes, scratch, weighted = np.empty_like(x), np.empty_like(x), np.empty_like(x)

    def error(scale: np.ndarray, minimum: np.ndarray) -> np.ndarray:
        np.multiply(codes, scale, out=scratch)
        np.add(scratch, minimum, out=scratch)
        np.subtract(scratch, x, out=scratch)
        if trials.absolute:
            np.abs(scratch, out=scratch)
        else:
            np.multiply(scratch, scratch, out=scratch)
        return column_sums(np.multiply(scratch, weights, out=scratch))

    inverse, base, minimum = np.float32(top) / (high - low), low, low
    flat = ~np.isfinite(inverse)  # equal, or closer than float32 can represent
    scale = np.float32(1) / inverse
    scale_and_round(np.subtract(x, minimum, out=codes), inverse, 0, top, out=codes)
    best = error(scale, minimum)
    for factor in trials.factors(top):
        tried = factor / (high - minimum)
        scale_and_round(np.subtract(x, minimum, out=codes), tried, 0, top, out=codes)
        np.multiply(weights, codes, out=weighted)
        code_sum = column_sums(weighted)
        square = column_sums(np.multiply(weighted, codes, out=scratch))
        dot = column_sums(np.multiply(weighted, x, out=scratch))
        determinant = weight_sum * square - code_sum * code_sum
        new_scale = (weight_sum * dot - x_sum * code_sum) / determinant
        new_minimum = (square * x_sum - code_sum * dot) / determinant
        above = new_minimum > 0
        new_scale = np.where(above, dot / square, new_scale)
        new_minimum = np.where(above, np.float32(0), new_minimum)
        new_error = error(new_scale, new_minimum)
        better = (determinant > 0) & (new_error < best)
        best = np.where(better, new_error, best)
        inverse, base = np.where(better, tried, inverse), np.where(better, minimum, base)
        scale, minimum = np.where(better, new_scale, scale), np.where(better, new_minimum, minimum)
    nothing = np.float32(0)
    return MinimumFit(
        np.where(flat, nothing, scale), -np.where(flat, low, minimum), np.where(flat, nothing, inverse), base
    )


def minimum_codes(x: Columns, fit: MinimumFit, top: int) -> np.ndarray:
    """Codes of `fit_minimum`; flat columns have code 0."""
    return np.where(fit.inverse == 0, np.float32(0), scale_and_round(x - fit.base, fit.inverse, 0, top))


def fit_positive(x: Columns, weights: Columns, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit one scale to non-negative numbers: (scale [n], codes from 0 to top [S, n])."""
    largest = np.maximum(x.max(axis=0), np.float32(0))
    zero = largest < MIN_NONZERO

    def error(inverse: np.ndarray, limit: float) -> np.ndarray:
        difference = x - np.float32(1) / inverse * np.minimum(np.rint(inverse * x), np.float32(limit))
        return column_sums(weights * difference * difference)

    inverse = np.float32(top) / largest
    best = error(inverse, np.inf)
    for trial in range(-4, 5):
        if trial:
            tried = (np.float32(0.1) * np.float32(trial) + np.float32(top)) / largest
            new_error = error(tried, float(top))
            better = new_error < best
            best, inverse = np.where(better, new_error, best), np.where(better, tried, inverse)
    codes = np.minimum(np.rint(inverse * x), np.float32(top))
    codes, scale = refine(x, weights, codes, 0, top, whole=True)
    return np.where(zero, np.float32(0), scale), np.where(zero, np.float32(0), codes)


def refine_signed(x: Columns, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit by coordinate descent with squares as weights: (scale [n], codes from 0 to 2 * top - 1)."""
    largest = signed_absmax(x)
    zero = np.abs(largest) < MIN_NONZERO
    codes = scale_and_round(x, np.float32(-top) / largest, -top, top - 1)
    codes, scale = refine(x, x * x, codes, -top, top - 1, whole=False)
    return np.where(zero, np.float32(0), scale), np.where(zero, np.float32(0), codes + np.float32(top))


def refine(
    x: Columns, weights: Columns, codes: Columns, low: int, top: int, *, whole: bool
) -> tuple[Columns, np.ndarray]:
    """Coordinate descent: set each code to the best one for the scale of the others.

    Returns (codes, scale) when no change helps, or after REFINEMENTS passes. whole: keep a code if the others have no
    weight left.
    """
    weighted, codes = weights * x, codes.copy()
    dot, square = column_sums(weighted * codes), column_sums(weights * codes * codes)
    for _ in range(REFINEMENTS):
        changed = False
        for i in range(len(x)):
            code = codes[i]
            rest_dot = dot - weighted[i] * code
            rest_square = square - weights[i] * code * code
            new = np.clip(np.rint(x[i] * rest_square / rest_dot), np.float32(low), np.float32(top))
            new_dot = rest_dot + weighted[i] * new
            new_square = rest_square + weights[i] * new * new
            better = (rest_dot > 0) & (new != code) & (new_square > 0)
            better &= new_dot * new_dot * square > dot * dot * new_square
            if whole:
                better &= rest_square > 0
            if better.any():
                changed = True
                codes[i] = np.where(better, new, code)
                dot, square = np.where(better, new_dot, dot), np.where(better, new_square, square)
        if not changed:
            break
    return codes, np.where(square > 0, dot / square, np.float32(0))


def scale_and_round(x: Columns, inverse: np.ndarray, low: int, top: int, out: Columns | None = None) -> Columns:
    """Nearest integer to x * inverse, ties to even, limited to low..top."""
    out = np.multiply(x, inverse, out=out)
    np.rint(out, out=out)
    return np.clip(out, low, top, out=out)
