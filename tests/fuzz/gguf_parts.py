"""A GGUF file in parts; each can be changed or wrong."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gguf_bytes import ARRAY, NUMBERS, STRING, build, pair, tensor

from minillama.gguf.header_parser import parse_header
from minillama.gguf.types import BLOCKS, TensorType, ValueType
from tests.fuzz import hostile_values

INTEGER_KINDS, FLOAT_KINDS, BOOL = (0, 1, 2, 3, 4, 5, 10, 11), (6, 12), 7


@dataclass
class Value:
    """One metadata value: type number and content as in `gguf_bytes`; or its bytes."""

    kind: int
    content: object
    raw: bytes | None = None


@dataclass
class Entry:
    """One tensor. offset: from the start of the data; None for the next free place."""

    name: bytes
    dims: list[int]
    kind: int
    data: bytes
    offset: int | None = None


@dataclass
class Parts:
    """A whole file."""

    pairs: list[tuple[bytes, Value]]
    tensors: list[Entry]
    alignment: int = 32
    version: int = 3
    counts: tuple[int, int] | None = None
    edits: list[tuple[int, bytes, bool]] = field(default_factory=list)  # place, new bytes, whether they are inserted
    length: int | None = None  # the file is cut off there

    def find(self, key: bytes) -> Value | None:
        """The value of a key."""
        return next((value for name, value in self.pairs if name == key), None)

    def set(self, key: bytes, value: Value) -> None:
        """Replace or add a value."""
        self.pairs = [pair for pair in self.pairs if pair[0] != key]
        self.pairs.append((key, value))

    def to_bytes(self) -> bytes:
        """The file."""
        entries, data, place = [], bytearray(), 0
        for entry in self.tensors:
            offset = place if entry.offset is None else entry.offset
            entries.append(tensor(entry.name, entry.dims, entry.kind % 2**32, offset % 2**64))
            if entry.offset is None:
                data += entry.data + bytes(-len(entry.data) % self.alignment)
                place = len(data)
        pairs = [pair(key, 0, 0)[:-5] + value.raw if value.raw is not None else pair(key, value.kind, value.content)
                 for key, value in self.pairs]  # fmt: skip
        counts = None if self.counts is None else (self.counts[0] % 2**64, self.counts[1] % 2**64)
        content = bytearray(
            build(pairs, entries, bytes(data), version=self.version, counts=counts, alignment=self.alignment)
        )
        for at, new, inserted in self.edits:
            at %= len(content)
            content[at : at if inserted else at + len(new)] = new
        return bytes(content[: self.length])


def parse(path: Path) -> Parts:
    """The parts of a valid file."""
    content = path.read_bytes()
    header = parse_header(content, path.name)
    pairs = [(key.encode(), _value(value, header.kinds[key])) for key, value in header.metadata.items()]
    tensors = [
        Entry(info.name.encode(), list(reversed(info.shape)), int(info.type), content[info.offset :][: info.nbytes])
        for info in header.tensors
    ]
    return Parts(pairs, tensors)


def copy(parts: Parts) -> Parts:
    """A copy whose lists can be changed; contents are shared, so they are replaced and not changed in place."""
    return Parts(
        [(key, Value(value.kind, value.content)) for key, value in parts.pairs],
        [Entry(entry.name, list(entry.dims), entry.kind, entry.data) for entry in parts.tensors],
    )


def size_of(dims: list[int], kind: int) -> int | None:
    """Bytes of a tensor; None if it has none."""
    try:
        block, size = BLOCKS[TensorType(kind)]
    except ValueError:
        return None
    total = int(np.prod([float(length) for length in dims]))
    return total // block * size if 0 <= total < 2**20 else None


def random_value(rng: random.Random, depth: int = 0) -> Value:
    """A value of any type."""
    kind = rng.choice((*INTEGER_KINDS, *FLOAT_KINDS, BOOL, STRING, ARRAY))
    if kind != ARRAY:
        return Value(kind, random_content(rng, kind))
    element = rng.choice((*INTEGER_KINDS, *FLOAT_KINDS, BOOL, STRING, ARRAY if depth < 3 else 4))
    count = rng.choice((0, 1, 2, 3, 17, 64, 300))
    if element == ARRAY:
        inner = [random_value(rng, depth + 1) for _ in range(min(count, 3))]
        return Value(ARRAY, (ARRAY, [value.content for value in inner if value.kind == ARRAY]))
    return Value(ARRAY, (element, [random_content(rng, element) for _ in range(count)]))


def random_content(rng: random.Random, kind: int) -> object:
    """A number, boolean or text of a type."""
    if kind in INTEGER_KINDS:
        return hostile_values.wrapped(hostile_values.integer(rng), kind)
    if kind == 6:
        return (
            float(np.float32(hostile_values.floating(rng) % 3e38))
            if rng.random() < 0.7
            else rng.choice((float("nan"), float("inf")))
        )
    if kind == 12:
        return hostile_values.floating(rng)
    return rng.random() < 0.5 if kind == BOOL else hostile_values.raw_text(rng)


def typed_value(value: object) -> Value:
    """A value of Python as a typed one of a file."""
    if isinstance(value, str):
        return Value(STRING, value.encode())
    if isinstance(value, tuple):
        return Value(ARRAY, (STRING, [text.encode("utf-8", "surrogateescape") for text in value]))
    if isinstance(value, np.ndarray):
        return Value(ARRAY, (5 if value.dtype.kind == "i" else 6, value.tolist()))
    return Value(4, value)


def _value(value: object, kind_text: str) -> Value:
    name, array, _ = kind_text.partition("[")
    kind = int(ValueType[name.upper()])
    if not array:
        return Value(kind, _bare(value))
    return Value(ARRAY, (kind, [_bare(each) for each in (value if isinstance(value, tuple) else value.tolist())]))


def _bare(value: object) -> object:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


assert set(NUMBERS) == {*INTEGER_KINDS, *FLOAT_KINDS, BOOL}
