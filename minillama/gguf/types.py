"""Tensor types and metadata value types of the GGUF format, with block sizes."""

from enum import IntEnum

import numpy as np
from gguf.constants import GGML_QUANT_SIZES
from gguf.constants import GGMLQuantizationType as TensorType
from gguf.constants import LlamaFileType as FileType

__all__ = ["BLOCKS", "NUMPY", "RETIRED_TYPES", "FileType", "TensorType", "ValueType", "row_bytes"]

# type -> (weights in a block, bytes of a block)
BLOCKS: dict[TensorType, tuple[int, int]] = GGML_QUANT_SIZES

# Numbers of tensor types that were removed from the format.
RETIRED_TYPES = {
    4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8",
    36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8",
}  # fmt: skip


class ValueType(IntEnum):
    """The thirteen types of a metadata value."""

    U8 = 0
    I8 = 1
    U16 = 2
    I16 = 3
    U32 = 4
    I32 = 5
    F32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    U64 = 10
    I64 = 11
    F64 = 12


# A boolean is one byte; as in llama.cpp, every value except 0 is true.
NUMPY: dict[ValueType, np.dtype] = {
    ValueType.U8: np.dtype("<u1"),
    ValueType.I8: np.dtype("<i1"),
    ValueType.U16: np.dtype("<u2"),
    ValueType.I16: np.dtype("<i2"),
    ValueType.U32: np.dtype("<u4"),
    ValueType.I32: np.dtype("<i4"),
    ValueType.F32: np.dtype("<f4"),
    ValueType.BOOL: np.dtype("<u1"),
    ValueType.U64: np.dtype("<u8"),
    ValueType.I64: np.dtype("<i8"),
    ValueType.F64: np.dtype("<f8"),
}


def row_bytes(row_length: int, type: TensorType) -> int:
    """Bytes of a row of weights; ValueError unless it is whole blocks."""
    block, size = BLOCKS[type]
    if row_length % block:
        raise ValueError(f"a row of {row_length} is not a multiple of the {type.name} block of {block}")
    return row_length // block * size
