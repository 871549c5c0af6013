"""Activations as the kernels multiply with them: int8, one scale for 32 neighbours, in the scratch memory of a call.

    d = max |x| / 127,  codes = round(x / d)      (per token and 32 neighbours, as ggml's Q8_0, but d stays float32)

Beside the codes lie, for every group of the weights' type: d; d times the sum of the codes, for types with minima or
shifted codes; and, for panels, -zero times the sum of the codes, from which the dot products of shifted codes start.
"""

from dataclasses import dataclass

from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.simd import (
    F32,
    I8,
    U32,
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

BLOCK = 32
PIECE = 16  # codes that an order moves together
PANEL = 32  # tokens side by side
STEP = 8  # the last panel may be narrower, by these


@dataclass(frozen=True)
class RowLayout:
    """Where things lie for a few tokens: token after token, without starts."""

    width: ValueLike  # K
    group: int

    @property
    def size(self) -> ValueLike:
        """Bytes of a token."""
        return self.width + self.width // self.group * 8

    def codes(self, token: Value, weight: Value) -> Value:
        """Address of the codes from a weight on."""
        return token + weight

    def scales(self, token: Value, weight: Value) -> Value:
        """Address of d for a weight's group and those behind it."""
        return token + self.width + weight // self.group * 4

    def sums(self, token: Value, weight: Value) -> Value:
        """Address of the sums for a weight's group and those behind it."""
        return token + self.width + self.width // self.group * 4 + weight // self.group * 4


@dataclass(frozen=True)
class PanelLayout:
    """Where things lie for many tokens: panels of `lanes` tokens side by side, four codes of a token together."""

    width: ValueLike  # K
    group: int
    lanes: ValueLike = PANEL

    @property
    def size(self) -> ValueLike:
        """Bytes of a panel."""
        return (self.width + self.width // self.group * 12) * self.lanes

    def codes(self, panel: Value, weight: Value) -> Value:
        """Address of [K/4, lanes, 4] codes from a weight on."""
        return panel + weight * self.lanes

    def scales(self, panel: Value, weight: Value) -> Value:
        """Address of [K/group, lanes] d from a weight's group on."""
        return panel + self.width * self.lanes + weight // self.group * 4 * self.lanes

    def sums(self, panel: Value, weight: Value) -> Value:
        """Address of [K/group, lanes] sums from a weight's group on."""
        return self.scales(panel, weight) + self.width // self.group * 4 * self.lanes

    def starts(self, panel: Value, weight: Value) -> Value:
        """Address of [K/group, lanes] starts from a weight's group on."""
        return self.scales(panel, weight) + self.width // self.group * 8 * self.lanes


def define_quantised_rows(module: Module, name: str, group: int, permutation: tuple[int, ...]) -> None:
    """`name(part, first, last)`: quantise tokens first to last - 1 into a RowLayout.

    order: of pieces of 16 codes, for as many weights as it tells of at a time; what is left over keeps its own.
    """
    pieces = BLOCK // PIECE
    chunk = max(PIECE * len(permutation), BLOCK)

    def put(source: Value, token: Value, layout: RowLayout, first: Value, k: int, ordered: bool) -> None:
        d, codes = _quantised(source + (first + k) * 4)
        for half in range(pieces):
            piece = k // PIECE + half
            at = PIECE * (permutation.index(piece) if ordered else piece)
            store(codes.permute(range(half * PIECE, (half + 1) * PIECE)).to(I8), layout.codes(token, first + at))
        for g in range(BLOCK // group):
            whole = reduce_sum(codes.permute(range(g * group, (g + 1) * group)))
            store(d, layout.scales(token, first + k) + 4 * g)
            store(d * whole.to(F32), layout.sums(token, first + k) + 4 * g)

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        layout = RowLayout(args.width, group)
        bulk = args.width - args.width % chunk if permutation else const(0)
        for t in loop(first, last):
            source, token = args.source + args.width * t * 4, args.x + layout.size * t
            if permutation:
                for k in loop(0, bulk, chunk):
                    for block in range(0, chunk, BLOCK):
                        put(source, token, layout, k, block, ordered=True)
            for k in loop(bulk, args.width, BLOCK):
                put(source, token, layout, k, 0, ordered=False)

    module.define(name, 3, body)


def panels(tokens: Value) -> tuple[Value, Value]:
    """How many panels are whole, and the lanes of one more: 0 if there is none, else a multiple of `STEP`."""
    whole = (tokens + (STEP - 1)) // PANEL  # one that lacks less than a step counts as whole
    return whole, (tokens - min_(tokens, whole * PANEL) + (STEP - 1)) // STEP * STEP


def _lanes(tokens: Value, panel: Value) -> Value:
    whole, rest = panels(tokens)
    return select(panel < whole, const(PANEL), rest)


def define_quantised_panels(module: Module, name: str, group: int, zero_point: int) -> None:
    """`name(part, first, last)`: quantise panels first to last - 1; tokens beyond the last one are zeros."""

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        for p in loop(first, last):
            lanes = _lanes(args.tokens, p)
            layout = PanelLayout(args.width, group, lanes)
            panel = args.x + PanelLayout(args.width, group).size * p
            for lane in loop(0, lanes):
                t = p * PANEL + lane
                is_token = t < args.tokens
                source = args.source + args.width * select(is_token, t, 0) * 4
                for k in loop(0, args.width, BLOCK):
                    d, codes = _quantised(source + k * 4)
                    d = select(is_token, d, 0.0)
                    words = codes.to(I8).bitcast(U32)
                    for i in range(BLOCK // 4):
                        store(words[i], layout.codes(panel, k) + lane * 4 + lanes * (4 * i))
                    for g in range(BLOCK // group):
                        whole = reduce_sum(codes.permute(range(g * group, (g + 1) * group)))
                        there = lane * 4 + lanes * (4 * g)
                        store(d, layout.scales(panel, k) + there)
                        store(d * whole.to(F32), layout.sums(panel, k) + there)
                        store(whole * -zero_point, layout.starts(panel, k) + there)

    module.define(name, 3, body)


def define_float_panels(module: Module, name: str) -> None:
    """`name(part, first, last)`: lay float32 [T, K] out as panels [K, lanes]; lanes beyond the last token are zeros."""

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        bulk = args.width // PIECE * PIECE
        for p in loop(first, last):
            lanes = _lanes(args.tokens, p)
            panel = args.x + args.width * p * (4 * PANEL)
            for lane in loop(0, lanes, STEP):
                tokens = [p * PANEL + lane + i for i in range(STEP)]
                is_token = [token < args.tokens for token in tokens]
                sources = [
                    args.source + args.width * select(r, t, 0) * 4 for t, r in zip(tokens, is_token, strict=True)
                ]

                for k in loop(0, bulk, PIECE):
                    rows = [
                        select(r, load(F32, PIECE, source + k * 4), const(0.0, F32, PIECE))
                        for source, r in zip(sources, is_token, strict=True)
                    ]
                    for i, column in enumerate(transpose(rows)):
                        store(column, panel + (k + i) * 4 * lanes + lane * 4)
                for k in loop(bulk, args.width):
                    for i, (source, r) in enumerate(zip(sources, is_token, strict=True)):
                        store(select(r, load(F32, 1, source + k * 4), 0.0), panel + k * 4 * lanes + (lane + i) * 4)

    module.define(name, 3, body)


def _quantised(address: Value) -> tuple[Value, Value]:
    """d and the 32 codes of float32 numbers in memory."""
    x = load(F32, BLOCK, address)
    top = reduce(abs_(x), max_)
    inverse = select(const(0.0, F32) < top, const(127.0, F32) / top, 0.0)
    return top * (1 / 127), round_(x * inverse)


def define_no_op(module: Module, name: str) -> None:
    """For types that multiply with float32 activations as they came."""
    module.define(name, 3, lambda args, first, last: None)
