"""Weights as pytree leaves, and `matmul(x, w)`, which hides how w is stored and which kernel multiplies.

`weight` holds the portable storage that XLA compiles for any backend; `decode` says what the block formats mean.
"""

from minillama.kernels.decode import DECODERS
from minillama.kernels.load import SUPPORTED, load_vector, load_weight
from minillama.kernels.weight import Blocks, Dense, Half, Weight, embed, matmul

__all__ = [
    "DECODERS",
    "SUPPORTED",
    "Blocks",
    "Dense",
    "Half",
    "Weight",
    "embed",
    "load_vector",
    "load_weight",
    "matmul",
]
