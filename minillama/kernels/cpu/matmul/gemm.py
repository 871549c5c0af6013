"""The product with many tokens: a row is unpacked once and multiplied with panels of tokens while both are in a cache.

A vector register holds one number of 16 tokens, or of 8. Four codes of a weight row are repeated over all lanes and
multiplied with the same four of every token; what the registers hold after a group is scaled and added up in float32.
Some rows and two registers of tokens are computed together, so that every number that is loaded is used several times.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from minillama.kernels.cpu.matmul.activations import PANEL, STEP, PanelLayout, panels
from minillama.kernels.cpu.matmul.formats import FloatFormat, Format
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
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
    prefetch,
    select,
    splat,
    store,
    transpose,
)

LANES = 16  # tokens in a whole register
BUFFER = 128 << 10  # bytes of unpacked weights, to stay in the second cache beside a panel
BUFFER_ROWS = 64
TOGETHER = 4  # columns of weights without blocks
LINE = 64  # bytes that come from memory together


@dataclass(frozen=True)
class Tile:
    """What is computed together: rows, and a panel of tokens in one register or two."""

    rows: int
    tokens: int

    @property
    def vectors(self) -> list[int]:
        """Lanes of the registers."""
        return [min(LANES, self.tokens - start) for start in range(0, self.tokens, LANES)]


def _each_panel(module: Module, tokens: Value, compute: Callable[[Tile, Value], None]) -> None:
    """`compute` for the whole panels, and for a narrower last one.

    Rows of a tile: as many as the registers hold, 32 of 16 floats, or 16 of 8.
    """
    rows = 8 if module.isa.has_avx512 else 2
    whole, rest = panels(tokens)
    for panel in loop(0, whole):
        compute(Tile(rows, PANEL), panel)
    for lanes in range(STEP, PANEL, STEP):
        with if_(rest.equals(lanes)):
            compute(Tile(rows, lanes), whole)


def _chunks(args: MatmulArgs, first: Value, last: Value, chunk: int) -> Iterator[tuple[Value, Value, Value, Value]]:
    """What is unpacked together, one after the other: rows from, rows to, weights from, and how many."""
    together = _rows_together(args.tokens)
    for row in loop(first, last, together):
        end = min_(row + together, last)
        for k in loop(0, args.width, chunk):
            yield row, end, k, min_(args.width - k, chunk)


def _rows_together(tokens: Value) -> Value:
    """How many rows are unpacked together: for few panels of tokens so few that they stay in the first cache, for many
    panels more, for each of these then comes from the second cache less often."""
    whole, _ = panels(tokens)
    return min_(select(whole < 4, const(8), whole // 2 * 8), BUFFER_ROWS)


@dataclass(frozen=True)
class Prefetch:
    """What memory brings while a tile is computed: its rows' next stretch, or after their last one that of the rows
    that are unpacked next.

    start: address of the first row's stretch, which like every other's has `stretch` bytes.
    turns: in how many all of it is asked for, for memory takes few wishes at once.
    wanted: whether it is to come at all; once the first panel has asked, the others need not.
    """

    start: Value
    row_bytes: Value
    rows: int
    stretch: int
    steps: int
    enabled: Value

    @staticmethod
    def of(
        args: MatmulArgs,
        rows: int,
        row: Value,
        k: Value,
        chunk: int,
        stretch: int,
        steps: int,
        panel: Value,
        together: Value,
    ) -> "Prefetch":
        """Behind the chunk of weights from k on, `stretch` bytes of a row; `together` rows are unpacked at once."""
        next_rows = args.row_bytes * together
        further = select(k + chunk < args.width, k // chunk * stretch + stretch, next_rows)
        start = args.weights + row * args.row_bytes + further
        return Prefetch(start, args.row_bytes, rows, stretch, steps, enabled=panel.equals(0))

    def issue(self, turn: Value) -> None:
        """One turn's share, line after line."""
        lines = -(-self.stretch // LINE)
        share = -(-self.rows * lines // self.steps)
        with if_(self.enabled):
            for i in range(share):
                line = turn * share + i
                prefetch(self.start + line // lines * self.row_bytes + line % lines * LINE)


def define_quantised(module: Module, name: str, form: Format) -> None:
    """`name(part, first, last)`: rows first to last - 1, at most BUFFER_ROWS, for all tokens."""
    chunk = BUFFER // BUFFER_ROWS
    groups = chunk // form.group

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        codes, scales = alloca(BUFFER_ROWS * chunk), alloca(BUFFER_ROWS * groups * 4)
        minima = alloca(BUFFER_ROWS * groups * 4) if form.minimum else None

        def unpack_and_multiply(first: Value, last: Value, k: Value, width: Value) -> None:
            for row in loop(first, last):
                at = row - first
                _unpack_row(
                    form, args.weights + row * args.row_bytes, k, width, codes + at * chunk,
                    scales + at * (groups * 4), None if minima is None else minima + at * (groups * 4),
                )  # fmt: skip

            def compute(shape: Tile, panel: Value) -> None:
                layout = PanelLayout(args.width, form.group, shape.tokens)
                here = args.x + PanelLayout(args.width, form.group).size * panel
                for row in loop(first, last, shape.rows):
                    at = row - first
                    stretch = chunk // form.weights * form.bytes
                    upcoming = Prefetch.of(
                        args, shape.rows, row, k, chunk, stretch, groups, panel, _rows_together(args.tokens)
                    )
                    sums = _multiply(
                        form, shape, layout, here, k, width, codes + at * chunk, scales + at * (groups * 4),
                        None if minima is None else minima + at * (groups * 4), chunk, groups, upcoming,
                    )  # fmt: skip
                    _put(args, shape, sums, row, min_(last - row, shape.rows), panel * PANEL, k)

            _each_panel(module, args.tokens, compute)

        for place in _chunks(args, first, last, chunk):
            unpack_and_multiply(*place)

    module.define(name, 3, body)


def _unpack_row(
    form: Format, row: Value, k: Value, width: Value, codes: Value, scales: Value, minima: Value | None
) -> None:
    """Some of a row's blocks, in the order of the weights."""
    blocks = width // form.weights
    bulk = blocks - blocks % form.blocks_per_load
    start = row + k // form.weights * form.bytes

    def put(block: Value, count: int) -> None:
        unpacked = form.unpack([start + (block + i) * form.bytes for i in range(count)])
        weight = block * form.weights
        for i, codes_vector in enumerate(unpacked.codes):
            store(codes_vector, codes + weight + i * codes_vector.lanes)
        store(unpacked.scale, scales + weight // form.group * 4)
        if minima is not None:
            store(unpacked.minimum, minima + weight // form.group * 4)

    for block in loop(0, bulk, form.blocks_per_load):
        put(block, form.blocks_per_load)
    if form.blocks_per_load > 1:
        for block in loop(bulk, blocks):
            put(block, 1)


def _multiply(
    form: Format, shape: Tile, layout: PanelLayout, panel: Value, k: Value, width: Value, codes: Value, scales: Value,
    minima: Value | None, chunk: int, groups: int, upcoming: Prefetch,
) -> list[list[Value]]:  # fmt: skip
    """Sums [rows][vectors] of a tile over a chunk of the row."""
    sums = [[Var(const(0.0, F32, lanes)) for lanes in shape.vectors] for _ in range(shape.rows)]
    vectors = list(enumerate(shape.vectors))
    together = min(4, shape.rows)
    for weight in loop(0, width, form.group):
        upcoming.issue(weight // form.group)
        x = layout.codes(panel, k + weight)
        d = [load(F32, lanes, layout.scales(panel, k + weight) + 64 * v) for v, lanes in vectors]
        starts = [load(I32, lanes, layout.starts(panel, k + weight) + 64 * v) for v, lanes in vectors]
        group = weight // form.group * 4
        for first in range(0, shape.rows, together):
            rows = range(first, first + together)
            dots = [list(starts) for _ in rows]
            for step in range(0, form.group, 4):
                xs = [load(I8, 4 * lanes, x + step * shape.tokens + 64 * v) for v, lanes in vectors]
                for i, r in enumerate(rows):
                    w = load(U32, 1, codes + (r * chunk + step) + weight)
                    for v, lanes in vectors:
                        dots[i][v] = dot(dots[i][v], splat(w, lanes).bitcast(U8), xs[v], form.codes_above_127)
            for i, r in enumerate(rows):
                scale = load(F32, 1, scales + r * (groups * 4) + group)
                for v, _ in vectors:
                    sums[r][v].value = fma(dots[i][v].to(F32) * scale, d[v], sums[r][v].value)
        if minima is not None:
            shares = [load(F32, lanes, layout.sums(panel, k + weight) + 64 * v) for v, lanes in vectors]
            for r in range(shape.rows):
                minimum = load(F32, 1, minima + r * (groups * 4) + group) * -1.0
                for v, _ in vectors:
                    sums[r][v].value = fma(minimum, shares[v], sums[r][v].value)
    return [[register.value for register in row] for row in sums]


def define_float(module: Module, name: str, plain: FloatFormat) -> None:
    """The same for a type without blocks: float32 times float32."""
    chunk = BUFFER // BUFFER_ROWS // 4

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        rows = alloca(BUFFER)

        def unpack_and_multiply(first: Value, last: Value, k: Value, width: Value) -> None:
            bulk = width - width % 16
            for row in loop(first, last):
                source, to = args.weights + row * args.row_bytes + k * plain.bytes, rows + (row - first) * (4 * chunk)
                for i in loop(0, bulk, 16):
                    store(plain.load_f32(16, source + i * plain.bytes), to + i * 4)
                for i in loop(bulk, width):
                    store(plain.load_f32(1, source + i * plain.bytes), to + i * 4)

            def compute(shape: Tile, panel: Value) -> None:
                x = args.x + args.width * panel * (4 * PANEL) + k * (4 * shape.tokens)
                vectors = list(enumerate(shape.vectors))
                for row in loop(first, last, shape.rows):
                    sums = [[Var(const(0.0, F32, lanes)) for _, lanes in vectors] for _ in range(shape.rows)]
                    start = rows + (row - first) * (4 * chunk)

                    def add(i: Value, start: Value = start, sums: list[list[Var]] = sums) -> None:
                        xs = [load(F32, lanes, x + i * (4 * shape.tokens) + 64 * v) for v, lanes in vectors]
                        for r in range(shape.rows):
                            w = load(F32, 1, start + r * (4 * chunk) + i * 4)
                            for v, _ in vectors:
                                sums[r][v].value = fma(w, xs[v], sums[r][v].value)

                    upcoming = Prefetch.of(
                        args, shape.rows, row, k, chunk, chunk * plain.bytes, chunk // TOGETHER, panel,
                        _rows_together(args.tokens),
                    )  # fmt: skip
                    bulk = width - width % TOGETHER
                    for i in loop(0, bulk, TOGETHER):
                        upcoming.issue(i // TOGETHER)
                        for step in range(TOGETHER):
                            add(i + step)
                    for i in loop(bulk, width):
                        add(i)
                    found = [[register.value for register in row_sums] for row_sums in sums]
                    _put(args, shape, found, row, min_(last - row, shape.rows), panel * PANEL, k)

            _each_panel(module, args.tokens, compute)

        for place in _chunks(args, first, last, chunk):
            unpack_and_multiply(*place)

    module.define(name, 3, body)


def _put(
    args: MatmulArgs, shape: Tile, sums: list[list[Value]], row: Value, rows: Value, token: Value, k: Value
) -> None:
    """Add a tile to the result [T, N], which the first chunk of a row finds empty."""
    columns = [transpose([row_sums[v] for row_sums in sums]) for v in range(len(shape.vectors))]
    flat = [column for vector_columns in columns for column in vector_columns]
    tokens = min_(args.tokens - token, shape.tokens)
    fresh = k.equals(0)
    whole = rows.equals(shape.rows) & tokens.equals(shape.tokens)
    out, stride = args.y + (args.rows * token + row) * 4, args.rows * 4
    with if_(whole):
        for i, column in enumerate(flat):
            address = out + stride * i
            store(select(fresh, column, column + load(F32, shape.rows, address)), address)
    with if_(whole ^ 1):
        spare = alloca(shape.tokens * shape.rows * 4)
        for i, column in enumerate(flat):
            store(column, spare + i * shape.rows * 4)
        for i in loop(0, tokens):
            for r in loop(0, rows):
                value, address = load(F32, 1, spare + i * (shape.rows * 4) + r * 4), out + stride * i + r * 4
                store(select(fresh, value, value + load(F32, 1, address)), address)
