"""The product with one token, or a few: every weight is read once and multiplied where it stands.

Decoding is bound by how fast memory delivers the weights, so a row's blocks are unpacked in registers, multiplied as
bytes, four products to a sum, and scaled group by group:

    y = sum over groups of  scale dx (codes · x_codes - zero sum(x_codes)) - minimum dx sum(x_codes)

No type has both a zero and minima. Some rows are read at a time, so that activations are loaded less often; they lie
apart, as even streams for the processor to read ahead in.
"""

from collections.abc import Callable

from minillama.kernels.cpu.matmul.activations import RowLayout
from minillama.kernels.cpu.matmul.formats import FloatFormat, Format, ShuffledBlocks
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.simd import (
    F32,
    I8,
    I32,
    Module,
    Value,
    Var,
    const,
    dot,
    fma,
    load,
    loop,
    prefetch,
    reduce_sum,
    splat,
    store,
    zero_pad,
)

_UNROLL = 2  # sums of a row that grow side by side, for one alone would wait for itself
_PLAIN_ROWS = 4  # times tokens that are computed together, where a weight is a float
_AHEAD = 2048  # bytes between what is read and what is asked for: memory takes as long as some hundreds of instructions


def define_quantised(module: Module, name: str, form: Format, tokens: int) -> None:
    """`name(part, first, last)`: rows first to last - 1 for a fixed number of tokens."""
    together = (
        4 if tokens == 1 and form.blocks_per_load > 1 else 2
    )  # as many as stay in registers with what unpacking takes
    _define_apart(module, name, together, lambda args, rows: _rows(args, form, tokens, rows))


def _define_apart(module: Module, name: str, together: int, compute: Callable[[MatmulArgs, list[Value]], None]) -> None:
    """`name(part, first, last)`: `compute` takes some rows at once, which lie apart, then what is left one by one."""

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        share = (last - first) // together
        for row in loop(first, first + share):
            compute(args, [row + share * i for i in range(together)])
        for row in loop(first + share * together, last):
            compute(args, [row])

    module.define(name, 3, body)


def _rows(args: MatmulArgs, form: Format, tokens: int, rows: list[Value]) -> None:
    """Some rows at once: what is loaded of the activations serves them all."""
    layout = RowLayout(args.width, form.group)
    blocks = args.width // form.weights
    bulk = blocks - blocks % form.blocks_per_load
    weights = [args.weights + row * args.row_bytes for row in rows]
    xs = [args.x + layout.size * t for t in range(tokens)]
    sums = [[_Sums(form) for _ in xs] for _ in rows]
    for block in loop(0, bulk, form.blocks_per_load):
        read = []
        for start in (address + block * form.bytes for address in weights):
            for line in range(0, form.bytes * form.blocks_per_load, 64):
                prefetch(start + (_AHEAD + line))
            read.append(form.unpack_gemv([start + i * form.bytes for i in range(form.blocks_per_load)]))
        _add(sums, read, layout, form, xs, block)
    if form.blocks_per_load > 1:
        for block in loop(bulk, blocks):
            _add(
                sums, [form.unpack_gemv([address + block * form.bytes]) for address in weights], layout, form, xs, block
            )
    for row, row_sums in zip(rows, sums, strict=True):
        for t, s in enumerate(row_sums):
            store(s.result(form), args.y + (args.rows * t + row) * 4)


class _Sums:
    """What the product of a row and a token has come to so far."""

    def __init__(self, form: Format) -> None:
        self.dots = Var(const(0.0, F32, 16))
        self.shares = Var(const(0.0, F32, form.weights * form.blocks_per_load // form.group))

    def result(self, form: Format) -> Value:
        """The shares are scale dx sum(x_codes), to be taken `zero` times, or minimum dx sum(x_codes)."""
        return reduce_sum(self.dots.value) - reduce_sum(self.shares.value) * (
            1.0 if form.minimum else float(form.zero_point)
        )


def _add(
    sums: list[list[_Sums]], read: list[ShuffledBlocks], layout: RowLayout, form: Format, xs: list[Value], block: Value
) -> None:
    """Some blocks' weights of every row, for every token."""
    weight = block * form.weights
    first = read[0]
    lanes = first.scale.lanes
    for t, x in enumerate(xs):
        d, x_sums = (load(F32, lanes, place(x, weight)) for place in (layout.scales, layout.sums))
        at, codes = 0, []
        for vector in (codes for run in first.code_groups for codes in run.codes):
            codes.append(load(I8, vector.lanes, layout.codes(x, weight + at)))
            at += vector.lanes
        for row, found in zip(read, sums, strict=True):
            scale, done, x_codes = row.scale * d, found[t].dots.value, iter(codes)
            for run in row.code_groups:
                products = const(0, I32, run.codes[0].lanes // 4)
                for vector in run.codes:
                    products = dot(products, vector, next(x_codes), form.codes_above_127)
                spread = _spread(scale, run.groups)
                done = fma(zero_pad(products.to(F32), 16), zero_pad(spread, 16), done)
            found[t].dots.value = done
            taken = row.scale if row.minimum is None else row.minimum
            shares = found[t].shares
            shares.value = fma(zero_pad(taken, shares.lanes), zero_pad(x_sums, shares.lanes), shares.value)


def _spread(scale: Value, groups: list[int]) -> Value:
    """Each group's scale in the four lanes that hold its sums."""
    if scale.lanes == 1:
        return splat(scale, 4 * len(groups))
    return scale.permute([group for group in groups for _ in range(4)])


def define_float(module: Module, name: str, plain: FloatFormat, tokens: int) -> None:
    """The same for a type without blocks: float32 times float32, of several rows at a time.

    A float32 activation is as large as a weight or larger: without sharing them, they would be what takes the time.
    """
    together = max(1, _PLAIN_ROWS // tokens)
    _define_apart(module, name, together, lambda args, rows: _plain_rows(args, plain, tokens, rows))


def _plain_rows(args: MatmulArgs, plain: FloatFormat, tokens: int, rows: list[Value]) -> None:
    step = 16 * _UNROLL
    bulk = args.width - args.width % step
    weights = [args.weights + row * args.row_bytes for row in rows]
    xs = [args.x + args.width * t * 4 for t in range(tokens)]
    sums = [[[Var(const(0.0, F32, 16)) for _ in range(_UNROLL)] for _ in xs] for _ in rows]
    rest = [[Var(const(0.0, F32)) for _ in xs] for _ in rows]
    for k in loop(0, bulk, step):
        for address in weights:
            for line in range(0, step * plain.bytes, 64):
                prefetch(address + k * plain.bytes + (_AHEAD + line))
        for u in range(_UNROLL):
            x = [load(F32, 16, address + (k + 16 * u) * 4) for address in xs]
            for address, row_sums in zip(weights, sums, strict=True):
                w = plain.load_f32(16, address + (k + 16 * u) * plain.bytes)
                for t, registers in enumerate(row_sums):
                    registers[u].value = fma(w, x[t], registers[u].value)
    for k in loop(bulk, args.width):
        for address, row_rest in zip(weights, rest, strict=True):
            w = plain.load_f32(1, address + k * plain.bytes)
            for x_address, register in zip(xs, row_rest, strict=True):
                register.value = fma(w, load(F32, 1, x_address + k * 4), register.value)
    for row, row_sums, row_rest in zip(rows, sums, rest, strict=True):
        for t, registers in enumerate(row_sums):
            found = reduce_sum(registers[0].value + registers[1].value) + row_rest[t].value
            store(found, args.y + (args.rows * t + row) * 4)
