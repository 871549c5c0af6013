"""Quantise activations to int8 blocks of 32 in the scratch memory of a call.

    d = max |x| / 127,  codes = round(x / d)      (per token and 32 values, as ggml's Q8_0, but d stays float32)

For every group of the weight type the scratch memory also holds d and a correction. For types with a zero point it is
-zero_point times the sum of the codes, the initial value of dot products of unsigned codes, an integer. For types with
minima it is -d times the sum of the codes. Panels hold d times the sum of the codes and the integer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from minillama.kernels.cpu.formats import Format
from minillama.kernels.cpu.matmul.code_products import has_corrections
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.simd import (
    F32,
    I8,
    I16,
    U32,
    Isa,
    Module,
    Value,
    ValueLike,
    abs_,
    const,
    load,
    loop,
    max_,
    min_,
    reduce,
    reduce_sum,
    round_,
    select,
    store,
    transpose,
)
from minillama.kernels.cpu.unpack_shuffled import SEGMENT

BLOCK = 32  # values that share a scale
PANEL_STEP = 8  # the last panel may have fewer tokens, a multiple of this
STEP = 256  # weights of a row that the GEMV and the skinny GEMM multiply at a time


@dataclass(frozen=True)
class RowLayout:
    """Layout for GEMV: one token after the other, each with codes, scales and corrections."""

    width: ValueLike  # K
    group: int

    @property
    def size(self) -> ValueLike:
        """Bytes of a token."""
        return self.width + self.width // self.group * 8

    def codes(self, token: Value, weight: Value) -> Value:
        """Address of int8 codes [K] from weight on."""
        return token + weight

    def scales(self, token: Value, weight: Value) -> Value:
        """Address of d, float32 [K/group], from the group of a weight on."""
        return token + self.width + weight // self.group * 4

    def corrections(self, token: Value, weight: Value) -> Value:
        """Address of the corrections, int32 or float32 [K/group], from the group of a weight on."""
        return token + self.width + self.width // self.group * 4 + weight // self.group * 4


def panel_tokens(isa: Isa) -> int:
    """Tokens of a whole panel: two vectors of floats."""
    return 32 if isa.has_avx512 else 16


def code_bytes(form: Format, isa: Isa) -> int:
    """Bytes of a code in the GEMM: two for codes above 127 on AVX2.

    There the sum of two products of bytes does not fit in 16 bits.
    """
    return 2 if form.codes_above_127 and isa is Isa.AVX2 else 1


@dataclass(frozen=True)
class PanelLayout:
    """Layout for GEMM: panels of `lanes` tokens.

    Four bytes of consecutive codes of a token are adjacent.
    """

    width: ValueLike  # K
    group: int
    lanes: ValueLike
    code_bytes: int = 1

    @property
    def size(self) -> ValueLike:
        """Bytes of a panel."""
        return (self.width * self.code_bytes + self.width // self.group * 12) * self.lanes

    def codes(self, panel: Value, weight: Value) -> Value:
        """Address of codes, int8 [K/4, lanes, 4] or int16 [K/2, lanes, 2]."""
        return panel + weight * self.code_bytes * self.lanes

    def scales(self, panel: Value, weight: Value) -> Value:
        """Address of d, float32 [K/group, lanes], from the group of a weight on."""
        return panel + self.width * self.code_bytes * self.lanes + weight // self.group * 4 * self.lanes

    def scaled_sums(self, panel: Value, weight: Value) -> Value:
        """Address of d sum(codes), float32 [K/group, lanes], from the group of a weight on."""
        return self.scales(panel, weight) + self.width // self.group * 4 * self.lanes

    def zero_corrections(self, panel: Value, weight: Value) -> Value:
        """Address of -zero_point sum(codes), int32 [K/group, lanes], from the group of a weight on."""
        return self.scales(panel, weight) + self.width // self.group * 8 * self.lanes


def define_quantised_rows(module: Module, name: str, form: Format) -> None:
    """`name(args, first, last)`: quantise tokens first to last - 1 into a `RowLayout`.

    The codes of whole steps are in the order of `form.permutation`.
    """
    order = form.permutation or tuple(range(STEP // SEGMENT))
    segments = len(order)

    def put(source: Value, token: Value, layout: RowLayout, first: Value, k: int, permuted: bool) -> None:
        d, codes = quantise_block(source + (first + k) * 4)
        for half in range(BLOCK // SEGMENT):
            run, segment = divmod(k // SEGMENT + half, segments)
            at = SEGMENT * (run * segments + order.index(segment)) if permuted else k + SEGMENT * half
            store(codes.permute(range(half * SEGMENT, (half + 1) * SEGMENT)).to(I8), layout.codes(token, first + at))
        starts = [first + (k + group) for group in range(0, BLOCK, form.group)]
        store_groups(form, d, codes, *([at(token, s) for s in starts] for at in (layout.scales, layout.corrections)))

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        layout = RowLayout(args.width, form.group)
        whole = args.width // STEP * STEP
        for t in loop(first, last):
            source, token = args.source + args.width * t * 4, args.x + layout.size * t
            for k in loop(0, whole, STEP):
                for block in range(0, STEP, BLOCK):
                    put(source, token, layout, k, block, permuted=True)
            for k in loop(whole, args.width, BLOCK):
                put(source, token, layout, k, 0, permuted=False)

    module.define(name, 3, body)


def store_groups(form: Format, d: Value, codes: Value, scales: Sequence[Value], corrections: Sequence[Value]) -> None:
    """Store the scale and the correction of each group of a block."""
    for g, (scale, correction) in enumerate(zip(scales, corrections, strict=True)):
        store(d, scale)
        if has_corrections(form):
            total = reduce_sum(codes.permute(range(g * form.group, (g + 1) * form.group)))
            store(d * total.to(F32) * -1.0 if form.has_minimum else total * -form.zero_point, correction)


def panel_counts(tokens: Value, most: int) -> tuple[Value, Value]:
    """Number of whole panels of `most` tokens, and tokens of a last one.

    They are a multiple of `PANEL_STEP`.
    """
    whole = (tokens + (PANEL_STEP - 1)) // most  # a panel that lacks less than a step counts as whole
    rest = (tokens - min_(tokens, whole * most) + (PANEL_STEP - 1)) // PANEL_STEP * PANEL_STEP
    return whole, rest


def _panel_lanes(tokens: Value, panel: Value, most: int) -> Value:
    whole, rest = panel_counts(tokens, most)
    return select(panel < whole, const(most), rest)


def define_quantised_panels(module: Module, name: str, form: Format) -> None:
    """`name(args, first, last)`: quantise panels first to last - 1; lanes after the last token are zeros."""
    most, size, group, zero_point = panel_tokens(module.isa), code_bytes(form, module.isa), form.group, form.zero_point

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        for p in loop(first, last):
            lanes = _panel_lanes(args.tokens, p, most)
            layout = PanelLayout(args.width, group, lanes, size)
            panel = args.x + PanelLayout(args.width, group, most, size).size * p
            for lane in loop(0, lanes):
                t = p * most + lane
                is_token = t < args.tokens
                source = args.source + args.width * select(is_token, t, 0) * 4
                for k in loop(0, args.width, BLOCK):
                    d, codes = quantise_block(source + k * 4)
                    d = select(is_token, d, 0.0)
                    words = codes.to(I8 if size == 1 else I16).bitcast(U32)
                    for i in range(words.lanes):
                        store(words[i], layout.codes(panel, k) + lane * 4 + lanes * (4 * i))
                    for g in range(BLOCK // group):
                        total = reduce_sum(codes.permute(range(g * group, (g + 1) * group)))
                        offset = lane * 4 + lanes * (4 * g)
                        store(d, layout.scales(panel, k) + offset)
                        store(d * total.to(F32), layout.scaled_sums(panel, k) + offset)
                        store(total * -zero_point, layout.zero_corrections(panel, k) + offset)

    module.define(name, 3, body)


def define_float_panels(module: Module, name: str) -> None:
    """`name(args, first, last)`: copy float32 [T, K] into panels [K, lanes].

    Lanes after the last token are zeros.
    """
    most = panel_tokens(module.isa)

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        bulk = args.width // SEGMENT * SEGMENT
        for p in loop(first, last):
            lanes = _panel_lanes(args.tokens, p, most)
            panel = args.x + args.width * p * (4 * most)
            for lane in loop(0, lanes, PANEL_STEP):
                tokens = [p * most + lane + i for i in range(PANEL_STEP)]
                is_token = [token < args.tokens for token in tokens]
                sources = [
                    args.source + args.width * select(valid, t, 0) * 4
                    for t, valid in zip(tokens, is_token, strict=True)
                ]
                for k in loop(0, bulk, SEGMENT):
                    rows = [
                        select(valid, load(F32, SEGMENT, source + k * 4), const(0.0, F32, SEGMENT))
                        for source, valid in zip(sources, is_token, strict=True)
                    ]
                    for i, column in enumerate(transpose(rows)):
                        store(column, panel + (k + i) * 4 * lanes + lane * 4)
                for k in loop(bulk, args.width):
                    for i, (source, valid) in enumerate(zip(sources, is_token, strict=True)):
                        value = select(valid, load(F32, 1, source + k * 4), 0.0)
                        store(value, panel + k * 4 * lanes + (lane + i) * 4)

    module.define(name, 3, body)


def define_no_op(module: Module, name: str) -> None:
    """`name(args, first, last)` for types that multiply with the float32 activations in place."""
    module.define(name, 3, lambda args, first, last: None)


def quantise_block(address: Value) -> tuple[Value, Value]:
    """d and the 32 codes (I32) of 32 float32 values in memory."""
    x = load(F32, BLOCK, address)
    amax = reduce(abs_(x), max_)
    inverse = select(const(0.0, F32) < amax, const(127.0, F32) / amax, 0.0)
    return amax * (1 / 127), round_(x * inverse)
