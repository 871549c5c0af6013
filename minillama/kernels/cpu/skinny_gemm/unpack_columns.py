"""Unpack blocks of some rows at once: a vector holds four codes of each row.

The raw bytes are transposed, four of each row to a vector, and unpacked after that: bits of all rows in one
instruction. A type is unpacked in units, each of one or more groups of weights.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from gguf import GGMLQuantizationType as Type

from minillama.gguf.block_layouts import LAYOUTS
from minillama.kernels.cpu.simd import U8, Value, ValueLike, lookup
from minillama.kernels.cpu.unpack_blocks import IQ4_CODE_BOOK, mask_bytes

Quad = Callable[[ValueLike], list[Value]]  # 16 bytes of each row from an offset on, as four columns: U32 x rows
Groups = Iterator[tuple[ValueLike, list[Value]]]  # number of a group within the step, and its codes, U8 x 4 rows


class ColumnUnpacker(NamedTuple):
    """Unpacks a type: `unpack(quad, block, unit)` gives the groups of a unit.

    block: its first byte.
    """

    units: int  # of a block
    unpack: Callable[[Quad, Value, Value], Groups]


def _nibbles(quad: Quad, at: ValueLike) -> tuple[list[Value], list[Value]]:
    """Low and high nibbles of 16 bytes of each row."""
    raw = quad(at)
    return [mask_bytes(column, 15) for column in raw], [mask_bytes(column >> 4, 15) for column in raw]


def _nibble_block(kind: Type, entries: list[int] | None = None) -> ColumnUnpacker:
    """A type with blocks of 32 nibbles, which may be indices of a table."""

    def unpack(quad: Quad, block: Value, unit: Value) -> Groups:
        low, high = _nibbles(quad, block + LAYOUTS[kind].qs)
        yield unit, [*low, *high] if entries is None else [lookup(entries, codes) for codes in (*low, *high)]

    return ColumnUnpacker(1, unpack)


def _q8_0(quad: Quad, block: Value, unit: Value) -> Groups:
    raw = [column for at in (0, 16) for column in quad(block + (LAYOUTS[Type.Q8_0].qs + at))]
    yield unit, [(column ^ 0x80808080).bitcast(U8) for column in raw]


def _q4_k(quad: Quad, block: Value, unit: Value) -> Groups:
    halves = [_nibbles(quad, block + unit * 32 + (LAYOUTS[Type.Q4_K].qs + at)) for at in (0, 16)]
    for nibble in range(2):
        yield unit * 2 + nibble, [codes for half in halves for codes in half[nibble]]


def _q5_k(quad: Quad, block: Value, unit: Value) -> Groups:
    layout = LAYOUTS[Type.Q5_K]
    halves = [_nibbles(quad, block + unit * 32 + (layout.qs + at)) for at in (0, 16)]
    high = [column >> (unit * 2).to(column.element) for at in (0, 16) for column in quad(block + (layout.qh + at))]
    for nibble in range(2):
        low = [codes for half in halves for codes in half[nibble]]
        bits = [mask_bytes((column >> nibble) << 4, 16) for column in high]
        yield unit * 2 + nibble, [a | b for a, b in zip(low, bits, strict=True)]


def _q6_k(quad: Quad, block: Value, unit: Value) -> Groups:
    layout, half, sixteen = LAYOUTS[Type.Q6_K], unit // 2, unit % 2 * 16
    low = [_nibbles(quad, block + half * 64 + sixteen + (layout.qs + at)) for at in (0, 32)]
    high = quad(block + half * 32 + sixteen + layout.qh)
    for i in range(4):
        bits = [mask_bytes(column << 4 - 2 * i if i < 2 else column >> 2 * i - 4, 0x30) for column in high]
        yield half * 8 + unit % 2 + 2 * i, [a | b for a, b in zip(low[i % 2][i // 2], bits, strict=True)]


COLUMN_UNPACKERS: dict[Type, ColumnUnpacker] = {
    Type.Q4_0: _nibble_block(Type.Q4_0),
    Type.Q4_1: _nibble_block(Type.Q4_1),
    Type.IQ4_NL: _nibble_block(Type.IQ4_NL, IQ4_CODE_BOOK),
    Type.Q8_0: ColumnUnpacker(1, _q8_0),
    Type.Q4_K: ColumnUnpacker(4, _q4_k),
    Type.Q5_K: ColumnUnpacker(4, _q5_k),
    Type.Q6_K: ColumnUnpacker(4, _q6_k),
}
