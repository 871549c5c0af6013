"""GEMM: the product with many tokens (prefill), rows of W times panels of tokens.

A vector holds one value of 16 tokens, or of 8. A block of rows is unpacked into the second-level cache and multiplied
with one panel after the other. In the microkernel four bytes of codes of a row are repeated over all lanes and
multiplied with the same codes of every token. The sums of a group are scaled and accumulated in float32. A microtile is
some rows times two vectors of tokens, so that every loaded value is used several times.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from minillama.kernels.cpu.formats import FloatFormat, Format
from minillama.kernels.cpu.matmul.activations import PANEL_STEP, PanelLayout, code_bytes, panel_counts
from minillama.kernels.cpu.matmul.code_products import has_signed_codes, multiplied_codes
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.matmul.microtile import MAX_UNPACKED_ROWS, Microtile, RowBlock, Shape, accumulate_result
from minillama.kernels.cpu.matmul.prefetch import Prefetch, RowChunk, next_chunk
from minillama.kernels.cpu.simd import (
    F32,
    I8,
    I16,
    I32,
    U8,
    U32,
    DotSum,
    Module,
    Value,
    Var,
    alloca,
    const,
    fma,
    if_,
    load,
    loop,
    min_,
    splat,
    store,
)

_FLOAT_UNROLL = 4  # columns of float weights


@dataclass(frozen=True)
class Panel:
    """A panel of tokens; k is the first weight of the block of rows."""

    address: Value
    layout: PanelLayout
    k: Value


@dataclass(frozen=True)
class UnpackedRows:
    """Unpacked rows: codes, and float32 scales and minima of their groups."""

    codes: Value
    scales: Value
    minima: Value | None
    groups: int  # of a row
    row_bytes: int  # codes of a row

    @staticmethod
    def allocate(form: Format, shape: Shape) -> "UnpackedRows":
        """Memory for `MAX_UNPACKED_ROWS` rows of a chunk."""
        groups, row_bytes = shape.chunk // form.group, shape.chunk * code_bytes(form, shape.isa)
        codes, *factors = (alloca(MAX_UNPACKED_ROWS * size) for size in (row_bytes, groups * 4, groups * 4))
        return UnpackedRows(codes, factors[0], factors[1] if form.has_minimum else None, groups, row_bytes)

    def from_row(self, row: Value) -> "UnpackedRows":
        """The rows from a row of the block on."""
        codes, scales = self.codes + row * self.row_bytes, self.scales + row * (self.groups * 4)
        minima = None if self.minima is None else self.minima + row * (self.groups * 4)
        return UnpackedRows(codes, scales, minima, self.groups, self.row_bytes)


def define_quantised(module: Module, name: str, form: Format) -> None:
    """`name(args, first, last)`: rows first to last - 1, at most `MAX_UNPACKED_ROWS`, for all tokens."""
    shape, size = Shape.of(module.isa, is_float=False), code_bytes(form, module.isa)
    chunk = RowChunk(shape.chunk, shape.chunk // form.weights * form.bytes)

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        unpacked = UnpackedRows.allocate(form, shape)
        for block in _row_blocks(args, first, last, chunk, shape):
            for row in loop(block.first, block.last):
                at = row - block.first
                _unpack_row(form, args.weights + row * args.row_bytes, block, unpacked.from_row(at))
            _for_each_panel(shape, args.tokens, lambda tile, p, block=block: multiply(args, block, unpacked, tile, p))

    def multiply(args: MatmulArgs, block: RowBlock, unpacked: UnpackedRows, tile: Microtile, p: Value) -> None:
        layout = PanelLayout(args.width, form.group, tile.tokens, size)
        panel = Panel(args.x + PanelLayout(args.width, form.group, shape.panel, size).size * p, layout, block.k)
        for row in loop(block.first, block.last, tile.rows):
            at = row - block.first
            prefetch = _prefetch(args, chunk, block, shape, row, unpacked.groups, p)
            sums = _microkernel(form, tile, panel, block.width, unpacked.from_row(at), prefetch)
            accumulate_result(args, tile, sums, row, block, p * shape.panel)

    module.define(name, 3, body)


def define_float(module: Module, name: str, form: FloatFormat) -> None:
    """`name(args, first, last)` for a float type: float32 products."""
    shape = Shape.of(module.isa, is_float=True)
    chunk = RowChunk(shape.chunk, shape.chunk * form.bytes)

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        unpacked = alloca(MAX_UNPACKED_ROWS * 4 * shape.chunk)
        for block in _row_blocks(args, first, last, chunk, shape):
            _unpack_float_rows(form, args, block, unpacked, shape)
            _for_each_panel(shape, args.tokens, lambda tile, p, block=block: multiply(args, block, unpacked, tile, p))

    def multiply(args: MatmulArgs, block: RowBlock, unpacked: Value, tile: Microtile, p: Value) -> None:
        x = args.x + args.width * p * (4 * shape.panel) + block.k * (4 * tile.tokens)
        for row in loop(block.first, block.last, tile.rows):
            sums = tile.accumulators()
            rows = unpacked + (row - block.first) * (4 * shape.chunk)
            prefetch = _prefetch(args, chunk, block, shape, row, shape.chunk // _FLOAT_UNROLL, p)
            bulk = block.width - block.width % _FLOAT_UNROLL
            for i in loop(0, bulk, _FLOAT_UNROLL):
                prefetch.issue(i // _FLOAT_UNROLL)
                for step in range(_FLOAT_UNROLL):
                    _add_float_column(tile, sums, rows, 4 * shape.chunk, x, i + step)
            for i in loop(bulk, block.width):
                _add_float_column(tile, sums, rows, 4 * shape.chunk, x, i)
            values = [[acc.value for acc in row_sums] for row_sums in sums]
            accumulate_result(args, tile, values, row, block, p * shape.panel)

    module.define(name, 3, body)


def _for_each_panel(shape: Shape, tokens: Value, compute: Callable[[Microtile, Value], None]) -> None:
    """Call `compute` for the whole panels and for a narrower last one."""
    whole, rest = panel_counts(tokens, shape.panel)
    for panel in loop(0, whole):
        compute(Microtile(shape.rows, shape.panel, shape.lanes), panel)
    for narrow in range(PANEL_STEP, shape.panel, PANEL_STEP):
        with if_(rest.equals(narrow)):
            compute(Microtile(shape.rows, narrow, shape.lanes), whole)


def _row_blocks(args: MatmulArgs, first: Value, last: Value, chunk: RowChunk, shape: Shape) -> Iterator[RowBlock]:
    """Loop over the blocks of rows and chunks of weights."""
    count = shape.unpacked_rows(args.tokens)
    for row in loop(first, last, count):
        end = min_(row + count, last)
        for k in loop(0, args.width, chunk.weights):
            yield RowBlock(row, end, k, min_(args.width - k, chunk.weights))


def _prefetch(
    args: MatmulArgs, chunk: RowChunk, block: RowBlock, shape: Shape, row: Value, steps: int, panel: Value
) -> Prefetch:
    """Prefetch of the next chunk of a microtile's rows."""
    start = next_chunk(args, chunk, row, block.k, shape.unpacked_rows(args.tokens))
    return Prefetch(start, args.row_bytes, shape.rows, chunk.bytes, steps, enabled=panel.equals(0))


def _unpack_row(form: Format, row: Value, block: RowBlock, to: UnpackedRows) -> None:
    """Unpack the block's part of a row, in the order of the weights."""
    blocks = block.width // form.weights
    bulk = blocks - blocks % form.blocks_per_load
    start = row + block.k // form.weights * form.bytes
    size = to.row_bytes // form.group // to.groups  # of a code

    def put(index: Value, count: int) -> None:
        unpacked = form.unpack([start + (index + i) * form.bytes for i in range(count)])
        weight = index * form.weights
        for i, codes in enumerate(unpacked.codes):
            codes = multiplied_codes(form, codes)
            store(codes if size == 1 else codes.to(I16), to.codes + (weight + i * codes.lanes) * size)
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
    sums, layout, apart = tile.accumulators(), panel.layout, 4 * tile.lanes
    rows_per_step = tile.rows if tile.rows % 4 else 4
    for weight in loop(0, width, form.group):
        prefetch.issue(weight // form.group)
        at = panel.k + weight
        group = weight // form.group * 4
        d = [load(F32, lanes, layout.scales(panel.address, at) + apart * v) for v, lanes in tile.vectors]
        for first in range(0, tile.rows, rows_per_step):
            numbers = range(first, first + rows_per_step)
            totals = _group_sums(form, tile, panel, at, rows, numbers, weight)
            for r, of_row in zip(numbers, totals, strict=True):
                scale = load(F32, 1, rows.scales + r * (rows.groups * 4) + group)
                for v, total in enumerate(of_row):
                    sums[r][v].value = fma(total.to(F32) * scale, d[v], sums[r][v].value)
        if rows.minima is not None:
            x_sums = [load(F32, lanes, layout.scaled_sums(panel.address, at) + apart * v) for v, lanes in tile.vectors]
            for r in range(tile.rows):
                minimum = load(F32, 1, rows.minima + r * (rows.groups * 4) + group) * -1.0
                for v, _ in tile.vectors:
                    sums[r][v].value = fma(minimum, x_sums[v], sums[r][v].value)
    return [[acc.value for acc in row] for row in sums]


def _group_sums(
    form: Format, tile: Microtile, panel: Panel, at: Value, rows: UnpackedRows, numbers: range, weight: Value
) -> list[list[Value]]:
    """Exact sums of products of a group of weights, I32 [numbers][vectors]."""
    layout, apart, size = panel.layout, 4 * tile.lanes, panel.layout.code_bytes
    x, start = layout.codes(panel.address, at), [const(0, I32, lanes) for _, lanes in tile.vectors]
    if form.zero_point and not has_signed_codes(form):
        corrections = layout.zero_corrections(panel.address, at)
        start = [load(I32, lanes, corrections + apart * v) for v, lanes in tile.vectors]
    sums = [[DotSum(of_vector, form.largest_code) for of_vector in start] for _ in numbers]
    for step in range(0, form.group, 4 // size):
        at_step = x + step * size * tile.tokens
        xs = [load(I8, 4 * lanes, at_step + apart * v).bitcast(I8 if size == 1 else I16) for v, lanes in tile.vectors]
        for of_row, r in zip(sums, numbers, strict=True):
            w = load(U32, 1, rows.codes + (r * rows.row_bytes + step * size) + weight * size)
            for (v, lanes), of_vector in zip(tile.vectors, of_row, strict=True):
                of_vector.add(splat(w, lanes).bitcast(U8 if size == 1 else I16), xs[v])
        for of_vector in (of_vector for of_row in sums for of_vector in of_row):
            of_vector.add_in_order()
    return [[of_vector.total() for of_vector in of_row] for of_row in sums]


def _unpack_float_rows(form: FloatFormat, args: MatmulArgs, block: RowBlock, to: Value, shape: Shape) -> None:
    """Convert the block's weights to float32."""
    bulk = block.width - block.width % 16
    for row in loop(block.first, block.last):
        source = args.weights + row * args.row_bytes + block.k * form.bytes
        out = to + (row - block.first) * (4 * shape.chunk)
        for i in loop(0, bulk, 16):
            store(form.load_f32(16, source + i * form.bytes), out + i * 4)
        for i in loop(bulk, block.width):
            store(form.load_f32(1, source + i * form.bytes), out + i * 4)


def _add_float_column(tile: Microtile, sums: list[list[Var]], rows: Value, row_bytes: int, x: Value, i: Value) -> None:
    """Add the products of column i of the unpacked rows with all tokens."""
    xs = [load(F32, lanes, x + i * (4 * tile.tokens) + 4 * tile.lanes * v) for v, lanes in tile.vectors]
    for r in range(tile.rows):
        w = load(F32, 1, rows + r * row_bytes + i * 4)
        for v, _ in tile.vectors:
            sums[r][v].value = fma(w, xs[v], sums[r][v].value)
