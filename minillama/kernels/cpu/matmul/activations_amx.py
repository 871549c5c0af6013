"""Activations as bfloat16 right operands of AMX tiles, in the scratch memory of a call."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.simd import (
    F32,
    TILE_BYTES,
    U32,
    Module,
    Value,
    ValueLike,
    alloca,
    bf16_to_f32,
    const,
    f32_to_bf16,
    if_,
    load,
    loop,
    select,
    store,
    transpose,
)

PANEL_TOKENS = 16  # tokens of a right operand
TILE_DEPTH = 32  # weights of a row in a tile


@dataclass(frozen=True)
class TileLayout:
    """Layout of the right operands: panels of 16 tokens, high terms before low ones."""

    width: ValueLike  # K
    bf16_terms: int

    @property
    def depth(self) -> ValueLike:
        """K rounded up to whole tiles."""
        return (self.width + (TILE_DEPTH - 1)) // TILE_DEPTH * TILE_DEPTH

    @property
    def size(self) -> ValueLike:
        """Bytes of a panel."""
        return self.depth * (2 * PANEL_TOKENS * self.bf16_terms)

    def operand(self, panel: Value, k: Value, term: int) -> Value:
        """Address of [K/2, 16, 2] bfloat16 of a panel from the k-th on."""
        return panel + self.depth * (2 * PANEL_TOKENS * term) + k * (2 * PANEL_TOKENS)


def define_activations(module: Module, name: str, bf16_terms: int) -> None:
    """`name(args, first, last)`: copy panels first to last - 1 of the activations into right operands.

    Values after the last token or after K are zeros.
    """

    def body(address: Value, first: Value, last: Value) -> None:
        args = MatmulArgs(address)
        layout = TileLayout(args.width, bf16_terms)
        spare = alloca(TILE_DEPTH * 4)
        bulk = args.width // TILE_DEPTH * TILE_DEPTH
        for p in loop(first, last):
            panel = args.x + layout.size * p
            tokens = [p * PANEL_TOKENS + lane for lane in range(PANEL_TOKENS)]
            is_token = [token < args.tokens for token in tokens]
            sources = [
                args.source + args.width * select(valid, t, 0) * 4 for t, valid in zip(tokens, is_token, strict=True)
            ]
            for k in loop(0, bulk, TILE_DEPTH):
                xs = (load(F32, TILE_DEPTH, source + k * 4) for source in sources)
                _store_right_operand(layout, panel, k, zip(is_token, xs, strict=True))
            with if_(bulk < args.width):
                xs = (_load_padded(source + bulk * 4, args.width - bulk, spare) for source in sources)
                _store_right_operand(layout, panel, bulk, zip(is_token, xs, strict=True))

    module.define(name, 3, body)


def _store_right_operand(layout: TileLayout, panel: Value, k: Value, tokens: Iterator[tuple[Value, Value]]) -> None:
    """Transpose 16 tokens of (is a token, values) into pairs of bfloat16."""
    terms = [bf16_terms(select(valid, x, const(0.0, F32, TILE_DEPTH)), layout.bf16_terms) for valid, x in tokens]
    for term in range(layout.bf16_terms):
        pairs = [of_token[term].bitcast(U32) for of_token in terms]
        for i, row in enumerate(transpose(pairs)):
            store(row, layout.operand(panel, k, term) + i * TILE_BYTES)


def _load_padded(address: Value, count: Value, spare: Value) -> Value:
    return pad(count, lambda i: load(F32, 1, address + i * 4), spare)


def pad(count: Value, read: Callable[[Value], Value], spare: Value) -> Value:
    """`count` values and zeros up to TILE_DEPTH; spare: memory for them."""
    store(const(0.0, F32, TILE_DEPTH), spare)
    for i in loop(0, count):
        store(read(i), spare + i * 4)
    return load(F32, TILE_DEPTH, spare)


def bf16_terms(x: Value, count: int) -> list[Value]:
    """Split x into a high and, if count is 2, a low bfloat16, as bits."""
    high = _round(x)
    return [high] if count == 1 else [high, _round(x - bf16_to_f32(high))]


def _round(x: Value) -> Value:
    half = x.lanes // 2
    return f32_to_bf16(x.permute(range(half)), x.permute(range(half, x.lanes)))
