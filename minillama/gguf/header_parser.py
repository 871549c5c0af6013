"""Parser of a GGUF header: magic, version, metadata, and the position of each tensor.

Safe for untrusted files: every count and length is compared with the size of the file before any allocation or loop. A
mismatch raises FormatError or UnsupportedError.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import numpy as np

from minillama.errors import FormatError, UnsupportedError
from minillama.gguf.header_cursor import Buffer, Cursor, shortened
from minillama.gguf.types import BLOCKS, NUMPY, RETIRED_TYPES, TensorType, ValueType, row_bytes

MetadataValue = bool | int | float | str | np.ndarray | tuple[str, ...]

DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
MIN_VALUE_BYTES = 8 + 4 + 1  # key length, type, one byte
MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8  # name length, count of dimensions, one dimension, type, offset
OTHER_FORMATS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the model itself; run `git lfs pull`"),
    (b"PK\x03\x04", "is a PyTorch or zip file; convert it with llama.cpp's convert_hf_to_gguf.py"),
    (b"\x80\x02", "is a Python pickle (PyTorch); convert it with llama.cpp's convert_hf_to_gguf.py"),
    (b"lmgg", "is in the old GGML format; download a GGUF file of this model"),
    (b"fmgg", "is in the old GGMF format; download a GGUF file of this model"),
    (b"tjgg", "is in the old GGJT format; download a GGUF file of this model"),
    (b"<", "is a web page, not a model; check the address that it was downloaded from"),
    (b"\0\0\0\0", "begins with zeros: an unfinished download? Download it again"),
)


@dataclass(frozen=True)
class TensorInfo:
    """Position of one tensor.

    shape: in numpy's order, row length last. offset: bytes from the start of the file.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    nbytes: int


@dataclass(frozen=True, eq=False)
class Header:
    """Contents of a header.

    kinds: the types of the metadata, such as `u32` or `string[32000]`. data_start: bytes before the first tensor.
    """

    version: int
    metadata: dict[str, MetadataValue]
    kinds: dict[str, str]
    alignment: int
    data_start: int
    tensors: tuple[TensorInfo, ...]

    @property
    def end(self) -> int:
        """Bytes from the start of the file to the end of the last tensor."""
        return max((info.offset + info.nbytes for info in self.tensors), default=self.data_start)


def parse_header(source: Buffer, label: str) -> Header:
    """Parse the header at the start of `source`; `label` names the file in errors.

    Raises FormatError (malformed) and UnsupportedError (well formed but unknown).
    """
    cursor = Cursor(source, label)
    version = _version(cursor)
    tensor_count, value_count = cursor.u64("the tensor count"), cursor.u64("the metadata count")
    for count, minimum, what in (
        (value_count, MIN_VALUE_BYTES, "metadata values"),
        (tensor_count, MIN_TENSOR_BYTES, "tensors"),
    ):
        if count > (cursor.end - cursor.position) // minimum:
            raise FormatError(
                f"{label}: truncated or malformed: {count} {what} do not fit in {cursor.size} bytes; download it again"
            )
    metadata: dict[str, MetadataValue] = {}
    kinds: dict[str, str] = {}
    for index in range(value_count):
        key = cursor.name(f"metadata key {index}")
        if key in metadata:
            raise FormatError(f"{label}: metadata key {shortened(key)} appears twice; the file is malformed")
        metadata[key], kinds[key] = _value(cursor, shortened(key))
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise FormatError(
            f"{label}: general.alignment is {shortened(alignment)}, not a power of two; the file is malformed"
        )
    raw = [_tensor(cursor, index) for index in range(tensor_count)]
    data_start = -(-cursor.position // alignment) * alignment
    tensors = _checked_tensors(raw, data_start, alignment, cursor)
    return Header(version, metadata, kinds, alignment, data_start, tensors)


def _version(cursor: Cursor) -> int:
    label, first = cursor.label, cursor.source[:64]
    if first[:4] != b"GGUF":
        for start, message in OTHER_FORMATS:
            if first.startswith(start):
                raise FormatError(f"{label} {message}")
        if first[8:10] == b'{"':
            raise FormatError(f"{label} is a safetensors file; convert it with llama.cpp's convert_hf_to_gguf.py")
        raise FormatError(f"{label} is not a GGUF file: it begins with {first[:4]!r}, not b'GGUF'")
    cursor.skip(4, "the magic")
    version = cursor.u32("the version")
    if version & 0xFFFF == 0 and version:
        raise UnsupportedError(
            f"{label} is a big-endian GGUF file; convert it with `gguf-convert-endian {label} little`"
        )
    if version not in (2, 3):
        raise UnsupportedError(f"{label} has GGUF version {version}; supported: 2, 3; convert the model again")
    return version


def _value_type(cursor: Cursor, key: str) -> ValueType:
    number = cursor.u32(f"the type of {key}")
    try:
        return ValueType(number)
    except ValueError as error:
        raise FormatError(
            f"{cursor.label}: metadata key {key} has unknown value type {number}; known: 0 to 12"
        ) from error


def _value(cursor: Cursor, key: str) -> tuple[MetadataValue, str]:
    """Read one metadata value; returns it and its type as text.

    Text may contain any bytes (some vocabularies do). Bytes that are not UTF-8 become surrogate escapes;
    `text.encode("utf-8", "surrogateescape")` restores the bytes.
    """
    kind = _value_type(cursor, key)
    if kind is ValueType.STRING:
        return cursor.raw_string(key).decode("utf-8", "surrogateescape"), "string"
    if kind is ValueType.BOOL:
        return bool(cursor.number(kind, key)), "bool"
    if kind is not ValueType.ARRAY:
        return cursor.number(kind, key), kind.name.lower()
    element = _value_type(cursor, key)
    count = cursor.u64(f"the count of {key}")
    words = f"{element.name.lower()}[{count}]"
    if element is ValueType.ARRAY:
        raise UnsupportedError(
            f"{cursor.label}: metadata key {key} is an array of arrays; llama.cpp does not read these either"
        )
    if element is ValueType.STRING:
        return cursor.strings(count, key), words
    start = cursor.skip(count * NUMPY[element].itemsize, key)
    values = np.frombuffer(cursor.source[start : cursor.position], NUMPY[element])
    return values != 0 if element is ValueType.BOOL else values, words


def _tensor(cursor: Cursor, index: int) -> TensorInfo:
    """Read the entry of one tensor, with its offset from the start of the data."""
    name = cursor.name(f"the name of tensor {index}")
    where = f"{cursor.label}: tensor {shortened(name)}"
    rank = cursor.u32(f"tensor {shortened(name)}")
    if not 1 <= rank <= MAX_DIMENSIONS:
        raise FormatError(f"{where} has {rank} dimensions; GGUF allows 1 to {MAX_DIMENSIONS}")
    dims = [cursor.u64(f"tensor {shortened(name)}") for _ in range(rank)]
    number, offset = cursor.u32(f"tensor {shortened(name)}"), cursor.u64(f"tensor {shortened(name)}")
    if number in RETIRED_TYPES:
        raise UnsupportedError(
            f"{where} has the retired type {RETIRED_TYPES[number]} ({number}); quantise the model again"
        )
    try:
        kind = TensorType(number)
    except ValueError as error:
        known = ", ".join(known.name for known in BLOCKS)
        raise UnsupportedError(f"{where} has unknown type {number}; known: {known}") from error
    if 0 in dims:
        raise FormatError(f"{where} has a dimension of 0 in {dims}; the file is malformed")
    try:
        size = prod(dims[1:]) * row_bytes(dims[0], kind)
    except ValueError as error:
        raise FormatError(f"{where}: {error}; the file is malformed") from error
    return TensorInfo(name, tuple(reversed(dims)), kind, offset, size)


def _checked_tensors(raw: list[TensorInfo], data_start: int, alignment: int, cursor: Cursor) -> tuple[TensorInfo, ...]:
    """Tensors with offsets from the start of the file.

    Checks that the tensors are aligned, inside the file, and do not overlap.
    """
    names: set[str] = set()
    placed = []
    for info in raw:
        where = f"{cursor.label}: tensor {shortened(info.name)}"
        if info.name in names:
            raise FormatError(f"{where} appears twice; the file is malformed")
        names.add(info.name)
        if info.offset % alignment:
            raise FormatError(
                f"{where} is at offset {info.offset}, not a multiple of {alignment}; the file is malformed"
            )
        start = data_start + info.offset
        if start + info.nbytes > cursor.size:
            raise FormatError(
                f"{where} ends at byte {start + info.nbytes} of {cursor.size}: truncated or malformed; "
                "download it again"
            )
        placed.append(replace(info, offset=start))
    ordered = sorted(placed, key=lambda info: info.offset)
    for before, after in pairwise(ordered):
        if before.offset + before.nbytes > after.offset:
            raise FormatError(
                f"{cursor.label}: tensors {shortened(before.name)} and {shortened(after.name)} overlap; "
                "the file is malformed"
            )
    return tuple(placed)
