"""Writer of GGUF headers, the counterpart of `header_parser`.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minillama.gguf.header_parser import DEFAULT_ALIGNMENT, MetadataValue
from minillama.gguf.types import NUMPY, TensorType, ValueType, row_bytes

VERSION = 3
METADATA_ROOM = 64 * 2**20  # bytes: more than any vocabulary takes


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and type of a tensor to write."""

    name: str
    shape: tuple[int, ...]
    type: TensorType

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape[:-1]) * row_bytes(self.shape[-1], self.type)


def header_bytes(
    metadata: Mapping[str, MetadataValue], kinds: Mapping[str, str], tensors: Sequence[TensorSpec]
) -> bytes:
    """The header as bytes, padded to the start of the weights.

    kinds: the stored types as `Header.kinds` has them, such as `u32` or `string[32000]`. The tensors are in this order,
    each at a multiple of `general.alignment`.
    """
    alignment = alignment_of(metadata)
    parts = [b"GGUF", struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_string_bytes(key), _value_bytes(value, kinds[key])]
    offset = 0
    for tensor in tensors:
        dims = dimensions(tensor.shape)
        parts.append(_string_bytes(tensor.name))
        parts.append(struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, tensor.type, offset))
        offset += padded_size(tensor.nbytes, alignment)
    raw = b"".join(parts)
    return raw + b"\0" * (padded_size(len(raw), alignment) - len(raw))


def alignment_of(metadata: Mapping[str, MetadataValue]) -> int:
    """Alignment of tensor offsets in bytes."""
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    return alignment if isinstance(alignment, int) else DEFAULT_ALIGNMENT


def padded_size(size: int, alignment: int = DEFAULT_ALIGNMENT) -> int:
    """Round a size up to a multiple of the alignment."""
    return -(-size // alignment) * alignment


def dimensions(shape: tuple[int, ...]) -> list[int]:
    """A shape in the file's order: contiguous axis first, no trailing ones."""
    dims = list(reversed(shape))
    while len(dims) > 1 and dims[-1] == 1:
        dims.pop()
    return dims


def _string_bytes(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def _value_bytes(value: MetadataValue, kind_text: str) -> bytes:
    name, array, _ = kind_text.partition("[")
    kind = ValueType[name.upper()]
    if not array:
        with np.errstate(over="ignore"):  # a float beyond float32 becomes infinite
            raw = _string_bytes(value) if kind is ValueType.STRING else np.array(value).astype(NUMPY[kind]).tobytes()
        return struct.pack("<I", kind) + raw
    start = struct.pack("<IIQ", ValueType.ARRAY, kind, len(value))
    if kind is ValueType.STRING:
        return start + b"".join(map(_string_bytes, value))
    return start + np.asarray(value).astype(NUMPY[kind]).tobytes()
