"""Projections that a checkpoint stores as one matrix, such as gate and up."""

import numpy as np

from minillama.convert.weights.lazy_weight import LazyWeight
from minillama.errors import FormatError


def split_rows(weight: LazyWeight, *sizes: int) -> list[LazyWeight]:
    """Parts of the first axis."""
    if sum(sizes) != weight.shape[0]:
        raise FormatError(f"{weight.name} has {weight.shape[0]} rows; expected {' + '.join(map(str, sizes))}")
    ends = np.cumsum(sizes).tolist()
    return [weight.rows(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def split_experts(weight: LazyWeight) -> tuple[LazyWeight, LazyWeight]:
    """Gate and up of [experts, 2 * size, width]: the halves of the rows."""
    half = _half(weight, 1)
    shape = (weight.shape[0], half, weight.shape[2])
    return weight.each(lambda w: w[:, :half], shape), weight.each(lambda w: w[:, half:], shape)


def split_alternating_experts(weight: LazyWeight) -> tuple[LazyWeight, LazyWeight]:
    """Gate and up of [experts, 2 * size, ...]: even and odd rows."""
    half = _half(weight, 1)
    shape = (weight.shape[0], half, *weight.shape[2:])
    return weight.each(lambda w: w[:, ::2], shape), weight.each(lambda w: w[:, 1::2], shape)


def transposed_experts(weight: LazyWeight) -> LazyWeight:
    """[experts, in, out] as [experts, out, in]."""
    if len(weight.shape) != 3:
        raise FormatError(f"{weight.name} has {len(weight.shape)} axes; expected experts, inputs and outputs")
    experts, inputs, outputs = weight.shape
    return weight.each(lambda w: w.swapaxes(1, 2), (experts, outputs, inputs))


def _half(weight: LazyWeight, axis: int) -> int:
    if len(weight.shape) <= axis or weight.shape[axis] % 2:
        raise FormatError(f"{weight.name} has the shape {list(weight.shape)}; expected gate and up in axis {axis}")
    return weight.shape[axis] // 2
