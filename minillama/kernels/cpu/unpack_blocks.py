"""Unpack blocks in registers: bytes become unsigned codes, scales and minima.

weight = scale (code - zero_point) - minimum, with a scale and a minimum for a group of 16 or 32 consecutive weights.
Codes come out as unsigned bytes in the order of the weights, 64 a vector. Codes of signed types are shifted by the zero
point, because the processor multiplies unsigned by signed bytes. Layouts: `minillama.gguf.block_layouts`. The reference
implementation is `kernels/decode_blocks.py`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type

from minillama.gguf.block_layouts import IQ4_VALUES, LAYOUTS, MXFP4_DOUBLED_VALUES
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
    current_isa,
    f16_to_f32,
    load,
    load_splat,
    lookup,
    select,
    shuffle,
    vector,
)

_WORDS = 32  # 16-bit words of a vector
SIGNED_OFFSET = 128  # added to signed bytes
MXFP4_OFFSET = 12  # added to doubled E2M1 values
IQ4_CODE_BOOK = [int(value) + SIGNED_OFFSET for value in IQ4_VALUES]
MXFP4_CODE_BOOK = [int(value) + MXFP4_OFFSET for value in MXFP4_DOUBLED_VALUES]


class Unpacked(NamedTuple):
    """Consecutive weights in registers; scale and minimum have a lane for each group."""

    codes: list[Value]  # U8 x 64, or x 32 for a single block
    scale: Value
    minimum: Value | None = None


def _f16_field(kind: Type, blocks: Sequence[Value], at: int) -> Value:
    """The float16 at byte `at` of each block, as float32.

    Four adjacent blocks take two vector loads, where vectors are long.
    """
    size = GGML_QUANT_SIZES[kind][1]
    if len(blocks) == 4 and size % 2 == 0 and not current_isa().is_neon:
        last = 3 * size + at + 2 - 2 * _WORDS  # start of a second vector that ends with the field of the last block
        words = [(i * size + at) // 2 for i in range(4)]
        near = load(U16, _WORDS, blocks[0])
        if last <= 0:
            return f16_to_f32(near.permute(words))
        far = load(U16, _WORDS, blocks[0] + last)
        return f16_to_f32(shuffle(near, far, [w if w < _WORDS else w - last // 2 + _WORDS for w in words]))
    return f16_to_f32(vector([load(U16, 1, block + at) for block in blocks]))


def _d(kind: Type, blocks: Sequence[Value]) -> Value:
    return _f16_field(kind, blocks, LAYOUTS[kind].d)


def _negative_m(kind: Type, blocks: Sequence[Value]) -> Value:
    """The minimum of a type whose weight is d q + m."""
    return _f16_field(kind, blocks, LAYOUTS[kind].m) * -1.0


def splat_f16(lanes: int, address: Value) -> Value:
    return f16_to_f32(load_splat(U16, lanes, address))


def _nibbles(blocks: Sequence[Value], at: int) -> list[Value]:
    """The 32 nibbles of each block, low ones first; two blocks fill a vector."""
    if len(blocks) == 1:
        raw = load(U8, 16, blocks[0] + at)
        return [concat(raw & 15, raw >> 4)]
    codes = []
    for a, b in zip(blocks[::2], blocks[1::2], strict=True):
        raw = concat(load(U8, 16, a + at), load(U8, 16, b + at))
        doubled = raw.permute([*range(16), *range(16), *range(16, 32), *range(16, 32)])
        words = shift_words(doubled)
        codes.append(mask_bytes(words >> shifts(words, (0, 4, 0, 4)), 15))
    return codes


def shift_words(codes: Value) -> Value:
    """Bytes as lanes to shift: words of 32 bits on x86, bytes on ARM."""
    return codes if current_isa().is_neon else codes.bitcast(U32)


def shifts(words: Value, counts: Sequence[int]) -> Value:
    """Bits to shift by, one count for each of equal parts of a vector."""
    return const_vector([count for count in counts for _ in range(words.lanes // len(counts))], words.element)


def shift_copies(raw: Value, left: tuple[int, int] | None = None, right: tuple[int, int] | None = None) -> Value:
    """Two copies of 32 bytes, each with its own shift, as `shift_words`."""
    doubled = shift_words(concat(raw, raw))
    return doubled << shifts(doubled, left) if left is not None else doubled >> shifts(doubled, right)


def mask_bytes(words: Value, bits: int) -> Value:
    """Keep some bits of every byte: shifts of 32-bit words move bits across bytes."""
    return (words & (bits if words.element == U8 else bits * 0x01010101)).bitcast(U8)


def _bit_planes(raw: Value, plane: int, to: int) -> Value:
    """Bits `plane` and `plane + 1` of 32 bytes, each moved to bit `to`: 64 bytes."""
    first, second = to - plane, to - plane - 1
    moved = shift_copies(raw, left=(first, second)) if second >= 0 else shift_copies(raw, right=(-first, -second))
    return mask_bytes(moved, 1 << to)


def _fifth_bits(blocks: Sequence[Value], at: int) -> list[Value]:
    """The 32 bits of each block at byte `at`, as bytes of 0 or 16."""
    masks = const_vector([1 << i % 8 for i in range(32)], U8)
    codes = []
    for block in blocks:
        repeated = load(U8, 4, block + at).permute([i // 8 for i in range(32)])
        codes.append(select((repeated & masks).equals(0), const(0, U8, 32), 16))
    return codes if len(codes) == 1 else [concat(a, b) for a, b in zip(codes[::2], codes[1::2], strict=True)]


def q4_0(blocks: Sequence[Value]) -> Unpacked:
    return Unpacked(_nibbles(blocks, LAYOUTS[Type.Q4_0].qs), _d(Type.Q4_0, blocks))


def q4_1(blocks: Sequence[Value]) -> Unpacked:
    return Unpacked(_nibbles(blocks, LAYOUTS[Type.Q4_1].qs), _d(Type.Q4_1, blocks), _negative_m(Type.Q4_1, blocks))


def q5_0(blocks: Sequence[Value]) -> Unpacked:
    return Unpacked(_five_bits(Type.Q5_0, blocks), _d(Type.Q5_0, blocks))


def q5_1(blocks: Sequence[Value]) -> Unpacked:
    return Unpacked(_five_bits(Type.Q5_1, blocks), _d(Type.Q5_1, blocks), _negative_m(Type.Q5_1, blocks))


def _five_bits(kind: Type, blocks: Sequence[Value]) -> list[Value]:
    layout = LAYOUTS[kind]
    return [a | b for a, b in zip(_nibbles(blocks, layout.qs), _fifth_bits(blocks, layout.qh), strict=True)]


def q8_0(blocks: Sequence[Value]) -> Unpacked:
    codes = [load(U8, 32, block + LAYOUTS[Type.Q8_0].qs) ^ 0x80 for block in blocks]
    if len(codes) > 1:
        codes = [concat(a, b) for a, b in zip(codes[::2], codes[1::2], strict=True)]
    return Unpacked(codes, _d(Type.Q8_0, blocks))


def iq4_nl(blocks: Sequence[Value]) -> Unpacked:
    codes = [lookup(IQ4_CODE_BOOK, codes) for codes in _nibbles(blocks, LAYOUTS[Type.IQ4_NL].qs)]
    return Unpacked(codes, _d(Type.IQ4_NL, blocks))


def mxfp4(blocks: Sequence[Value]) -> Unpacked:
    layout = LAYOUTS[Type.MXFP4]
    exponent = vector([load(U8, 1, block + layout.exponent).to(I32) for block in blocks])
    # 2^(e - 128): half the scale, as the code book is doubled; the two smallest are subnormal floats
    bits = select(exponent < 1, const(0x00200000, I32, len(blocks)), (exponent - 1) << 23)
    bits = select(exponent.equals(1), const(0x00400000, I32, len(blocks)), bits)
    return Unpacked([lookup(MXFP4_CODE_BOOK, codes) for codes in _nibbles(blocks, layout.qs)], bits.bitcast(F32))


def nvfp4(blocks: Sequence[Value]) -> Unpacked:
    layout, codes = LAYOUTS[Type.NVFP4], []
    nibble_order = [8 * group + i for group in range(4) for _ in range(2) for i in range(8)]  # low ones, high ones
    for block in blocks:
        twice = load(U8, 32, block + layout.qs).permute(nibble_order).bitcast(U32)
        codes.append(lookup(MXFP4_CODE_BOOK, mask_bytes(twice >> const_vector([0, 0, 4, 4] * 4, U32), 15)))
    e4m3 = vector([load(U32, 1, block + layout.scales) for block in blocks]).bitcast(U8)
    # as a float16 the bits are 2^8 times smaller, as its exponent has another bias; the code book is doubled
    bits = select(e4m3.equals(0x7F), const(0, U16, e4m3.lanes), (e4m3 & 0x7F).to(U16) << 7)
    return Unpacked(codes, f16_to_f32(bits) * 128.0)


def q2_k(blocks: Sequence[Value]) -> Unpacked:
    (block,), layout = blocks, LAYOUTS[Type.Q2_K]
    packed = load(U8, 16, block + layout.scales)
    d, dmin = (splat_f16(16, block + at) for at in (layout.d, layout.m))
    codes = []
    for half in range(2):
        raw = load(U8, 32, block + (layout.qs + 32 * half))
        codes += [mask_bytes(shift_copies(raw, right=shifts), 3) for shifts in ((0, 2), (4, 6))]
    return Unpacked(codes, (packed & 15).to(F32) * d, (packed >> 4).to(F32) * dmin)


def q3_k(blocks: Sequence[Value]) -> Unpacked:
    (block,), layout = blocks, LAYOUTS[Type.Q3_K]
    high_bits = load(U8, 32, block + layout.qh)
    codes = []
    for half in range(2):
        raw = load(U8, 32, block + (layout.qs + 32 * half))
        for i, shifts in enumerate(((0, 2), (4, 6))):
            low = mask_bytes(shift_copies(raw, right=shifts), 3)
            codes.append(low | _bit_planes(high_bits, 4 * half + 2 * i, 2))
    scale = _six_bit_scales(block + layout.scales, block + (layout.scales + 8))
    return Unpacked(codes, scale * splat_f16(16, block + layout.d))


def _six_bit_scales(low_address: Value, high_address: Value) -> Value:
    """The 16 scales of Q3_K as float32: 8 bytes of nibbles, 4 of high bits."""
    low, high = load(U64, 1, low_address), load(U32, 1, high_address).to(U64)
    high_bits = [((high >> shift) & 0x03030303) << 4 for shift in (0, 2, 4, 6)]
    first = (low & 0x0F0F0F0F0F0F0F0F) | high_bits[0] | (high_bits[1] << 32)
    second = ((low >> 4) & 0x0F0F0F0F0F0F0F0F) | high_bits[2] | (high_bits[3] << 32)
    return vector([first, second]).bitcast(U8).to(F32) - 32.0


def _scales_and_minima(block: Value, at: int) -> tuple[Value, Value]:
    """The 8 scales and 8 minima of Q4_K and Q5_K as float32, from 12 bytes."""
    first, second, third = (load(U32, 1, block + at + 4 * i) for i in range(3))
    scale = [first & 0x3F3F3F3F, (third & 0x0F0F0F0F) | ((first >> 2) & 0x30303030)]
    minimum = [second & 0x3F3F3F3F, ((third >> 4) & 0x0F0F0F0F) | ((second >> 2) & 0x30303030)]
    return vector(scale).bitcast(U8).to(F32), vector(minimum).bitcast(U8).to(F32)


def q4_k(blocks: Sequence[Value]) -> Unpacked:
    (block,), layout = blocks, LAYOUTS[Type.Q4_K]
    scale, minimum = _scales_and_minima(block, layout.scales)
    raws = (load(U8, 32, block + (layout.qs + 32 * i)) for i in range(4))
    codes = [mask_bytes(shift_copies(raw, right=(0, 4)), 15) for raw in raws]
    d, dmin = (splat_f16(8, block + at) for at in (layout.d, layout.m))
    return Unpacked(codes, scale * d, minimum * dmin)


def q5_k(blocks: Sequence[Value]) -> Unpacked:
    (block,), layout = blocks, LAYOUTS[Type.Q5_K]
    scale, minimum = _scales_and_minima(block, layout.scales)
    high_bits = load(U8, 32, block + layout.qh)
    codes = []
    for i in range(4):
        raw = load(U8, 32, block + (layout.qs + 32 * i))
        codes.append(mask_bytes(shift_copies(raw, right=(0, 4)), 15) | _bit_planes(high_bits, 2 * i, 4))
    d, dmin = (splat_f16(8, block + at) for at in (layout.d, layout.m))
    return Unpacked(codes, scale * d, minimum * dmin)


def q6_k(blocks: Sequence[Value]) -> Unpacked:
    (block,), layout = blocks, LAYOUTS[Type.Q6_K]
    codes = []
    for half in range(2):
        low, high = load(U8, 64, block + (layout.qs + 64 * half)), load(U8, 32, block + (layout.qh + 32 * half))
        codes.append((low & 15) | mask_bytes(shift_copies(high, left=(4, 2)), 0x30))
        codes.append((low >> 4) | mask_bytes(shift_copies(high, right=(0, 2)), 0x30))
    scale = load(I8, 16, block + layout.scales).to(F32)
    return Unpacked(codes, scale * splat_f16(16, block + layout.d))


def iq4_xs(blocks: Sequence[Value]) -> Unpacked:
    (block,), layout = blocks, LAYOUTS[Type.IQ4_XS]
    low = (load_splat(U32, 8, block + layout.scales) >> const_vector(range(0, 32, 4), U32)) & 15
    high = (load_splat(U16, 8, block + layout.scales_high).to(U32) >> const_vector(range(0, 16, 2), U32)) & 3
    scale = (low | (high << 4)).to(F32) - 32.0
    codes = _nibbles([block + 16 * i for i in range(8)], layout.qs)
    return Unpacked([lookup(IQ4_CODE_BOOK, c) for c in codes], scale * splat_f16(8, block + layout.d))
