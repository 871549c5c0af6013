"""Microtiles of the GEMM: their shapes, and how their results are stored.

A microtile is some rows of W times the tokens of a panel. Its running sums are registers, and so are the values of the
tokens. Every instruction set has as many rows as its registers hold:

                 registers       float weights            quantised weights
    AVX-512      32 of 16        8 rows x 32 tokens       8 rows x 32 tokens
    AVX-VNNI     16 of 8         6 rows x 16 tokens       6 rows x 16 tokens
    AVX2         16 of 8         6 rows x 16 tokens       4 rows x 16 tokens
    NEON         32 of 4         4 rows x 16 tokens       see `gemm_neon`
    generic      any             2 rows x 16 tokens       2 rows x 16 tokens

Six rows and two registers of tokens take 8 loads for 12 FMAs. Two FMA units with a latency of four or five cycles need
8 to 10 independent sums; these are 12. Quantised weights on AVX2 need registers for products, too.
"""

from dataclasses import dataclass

from minillama.kernels.cpu.matmul.activations import panel_counts, panel_tokens
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.simd import (
    F32,
    Isa,
    Value,
    Var,
    alloca,
    const,
    if_,
    load,
    loop,
    min_,
    select,
    store,
    transpose,
)

MAX_UNPACKED_ROWS = 64


@dataclass(frozen=True)
class Shape:
    """Sizes of a GEMM on an instruction set."""

    isa: Isa
    rows: int  # of a microtile
    chunk: int  # weights of a row that are unpacked at a time

    @staticmethod
    def of(isa: Isa, is_float: bool) -> "Shape":
        """The largest microtile whose sums stay in registers.

        A chunk of `MAX_UNPACKED_ROWS` rows takes at most 128 KiB, a part of the second-level cache.
        """
        if isa.has_avx512:
            return Shape(isa, 8, 512 if is_float else 2048)
        rows = (6 if is_float or isa is Isa.AVX_VNNI else 4) if isa.has_avx2 else 4 if isa.is_neon else 2
        return Shape(isa, rows, 512 if is_float else 1024)

    @property
    def lanes(self) -> int:
        """Tokens of a vector."""
        return 16 if self.isa.has_avx512 else 8

    @property
    def panel(self) -> int:
        """Tokens of a whole panel."""
        return panel_tokens(self.isa)

    @property
    def row_step(self) -> int:
        """Rows that divide into whole microtiles, eight or more."""
        return 2 * self.rows if self.rows == 6 else 8

    @property
    def most_rows(self) -> int:
        """Rows that are unpacked at a time, at most."""
        return MAX_UNPACKED_ROWS // self.row_step * self.row_step

    def task_rows(self, rows: int) -> int:
        """Rows of a task."""
        return min(self.most_rows, max(self.row_step, rows // 32 // self.row_step * self.row_step))

    def unpacked_rows(self, tokens: Value) -> Value:
        """Rows to unpack at a time.

        With AVX-512 few rows stay in the first-level cache; with many rows each panel is read from the second-level
        cache less often. Elsewhere the smaller panel stays in the first-level cache.
        """
        if not self.isa.has_avx512:
            return const(self.most_rows)
        whole, _ = panel_counts(tokens, self.panel)
        return min_(select(whole < 4, const(8), whole // 2 * 8), MAX_UNPACKED_ROWS)


@dataclass(frozen=True)
class Microtile:
    """Shape of the result of a microkernel: rows times the tokens of a panel."""

    rows: int
    tokens: int
    lanes: int  # of a whole vector

    @property
    def vectors(self) -> list[tuple[int, int]]:
        """(number, lanes) of each vector of tokens, one or two."""
        return [
            (start // self.lanes, min(self.lanes, self.tokens - start)) for start in range(0, self.tokens, self.lanes)
        ]

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


def accumulate_result(
    args: MatmulArgs, tile: Microtile, sums: list[list[Value]], row: Value, block: RowBlock, token: Value
) -> None:
    """Add a microtile to the result [T, N]; the first chunk overwrites it.

    row, token: the first ones of the microtile.
    """
    columns = [column for v, _ in tile.vectors for column in _columns([row_sums[v] for row_sums in sums])]
    add_columns(args, columns, row, block.last, token, block.k.equals(0))


def add_columns(
    args: MatmulArgs, columns: list[Value], row: Value, last: Value, token: Value, is_first_chunk: Value
) -> None:
    """Add the columns of a microtile, one of each token, to the result [T, N].

    The first chunk overwrites it. row, token: the first ones of the microtile. last: row after those of the block.
    """
    height = columns[0].lanes
    rows, tokens = min_(last - row, height), min_(args.tokens - token, len(columns))
    is_whole = rows.equals(height) & tokens.equals(len(columns))
    out, stride = args.y + (args.rows * token + row) * 4, args.rows * 4
    with if_(is_whole):
        for i, column in enumerate(columns):
            address = out + stride * i
            store(select(is_first_chunk, column, column + load(F32, height, address)), address)
    with if_(is_whole ^ 1):
        spare = alloca(len(columns) * height * 4)
        for i, column in enumerate(columns):
            store(column, spare + i * height * 4)
        for i in loop(0, tokens):
            for r in loop(0, rows):
                value, address = load(F32, 1, spare + i * (height * 4) + r * 4), out + stride * i + r * 4
                store(select(is_first_chunk, value, value + load(F32, 1, address)), address)


def _columns(rows: list[Value]) -> list[Value]:
    """Columns of some rows, in any number."""
    whole = [*rows, *rows[:2]] if len(rows) == 6 else rows
    return [column.permute(range(len(rows))) for column in transpose(whole)]
