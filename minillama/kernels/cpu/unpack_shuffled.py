"""Unpack blocks for GEMV in the order that takes the fewest instructions.

The activations of the types below are permuted to match, see `matmul.activations`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gguf import GGMLQuantizationType as Type

from minillama.gguf.block_layouts import LAYOUTS
from minillama.kernels.cpu import unpack_blocks
from minillama.kernels.cpu.simd import U8, Value, concat, load, lookup, shuffle
from minillama.kernels.cpu.unpack_blocks import IQ4_CODE_BOOK, Unpacked

SEGMENT = 16  # codes that a permutation moves as one


class CodeGroup(NamedTuple):
    """Vectors of codes with equal groups: their dot products add up lane by lane."""

    codes: list[Value]
    groups: list[int]  # group of the 16 weights that each four lanes of the sums come from


class ShuffledBlocks(NamedTuple):
    """Consecutive weights in registers, in the order that takes the fewest instructions.

    The activations are permuted to match.
    """

    code_groups: list[CodeGroup]
    scale: Value
    minimum: Value | None = None


# Permutations of activations: entry i is the segment of 16 weights that stands at place i.
IN_ORDER: tuple[int, ...] = ()
LOW_NIBBLES_FIRST = (0, 2, 4, 6, 1, 3, 5, 7)  # the low nibbles of four blocks, then their high nibbles
Q4_K_PERMUTATION = (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)


def shuffled_nibbles(
    kind: Type, unpack: Callable[[Sequence[Value]], Unpacked], code_book: Sequence[int] | None = None
) -> Callable[[Sequence[Value]], ShuffledBlocks]:
    """`unpack_shuffled` of a type with 16 bytes of nibbles: low ones, then high ones."""
    at = LAYOUTS[kind].qs

    def unpack_shuffled(blocks: Sequence[Value]) -> ShuffledBlocks:
        raw = concat(*(load(U8, 16, block + at) for block in blocks))
        codes = [raw & 15, raw >> 4]
        if code_book is not None:
            codes = [lookup(code_book, c) for c in codes]
        in_order = unpack(blocks)  # only its scales are used: LLVM removes the rest
        return ShuffledBlocks([CodeGroup(codes, [0, 1, 2, 3])], in_order.scale, in_order.minimum)

    return unpack_shuffled


def q4_k_shuffled(blocks: Sequence[Value]) -> ShuffledBlocks:
    (block,), at = blocks, LAYOUTS[Type.Q4_K].qs
    near, far = (load(U8, 64, block + at + 64 * i) for i in range(2))
    indices = [[32 * group + 16 * half + i for group in range(4) for i in range(16)] for half in range(2)]
    halves = [shuffle(near, far, lanes) for lanes in indices]
    in_order = unpack_blocks.q4_k(blocks)
    low, high = [half & 15 for half in halves], [half >> 4 for half in halves]
    groups = [CodeGroup(low, [0, 2, 4, 6]), CodeGroup(high, [1, 3, 5, 7])]
    return ShuffledBlocks(groups, in_order.scale, in_order.minimum)


def iq4_xs_shuffled(blocks: Sequence[Value]) -> ShuffledBlocks:
    (block,), at = blocks, LAYOUTS[Type.IQ4_XS].qs
    groups = []
    for i in range(2):
        raw = load(U8, 64, block + at + 64 * i)
        codes = [lookup(IQ4_CODE_BOOK, raw & 15), lookup(IQ4_CODE_BOOK, raw >> 4)]
        groups.append(CodeGroup(codes, [4 * i + q for q in range(4)]))
    return ShuffledBlocks(groups, unpack_blocks.iq4_xs(blocks).scale)
