"""Order of the rows inside a head.

RoPE turns pairs of numbers. Transformers keeps the two halves of the pairs apart; llama.cpp's NORM rotation expects the
two numbers of a pair next to each other.
"""

import numpy as np

from minillama.convert.weights.lazy_weight import LazyWeight
from minillama.errors import FormatError


def adjacent_pairs(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from (first halves, second halves) to pairs; values [heads * size, ...]."""
    half = values.shape[0] // heads // 2
    return values.reshape(heads, 2, half, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def with_adjacent_pairs(weight: LazyWeight, heads: int) -> LazyWeight:
    """A query or key projection, or its bias, in the order of NORM rotation."""
    if weight.shape[0] % (2 * heads):
        raise FormatError(f"{weight.name} has {weight.shape[0]} rows, not {heads} heads of whole pairs")
    return weight.changed(lambda values: adjacent_pairs(values, heads))
