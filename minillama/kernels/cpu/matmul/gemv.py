"""GEMV: the product with one token or two (decode).

Memory bandwidth limits decoding. So a row's blocks are unpacked in registers and multiplied as bytes. The sum of a
group of weights is an exact integer, and is scaled as such:

    y = sum over groups of  scale dx (codes · x_codes - zero_point sum(x_codes)) - minimum dx sum(x_codes)

No type has both a zero point and minima. A step is 256 weights of a row. It adds to 8 or 16 running sums, one for each
of its groups. The blocks after the last whole step have one more running sum. The skinny GEMM has the same order of
float operations.

Several rows are computed at a time, so that each load of activations serves all of them. These rows are far apart, so
that the hardware prefetcher sees separate sequential streams.
"""

from collections.abc import Callable

from minillama.kernels.cpu.formats import FloatFormat, Format
from minillama.kernels.cpu.matmul.activations import STEP, RowLayout
from minillama.kernels.cpu.matmul.code_products import (
    Factors,
    code_products,
    has_corrections,
    in_single_groups,
    multiplied_codes,
    sum_groups,
)
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.simd import (
    F32,
    I8,
    I32,
    Isa,
    Module,
    Value,
    Var,
    concat,
    const,
    current_isa,
    fma,
    load,
    loop,
    prefetch,
    reduce_sum,
    store,
)
from minillama.kernels.cpu.unpack_shuffled import CodeGroup, ShuffledBlocks

_UNROLL = 2  # independent accumulators of a row, to hide the latency of an FMA
_PREFETCH_DISTANCE = 2048  # bytes ahead of the load: a memory access takes as long as some hundreds of instructions


def define_quantised(module: Module, name: str, form: Format, tokens: int) -> None:
    """`name(args, first, last)`: rows first to last - 1 for one token or two."""
    rows = rows_at_a_time(form, tokens, module.isa)
    _define_by_rows(module, name, rows, lambda args, rows: _dot_rows(args, form, tokens, rows))


def rows_at_a_time(form: Format, tokens: int, isa: Isa) -> int:
    """Rows that a quantised GEMV computes together."""
    if isa.is_neon:  # a step fills its registers of 16 bytes
        return 1
    alone = 4 if form.blocks_per_load > 1 else form.rows
    return alone if tokens == 1 else 1  # the sums of two tokens and more rows do not fit in the registers of AVX2


def float_products(isa: Isa) -> int:
    """Rows times tokens that are computed at a time for float weights."""
    return 2 if isa.is_neon else 4


def _define_by_rows(module: Module, name: str, count: int, compute: Callable[[MatmulArgs, list[Value]], None]) -> None:
    """`name(args, first, last)`: call `compute` with `count` distant rows at a time, then with single rows."""

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        stride = (last - first) // count
        for row in loop(first, first + stride):
            compute(args, [row + stride * i for i in range(count)])
        for row in loop(first + stride * count, last):
            compute(args, [row])

    module.define(name, 3, body)


def _dot_rows(args: MatmulArgs, form: Format, tokens: int, rows: list[Value]) -> None:
    """Dot products of some rows with all tokens."""
    layout = RowLayout(args.width, form.group)
    weights = [args.weights + row * args.row_bytes for row in rows]
    xs = [args.x + layout.size * t for t in range(tokens)]
    sums = [[_RunningSums(form, layout) for _ in rows] for _ in xs]
    whole = args.width // STEP * STEP
    for weight in loop(0, whole, STEP):
        for r, row in enumerate(weights):
            start = row + weight // form.weights * form.bytes
            for line in range(0, STEP // form.weights * form.bytes, 64):
                prefetch(start + (_PREFETCH_DISTANCE + line))
            unpacked = _unpack_step(form, start)
            for x, of_token in zip(xs, sums, strict=True):
                of_token[r].add_step(unpacked, x, weight)
    if form.weights < STEP:
        for weight in loop(whole, args.width, form.weights):
            for r, row in enumerate(weights):
                unpacked = form.unpack_gemv([row + weight // form.weights * form.bytes])
                for x, of_token in zip(xs, sums, strict=True):
                    of_token[r].add_block(unpacked, x, weight)
    for t, of_token in enumerate(sums):
        for row, of_row in zip(rows, of_token, strict=True):
            store(of_row.total(), args.y + (args.rows * t + row) * 4)


def _unpack_step(form: Format, start: Value) -> ShuffledBlocks:
    """The 256 weights of a step: one load or two."""
    count = form.blocks_per_load
    loads = [
        form.unpack_gemv([start + (first + i) * form.bytes for i in range(count)])
        for first in range(0, STEP // form.weights, count)
    ]
    groups = form.weights * count // form.group
    code_groups = [
        CodeGroup(group.codes, [number + groups * i for number in group.groups])
        for i, part in enumerate(loads)
        for group in part.code_groups
    ]
    minimum = concat(*(part.minimum for part in loads)) if form.has_minimum else None
    return ShuffledBlocks(code_groups, concat(*(part.scale for part in loads)), minimum)


class _RunningSums:
    """Those of the dot product of a row and a token."""

    def __init__(self, form: Format, layout: RowLayout) -> None:
        self._form, self._layout = form, layout
        self._sums = Var(const(0.0, F32, STEP // form.group))
        self._rest = Var(const(0.0, F32))

    def add_step(self, unpacked: ShuffledBlocks, x: Value, weight: Value) -> None:
        """Add the products of the 256 weights from `weight` on: each sum has one group."""
        factors, at = [], weight
        for group in unpacked.code_groups:
            lanes = group.codes[0].lanes
            xs = [load(I8, lanes, self._layout.codes(x, at + lanes * i)) for i in range(len(group.codes))]
            factors.append(Factors([multiplied_codes(self._form, vector) for vector in group.codes], xs, group.groups))
            at = at + lanes * len(xs)
        factors = in_single_groups(factors) if current_isa().is_neon else factors
        products = [(code_products(self._form, each.codes, each.xs), each.groups) for each in factors]
        self._sums.value = self._scaled(sum_groups(products), unpacked, x, weight, self._sums.value)

    def add_block(self, unpacked: ShuffledBlocks, x: Value, weight: Value) -> None:
        """Add the products of a block to the last sum, group by group."""
        form, products, at = self._form, [], weight
        for group in unpacked.code_groups:
            (codes,) = group.codes
            xs = load(I8, codes.lanes, self._layout.codes(x, at))
            products.append(code_products(form, [multiplied_codes(form, codes)], [xs]))
            at = at + codes.lanes
        lanes = form.group // 4
        for i in range(form.weights // form.group):
            product = products[i * lanes // products[0].lanes]
            first = i * lanes % product.lanes
            total = reduce_sum(product.permute(range(first, first + lanes)))
            of_group = ShuffledBlocks([], _lane(unpacked.scale, i), _lane(unpacked.minimum, i))
            self._rest.value = self._scaled(total, of_group, x, weight + i * form.group, self._rest.value)

    def _scaled(self, total: Value, unpacked: ShuffledBlocks, x: Value, weight: Value, to: Value) -> Value:
        """Running sums and the scaled sums of some groups."""
        form, layout, lanes = self._form, self._layout, total.lanes
        at = layout.corrections(x, weight)
        if has_corrections(form) and not form.has_minimum:
            total = total + load(I32, lanes, at)
        to = fma(total.to(F32), unpacked.scale * load(F32, lanes, layout.scales(x, weight)), to)
        return to if unpacked.minimum is None else fma(unpacked.minimum, load(F32, lanes, at), to)

    def total(self) -> Value:
        """The dot product."""
        return reduce_sum(self._sums.value) + self._rest.value


def _lane(values: Value | None, lane: int) -> Value | None:
    return values if values is None or values.lanes == 1 else values[lane]


def define_float(module: Module, name: str, form: FloatFormat, tokens: int) -> None:
    """`name(args, first, last)` for a float type: float32 products, several rows at a time.

    A float32 activation takes at least as many bytes as a weight. Loading it for each row would dominate the time.
    """
    rows = float_products(module.isa) // tokens
    _define_by_rows(module, name, rows, lambda args, rows: _dot_float_rows(args, form, tokens, rows))


def _dot_float_rows(args: MatmulArgs, form: FloatFormat, tokens: int, rows: list[Value]) -> None:
    step = 16 * _UNROLL
    bulk = args.width - args.width % step
    weights = [args.weights + row * args.row_bytes for row in rows]
    xs = [args.x + args.width * t * 4 for t in range(tokens)]
    products = [(address, x) for x in xs for address in weights]
    sums = [[Var(const(0.0, F32, 16)) for _ in range(_UNROLL)] for _ in products]
    tails = [Var(const(0.0, F32)) for _ in products]
    for k in loop(0, bulk, step):
        for address in weights:
            for line in range(0, step * form.bytes, 64):
                prefetch(address + k * form.bytes + (_PREFETCH_DISTANCE + line))
        for u in range(_UNROLL):
            for (address, x), accumulators in zip(products, sums, strict=True):
                w = form.load_f32(16, address + (k + 16 * u) * form.bytes)
                accumulators[u].value = fma(w, load(F32, 16, x + (k + 16 * u) * 4), accumulators[u].value)
    for k in loop(bulk, args.width):
        for (address, x), tail in zip(products, tails, strict=True):
            tail.value = fma(form.load_f32(1, address + k * form.bytes), load(F32, 1, x + k * 4), tail.value)
    places = [args.rows * t + row for t in range(tokens) for row in rows]
    for place, accumulators, tail in zip(places, sums, tails, strict=True):
        store(reduce_sum(accumulators[0].value + accumulators[1].value) + tail.value, args.y + place * 4)
