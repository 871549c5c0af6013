"""Tiles of eight tokens: the activations of a skinny GEMM.

They are in the order in which the kernel reads them.

A record holds what one step of the kernel multiplies. Every value of a record is at a constant offset, so that one
address leads to all tokens of a tile.
"""

from dataclasses import dataclass
from functools import cached_property

from minillama.kernels.cpu.formats import Format
from minillama.kernels.cpu.matmul.activations import BLOCK, quantise_block
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.simd import F32, I8, Module, Value, ValueLike, load, loop, reduce_sum, splat, store
from minillama.kernels.cpu.unpack_shuffled import SEGMENT, CodeGroupShape, code_group_shapes, segment_order

TILE_TOKENS = 8
FLOAT_STEP = 32  # weights of a record of a float type


@dataclass(frozen=True)
class Record:
    """Offsets within a record of a row of weights (one token) or a tile (eight).

    A record holds codes; scales, one for each lane of the sums; and a number for each group: the zero point's or
    minimum's factor of a row, d sum(codes) of a token.
    """

    form: Format
    blocks: int  # of the type
    tokens: int

    @property
    def weights(self) -> int:
        """Weights of a record."""
        return self.blocks * self.form.weights

    @property
    def groups(self) -> int:
        """Groups with a scale."""
        return self.weights // self.form.group

    @cached_property
    def code_groups(self) -> list[CodeGroupShape]:
        """Code groups, in their order in memory."""
        return code_group_shapes(self.weights, self.form.group, self.form.code_order(self.blocks))

    @property
    def lanes(self) -> int:
        """Lanes of the sums of all code groups."""
        return sum(group.lanes for group in self.code_groups)

    @property
    def size(self) -> int:
        """Bytes, whole cache lines."""
        return -(-(self.group_offset(self.tokens)) // 64) * 64

    def code_offset(self, token: int | Value) -> ValueLike:
        """Offset of the codes of a token, int8."""
        return token * self.weights

    def scale_offset(self, token: int | Value) -> ValueLike:
        """Offset of the scales of a token, float32 [lanes]."""
        return token * (4 * self.lanes) + self.tokens * self.weights

    def group_offset(self, token: int | Value) -> ValueLike:
        """Offset of the numbers of the groups of a token, float32 [groups]."""
        return token * (4 * self.groups) + self.tokens * (self.weights + 4 * self.lanes)


def records(form: Format, width: ValueLike, tokens: int) -> list[tuple[Record, ValueLike]]:
    """The kinds of records of K weights, in their order in memory, with their numbers."""
    blocks, found = width // form.weights, []
    for count in form.blocks_of_records:
        number = blocks // count
        found.append((Record(form, count, tokens), number))
        blocks = blocks - number * count
    return found


def tile_bytes(form: Format | None, width: ValueLike) -> ValueLike:
    """Bytes of a tile; form: None for a float type."""
    if form is None:
        return width // FLOAT_STEP * (4 * FLOAT_STEP * TILE_TOKENS)
    return sum((number * record.size for record, number in records(form, width, TILE_TOKENS)), width * 0)


def define_quantised_tiles(module: Module, name: str, form: Format) -> None:
    """`name(args, first, last)`: quantise tokens first to last - 1."""

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        for t in loop(first, last):
            source, to = args.source + args.width * t * 4, args.x + t // TILE_TOKENS * tile_bytes(form, args.width)
            for record, number in records(form, args.width, TILE_TOKENS):
                for i in loop(0, number):
                    _quantise_record(record, source + i * (4 * record.weights), to + i * record.size, t % TILE_TOKENS)
                source, to = source + number * (4 * record.weights), to + number * record.size

    module.define(name, 3, body)


def _quantise_record(record: Record, source: Value, to: Value, token: Value) -> None:
    order, group = segment_order(record.weights, record.form.code_order(record.blocks)), record.form.group
    codes_at, scales_at, sums_at = (
        to + offset(token) for offset in (record.code_offset, record.scale_offset, record.group_offset)
    )
    scales = []
    for k in range(0, record.weights, BLOCK):
        d, codes = quantise_block(source + 4 * k)
        for half in range(0, BLOCK, SEGMENT):
            place = order.index((k + half) // SEGMENT)
            store(codes.permute(range(half, half + SEGMENT)).to(I8), codes_at + SEGMENT * place)
        for g in range(0, BLOCK, group):
            total = reduce_sum(codes.permute(range(g, g + group)))
            store(d * total.to(F32), sums_at + (k + g) // group * 4)
            scales.append(d)
    lane = 0
    for code_group in record.code_groups:
        for number in code_group.groups:
            store(splat(scales[number], 4), scales_at + 4 * lane)
            lane += 4


def define_float_tiles(module: Module, name: str) -> None:
    """`name(args, first, last)` for a float type: copy the whole records of float32 tokens."""

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        for t in loop(first, last):
            tile, token = t // TILE_TOKENS * tile_bytes(None, args.width), t % TILE_TOKENS
            source, to = args.source + args.width * t * 4, args.x + tile + token * (4 * FLOAT_STEP)
            for i in loop(0, args.width // FLOAT_STEP):
                for half in range(0, 4 * FLOAT_STEP, 64):
                    value = load(F32, 16, source + i * (4 * FLOAT_STEP) + half)
                    store(value, to + i * (4 * FLOAT_STEP * TILE_TOKENS) + half)

    module.define(name, 3, body)
