"""GEMM with AMX tiles: weights and activations as bfloat16, sums in float32.

A bfloat16 has 8 significant bits. Unpacked weights of quantised types and their activations are rounded to it. Each
rounding is an error of at most 2^-9, together less than the error of int8 activations. 16-bit floats and their
activations are split into two bfloat16 terms, high and low. All products except low times low are added up:

    w x = wh xh + wh xl + wl xh,  with an error of at most 2^-17 |w x|

Weights are unpacked into left operands, 16 rows a tile, one tile of the same rows after the other. Activations are
copied once into right operands, panels of 16 tokens. A result tile, [16 rows, 16 tokens], is transposed on its way to
the result [T, N].
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from minillama.kernels.cpu.formats import FloatFormat, Format
from minillama.kernels.cpu.matmul.activations_amx import PANEL_TOKENS, TILE_DEPTH, TileLayout, bf16_terms, pad
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.matmul.prefetch import Prefetch, RowChunk, next_chunk
from minillama.kernels.cpu.simd import (
    F32,
    TILE_BYTES,
    TILE_ROWS,
    Module,
    Value,
    alloca,
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

TILE_SIZE = TILE_ROWS * TILE_BYTES
MICROTILE_ROWS = 2 * TILE_ROWS  # rows that are multiplied at a time
MAX_UNPACKED_ROWS = 256  # unpacked at a time with many panels: the weights stay in the second-level cache
MIN_UNPACKED_ROWS = 32  # with few panels: the weights stay in the first-level cache
BUFFER_BYTES = MAX_UNPACKED_ROWS << 10  # unpacked weights
MAX_PANELS = 32  # panels whose sums are in memory at a time
_WEIGHT_STRIDE = 2 * TILE_ROWS  # bytes of one weight of 16 rows


@dataclass(frozen=True)
class Weights:
    """A way to make left operands: `unpack(row, k, width, to)` stores a chunk as bfloat16 terms."""

    unpack: Callable[[Value, Value, Value, Value], None]
    bf16_terms: int
    chunk: RowChunk


def define_quantised(module: Module, name: str, form: Format) -> None:
    """`name(args, first, last)`: rows first to last - 1 for all tokens."""

    def unpack(row: Value, k: Value, width: Value, to: Value) -> None:
        blocks = width // form.weights
        bulk = blocks - blocks % form.blocks_per_load
        start = row + k // form.weights * form.bytes
        for block in loop(0, bulk, form.blocks_per_load):
            addresses = [start + (block + i) * form.bytes for i in range(form.blocks_per_load)]
            _store_dequantised(form, addresses, to, block * form.weights)
        if form.blocks_per_load > 1:
            for block in loop(bulk, blocks):
                _store_dequantised(form, [start + (block + 0) * form.bytes], to, block * form.weights)

    weights = _unpacked_weights(1)
    chunk = RowChunk(weights, weights // form.weights * form.bytes)
    _define(module, name, Weights(unpack, 1, chunk), activation_terms=1)


def _store_dequantised(form: Format, blocks: list[Value], to: Value, weight: Value) -> None:
    """Store blocks as bfloat16 from `weight` of a row's left operand on."""
    unpacked = form.unpack(blocks)
    shift = unpacked.scale * (-1.0 * form.zero_point)
    if unpacked.minimum is not None:
        shift = shift - unpacked.minimum
    at = 0
    for codes in unpacked.codes:
        for half in range(0, codes.lanes, TILE_DEPTH):
            values = []
            for first in range(half, half + TILE_DEPTH, 16):
                group = (at + first) // form.group
                scale, low = (splat(v if v.lanes == 1 else v[group], 16) for v in (unpacked.scale, shift))
                values.append(fma(codes.permute(range(first, first + 16)).to(F32), scale, low))
            store(f32_to_bf16(*values), to + (weight + (at + half)) * _WEIGHT_STRIDE)
        at += codes.lanes


def define_float(module: Module, name: str, form: FloatFormat) -> None:
    """`name(args, first, last)` for 16-bit floats."""
    terms, weights = form.bf16_terms, _unpacked_weights(form.bf16_terms)

    def unpack(row: Value, k: Value, width: Value, to: Value) -> None:
        bulk = width // TILE_DEPTH * TILE_DEPTH
        spare = alloca(TILE_DEPTH * 4)

        def put(x: Value, at: Value) -> None:
            for term, bits in enumerate(bf16_terms(x, terms)):
                store(bits, to + at * _WEIGHT_STRIDE + term * (weights * _WEIGHT_STRIDE))

        for i in loop(0, bulk, TILE_DEPTH):
            put(form.load_f32(TILE_DEPTH, row + (k + i) * form.bytes), i)
        with if_(bulk < width):
            first = row + (k + bulk) * form.bytes
            put(pad(width - bulk, lambda i: form.load_f32(1, first + i * form.bytes), spare), bulk)

    _define(module, name, Weights(unpack, terms, RowChunk(weights, weights * form.bytes)), activation_terms=2)


def _unpacked_weights(terms: int) -> int:
    """Weights of a row that are unpacked at a time."""
    return BUFFER_BYTES // MAX_UNPACKED_ROWS // 2 // terms


def _define(module: Module, name: str, weights: Weights, activation_terms: int) -> None:
    def body(address: Value, first: Value, last: Value) -> None:
        _Gemm(MatmulArgs(address), weights, activation_terms).run(first, last)

    module.define(name, 3, body)


class _Gemm:
    """The loops over rows, panels and weights.

    The sums of some rows and of up to `MAX_PANELS` panels are in memory, tile by tile, until the last weights of the
    rows.
    """

    def __init__(self, args: MatmulArgs, weights: Weights, activation_terms: int) -> None:
        self.args, self.weights = args, weights
        self.layout = TileLayout(args.width, activation_terms)
        self.panels = (args.tokens + (PANEL_TOKENS - 1)) // PANEL_TOKENS
        self.lefts, self.sums = alloca(BUFFER_BYTES), alloca(MAX_UNPACKED_ROWS // TILE_ROWS * MAX_PANELS * TILE_SIZE)
        self.term_bytes = weights.chunk.weights * _WEIGHT_STRIDE  # of 16 rows

    def run(self, first: Value, last: Value) -> None:
        """Compute rows first to last - 1."""
        with tile_config():
            for first_row in loop(first, last, self.unpacked_rows()):
                last_row = min_(first_row + self.unpacked_rows(), last)
                for panel in loop(0, self.panels, MAX_PANELS):
                    self.compute_block(first_row, last_row, panel, min_(panel + MAX_PANELS, self.panels))

    def unpacked_rows(self) -> Value:
        """Rows that are unpacked at a time."""
        return select(self.panels < 8, const(MIN_UNPACKED_ROWS), MAX_UNPACKED_ROWS)

    def compute_block(self, first_row: Value, last_row: Value, first_panel: Value, last_panel: Value) -> None:
        """Unpack some rows chunk by chunk; multiply them with two panels at a time."""
        args, weights = self.args, self.weights
        for k in loop(0, args.width, weights.chunk.weights):
            width = min_(args.width - k, weights.chunk.weights)
            for row in loop(0, last_row - first_row):
                weights.unpack(args.weights + (first_row + row) * args.row_bytes, k, width, self.left(row))
            bulk = last_panel - (last_panel - first_panel) % 2
            for panel in loop(first_panel, bulk, 2):
                for row in loop(0, last_row - first_row, MICROTILE_ROWS):
                    self.multiply(first_row, row, panel, 2, k, width)
            with if_(bulk < last_panel):
                for row in loop(0, last_row - first_row, MICROTILE_ROWS):
                    self.multiply(first_row, row, bulk, 1, k, width)
        for panel in loop(first_panel, last_panel):
            for row in loop(0, last_row - first_row, TILE_ROWS):
                self.store_result(first_row, last_row, row, panel)

    def left(self, row: Value) -> Value:
        """Address of an unpacked row."""
        tile_bytes = self.term_bytes * self.weights.bf16_terms
        return self.lefts + row // TILE_ROWS * tile_bytes + row % TILE_ROWS * TILE_BYTES

    def sums_of(self, row: Value, panel: Value) -> Value:
        """Address of the sums of 16 rows and a panel."""
        return self.sums + (row // TILE_ROWS * MAX_PANELS + panel % MAX_PANELS) * TILE_SIZE

    def multiply(self, first_row: Value, row: Value, panel: Value, count: int, k: Value, width: Value) -> None:
        """Multiply 32 rows from first_row + row on with `count` panels, 1 or 2."""
        args, chunk = self.args, self.weights.chunk
        start = next_chunk(args, chunk, first_row + row, k, self.unpacked_rows())
        enabled = panel.equals(0)
        prefetch = Prefetch(start, args.row_bytes, MICROTILE_ROWS, chunk.bytes, chunk.weights // TILE_DEPTH, enabled)
        rights = [args.x + self.layout.size * (panel + i) for i in range(count)]
        tile_bytes = self.term_bytes * self.weights.bf16_terms
        lefts = [self.lefts + (row // TILE_ROWS + tile) * tile_bytes for tile in range(2)]
        accs = {
            2 * i + r: self.sums_of(row + TILE_ROWS * r, panel) + i * TILE_SIZE for i in range(count) for r in range(2)
        }
        is_first_chunk = k.equals(0)
        with if_(is_first_chunk):
            for tile in accs:
                zero_tile(tile)
        with if_(is_first_chunk ^ 1):
            for tile, address in accs.items():
                load_tile(tile, address, TILE_BYTES)
        for i in loop(0, width, TILE_DEPTH):
            prefetch.issue(i // TILE_DEPTH)
            self.dot_step(lefts, rights, k, i)
        for tile, address in accs.items():
            store_tile(tile, address, TILE_BYTES)

    def dot_step(self, lefts: list[Value], rights: list[Value], k: Value, i: Value) -> None:
        """Multiply 32 weights of all rows and panels.

        Tiles 0 to 3 are sums, 4 and 5 weights, 6 and 7 activations.
        """
        operands = _OperandTiles()
        left_terms, right_terms = self.weights.bf16_terms, self.layout.bf16_terms
        for n, right in enumerate(rights):
            for r, left in enumerate(lefts):
                for p, q in ((p, q) for p in range(left_terms) for q in range(right_terms) if p + q < 2):
                    address = left + i * _WEIGHT_STRIDE + p * self.term_bytes
                    w = operands.load(4 + (p if left_terms > 1 else r), (r, p), address)
                    x = operands.load(6 + (q if right_terms > 1 else n), (n, q), self.layout.operand(right, k + i, q))
                    tile_dot_bf16(2 * n + r, w, x)

    def store_result(self, first_row: Value, last_row: Value, row: Value, panel: Value) -> None:
        """Transpose a tile of sums into the result [T, N]."""
        args, address = self.args, self.sums_of(row, panel)
        rows = min_(last_row - first_row - row, TILE_ROWS)
        tokens = min_(args.tokens - panel * PANEL_TOKENS, PANEL_TOKENS)
        out, stride = args.y + (args.rows * panel * PANEL_TOKENS + first_row + row) * 4, args.rows * 4
        is_whole = rows.equals(TILE_ROWS) & tokens.equals(PANEL_TOKENS)
        with if_(is_whole):
            of_rows = [load(F32, PANEL_TOKENS, address + r * TILE_BYTES) for r in range(TILE_ROWS)]
            for t, of_token in enumerate(transpose(of_rows)):
                store(of_token, out + stride * t)
        with if_(is_whole ^ 1):
            for t in loop(0, tokens):
                for r in loop(0, rows):
                    store(load(F32, 1, address + r * TILE_BYTES + t * 4), out + stride * t + r * 4)


@dataclass
class _OperandTiles:
    """Contents of the operand tiles, so that none is loaded twice."""

    held: dict[int, tuple[int, int]] = field(default_factory=dict)

    def load(self, tile: int, operand: tuple[int, int], address: Value) -> int:
        """Load (number, term) of an operand into a tile; returns the tile."""
        if self.held.get(tile) != operand:
            load_tile(tile, address, TILE_BYTES)
            self.held[tile] = operand
        return tile
