"""The header of one GGUF file: magic, version, metadata, and where each tensor lies.

Written for files from anywhere: every count and length is compared with the bytes that are there before anything
is allocated or looped over, and whatever does not fit is one FormatError or UnsupportedError.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import struct
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import NamedTuple

import numpy as np

from minillama.errors import FormatError, UnsupportedError
from minillama.gguf.types import BLOCKS, NUMPY, RETIRED_TYPES, TensorType, ValueType, row_bytes

MetadataValue = bool | int | float | str | np.ndarray | tuple[str, ...]
Buffer = mmap.mmap | bytes  # both slice to bytes, which a memoryview does not

# The largest real headers (262,144 tokens and their merges) take some 20 MB; more than this is an attack on memory.
MAX_HEADER_BYTES = 256 * 2**20
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
MAX_SHOWN_CHARACTERS = 64  # of a name in an error line, the longest that llama.cpp takes
MIN_VECTORISED_STRINGS = 64  # of an array; so many are worth being looked for all at once
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
    """Where one tensor lies: `shape` in numpy's order (row length last), `offset` in bytes from the file's start."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    nbytes: int


@dataclass(frozen=True, eq=False)
class Header:
    """What stands before the weights; `kinds` are the metadata's types in words, as `u32` or `string[32000]`."""

    version: int
    metadata: dict[str, MetadataValue]
    kinds: dict[str, str]
    alignment: int
    tensors: tuple[TensorInfo, ...]


class _Cursor:
    """A position in a file that never leaves it."""

    def __init__(self, source: Buffer, label: str) -> None:
        self.source, self.label = source, label
        self.position, self.size = 0, len(source)
        self.end = min(self.size, MAX_HEADER_BYTES)

    def out_of_bytes(self, what: str, wanted: int) -> FormatError:
        if wanted > self.end < self.size:
            return FormatError(f"{self.label}: the header goes on beyond {MAX_HEADER_BYTES} bytes ({what}); malformed")
        return FormatError(
            f"{self.label}: truncated or malformed: {what} ends at byte {wanted} of {self.size}; download it again"
        )

    def skip(self, count: int, what: str) -> int:
        """Move on by `count` bytes; returns where they start."""
        start = self.position
        if count > self.end - start:
            raise self.out_of_bytes(what, start + count)
        self.position = start + count
        return start

    def number(self, type: ValueType, what: str) -> int | float:
        start = self.skip(NUMPY[type].itemsize, what)
        return np.frombuffer(self.source[start : self.position], NUMPY[type])[0].item()

    def u32(self, what: str) -> int:
        return struct.unpack_from("<I", self.source, self.skip(4, what))[0]

    def u64(self, what: str) -> int:
        return struct.unpack_from("<Q", self.source, self.skip(8, what))[0]

    def raw_string(self, what: str) -> bytes:
        length = self.u64(f"the length of {what}")
        start = self.skip(length, what)
        return self.source[start : self.position]

    def name(self, what: str) -> str:
        """A key or a tensor's name, which must be UTF-8."""
        raw = self.raw_string(what)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{self.label}: {what} is not UTF-8: {raw[:MAX_SHOWN_CHARACTERS]!r}; the file is malformed"
            ) from error

    def strings(self, count: int, what: str) -> tuple[str, ...]:
        """An array of strings: the one loop that is long (400,000 turns for Llama 3), so it is written out."""
        source, position, end = self.source, self.position, self.end
        if count > (end - position) // 8:
            raise self.out_of_bytes(f"{what} of {count} strings", position + 8 * count)
        if count >= MIN_VECTORISED_STRINGS and (
            found := read_short_strings(source[position : min(end, position + 32 * count)], count)
        ):
            self.position = position + found.size
            return found.texts
        length_at = struct.Struct("<Q").unpack_from
        texts = []
        for _ in range(count):
            if position + 8 > end:
                raise self.out_of_bytes(what, position + 8)
            start = position + 8
            position = start + length_at(source, position)[0]
            if position > end:
                raise self.out_of_bytes(what, position)
            texts.append(source[start:position].decode("utf-8", "surrogateescape"))
        self.position = position
        return tuple(texts)


class ShortStrings(NamedTuple):
    """What `read_short_strings` found, in so many bytes."""

    texts: tuple[str, ...]
    size: int


def read_short_strings(raw: bytes, count: int) -> ShortStrings | None:
    """The first `count` strings of an array all at once; None where one is empty, has more than 255 bytes or a zero,
    or where they do not end in `raw`: then they have to be read one by one.

    Seven zeros mark each string's length, for this is a u64 below 256; whether they mark nothing else, the lengths say.
    """
    data = np.frombuffer(raw, np.uint8)
    zero = data == 0
    zeros = zero[:-6] & zero[6:]
    for place in range(1, 6):
        zeros &= zero[place : len(zeros) + place]
    lengths_at = np.flatnonzero(zeros)[:count] - 1
    if len(lengths_at) < count or lengths_at[0] != 0:
        return None
    lengths = data[lengths_at].astype(np.int64)
    size = int(lengths_at[-1] + 8 + lengths[-1])
    if (np.diff(lengths_at) != lengths[:-1] + 8).any() or size > len(raw):
        return None
    kept = np.ones(size, bool)
    kept[lengths_at[:, None] + np.arange(1, 8)] = False
    joined = data[:size].copy()
    joined[lengths_at] = 0  # of each length one zero stays, in front of the text
    texts = tuple(joined[kept].tobytes().decode("utf-8", "surrogateescape").split("\0")[1:])
    return ShortStrings(texts, size) if len(texts) == count else None


def printable(value: MetadataValue) -> str:
    """A name or a value from a file as one short printable piece of an error line."""
    text = value if isinstance(value, str) and value else repr(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."


def parse_header(source: Buffer, label: str) -> Header:
    """Read the header at the start of `source`; `label` names the file in errors.

    Raises FormatError (malformed) and UnsupportedError (well formed but unknown).
    """
    cursor = _Cursor(source, label)
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
            raise FormatError(f"{label}: metadata key {printable(key)} appears twice; the file is malformed")
        metadata[key], kinds[key] = _value(cursor, printable(key))
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise FormatError(
            f"{label}: general.alignment is {printable(alignment)}, not a power of two; the file is malformed"
        )
    raw = [_tensor(cursor, index) for index in range(tensor_count)]
    data_start = -(-cursor.position // alignment) * alignment
    return Header(version, metadata, kinds, alignment, _checked_tensors(raw, data_start, alignment, cursor))


def _version(cursor: _Cursor) -> int:
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


def _value_type(cursor: _Cursor, key: str) -> ValueType:
    number = cursor.u32(f"the type of {key}")
    try:
        return ValueType(number)
    except ValueError as error:
        raise FormatError(
            f"{cursor.label}: metadata key {key} has unknown value type {number}; known: 0 to 12"
        ) from error


def _value(cursor: _Cursor, key: str) -> tuple[MetadataValue, str]:
    """One metadata value and its type in words.

    Text may hold any bytes (some vocabularies do): what is not UTF-8 becomes surrogate escapes, from which
    `text.encode("utf-8", "surrogateescape")` gives the bytes back.
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


def _tensor(cursor: _Cursor, index: int) -> TensorInfo:
    """One tensor's line, its offset still counted from the start of the data."""
    name = cursor.name(f"the name of tensor {index}")
    where = f"{cursor.label}: tensor {printable(name)}"
    rank = cursor.u32(f"tensor {printable(name)}")
    if not 1 <= rank <= MAX_DIMENSIONS:
        raise FormatError(f"{where} has {rank} dimensions; GGUF allows 1 to {MAX_DIMENSIONS}")
    dims = [cursor.u64(f"tensor {printable(name)}") for _ in range(rank)]
    number, offset = cursor.u32(f"tensor {printable(name)}"), cursor.u64(f"tensor {printable(name)}")
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


def _checked_tensors(raw: list[TensorInfo], data_start: int, alignment: int, cursor: _Cursor) -> tuple[TensorInfo, ...]:
    """Offsets from the start of the file, after checking that tensors are aligned, inside the file, and apart."""
    names: set[str] = set()
    placed = []
    for info in raw:
        where = f"{cursor.label}: tensor {printable(info.name)}"
        if info.name in names:
            raise FormatError(f"{where} appears twice; the file is malformed")
        names.add(info.name)
        if info.offset % alignment:
            raise FormatError(
                f"{where} lies at offset {info.offset}, not a multiple of {alignment}; the file is malformed"
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
                f"{cursor.label}: tensors {printable(before.name)} and {printable(after.name)} overlap; "
                "the file is malformed"
            )
    return tuple(placed)
