"""GEMM: the product with many tokens (prefill), rows of W times panels of tokens.

A vector holds one value of 16 tokens, or of 8. A block of rows is unpacked into the second-level cache and multiplied
with one panel after the other. In the microkernel four codes of a row are repeated over all lanes and multiplied with
the same four codes of every token. The sums of a group are scaled and accumulated in float32. A microtile is some rows
times two vectors of tokens, so that every loaded value is used several times.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from minillama.kernels.cpu.formats import FloatFormat, Format
from minillama.kernels.cpu.matmul.activations import PANEL_STEP, PANEL_TOKENS, PanelLayout, panel_counts
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.matmul.prefetch import Prefetch, RowChunk, next_chunk
from minillama.kernels.cpu.simd import (
    F32,
    I8,
    I32,
    U8,
    U32,
    Module,
    Value,
    Var,
    alloca,
    const,
    dot,
    fma,
    if_,
    load,
    loop,
    min_,
    select,
    splat,
    store,
    transpose,
)

LANES = 16  # tokens of a whole vector
BUFFER_BYTES = 128 << 10  # unpacked weights, which stay in the second-level cache with a panel
MAX_UNPACKED_ROWS = 64
_CHUNK = BUFFER_BYTES // MAX_UNPACKED_ROWS  # weights of a row that are unpacked at a time
_FLOAT_CHUNK = _CHUNK // 4
_FLOAT_UNROLL = 4  # columns of float weights


@dataclass(frozen=True)
class Microtile:
    """Shape of the result of a microkernel: rows times the tokens of a panel."""

    rows: int
    tokens: int

    @property
    def vectors(self) -> list[tuple[int, int]]:
        """(number, lanes) of each vector of tokens, one or two."""
        return [(start // LANES, min(LANES, self.tokens - start)) for start in range(0, self.tokens, LANES)]

    def accumulators(self) -> list[list[Var]]:
        """Zeros, float32 [rows][vectors]."""
        return [[Var(const(0.0, F32, lanes)) for _, lanes in self.vectors] for _ in range(self.rows)]


@dataclass(frozen=True)
class RowBlock:
    """Rows first to last - 1, `width` weights from k on: unpacked at a time."""

    first: Value
    last: Value
    k: Value
    width: Value


@dataclass(frozen=True)
class Panel:
    """A panel of tokens; k is the first weight of the block of rows."""

    address: Value
    layout: PanelLayout
    k: Value


@dataclass(frozen=True)
class UnpackedRows:
    """Unpacked rows: int8 codes, and float32 scales and minima of their groups."""

    codes: Value
    scales: Value
    minima: Value | None
    groups: int  # of a row

    @staticmethod
    def allocate(form: Format) -> "UnpackedRows":
        """Memory for `MAX_UNPACKED_ROWS` rows of `_CHUNK` weights."""
        groups = _CHUNK // form.group
        codes, scales = alloca(MAX_UNPACKED_ROWS * _CHUNK), alloca(MAX_UNPACKED_ROWS * groups * 4)
        return UnpackedRows(codes, scales, alloca(MAX_UNPACKED_ROWS * groups * 4) if form.has_minimum else None, groups)

    def from_row(self, row: Value) -> "UnpackedRows":
        """The rows from a row of the block on."""
        codes, scales = self.codes + row * _CHUNK, self.scales + row * (self.groups * 4)
        minima = None if self.minima is None else self.minima + row * (self.groups * 4)
        return UnpackedRows(codes, scales, minima, self.groups)


def define_quantised(module: Module, name: str, form: Format) -> None:
    """`name(args, first, last)`: rows first to last - 1, at most `MAX_UNPACKED_ROWS`, for all tokens."""
    chunk = RowChunk(_CHUNK, _CHUNK // form.weights * form.bytes)

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        unpacked = UnpackedRows.allocate(form)
        for block in _row_blocks(args, first, last, chunk):
            for row in loop(block.first, block.last):
                at = row - block.first
                _unpack_row(form, args.weights + row * args.row_bytes, block, unpacked.from_row(at))
            _for_each_panel(module, args.tokens, lambda tile, p, block=block: multiply(args, block, unpacked, tile, p))

    def multiply(args: MatmulArgs, block: RowBlock, unpacked: UnpackedRows, tile: Microtile, p: Value) -> None:
        layout = PanelLayout(args.width, form.group, tile.tokens)
        panel = Panel(args.x + PanelLayout(args.width, form.group).size * p, layout, block.k)
        for row in loop(block.first, block.last, tile.rows):
            at = row - block.first
            prefetch = _prefetch(args, chunk, block, tile, row, unpacked.groups, p)
            sums = _microkernel(form, tile, panel, block.width, unpacked.from_row(at), prefetch)
            _accumulate_result(args, tile, sums, row, block, p)

    module.define(name, 3, body)


def define_float(module: Module, name: str, form: FloatFormat) -> None:
    """`name(args, first, last)` for a float type: float32 products."""
    chunk = RowChunk(_FLOAT_CHUNK, _FLOAT_CHUNK * form.bytes)

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        unpacked = alloca(BUFFER_BYTES)
        for block in _row_blocks(args, first, last, chunk):
            _unpack_float_rows(form, args, block, unpacked)
            _for_each_panel(module, args.tokens, lambda tile, p, block=block: multiply(args, block, unpacked, tile, p))

    def multiply(args: MatmulArgs, block: RowBlock, unpacked: Value, tile: Microtile, p: Value) -> None:
        x = args.x + args.width * p * (4 * PANEL_TOKENS) + block.k * (4 * tile.tokens)
        for row in loop(block.first, block.last, tile.rows):
            sums = tile.accumulators()
            rows = unpacked + (row - block.first) * (4 * _FLOAT_CHUNK)
            prefetch = _prefetch(args, chunk, block, tile, row, _FLOAT_CHUNK // _FLOAT_UNROLL, p)
            bulk = block.width - block.width % _FLOAT_UNROLL
            for i in loop(0, bulk, _FLOAT_UNROLL):
                prefetch.issue(i // _FLOAT_UNROLL)
                for step in range(_FLOAT_UNROLL):
                    _add_float_column(tile, sums, rows, x, i + step)
            for i in loop(bulk, block.width):
                _add_float_column(tile, sums, rows, x, i)
            values = [[acc.value for acc in row_sums] for row_sums in sums]
            _accumulate_result(args, tile, values, row, block, p)

    module.define(name, 3, body)


def _for_each_panel(module: Module, tokens: Value, compute: Callable[[Microtile, Value], None]) -> None:
    """Call `compute` for the whole panels and for a narrower last one."""
    rows = 8 if module.isa.has_avx512 else 2  # of a microtile: 32 registers of 16 floats, or 16 of 8
    whole, rest = panel_counts(tokens)
    for panel in loop(0, whole):
        compute(Microtile(rows, PANEL_TOKENS), panel)
    for lanes in range(PANEL_STEP, PANEL_TOKENS, PANEL_STEP):
        with if_(rest.equals(lanes)):
            compute(Microtile(rows, lanes), whole)


def _row_blocks(args: MatmulArgs, first: Value, last: Value, chunk: RowChunk) -> Iterator[RowBlock]:
    """Loop over the blocks of rows and chunks of weights."""
    count = _unpacked_rows(args.tokens)
    for row in loop(first, last, count):
        end = min_(row + count, last)
        for k in loop(0, args.width, chunk.weights):
            yield RowBlock(row, end, k, min_(args.width - k, chunk.weights))


def _unpacked_rows(tokens: Value) -> Value:
    """Rows to unpack at a time: more rows with more panels.

    Few rows stay in the first-level cache. With many rows each panel is read from the second-level cache less often.
    """
    whole, _ = panel_counts(tokens)
    return min_(select(whole < 4, const(8), whole // 2 * 8), MAX_UNPACKED_ROWS)


def _prefetch(
    args: MatmulArgs, chunk: RowChunk, block: RowBlock, tile: Microtile, row: Value, steps: int, panel: Value
) -> Prefetch:
    """Prefetch of the next chunk of a microtile's rows."""
    start = next_chunk(args, chunk, row, block.k, _unpacked_rows(args.tokens))
    return Prefetch(start, args.row_bytes, tile.rows, chunk.bytes, steps, enabled=panel.equals(0))


def _unpack_row(form: Format, row: Value, block: RowBlock, to: UnpackedRows) -> None:
    """Unpack the block's part of a row, in the order of the weights."""
    blocks = block.width // form.weights
    bulk = blocks - blocks % form.blocks_per_load
    start = row + block.k // form.weights * form.bytes

    def put(index: Value, count: int) -> None:
        unpacked = form.unpack([start + (index + i) * form.bytes for i in range(count)])
        weight = index * form.weights
        for i, codes in enumerate(unpacked.codes):
            store(codes, to.codes + weight + i * codes.lanes)
        store(unpacked.scale, to.scales + weight // form.group * 4)
        if to.minima is not None:
            store(unpacked.minimum, to.minima + weight // form.group * 4)

    for index in loop(0, bulk, form.blocks_per_load):
        put(index, form.blocks_per_load)
    if form.blocks_per_load > 1:
        for index in loop(bulk, blocks):
            put(index, 1)


def _microkernel(
    form: Format, tile: Microtile, panel: Panel, width: Value, rows: UnpackedRows, prefetch: Prefetch
) -> list[list[Value]]:
    """Dot products [rows][vectors] of a microtile over the unpacked weights."""
    sums, layout = tile.accumulators(), panel.layout
    rows_per_step = min(4, tile.rows)
    for weight in loop(0, width, form.group):
        prefetch.issue(weight // form.group)
        at = panel.k + weight
        x = layout.codes(panel.address, at)
        d = [load(F32, lanes, layout.scales(panel.address, at) + 64 * v) for v, lanes in tile.vectors]
        start = [load(I32, lanes, layout.zero_corrections(panel.address, at) + 64 * v) for v, lanes in tile.vectors]
        group = weight // form.group * 4
        for first in range(0, tile.rows, rows_per_step):
            numbers = range(first, first + rows_per_step)
            dots = [list(start) for _ in numbers]
            for step in range(0, form.group, 4):
                xs = [load(I8, 4 * lanes, x + step * tile.tokens + 64 * v) for v, lanes in tile.vectors]
                for i, r in enumerate(numbers):
                    w = load(U32, 1, rows.codes + (r * _CHUNK + step) + weight)
                    for v, lanes in tile.vectors:
                        dots[i][v] = dot(dots[i][v], splat(w, lanes).bitcast(U8), xs[v], form.codes_above_127)
            for i, r in enumerate(numbers):
                scale = load(F32, 1, rows.scales + r * (rows.groups * 4) + group)
                for v, _ in tile.vectors:
                    sums[r][v].value = fma(dots[i][v].to(F32) * scale, d[v], sums[r][v].value)
        if rows.minima is not None:
            x_sums = [load(F32, lanes, layout.scaled_sums(panel.address, at) + 64 * v) for v, lanes in tile.vectors]
            for r in range(tile.rows):
                minimum = load(F32, 1, rows.minima + r * (rows.groups * 4) + group) * -1.0
                for v, _ in tile.vectors:
                    sums[r][v].value = fma(minimum, x_sums[v], sums[r][v].value)
    return [[acc.value for acc in row] for row in sums]


def _unpack_float_rows(form: FloatFormat, args: MatmulArgs, block: RowBlock, to: Value) -> None:
    """Convert the block's weights to float32."""
    bulk = block.width - block.width % 16
    for row in loop(block.first, block.last):
        source = args.weights + row * args.row_bytes + block.k * form.bytes
        out = to + (row - block.first) * (4 * _FLOAT_CHUNK)
        for i in loop(0, bulk, 16):
            store(form.load_f32(16, source + i * form.bytes), out + i * 4)
        for i in loop(bulk, block.width):
            store(form.load_f32(1, source + i * form.bytes), out + i * 4)


def _add_float_column(tile: Microtile, sums: list[list[Var]], rows: Value, x: Value, i: Value) -> None:
    """Add the products of column i of the unpacked rows with all tokens."""
    xs = [load(F32, lanes, x + i * (4 * tile.tokens) + 64 * v) for v, lanes in tile.vectors]
    for r in range(tile.rows):
        w = load(F32, 1, rows + r * (4 * _FLOAT_CHUNK) + i * 4)
        for v, _ in tile.vectors:
            sums[r][v].value = fma(w, xs[v], sums[r][v].value)


def _accumulate_result(
    args: MatmulArgs, tile: Microtile, sums: list[list[Value]], row: Value, block: RowBlock, panel: Value
) -> None:
    """Add a microtile to the result [T, N]; the first chunk overwrites it."""
    rows, token = min_(block.last - row, tile.rows), panel * PANEL_TOKENS
    columns = [column for v, _ in tile.vectors for column in transpose([row_sums[v] for row_sums in sums])]
    tokens = min_(args.tokens - token, tile.tokens)
    is_first_chunk = block.k.equals(0)
    is_whole = rows.equals(tile.rows) & tokens.equals(tile.tokens)
    out, stride = args.y + (args.rows * token + row) * 4, args.rows * 4
    with if_(is_whole):
        for i, column in enumerate(columns):
            address = out + stride * i
            store(select(is_first_chunk, column, column + load(F32, tile.rows, address)), address)
    with if_(is_whole ^ 1):
        spare = alloca(tile.tokens * tile.rows * 4)
        for i, column in enumerate(columns):
            store(column, spare + i * tile.rows * 4)
        for i in loop(0, tokens):
            for r in loop(0, rows):
                value, address = load(F32, 1, spare + i * (tile.rows * 4) + r * 4), out + stride * i + r * 4
                store(select(is_first_chunk, value, value + load(F32, 1, address)), address)
