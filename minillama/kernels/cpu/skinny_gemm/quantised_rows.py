"""Skinny GEMM of the quantised types: a vector holds values of eight rows.

Eight rows of W are unpacked into the first-level cache, a step of 256 weights at a time. Four codes of each row fill a
vector. It is multiplied with four codes of a token, repeated for all rows. So the sum of a group of weights needs no
sum across lanes. The codes of a group stay in registers for all tokens; the running sums of eight rows and a token, one
for each group of a step, are in memory.
"""

from collections.abc import Iterator

from minillama.kernels.cpu.formats import Format
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
    U8,
    U32,
    Element,
    Module,
    Value,
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
from minillama.kernels.cpu.skinny_gemm.row_blocks import MAX_TOKENS, ROWS, define_by_blocks, store_some
from minillama.kernels.cpu.skinny_gemm.token_groups import TokenGroups

_VECTOR = 4 * ROWS  # bytes


def define_quantised(module: Module, name: str, form: Format) -> None:
    """`name(args, first, last)`: rows first to last - 1 for all tokens, at most `MAX_TOKENS`."""

    define_by_blocks(module, name, lambda args: _RowBlock(args, form).multiply)


class _RowBlock:
    """Eight rows of W times all tokens; the GEMV has the same sums."""

    def __init__(self, args: MatmulArgs, form: Format) -> None:
        self.args, self.form, self.groups = args, form, STEP // form.group
        self.codes = alloca(ROWS * STEP)  # [ROWS, STEP]
        self.factors = [alloca(ROWS * self.groups * 4) for _ in range(1 + form.has_minimum)]  # [ROWS, groups]
        self.columns = [alloca(ROWS * self.groups * 4) for _ in self.factors]  # [groups, ROWS]: scales, minima
        self.sums = alloca((self.groups + 1) * MAX_TOKENS * _VECTOR)  # [groups + 1, T, ROWS]

    def multiply(self, first: Value, last: Value) -> None:
        """Compute the results of the rows from `first` on."""
        for i in loop(0, self.args.tokens * (self.groups + 1)):
            store(const(0.0, F32, ROWS), self.sums + i * _VECTOR)
        whole = self.args.width // STEP * STEP
        for weight in loop(0, whole, STEP):
            self._unpack(first, last, weight, STEP)
            self._add(weight, STEP)
        if self.form.weights < STEP:
            for weight in loop(whole, self.args.width, self.form.weights):
                self._unpack(first, last, weight, self.form.weights)
                self._add(weight, self.form.weights)
        for t in loop(0, self.args.tokens):
            store_some(self._totals(t), last - first, self.args.y + (self.args.rows * t + first) * 4)

    def _unpack(self, first: Value, last: Value, weight: Value, count: int) -> None:
        """Unpack `count` weights of each row, and prefetch those of the next eight rows."""
        form, args = self.form, self.args
        size = count // form.weights * form.bytes
        start = args.weights + weight // form.weights * form.bytes
        for r in loop(0, ROWS):
            row = start + min_(first + r, last - 1) * args.row_bytes
            for line in range(0, size, CACHE_LINE):
                prefetch(row + (args.row_bytes * ROWS + line))
            at, group = self.codes + r * STEP, r * (self.groups * 4)
            blocks = min(count // form.weights, form.blocks_per_load)
            for load_start in range(0, size, blocks * form.bytes):
                unpacked = form.unpack([row + (load_start + i * form.bytes) for i in range(blocks)])
                for vector in unpacked.codes:
                    store(multiplied_codes(form, vector), at)
                    at = at + vector.lanes
                for factor, to in zip((unpacked.scale, unpacked.minimum), self.factors, strict=False):
                    store(factor, to + group)
                group = group + 4 * unpacked.scale.lanes
        for g in loop(0, count // form.group, 4):
            for factors, columns in zip(self.factors, self.columns, strict=True):
                for i, column in enumerate(_load_columns(F32, factors + g * 4, self.groups * 4)):
                    store(column, columns + (g + i) * _VECTOR)

    def _add(self, weight: Value, count: int) -> None:
        """Add the products of `count` weights of each row, a whole step or a block."""
        form, tokens = self.form, self.args.tokens
        place = TokenGroups(form.group, tokens)
        for g in loop(0, count // form.group):
            codes = self._code_columns(g)
            factors = [load(F32, ROWS, columns + g * _VECTOR) for columns in self.columns]
            sums = self.sums + (g if count == STEP else const(self.groups)) * (tokens * _VECTOR)
            x = self.args.x + place.at(weight // form.group + g, 0)
            before = Var(self._products(codes, x))
            for t in loop(1, tokens):
                products = self._products(codes, x + t * place.size)
                self._add_scaled(before.value, factors, x + (t - 1) * place.size, sums + (t - 1) * _VECTOR)
                before.value = products
            self._add_scaled(before.value, factors, x + (tokens - 1) * place.size, sums + (tokens - 1) * _VECTOR)

    def _products(self, codes: list[Value], x: Value) -> Value:
        """Sums of products of a group of each row with one of a token."""
        xs = [load_splat(U32, ROWS, x + 4 * i).bitcast(I8) for i in range(len(codes))]
        return code_products(self.form, codes, xs)

    def _add_scaled(self, total: Value, factors: list[Value], x: Value, sums: Value) -> None:
        """Add scaled sums of products to the running sums."""
        form, place = self.form, TokenGroups(self.form.group, self.args.tokens)
        if has_corrections(form) and not form.has_minimum:
            total = total + load_splat(I32, ROWS, x + place.correction)
        scales = factors[0] * load_splat(F32, ROWS, x + place.scale)
        running = fma(total.to(F32), scales, load(F32, ROWS, sums))
        for minimum in factors[1:]:
            running = fma(minimum, load_splat(F32, ROWS, x + place.correction), running)
        store(running, sums)

    def _code_columns(self, group: Value) -> list[Value]:
        """The codes of a group: vectors with four codes of each row."""
        start, kind = self.codes + group * self.form.group, I8 if has_signed_codes(self.form) else U8
        quads = [_load_columns(U32, start + at, STEP) for at in range(0, self.form.group, 16)]
        return [column.bitcast(kind) for quad in quads for column in quad]

    def _totals(self, token: Value) -> Value:
        """Results of eight rows and a token: running sums, added up as `reduce_sum` does."""
        *sums, rest = (
            load(F32, ROWS, self.sums + (self.args.tokens * g + token) * _VECTOR) for g in range(self.groups + 1)
        )
        while len(sums) > 1:
            half = len(sums) // 2
            sums = [a + b for a, b in zip(sums[:half], sums[half:], strict=True)]
        return sums[0] + rest


def _load_columns(element: Element, address: Value, stride: int) -> Iterator[Value]:
    """The columns of a matrix of eight rows and four columns, `stride` bytes between rows."""
    rows = [
        concat(load(element, 4, address + r * stride), load(element, 4, address + (r + 4) * stride)) for r in range(4)
    ]
    a, b, c, d = rows
    pairs = [[_picked(x, y, (i, 8 + i, i + 1, 9 + i)) for x, y in ((a, b), (c, d))] for i in (0, 2)]
    for low, high in pairs:
        yield _picked(low, high, (0, 1, 8, 9))
        yield _picked(low, high, (2, 3, 10, 11))


def _picked(a: Value, b: Value, lanes: tuple[int, ...]) -> Value:
    """Lanes of the first halves of two vectors, then of their second halves."""
    return shuffle(a, b, [lane + half for half in (0, 4) for lane in lanes])
