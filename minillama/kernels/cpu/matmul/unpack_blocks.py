"""What lies in a block: for every type of tensor, how its bytes become codes, scales and minima in registers.

A quantised weight is scale (code - zero) - minimum, with one scale and one minimum for a group of 16 or 32 neighbours.
Codes come out as unsigned bytes in the order of the weights, 64 to a vector: signed types are shifted by `zero`, for
the processor multiplies unsigned by signed bytes. Layouts: ggml's block formats; `kernels/decode.py` is the twin.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type

from minillama.gguf.block_layouts import IQ4_VALUES, MXFP4_DOUBLED_VALUES
from minillama.kernels.cpu.simd import (
    F32,
    I8,
    I32,
    U8,
    U16,
    U32,
    U64,
    Value,
    concat,
    const,
    const_vector,
    f16_to_f32,
    load,
    load_splat,
    lookup,
    select,
    shuffle,
    vector,
)

_WORDS = 32  # of 16 bits in a vector
SIGNED_OFFSET = 128  # what is added to signed bytes
IQ4 = [int(entry) + SIGNED_OFFSET for entry in IQ4_VALUES]
MXFP4 = [int(entry) + 12 for entry in MXFP4_DOUBLED_VALUES]


class Unpacked(NamedTuple):
    """Neighbouring weights in registers; scale and minimum have a lane for each group."""

    codes: list[Value]  # U8 x 64, or x 32 for a block alone
    scale: Value
    minimum: Value | None = None


class CodeGroup(NamedTuple):
    """Vectors of codes whose products with activations may be added up lane by lane, for their groups are the same."""

    codes: list[Value]
    groups: list[int]  # of the 16 weights that each four lanes of the sums come from


class ShuffledBlocks(NamedTuple):
    """Neighbouring weights in registers in the order that costs least; the activations are laid out to match."""

    code_groups: list[CodeGroup]
    scale: Value
    minimum: Value | None = None


# Orders of activations in pieces of 16: vector by vector, which piece of the weights' own order stands where.
IN_ORDER: tuple[int, ...] = ()
LOW_NIBBLES_FIRST = (0, 2, 4, 6, 1, 3, 5, 7)  # of four blocks, first their low nibbles, then their high ones
Q4_K_PERMUTATION = (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)


def _halves(kind: Type, blocks: Sequence[Value], at: int) -> Value:
    """The float16 at byte `at` of each block; four neighbours' are picked from what two loads bring."""
    size = GGML_QUANT_SIZES[kind][1]
    if len(blocks) == 4 and size % 2 == 0:
        last = 3 * size + at + 2 - 2 * _WORDS  # from where the second vector ends with the last block's
        words = [(i * size + at) // 2 for i in range(4)]
        near = load(U16, _WORDS, blocks[0])
        if last <= 0:
            return f16_to_f32(near.permute(words))
        far = load(U16, _WORDS, blocks[0] + last)
        return f16_to_f32(shuffle(near, far, [w if w < _WORDS else w - last // 2 + _WORDS for w in words]))
    return f16_to_f32(vector([load(U16, 1, block + at) for block in blocks]))


def _nibbles(blocks: Sequence[Value], at: int) -> list[Value]:
    """16 bytes of each block: 16 low nibbles, then 16 high ones; two blocks fill a vector."""
    if len(blocks) == 1:
        raw = load(U8, 16, blocks[0] + at)
        return [concat(raw & 15, raw >> 4)]
    found = []
    for a, b in zip(blocks[::2], blocks[1::2], strict=True):
        raw = concat(load(U8, 16, a + at), load(U8, 16, b + at))
        doubled = raw.permute([*range(16), *range(16), *range(16, 32), *range(16, 32)])
        found.append(_masked(doubled.bitcast(U32) >> const_vector([0] * 4 + [4] * 4 + [0] * 4 + [4] * 4, U32), 15))
    return found


def _two(raw: Value, left: tuple[int, int] | None = None, right: tuple[int, int] | None = None) -> Value:
    """32 bytes twice over, the first half shifted by one number of bits and the second by another."""
    doubled = concat(raw, raw).bitcast(U32)
    if left is not None:
        return doubled << const_vector([left[0]] * 8 + [left[1]] * 8, U32)
    return doubled >> const_vector([right[0]] * 8 + [right[1]] * 8, U32)


def _masked(words: Value, bits: int) -> Value:
    """The same bits of every byte; shifts of 32-bit words leave their neighbours' bits in the others."""
    return (words & (bits * 0x01010101)).bitcast(U8)


def _bit(raw: Value, plane: int, to: int) -> Value:
    """Bits `plane` and `plane + 1` of 32 bytes, each moved to bit `to`: 64 bytes."""
    first, second = to - plane, to - plane - 1
    moved = _two(raw, left=(first, second)) if second >= 0 else _two(raw, right=(-first, -second))
    return _masked(moved, 1 << to)


def _fifth_bits(blocks: Sequence[Value], at: int) -> list[Value]:
    """32 bits of each block, as 0 or 16 in a byte each."""
    found = []
    for block in blocks:
        bytes_ = load(U8, 4, block + at).permute([i // 8 for i in range(32)])
        found.append(
            select((bytes_ & const_vector([1 << i % 8 for i in range(32)], U8)).equals(0), const(0, U8, 32), 16)
        )
    return found if len(found) == 1 else [concat(a, b) for a, b in zip(found[::2], found[1::2], strict=True)]


def q4_0(blocks: Sequence[Value]) -> Unpacked:
    return Unpacked(_nibbles(blocks, 2), _halves(Type.Q4_0, blocks, 0))


def q4_1(blocks: Sequence[Value]) -> Unpacked:
    return Unpacked(_nibbles(blocks, 4), _halves(Type.Q4_1, blocks, 0), _halves(Type.Q4_1, blocks, 2) * -1.0)


def q5_0(blocks: Sequence[Value]) -> Unpacked:
    codes = [a | b for a, b in zip(_nibbles(blocks, 6), _fifth_bits(blocks, 2), strict=True)]
    return Unpacked(codes, _halves(Type.Q5_0, blocks, 0))


def q5_1(blocks: Sequence[Value]) -> Unpacked:
    codes = [a | b for a, b in zip(_nibbles(blocks, 8), _fifth_bits(blocks, 4), strict=True)]
    return Unpacked(codes, _halves(Type.Q5_1, blocks, 0), _halves(Type.Q5_1, blocks, 2) * -1.0)


def q8_0(blocks: Sequence[Value]) -> Unpacked:
    codes = [load(U8, 32, block + 2) ^ 0x80 for block in blocks]
    if len(codes) > 1:
        codes = [concat(a, b) for a, b in zip(codes[::2], codes[1::2], strict=True)]
    return Unpacked(codes, _halves(Type.Q8_0, blocks, 0))


def iq4_nl(blocks: Sequence[Value]) -> Unpacked:
    return Unpacked([lookup(IQ4, codes) for codes in _nibbles(blocks, 2)], _halves(Type.IQ4_NL, blocks, 0))


def mxfp4(blocks: Sequence[Value]) -> Unpacked:
    exponent = vector([load(U8, 1, block).to(I32) for block in blocks])
    # 2^(e - 128); the two smallest are subnormal floats, which the exponent field alone cannot say
    bits = select(exponent < 1, const(0x00200000, I32, len(blocks)), (exponent - 1) << 23)
    bits = select(exponent.equals(1), const(0x00400000, I32, len(blocks)), bits)
    return Unpacked([lookup(MXFP4, codes) for codes in _nibbles(blocks, 1)], bits.bitcast(F32))


def q2_k(blocks: Sequence[Value]) -> Unpacked:
    (block,) = blocks
    packed = load(U8, 16, block)
    d, dmin = (f16_to_f32(load_splat(U16, 16, block + at)) for at in (80, 82))
    codes = []
    for half in range(2):
        raw = load(U8, 32, block + 16 + 32 * half)
        codes += [_masked(_two(raw, right=shifts), 3) for shifts in ((0, 2), (4, 6))]
    return Unpacked(codes, (packed & 15).to(F32) * d, (packed >> 4).to(F32) * dmin)


def q3_k(blocks: Sequence[Value]) -> Unpacked:
    (block,) = blocks
    mask = load(U8, 32, block)
    codes = []
    for half in range(2):
        raw = load(U8, 32, block + 32 + 32 * half)
        for i, shifts in enumerate(((0, 2), (4, 6))):
            codes.append(_masked(_two(raw, right=shifts), 3) | _bit(mask, 4 * half + 2 * i, 2))
    low, high = load(U64, 1, block + 96), load(U32, 1, block + 104).to(U64)
    tops = [((high >> shift) & 0x03030303) << 4 for shift in (0, 2, 4, 6)]
    first = (low & 0x0F0F0F0F0F0F0F0F) | tops[0] | (tops[1] << 32)
    second = ((low >> 4) & 0x0F0F0F0F0F0F0F0F) | tops[2] | (tops[3] << 32)
    scale = vector([first, second]).bitcast(U8).to(F32) - 32.0
    return Unpacked(codes, scale * f16_to_f32(load_splat(U16, 16, block + 108)))


def _six_bits(block: Value, at: int) -> tuple[Value, Value]:
    """The 8 scales and 8 minima in the 12 bytes of Q4_K and Q5_K, as float32."""
    first, second, third = (load(U32, 1, block + at + 4 * i) for i in range(3))
    scale = [first & 0x3F3F3F3F, (third & 0x0F0F0F0F) | ((first >> 2) & 0x30303030)]
    minimum = [second & 0x3F3F3F3F, ((third >> 4) & 0x0F0F0F0F) | ((second >> 2) & 0x30303030)]
    return vector(scale).bitcast(U8).to(F32), vector(minimum).bitcast(U8).to(F32)


def q4_k(blocks: Sequence[Value]) -> Unpacked:
    (block,) = blocks
    scale, minimum = _six_bits(block, 4)
    codes = [_masked(_two(load(U8, 32, block + 16 + 32 * i), right=(0, 4)), 15) for i in range(4)]
    d, dmin = (f16_to_f32(load_splat(U16, 8, block + at)) for at in (0, 2))
    return Unpacked(codes, scale * d, minimum * dmin)


def q5_k(blocks: Sequence[Value]) -> Unpacked:
    (block,) = blocks
    scale, minimum = _six_bits(block, 4)
    bits = load(U8, 32, block + 16)
    codes = []
    for i in range(4):
        raw = load(U8, 32, block + 48 + 32 * i)
        codes.append(_masked(_two(raw, right=(0, 4)), 15) | _bit(bits, 2 * i, 4))
    d, dmin = (f16_to_f32(load_splat(U16, 8, block + at)) for at in (0, 2))
    return Unpacked(codes, scale * d, minimum * dmin)


def q6_k(blocks: Sequence[Value]) -> Unpacked:
    (block,) = blocks
    codes = []
    for half in range(2):
        low, high = load(U8, 64, block + 64 * half), load(U8, 32, block + 128 + 32 * half)
        codes.append((low & 15) | _masked(_two(high, left=(4, 2)), 0x30))
        codes.append((low >> 4) | _masked(_two(high, right=(0, 2)), 0x30))
    scale = load(I8, 16, block + 192).to(F32)
    return Unpacked(codes, scale * f16_to_f32(load_splat(U16, 16, block + 208)))


def iq4_xs(blocks: Sequence[Value]) -> Unpacked:
    (block,) = blocks
    low = (load_splat(U32, 8, block + 4) >> const_vector(range(0, 32, 4), U32)) & 15
    high = (load_splat(U16, 8, block + 2).to(U32) >> const_vector(range(0, 16, 2), U32)) & 3
    scale = (low | (high << 4)).to(F32) - 32.0
    codes = _nibbles([block + 16 * i for i in range(8)], 8)
    return Unpacked([lookup(IQ4, c) for c in codes], scale * f16_to_f32(load_splat(U16, 8, block)))


def shuffled_nibbles(
    at: int, unpack: Callable[[Sequence[Value]], Unpacked], entries: Sequence[int] | None = None
) -> Callable[[Sequence[Value]], ShuffledBlocks]:
    """The shortcut of a type of 16 bytes of nibbles: what four blocks' bytes hold below, and what above."""

    def unpack_shuffled(blocks: Sequence[Value]) -> ShuffledBlocks:
        raw = concat(*(load(U8, 16, block + at) for block in blocks))
        codes = [raw & 15, raw >> 4]
        if entries is not None:
            codes = [lookup(entries, c) for c in codes]
        rest = unpack(blocks)
        return ShuffledBlocks([CodeGroup(codes, [0, 1, 2, 3])], rest.scale, rest.minimum)

    return unpack_shuffled


def q4_k_shuffled(blocks: Sequence[Value]) -> ShuffledBlocks:
    (block,) = blocks
    near, far = (load(U8, 64, block + 16 + 64 * i) for i in range(2))
    pieces = [[32 * run + 16 * half + i for run in range(4) for i in range(16)] for half in range(2)]
    halves = [shuffle(near, far, piece) for piece in pieces]
    rest = q4_k(blocks)
    low, high = [half & 15 for half in halves], [half >> 4 for half in halves]
    return ShuffledBlocks([CodeGroup(low, [0, 2, 4, 6]), CodeGroup(high, [1, 3, 5, 7])], rest.scale, rest.minimum)


def iq4_xs_shuffled(blocks: Sequence[Value]) -> ShuffledBlocks:
    (block,) = blocks
    runs = []
    for i in range(2):
        raw = load(U8, 64, block + 8 + 64 * i)
        runs.append(CodeGroup([lookup(IQ4, raw & 15), lookup(IQ4, raw >> 4)], [4 * i + q for q in range(4)]))
    return ShuffledBlocks(runs, iq4_xs(blocks).scale)
