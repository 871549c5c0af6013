"""Tensors of Mamba-2 layers in llama.cpp's shapes, and the decay of recurrent layers."""

import numpy as np

from minillama.convert.folder.folder_config import FolderConfig
from minillama.convert.weights.lazy_weight import LazyWeight


def minus_exp(values: np.ndarray) -> np.ndarray:
    """A from its logarithm, rounded from float64."""
    return -np.exp(values.astype(np.float64)).astype(values.dtype)


def as_column(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    """D: [heads] as [heads, 1]."""
    return weight.reshaped(weight.shape[0], 1)


def decay_column(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    """A from its logarithm, [heads, 1]."""
    return as_column(weight, config).each(minus_exp)


def grouped_norm(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    """The norm's weight, one row for each group of heads."""
    groups = config.size("n_groups", "mamba_n_groups")
    return weight.reshaped(groups, weight.shape[0] // groups)


def without_middle_axis(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    """A depthwise convolution [channels, 1, taps] as [channels, taps]."""
    return weight.squeezed()
