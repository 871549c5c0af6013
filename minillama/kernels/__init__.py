"""Weights as pytree leaves, and `matmul(x, w)` for every storage format and kernel.

`weight` holds the portable formats, which XLA compiles for any backend. `decode_blocks` decodes the block formats.
`cpu` holds the CPU kernels, which multiply the bytes of the file in place.
"""

from minillama.kernels.cpu_available import cpu_kernels_error, instruction_set, reads_in_place
from minillama.kernels.decode_blocks import DECODERS
from minillama.kernels.grouped_products import RowGroups
from minillama.kernels.load_weights import (
    SUPPORTED,
    Files,
    bytes_on,
    check_supported,
    load_vector,
    load_weight,
    map_rows,
    place_weight,
    portable_weight,
    weight_of_zeros,
)
from minillama.kernels.target_platform import target_platform
from minillama.kernels.weight import Blocks, Dense, Half, Portable, Weight, embed, grouped_matmuls, matmul, matmuls

__all__ = [
    "DECODERS",
    "SUPPORTED",
    "Blocks",
    "Dense",
    "Files",
    "Half",
    "Portable",
    "RowGroups",
    "Weight",
    "bytes_on",
    "check_supported",
    "cpu_kernels_error",
    "embed",
    "grouped_matmuls",
    "instruction_set",
    "load_vector",
    "load_weight",
    "map_rows",
    "matmul",
    "matmuls",
    "place_weight",
    "portable_weight",
    "reads_in_place",
    "target_platform",
    "weight_of_zeros",
]
