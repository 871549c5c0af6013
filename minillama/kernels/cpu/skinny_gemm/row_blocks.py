"""Skinny GEMM: the product with 3 to 32 tokens (rows of a batch, or a draft and the token before it).

Every result has the bits that the GEMV gives for its token alone: the same float operations in the same order. So a
text does not depend on the texts that run with it.

Some rows of W are unpacked into the first-level cache, a chunk at a time, and multiplied with one tile of tokens after
the other. The running sums of a row and a token fill several registers on AVX2. They are independent of each other, so
that a pass over the data computes only as many of them, for all tokens of the tile, as registers can hold. Running sums
stay in memory between the passes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from minillama.kernels.cpu.formats import Format
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.matmul.prefetch import CACHE_LINE
from minillama.kernels.cpu.simd import (
    F32,
    Isa,
    Module,
    Value,
    Var,
    alloca,
    const,
    current_isa,
    if_,
    load,
    loop,
    min_,
    opaque,
    prefetch,
    store,
    transpose,
)
from minillama.kernels.cpu.skinny_gemm.token_tiles import TILE_TOKENS, tile_bytes

MAX_TOKENS = 32
ROWS = 8  # unpacked at a time
CHUNK = 512  # weights of a row that are unpacked at a time; with a tile of tokens they fit in the first-level cache
QUAD = 4  # rows whose results are added up together
_SUMS = 32  # floats of a row and a token in memory: running sums, then those of offsets or of a second accumulator
SECOND = 16  # where those begin
_REGISTER_LANES = {Isa.AMX: 16, Isa.AVX512: 16, Isa.AVX2: 8, Isa.GENERIC: 4}
_ACCUMULATORS = {Isa.AMX: 16, Isa.AVX512: 16, Isa.AVX2: 8, Isa.GENERIC: 8}  # registers of a pass, at most


class RunningSums(ABC):
    """Some running sums of a row and of each token, in registers."""

    def __init__(self, places: Sequence[Value], first: int, lanes: int) -> None:
        self.places, self.first, self.lanes = places, first, lanes
        self.registers = [Var(load(F32, lanes, place + 4 * first)) for place in places]

    @abstractmethod
    def add(self, row: Value, tile: Value) -> None:
        """Add the products of a record of a row with one of a tile."""

    def save(self) -> None:
        """Store the sums back."""
        for register, place in zip(self.registers, self.places, strict=True):
            store(register.value, place + 4 * self.first)


@dataclass(frozen=True)
class Steps:
    """Equal steps of a product: those of a chunk of each row."""

    count: Value
    row_size: int  # bytes of an unpacked row's record
    tile_size: int
    tiles: Value  # address of the first tile's first record
    weight: Value  # the first weight
    parts: list[Callable[[Sequence[Value]], RunningSums]]


class RowBlock(ABC):
    """The product of a block of rows with all tokens."""

    def __init__(self, args: MatmulArgs, form: Format | None, chunk_bytes: int, buffer_bytes: int) -> None:
        self.args, self.chunk_bytes, self.buffer_bytes = args, chunk_bytes, buffer_bytes
        self.tile_bytes = tile_bytes(form, args.width)
        self.buffer = alloca(ROWS * buffer_bytes)
        self.sums = alloca(MAX_TOKENS * ROWS * _SUMS * 4)

    @abstractmethod
    def chunks(self) -> Iterator[Steps]:
        """Loop over the chunks of a row."""

    @abstractmethod
    def unpack(self, row: Value, steps: Steps, to: Value) -> None:
        """Unpack a chunk of a row into records."""

    @abstractmethod
    def totals(self, row: Value, count: Value, places: list[Value], token: Value) -> Value:
        """The results of four rows, from their running sums; the first `count` rows exist."""

    def sums_of(self, row: Value | int, token: Value | int) -> Value:
        """Address of the running sums of a row of the block and a token."""
        return self.sums + (token * ROWS + row) * (4 * _SUMS)

    def run(self, first: Value, rows: Value) -> None:
        """Compute the results of some rows."""
        for i in loop(0, (self.args.tokens + 1) // 2 * (2 * ROWS)):
            for lane in range(0, _SUMS, 16):
                store(const(0.0, F32, 16), self.sums + i * (4 * _SUMS) + 4 * lane)
        for steps in self.chunks():
            for r in loop(0, rows):
                self.unpack(first + r, steps, self.buffer + r * self.buffer_bytes)
            _for_each_tile(self.args.tokens, lambda tile, count, steps=steps: self.add(first, rows, steps, tile, count))
        for quad in loop(0, rows, QUAD):
            count = min_(rows - quad, QUAD)
            for t in loop(0, self.args.tokens):
                results = self.totals(first + quad, count, [self.sums_of(quad + i, t) for i in range(QUAD)], t)
                _store_some(results, count, self.args.y + (self.args.rows * t + first + quad) * 4)

    def prefetch_next(self, first: Value, step: Value) -> None:
        """Prefetch the share of one step in the next block of rows."""
        start = self.args.weights + (first + ROWS) * self.args.row_bytes + step * self.chunk_bytes
        for line in loop(0, self.chunk_bytes, CACHE_LINE):
            prefetch(start + line)

    def add(self, first: Value, rows: Value, steps: Steps, tile: Value, tokens: int) -> None:
        """Add the products of the unpacked rows with some tokens of a tile."""
        x, at_a_time = opaque(steps.tiles + tile * self.tile_bytes), max(1, _ACCUMULATORS[current_isa()] // tokens)
        for r in loop(0, rows):
            with if_(tile.equals(0)):
                self.prefetch_next(first, steps.weight // CHUNK * rows + r)
            row, sums = opaque(self.buffer + r * self.buffer_bytes), opaque(self.sums_of(r, tile * TILE_TOKENS))
            places = [sums + t * (4 * ROWS * _SUMS) for t in range(tokens)]
            for number in range(0, len(steps.parts), at_a_time):
                parts = [make(places) for make in steps.parts[number : number + at_a_time]]
                for i in loop(0, steps.count):
                    for part in parts:
                        part.add(row + i * steps.row_size, x + i * steps.tile_size)
                for part in parts:
                    part.save()


def define_kernel(module: Module, name: str, make: Callable[[MatmulArgs], RowBlock]) -> None:
    """`name(args, first, last)`: rows first to last - 1 for all tokens, at most `MAX_TOKENS`."""

    def body(address: Value, first: Value, last: Value) -> None:
        product = make(MatmulArgs(address))
        for row in loop(first, last, ROWS):
            product.run(row, min_(last - row, ROWS))

    module.define(name, 3, body)


def _for_each_tile(tokens: Value, compute: Callable[[Value, int], None]) -> None:
    """Call `compute(tile, tokens)` for the whole tiles and a narrower last one.

    Its number of tokens is even.
    """
    whole = (tokens + 1) // TILE_TOKENS
    for tile in loop(0, whole):
        compute(tile, TILE_TOKENS)
    rest = (tokens - min_(tokens, whole * TILE_TOKENS) + 1) // 2 * 2
    for count in range(2, TILE_TOKENS, 2):
        with if_(rest.equals(count)):
            compute(whole, count)


def registers(lanes: int) -> list[tuple[int, int]]:
    """(first, lanes) of the registers that hold running sums."""
    step = min(lanes, _REGISTER_LANES[current_isa()])
    return [(first, step) for first in range(0, lanes, step)]


def lane_totals(vectors: list[Value]) -> Value:
    """`reduce_sum` of four vectors, as four lanes."""
    while vectors[0].lanes > QUAD:
        half = vectors[0].lanes // 2
        vectors = [v.permute(range(half)) + v.permute(range(half, 2 * half)) for v in vectors]
    a, b, c, d = transpose(vectors)
    return (a + c) + (b + d)


def _store_some(values: Value, count: Value, address: Value) -> None:
    """Store the first `count` lanes."""
    with if_(count.equals(values.lanes)):
        store(values, address)
    for lane in range(values.lanes - 1):
        with if_((count < values.lanes) & (const(lane) < count)):
            store(values[lane], address + 4 * lane)
