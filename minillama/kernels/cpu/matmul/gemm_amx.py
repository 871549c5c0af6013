"""The product with many tokens on processors with tiles (AMX): weights and activations as bfloat16, sums in float32.

A bfloat16 has 8 significant bits. Unpacked weights of quantised types and their activations are rounded to it, which
is an error of 2^-9 of each at most: together less than what int8 activations cost. Floats of 16 bits and what they are
multiplied with are taken as sums of two of them, high and low, and all products but low times low are added up:

    w x = wh xh + wh xl + wl xh,  with an error of at most 2^-17 |w x|

Weights are unpacked into left factors, 16 rows to a tile, one tile of these rows behind the other; activations are
laid out once as right factors, 16 tokens to a tile; what comes out, [16 rows, 16 tokens], is turned around on its way
into the result.
"""

from collections.abc import Callable
from dataclasses import dataclass

from minillama.kernels.cpu.matmul.formats import FloatFormat, Format
from minillama.kernels.cpu.matmul.gemm import Prefetch
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.simd import (
    F32,
    TILE_BYTES,
    TILE_ROWS,
    U32,
    Module,
    Value,
    ValueLike,
    alloca,
    bf16_to_f32,
    const,
    f32_to_bf16,
    fma,
    if_,
    load,
    load_tile,
    loop,
    min_,
    select,
    splat,
    store,
    store_tile,
    tile_config,
    tile_dot_bf16,
    transpose,
    zero_tile,
)

TOKENS = 16  # of a right factor
DEPTH = 32  # weights of a row in a tile
TILE = TILE_ROWS * TILE_BYTES
ROWS = 2 * TILE_ROWS  # computed together
BUFFER_ROWS = 256  # unpacked together, for the second cache, where the activations are more than that holds
FEW_ROWS = 32  # and for the first cache, where they are few
BUFFER = BUFFER_ROWS << 10  # bytes of unpacked weights
BLOCK = 32  # units whose sums are kept


@dataclass(frozen=True)
class TileLayout:
    """Where the right factors lie: units of 16 tokens, each of which has its high parts, then its low ones if any."""

    width: ValueLike  # K
    bf16_terms: int

    @property
    def depth(self) -> ValueLike:
        """K in whole tiles."""
        return (self.width + (DEPTH - 1)) // DEPTH * DEPTH

    @property
    def size(self) -> ValueLike:
        """Bytes of a unit."""
        return self.depth * (2 * TOKENS * self.bf16_terms)

    def factor(self, unit: Value, k: Value, term: int) -> Value:
        """Address of [K/2, 16, 2] numbers of a unit from its k-th on."""
        return unit + self.depth * (2 * TOKENS * term) + k * (2 * TOKENS)


def parts_of(x: Value, parts: int) -> list[Value]:
    """The high parts of some numbers and, where two are wanted, their low ones, as bits."""
    high = _rounded(x)
    return [high] if parts == 1 else [high, _rounded(x - bf16_to_f32(high))]


def _rounded(x: Value) -> Value:
    half = x.lanes // 2
    return f32_to_bf16(x.permute(range(half)), x.permute(range(half, x.lanes)))


def _filled_up(count: Value, read: Callable[[Value], Value], spare: Value) -> Value:
    """Fewer numbers than a tile is deep, and zeros behind them; spare: memory for DEPTH numbers."""
    store(const(0.0, F32, DEPTH), spare)
    for i in loop(0, count):
        store(read(i), spare + i * 4)
    return load(F32, DEPTH, spare)


def define_factors(module: Module, name: str, parts: int) -> None:
    """`name(part, first, last)`: lay units first to last - 1 of the activations out; what is beyond them is zeros."""

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        layout = TileLayout(args.width, parts)
        spare = alloca(DEPTH * 4)
        bulk = args.width // DEPTH * DEPTH
        for u in loop(first, last):
            unit = args.x + layout.size * u
            tokens = [u * TOKENS + lane for lane in range(TOKENS)]
            is_token = [token < args.tokens for token in tokens]
            sources = [args.source + args.width * select(r, t, 0) * 4 for t, r in zip(tokens, is_token, strict=True)]

            def turn(k: Value, read: Callable[[Value], Value], unit: Value, sources: list, is_token: list) -> None:
                found = [
                    parts_of(select(r, read(source + k * 4), const(0.0, F32, DEPTH)), parts)
                    for source, r in zip(sources, is_token, strict=True)
                ]
                for p in range(parts):
                    pairs = [of_token[p].bitcast(U32) for of_token in found]
                    for i, row in enumerate(transpose(pairs)):
                        store(row, layout.factor(unit, k, p) + i * TILE_BYTES)

            def read_rest(address: Value) -> Value:
                return _filled_up(args.width - bulk, lambda i: load(F32, 1, address + i * 4), spare)

            for k in loop(0, bulk, DEPTH):
                turn(k, lambda address: load(F32, DEPTH, address), unit, sources, is_token)
            with if_(bulk < args.width):
                turn(bulk, read_rest, unit, sources, is_token)

    module.define(name, 3, body)


def define_quantised(module: Module, name: str, form: Format) -> None:
    """`name(part, first, last)`: rows first to last - 1 for all tokens."""

    def unpack(row: Value, k: Value, width: Value, to: Value) -> None:
        blocks = width // form.weights
        bulk = blocks - blocks % form.blocks_per_load
        start = row + k // form.weights * form.bytes

        def some(block: Value, count: int) -> None:
            unpacked = form.unpack([start + (block + i) * form.bytes for i in range(count)])
            shift = unpacked.scale * (-1.0 * form.zero_point)
            if unpacked.minimum is not None:
                shift = shift - unpacked.minimum
            at = 0
            for codes in unpacked.codes:
                for half in range(0, codes.lanes, DEPTH):
                    pieces = []
                    for piece in range(half, half + DEPTH, 16):
                        group = (at + piece) // form.group
                        scale, low = (splat(v if v.lanes == 1 else v[group], 16) for v in (unpacked.scale, shift))
                        pieces.append(fma(codes.permute(range(piece, piece + 16)).to(F32), scale, low))
                    store(f32_to_bf16(*pieces), to + (block * form.weights + (at + half)) * (2 * TILE_ROWS))
                at += codes.lanes

        for block in loop(0, bulk, form.blocks_per_load):
            some(block, form.blocks_per_load)
        if form.blocks_per_load > 1:
            for block in loop(bulk, blocks):
                some(block, 1)

    _define(module, name, unpack, (1, 1), lambda chunk: chunk // form.weights * form.bytes)


def define_float(module: Module, name: str, plain: FloatFormat) -> None:
    """The same for floats of 16 bits."""
    parts = plain.bf16_terms

    def unpack(row: Value, k: Value, width: Value, to: Value) -> None:
        bulk = width // DEPTH * DEPTH
        plane = _chunk(parts) * (2 * TILE_ROWS)
        spare = alloca(DEPTH * 4)

        def put_parts(x: Value, at: Value) -> None:
            for p, bits in enumerate(parts_of(x, parts)):
                store(bits, to + at * (2 * TILE_ROWS) + p * plane)

        for i in loop(0, bulk, DEPTH):
            put_parts(plain.load_f32(DEPTH, row + (k + i) * plain.bytes), i)
        with if_(bulk < width):
            first = row + (k + bulk) * plain.bytes
            put_parts(_filled_up(width - bulk, lambda i: plain.load_f32(1, first + i * plain.bytes), spare), bulk)

    _define(module, name, unpack, (parts, 2), lambda chunk: chunk * plain.bytes)


def _together(units: Value) -> Value:
    """How many rows are unpacked together."""
    return select(units < 8, const(FEW_ROWS), BUFFER_ROWS)


def _chunk(parts: int) -> int:
    """Weights of a row that are unpacked together."""
    return BUFFER // BUFFER_ROWS // 2 // parts


def _define(
    module: Module,
    name: str,
    unpack: Callable[[Value, Value, Value, Value], None],
    parts: tuple[int, int],
    stretch: Callable[[int], int],
) -> None:
    """The loops around `unpack(row, k, width, to)`; parts: of a weight, of an activation.

    The sums of some rows and of up to `BLOCK` units wait in memory, tile by tile, until the rows' last weights.
    """
    of_weights, of_tokens = parts
    chunk = _chunk(of_weights)
    plane = chunk * (2 * TILE_ROWS)  # bytes of a tile's rows
    products = [(p, q) for p in range(of_weights) for q in range(of_tokens) if p + q < 2]

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        layout = TileLayout(args.width, of_tokens)
        units = (args.tokens + (TOKENS - 1)) // TOKENS
        weights, sums = alloca(BUFFER), alloca(BUFFER_ROWS // TILE_ROWS * BLOCK * TILE)

        def sums_of(row: Value, unit: Value) -> Value:
            return sums + (row // TILE_ROWS * BLOCK + unit % BLOCK) * TILE

        def multiply(row: Value, unit: Value, count: int, k: Value, width: Value, from_row: Value) -> None:
            """32 rows, of which the first is `row` behind `from_row`, with some units."""
            upcoming = Prefetch.of(
                args, ROWS, from_row + row, k, chunk, stretch(chunk), chunk // DEPTH, unit, _together(units)
            )
            rights = [args.x + layout.size * (unit + u) for u in range(count)]
            lefts = [weights + (row // TILE_ROWS + tile) * (plane * of_weights) for tile in range(2)]
            places = {2 * u + r: sums_of(row + TILE_ROWS * r, unit) + u * TILE for u in range(count) for r in range(2)}
            fresh = k.equals(0)
            with if_(fresh):
                for tile in places:
                    zero_tile(tile)
            with if_(fresh ^ 1):
                for tile, place in places.items():
                    load_tile(tile, place, TILE_BYTES)
            for i in loop(0, width, DEPTH):
                upcoming.issue(i // DEPTH)
                held: dict[int, tuple[int, int]] = {}  # of the factors' four tiles, which part of which factor is there

                def hold(tile: int, which: int, p: int, address: Value, held: dict = held) -> int:
                    if held.get(tile) != (which, p):
                        load_tile(tile, address, TILE_BYTES)
                        held[tile] = which, p
                    return tile

                for u, right in enumerate(rights):
                    for r, left in enumerate(lefts):
                        for p, q in products:
                            w = hold(4 + (p if of_weights > 1 else r), r, p, left + i * (2 * TILE_ROWS) + p * plane)
                            x = hold(6 + (q if of_tokens > 1 else u), u, q, layout.factor(right, k + i, q))
                            tile_dot_bf16(2 * u + r, w, x)
            for tile, place in places.items():
                store_tile(tile, place, TILE_BYTES)

        def put(row: Value, unit: Value, from_row: Value, end: Value) -> None:
            """A tile of sums, of all weights, turned around into the result [T, N]."""
            place = sums_of(row, unit)
            rows = min_(end - from_row - row, TILE_ROWS)
            tokens = min_(args.tokens - unit * TOKENS, TOKENS)
            out, stride = args.y + (args.rows * unit * TOKENS + from_row + row) * 4, args.rows * 4
            whole = rows.equals(TILE_ROWS) & tokens.equals(TOKENS)
            with if_(whole):
                of_rows = [load(F32, TOKENS, place + r * TILE_BYTES) for r in range(TILE_ROWS)]
                for t, of_token in enumerate(transpose(of_rows)):
                    store(of_token, out + stride * t)
            with if_(whole ^ 1):
                for t in loop(0, tokens):
                    for r in loop(0, rows):
                        store(load(F32, 1, place + r * TILE_BYTES + t * 4), out + stride * t + r * 4)

        def some_rows(from_row: Value, end: Value, from_unit: Value, to_unit: Value) -> None:
            for k in loop(0, args.width, chunk):
                width = min_(args.width - k, chunk)
                for row in loop(0, end - from_row):
                    to = weights + row // TILE_ROWS * (plane * of_weights) + row % TILE_ROWS * TILE_BYTES
                    unpack(args.weights + (from_row + row) * args.row_bytes, k, width, to)
                bulk = to_unit - (to_unit - from_unit) % 2
                for unit in loop(from_unit, bulk, 2):
                    for row in loop(0, end - from_row, ROWS):
                        multiply(row, unit, 2, k, width, from_row)
                with if_(bulk < to_unit):
                    for row in loop(0, end - from_row, ROWS):
                        multiply(row, bulk, 1, k, width, from_row)
            for unit in loop(from_unit, to_unit):
                for row in loop(0, end - from_row, TILE_ROWS):
                    put(row, unit, from_row, end)

        with tile_config():
            for from_row in loop(first, last, _together(units)):
                end = min_(from_row + _together(units), last)
                for from_unit in loop(0, units, BLOCK):
                    some_rows(from_row, end, from_unit, min_(from_unit + BLOCK, units))

    module.define(name, 3, body)
