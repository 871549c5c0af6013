"""GGUF files written byte by byte, valid or not, without the reader and the gguf library."""

import struct
from collections.abc import Sequence

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, content: object) -> bytes:
    """Type number and value; for an array the content is (element type, elements)."""
    return struct.pack("<I", kind) + _bare(kind, content)


def _bare(kind: int, content: object) -> bytes:
    if kind == STRING:
        return string(content)
    if kind == ARRAY:
        element, elements = content
        return struct.pack("<IQ", element, len(elements)) + b"".join(_bare(element, each) for each in elements)
    return struct.pack("<" + NUMBERS[kind], content)


def pair(key: str | bytes, kind: int, content: object) -> bytes:
    return string(key) + value(kind, content)


def tensor(name: str | bytes, dims: Sequence[int], kind: int, offset: int) -> bytes:
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def build(
    pairs: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A whole file; `counts` (tensors, metadata) may be wrong."""
    tensor_count, value_count = counts or (len(tensors), len(pairs))
    header = b"GGUF" + struct.pack("<IQQ", version, tensor_count, value_count) + b"".join([*pairs, *tensors])
    return header + b"\0" * (-len(header) % alignment) + data
