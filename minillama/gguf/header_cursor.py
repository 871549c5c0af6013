"""A bounds-checked cursor over the bytes of a GGUF header."""

import mmap
import struct
from typing import NamedTuple

import numpy as np

from minillama.errors import FormatError
from minillama.gguf.types import NUMPY, ValueType

Buffer = mmap.mmap | bytes  # slices of both are bytes, unlike those of a memoryview

# The largest real headers (262,144 tokens and their merges) take about 20 MB. A larger one could exhaust the memory.
MAX_HEADER_BYTES = 256 * 2**20
MAX_SHOWN_CHARACTERS = 64  # of a name in an error message; llama.cpp's maximum length of a name
MIN_VECTORISED_STRINGS = 64  # of an array; fewer are read one by one


class Cursor:
    """A position in a file; reads past the end raise FormatError."""

    def __init__(self, source: Buffer, label: str) -> None:
        self.source, self.label = source, label
        self.position, self.size = 0, len(source)
        self.end = min(self.size, MAX_HEADER_BYTES)

    def out_of_bytes(self, what: str, needed: int) -> FormatError:
        if needed > self.end < self.size:
            return FormatError(f"{self.label}: the header goes on beyond {MAX_HEADER_BYTES} bytes ({what}); malformed")
        return FormatError(
            f"{self.label}: truncated or malformed: {what} ends at byte {needed} of {self.size}; download it again"
        )

    def skip(self, count: int, what: str) -> int:
        """Advance by `count` bytes and return their start."""
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
        """Read a key or the name of a tensor, which must be UTF-8."""
        raw = self.raw_string(what)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{self.label}: {what} is not UTF-8: {raw[:MAX_SHOWN_CHARACTERS]!r}; the file is malformed"
            ) from error

    def strings(self, count: int, what: str) -> tuple[str, ...]:
        """Read an array of strings; this loop is inlined because it is long (400,000 strings in Llama 3)."""
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
    """Result of `read_short_strings`: texts, and the number of bytes that they take."""

    texts: tuple[str, ...]
    size: int


def read_short_strings(raw: bytes, count: int) -> ShortStrings | None:
    """Read the first `count` strings of an array with vector operations.

    Each length is a u64 below 256, so seven zeros mark it. The lengths themselves show whether the zeros mark anything
    else. Returns None if a string is empty, has more than 255 bytes or contains a zero, or if `raw` ends too early: the
    caller then reads the strings one by one.
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
    joined[lengths_at] = 0  # one zero of each length stays, before the text
    texts = tuple(joined[kept].tobytes().decode("utf-8", "surrogateescape").split("\0")[1:])
    return ShortStrings(texts, size) if len(texts) == count else None


def shortened(value: object) -> str:
    """Shorten a name or value from a file to printable text for messages."""
    text = value if isinstance(value, str) and value else repr(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."
