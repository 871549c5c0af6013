"""GEMV: the product with one token or two (decode).

Memory bandwidth limits decoding. So a row's blocks are unpacked in registers, multiplied as bytes, four products a sum,
and scaled group by group:

    y = sum over groups of  scale dx (codes · x_codes - zero_point sum(x_codes)) - minimum dx sum(x_codes)

No type has both a zero point and minima. Several rows are computed at a time, so that each load of activations serves
all of them. These rows are far apart, so that the hardware prefetcher sees separate sequential streams. The skinny GEMM
has the same order of float operations.
"""

from collections.abc import Callable

from minillama.kernels.cpu.formats import FloatFormat, Format
from minillama.kernels.cpu.matmul.activations import RowLayout
from minillama.kernels.cpu.matmul.code_products import code_products, has_offsets, multiplied_codes, zero_point
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.simd import (
    F32,
    I8,
    Module,
    Value,
    Var,
    const,
    fma,
    load,
    loop,
    prefetch,
    reduce_sum,
    splat,
    store,
    zero_pad,
)
from minillama.kernels.cpu.unpack_shuffled import ShuffledBlocks

_UNROLL = 2  # independent accumulators of a row, to hide the latency of an FMA
_FLOAT_PRODUCTS = 4  # rows times tokens that are computed at a time for float weights
_PREFETCH_DISTANCE = 2048  # bytes ahead of the load: a memory access takes as long as some hundreds of instructions


def define_quantised(module: Module, name: str, form: Format, tokens: int) -> None:
    """`name(args, first, last)`: rows first to last - 1 for one token or two."""
    alone = 4 if form.blocks_per_load > 1 else form.rows
    rows = alone if tokens == 1 else 1  # the sums of two tokens and more rows do not fit in the registers of AVX2
    _define_by_rows(module, name, rows, lambda args, rows: _dot_rows(args, form, tokens, rows))


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
    blocks = args.width // form.weights
    bulk = blocks - blocks % form.blocks_per_load
    weights = [args.weights + row * args.row_bytes for row in rows]
    xs = [args.x + layout.size * t for t in range(tokens)]
    sums = [[_Accumulator(form) for _ in rows] for _ in xs]
    for block in loop(0, bulk, form.blocks_per_load):
        unpacked = []
        for start in (address + block * form.bytes for address in weights):
            for line in range(0, form.bytes * form.blocks_per_load, 64):
                prefetch(start + (_PREFETCH_DISTANCE + line))
            unpacked.append(form.unpack_gemv([start + i * form.bytes for i in range(form.blocks_per_load)]))
        for x, of_token in zip(xs, sums, strict=True):
            _accumulate(of_token, unpacked, layout, form, x, block)
    if form.blocks_per_load > 1:
        for block in loop(bulk, blocks):
            unpacked = [form.unpack_gemv([address + block * form.bytes]) for address in weights]
            for x, of_token in zip(xs, sums, strict=True):
                _accumulate(of_token, unpacked, layout, form, x, block)
    for t, of_token in enumerate(sums):
        for row, accumulator in zip(rows, of_token, strict=True):
            store(accumulator.result(form), args.y + (args.rows * t + row) * 4)


class _Accumulator:
    """Running sums of the dot product of a row and a token.

    dots: the sum of scale dx (codes · x_codes). offsets: the sum of scale dx sum(x_codes), which is multiplied by the
    zero point in the end, or of minimum dx sum(x_codes).
    """

    def __init__(self, form: Format) -> None:
        self.dots = Var(const(0.0, F32, 16))
        self.offsets = Var(const(0.0, F32, form.weights * form.blocks_per_load // form.group))

    def result(self, form: Format) -> Value:
        """The dot product."""
        dots = reduce_sum(self.dots.value)
        if not has_offsets(form):
            return dots
        factor = 1.0 if form.has_minimum else float(zero_point(form))
        return dots - reduce_sum(self.offsets.value) * factor


def _accumulate(
    sums: list[_Accumulator], unpacked: list[ShuffledBlocks], layout: RowLayout, form: Format, x: Value, block: Value
) -> None:
    """Add the products of some blocks of every row with a token."""
    weight = block * form.weights
    first = unpacked[0]
    lanes = first.scale.lanes
    d, x_sums = (load(F32, lanes, address(x, weight)) for address in (layout.scales, layout.scaled_sums))
    at, codes = 0, []
    for vector in (codes for group in first.code_groups for codes in group.codes):
        codes.append(load(I8, vector.lanes, layout.codes(x, weight + at)))
        at += vector.lanes
    for row, row_sums in zip(unpacked, sums, strict=True):
        scale, acc, x_codes = row.scale * d, row_sums.dots.value, iter(codes)
        for group in row.code_groups:
            vectors = [multiplied_codes(form, vector) for vector in group.codes]
            products = code_products(form, vectors, [next(x_codes) for _ in vectors])
            scales = scale_per_lane(scale, group.groups)
            acc = fma(zero_pad(products.to(F32), 16), zero_pad(scales, 16), acc)
        row_sums.dots.value = acc
        factor = row.scale if row.minimum is None else row.minimum
        offsets = row_sums.offsets
        offsets.value = fma(zero_pad(factor, offsets.lanes), zero_pad(x_sums, offsets.lanes), offsets.value)


def scale_per_lane(scale: Value, groups: list[int]) -> Value:
    """The scale of each group in the four lanes that hold its sums."""
    if scale.lanes == 1:
        return splat(scale, 4 * len(groups))
    return scale.permute([group for group in groups for _ in range(4)])


def define_float(module: Module, name: str, form: FloatFormat, tokens: int) -> None:
    """`name(args, first, last)` for a float type: float32 products, several rows at a time.

    A float32 activation takes at least as many bytes as a weight. Loading it for each row would dominate the time.
    """
    rows = _FLOAT_PRODUCTS // tokens
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
