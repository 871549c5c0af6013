"""Skinny GEMM of the quantised types: a vector holds values of many rows.

There are eight rows to a vector, and sixteen with AVX-512. Four codes of each row fill a vector. It is multiplied with
four codes of a token, repeated for all rows. So the sum of a group of weights needs no sum across lanes. The codes of a
group stay in registers for all tokens; the running sums of the rows and a token, one for each group of a step of 256
weights, are in memory. Rows whose type is not in `unpack_columns` are unpacked into the first-level cache, a step at a
time.
"""

from collections.abc import Iterator

from gguf import GGMLQuantizationType as Type

from minillama.kernels.cpu.formats import FORMATS
from minillama.kernels.cpu.matmul.activations import STEP
from minillama.kernels.cpu.matmul.code_products import (
    code_products,
    has_corrections,
    has_signed_codes,
    multiplied_codes,
)
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.matmul.prefetch import CACHE_LINE
from minillama.kernels.cpu.simd import (
    F32,
    I8,
    I32,
    I64,
    U8,
    U32,
    Element,
    Module,
    Value,
    ValueLike,
    Var,
    alloca,
    concat,
    const,
    fma,
    load,
    load_splat,
    loop,
    min_,
    prefetch,
    shuffle,
    store,
)
from minillama.kernels.cpu.skinny_gemm.row_blocks import MAX_TOKENS, define_by_blocks, store_some
from minillama.kernels.cpu.skinny_gemm.token_groups import TokenGroups
from minillama.kernels.cpu.skinny_gemm.unpack_columns import COLUMN_UNPACKERS


def define_quantised(module: Module, name: str, kind: Type) -> None:
    """`name(args, first, last)`: rows first to last - 1 for all tokens, at most `MAX_TOKENS`."""
    rows = 16 if module.isa.has_avx512 else 8
    define_by_blocks(module, name, rows, lambda args: _RowBlock(args, kind, rows).multiply)


class _RowBlock:
    """Some rows of W times all tokens; the GEMV has the same sums."""

    def __init__(self, args: MatmulArgs, kind: Type, rows: int) -> None:
        self.args, self.form, self.rows = args, FORMATS[kind], rows
        self.unpacker = COLUMN_UNPACKERS.get(kind)
        self.groups = STEP // self.form.group
        self.vector = 4 * rows  # bytes of one value of each row
        self.places = alloca(8 * rows)  # addresses of the rows
        self.codes = alloca(rows * STEP)  # [STEP / 16, rows, 16]
        size = rows * self.groups * 4
        self.factors = [alloca(size) for _ in range(1 + self.form.has_minimum)]  # scales, minima: [groups / 4, rows, 4]
        self.columns = [alloca(size) for _ in self.factors]  # [groups, rows]
        self.sums = alloca((self.groups + 1) * MAX_TOKENS * self.vector)  # [groups + 1, T, rows]

    def multiply(self, first: Value, last: Value) -> None:
        """Compute the results of the rows from `first` on."""
        for i in loop(0, self.args.tokens * (self.groups + 1)):
            store(const(0.0, F32, self.rows), self.sums + i * self.vector)
        for r in loop(0, self.rows):
            store(self.args.weights + min_(first + r, last - 1) * self.args.row_bytes, self.places + r * 8)
        whole = self.args.width // STEP * STEP
        for weight in loop(0, whole, STEP):
            self._step(first, weight, STEP)
        if self.form.weights < STEP:
            for weight in loop(whole, self.args.width, self.form.weights):
                self._step(first, weight, self.form.weights)
        for t in loop(0, self.args.tokens):
            store_some(self._totals(t), last - first, self.args.y + (self.args.rows * t + first) * 4)

    def _step(self, first: Value, weight: Value, count: int) -> None:
        """Add the products of `count` weights of each row, a whole step or a block."""
        start = weight // self.form.weights * self.form.bytes
        self._unpack(start, count)
        units = count // self.form.group
        if self.unpacker is not None:
            units = count // self.form.weights * self.unpacker.units
        for unit in loop(0, units):
            self._prefetch(first, start, count, unit, units)
            for group, codes in self._groups(start, unit):
                self._add(group, codes, weight, count)

    def _groups(self, start: Value, unit: Value) -> Iterator[tuple[ValueLike, list[Value]]]:
        """The groups of a unit, and their codes: vectors with four codes of each row."""
        if self.unpacker is None:
            yield unit, self._code_columns(unit)
            return
        block = start + unit // self.unpacker.units * self.form.bytes
        for group, codes in self.unpacker.unpack(self._quad, block, unit):
            yield group, [multiplied_codes(self.form, column) for column in codes]

    def _quad(self, offset: ValueLike) -> list[Value]:
        """16 bytes of each row from an offset on, as four columns."""
        rows = [load(U32, 4, load(I64, 1, self.places + 8 * r) + offset) for r in range(self.rows)]
        return list(self._transposed(*(concat(*rows[r::4]) for r in range(4))))

    def _unpack(self, start: Value, count: int) -> None:
        """Unpack the scales and minima of `count` weights of each row.

        The codes, too, where no columns are.
        """
        form = self.form
        size, blocks = count // form.weights * form.bytes, min(count // form.weights, form.blocks_per_load)
        for r in loop(0, self.rows):
            row = load(I64, 1, self.places + r * 8) + start
            place = r % 4 * self.vector + r // 4 * 16  # in the rows of fours
            weights = groups = 0
            for load_start in range(0, size, blocks * form.bytes):
                unpacked = form.unpack([row + (load_start + i * form.bytes) for i in range(blocks)])
                if self.unpacker is None:
                    for vector in unpacked.codes:
                        self._store_fours(multiplied_codes(form, vector), self.codes + place, weights)
                        weights += vector.lanes
                for factor, to in zip((unpacked.scale, unpacked.minimum), self.factors, strict=False):
                    self._store_fours(factor, to + place, 4 * groups)
                groups += unpacked.scale.lanes
        for g in range(0, count // form.group, 4):
            for factors, columns in zip(self.factors, self.columns, strict=True):
                for i, column in enumerate(self._columns(F32, factors + g * self.vector)):
                    store(column, columns + (g + i) * self.vector)

    def _store_fours(self, values: Value, place: Value, offset: int) -> None:
        """Store 16 bytes at a time: those of every fourth row fill a vector.

        offset: bytes of the row.
        """
        lanes = min(128 // values.element.bits, values.lanes)
        for at in range(0, values.lanes, lanes):
            byte = offset + at * values.element.bits // 8
            part = values if lanes == values.lanes else values.permute(range(at, at + lanes))
            store(part, place + (byte // 16 * 4 * self.vector + byte % 16))

    def _add(self, group: ValueLike, codes: list[Value], weight: Value, count: int) -> None:
        """Add the products of a group of each row with those of all tokens."""
        form, tokens = self.form, self.args.tokens
        place = TokenGroups(form.group, tokens)
        factors = [load(F32, self.rows, columns + group * self.vector) for columns in self.columns]
        sums = self.sums + (group if count == STEP else const(self.groups)) * (tokens * self.vector)
        x = self.args.x + place.at(weight // form.group + group, 0)
        before = Var(self._products(codes, x))
        for t in loop(1, tokens):
            products = self._products(codes, x + t * place.size)
            self._add_scaled(before.value, factors, x + (t - 1) * place.size, sums + (t - 1) * self.vector)
            before.value = products
        self._add_scaled(before.value, factors, x + (tokens - 1) * place.size, sums + (tokens - 1) * self.vector)

    def _prefetch(self, first: Value, start: Value, count: int, unit: Value, units: int) -> None:
        """Prefetch the same weights of the next rows, a share of them with each unit."""
        args, size = self.args, count // self.form.weights * self.form.bytes
        next_rows = args.weights + start + (first + self.rows) * args.row_bytes
        for r in range(max(1, self.rows // units)):
            row = next_rows + (unit * self.rows // units + r) * args.row_bytes
            for line in range(0, size, CACHE_LINE):
                prefetch(row + line)

    def _products(self, codes: list[Value], x: Value) -> Value:
        """Sums of products of a group of each row with one of a token."""
        xs = [load_splat(U32, self.rows, x + 4 * i).bitcast(I8) for i in range(len(codes))]
        start = None
        if has_corrections(self.form) and not self.form.has_minimum:
            start = load_splat(I32, self.rows, x + TokenGroups(self.form.group, self.args.tokens).correction)
        return code_products(self.form, codes, xs, start)

    def _add_scaled(self, total: Value, factors: list[Value], x: Value, sums: Value) -> None:
        """Add scaled sums of products to the running sums."""
        place = TokenGroups(self.form.group, self.args.tokens)
        scales = factors[0] * load_splat(F32, self.rows, x + place.scale)
        running = fma(total.to(F32), scales, load(F32, self.rows, sums))
        for minimum in factors[1:]:
            running = fma(minimum, load_splat(F32, self.rows, x + place.correction), running)
        store(running, sums)

    def _code_columns(self, group: Value) -> list[Value]:
        """The codes of a group: vectors with four codes of each row."""
        kind, quad = I8 if has_signed_codes(self.form) else U8, 4 * self.vector
        start = self.codes + group * (self.form.group // 16 * quad)
        quads = [self._columns(U32, start + at * quad) for at in range(self.form.group // 16)]
        return [column.bitcast(kind) for columns in quads for column in columns]

    def _columns(self, element: Element, address: Value) -> Iterator[Value]:
        """The columns of a matrix [rows, 4] whose rows were stored by fours."""
        return self._transposed(*(load(element, self.rows, address + r * self.vector) for r in range(4)))

    def _transposed(self, a: Value, b: Value, c: Value, d: Value) -> Iterator[Value]:
        """The columns of a matrix [rows, 4] in vectors of every fourth row."""
        n = self.rows
        pairs = [[_picked(x, y, (i, n + i, i + 1, n + i + 1)) for x, y in ((a, b), (c, d))] for i in (0, 2)]
        for low, high in pairs:
            yield _picked(low, high, (0, 1, n, n + 1))
            yield _picked(low, high, (2, 3, n + 2, n + 3))

    def _totals(self, token: Value) -> Value:
        """Results of the rows and a token: running sums, added up as `reduce_sum` does."""
        *sums, rest = (
            load(F32, self.rows, self.sums + (self.args.tokens * g + token) * self.vector)
            for g in range(self.groups + 1)
        )
        while len(sums) > 1:
            half = len(sums) // 2
            sums = [a + b for a, b in zip(sums[:half], sums[half:], strict=True)]
        return sums[0] + rest


def _picked(a: Value, b: Value, lanes: tuple[int, ...]) -> Value:
    """Lanes of the first four of two vectors, then of their next fours."""
    return shuffle(a, b, [lane + four for four in range(0, a.lanes, 4) for lane in lanes])
