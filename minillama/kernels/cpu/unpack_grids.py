"""Unpack blocks of the IQ1, IQ2 and IQ3 types in registers.

Codes become points of a grid, with signs. A point is 4 or 8 bytes of a table. With its sign s, a weight w becomes the
unsigned code `zero_point + s w`, and tables hold `zero_point + w`. As points are loaded one by one, any order of them
takes as many instructions. Their numbers are computed as scalars, next to the vector operations. The reference
implementation is `kernels/decode_grids.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gguf import GGMLQuantizationType as Type

from minillama.gguf.block_layouts import EVEN_SIGN_BITS, LAYOUTS, code_grid
from minillama.kernels.cpu.simd import (
    F32,
    F64,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Value,
    concat,
    const,
    const_vector,
    constant_table,
    f16_to_f32,
    load,
    lookup,
    reduce,
    select,
    splat,
    vector,
)
from minillama.kernels.cpu.unpack_blocks import Unpacked, splat_f16
from minillama.kernels.cpu.unpack_shuffled import CodeGroup, ShuffledBlocks

Segments = Sequence[int]  # numbers of runs of 16 weights in a block
IN_ORDER = tuple(range(16))
FIRST_HALVES_FIRST = (0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15)  # of the groups of 32
_LARGEST = {kind: int(abs(code_grid(kind)).max()) for kind in LAYOUTS if kind.name.startswith(("IQ2", "IQ3"))}
ZERO_POINTS = _LARGEST | {Type.IQ1_M: 9}
_PARITY = [0x80 * (code.bit_count() % 2) for code in range(16)]

Finish = Callable[[Value, Segments], Value]  # 64 points as bytes, and the segments that they are, to codes


@dataclass(frozen=True)
class GridUnpacker:
    """Unpack a grid type, in order or shuffled.

    A table entry is `factor w + offset`. `number` gives the number of the i-th point of a block. `finish`, for a block,
    gives the function that turns points into codes.
    """

    kind: Type
    factor: int
    offset: int
    number: Callable[[Value, int], Value]
    finish: Callable[[Value], Finish]
    scale: Callable[[Value], Value]

    def in_order(self, blocks: Sequence[Value]) -> Unpacked:
        """The codes in the order of the weights."""
        (block,) = blocks
        return Unpacked(self._codes(block, IN_ORDER), self.scale(block))

    def shuffled(self, blocks: Sequence[Value]) -> ShuffledBlocks:
        """For groups of 32: the first halves of four groups, then their second halves."""
        (block,) = blocks
        codes = self._codes(block, FIRST_HALVES_FIRST)
        groups = [CodeGroup(codes[:2], [0, 1, 2, 3]), CodeGroup(codes[2:], [4, 5, 6, 7])]
        return ShuffledBlocks(groups, self.scale(block))

    def _codes(self, block: Value, order: Segments) -> list[Value]:
        points = (code_grid(self.kind).astype(int) * self.factor + self.offset).astype("u1")
        width = points.shape[1]
        stored, entry = (U64, F64) if width == 8 else (U32, F32)  # floats: loads into vectors take fewer instructions
        table, codes, finish = constant_table(stored, points.view(f"<u{width}")[:, 0].tolist()), [], self.finish(block)
        for first in range(0, len(order), 4):
            segments = order[first : first + 4]
            numbers = [s * (16 // width) + i for s in segments for i in range(16 // width)]
            entries = [load(entry, 1, table + self.number(block, i) * width) for i in numbers]
            codes.append(finish(vector(entries).bitcast(U8), segments))
        return codes


SignQuads = Callable[[int], Value]  # the sign bits of 64 weights, a U64


def _with_signs(kind: Type, quads: SignQuads) -> Finish:
    """Codes of points with their signs."""
    masks, zero_point = const_vector([1 << i % 8 for i in range(64)], U8), ZERO_POINTS[kind]

    def finish(points: Value, segments: Segments) -> Value:
        repeated = concat(*(_repeated_bytes(quads, pair) for pair in (segments[:2], segments[2:])))
        return select((repeated & masks).equals(0), points, const(2 * zero_point, U8, 64) - points)

    return finish


def _repeated_bytes(quads: SignQuads, segments: Segments) -> Value:
    """Sign bytes of two segments of the same 64 weights, each for its 8 weights."""
    four_times = splat(quads(segments[0] // 4), 4).bitcast(U8)
    return four_times.permute([16 * half + 2 * (s % 4) + i // 8 for half, s in enumerate(segments) for i in range(16)])


def _signs_in_memory(kind: Type, block: Value) -> Finish:
    """Points with a sign bit for each weight in the block."""
    return _with_signs(kind, lambda i: load(U64, 1, block + (LAYOUTS[kind].signs + 8 * i)))


def _even_signs(kind: Type, seven: Value) -> Finish:
    """Points with 7 sign bits a byte; the eighth makes the number of ones even."""
    words = seven.bitcast(U32)
    folded = ((words ^ (words >> 4)) & 0x0F0F0F0F).bitcast(U8)
    quads = (seven | lookup(_PARITY, folded)).bitcast(U64)
    return _with_signs(kind, lambda i: quads[i])


def _signs_of_words(kind: Type, words: Value) -> Finish:
    """Points with signs in 32-bit words of four times 7 bits."""
    packed = words & 0x7F
    for i in range(1, 4):
        packed = packed | ((words << i) & (0x7F << 8 * i))
    return _even_signs(kind, packed.bitcast(U8))


def _low_byte(kind: Type, block: Value, i: int) -> Value:
    return load(U8, 1, block + (LAYOUTS[kind].qs + i)).to(I64)


def _high_bits(field: Value, at: int, count: int) -> Value:
    """Some bits of an integer as the bits of a number above its low byte."""
    field = field.to(I64)
    return (field << 8 - at if at < 8 else field >> at - 8) & ((1 << count) - 1 << 8)


def _odd(codes: Value) -> Value:
    """Scales are odd numbers: 2 code + 1."""
    return ((codes << 1) | 1).to(F32)


def _nibble_scales(kind: Type, block: Value, factor: float) -> Value:
    """Odd scales of 4 bits, times d and a factor."""
    layout = LAYOUTS[kind]
    count = 256 // layout.group
    raw = load(U8, count // 2, block + layout.scales).permute([i // 2 for i in range(count)]).to(U32)
    return _odd((raw >> const_vector([0, 4] * (count // 2), U32)) & 15) * (splat_f16(count, block + layout.d) * factor)


def _word_scales(kind: Type, words: Value, block: Value, factor: float) -> Value:
    """Odd scales in the highest 4 bits of words, times d and a factor."""
    return _odd(words >> 28) * (splat_f16(8, block + LAYOUTS[kind].d) * factor)


def _iq2_xxs_words(block: Value) -> Value:
    """Signs and scales: a word after the 4 bytes of codes of each group."""
    return load(U32, 16, block + LAYOUTS[Type.IQ2_XXS].qs).permute(range(1, 16, 2))


def _iq2_xs_signs(block: Value) -> Finish:
    words = load(U16, 32, block + LAYOUTS[Type.IQ2_XS].qs)
    return _even_signs(Type.IQ2_XS, (words >> 16 - EVEN_SIGN_BITS).to(U8))


def _iq2_s_number(block: Value, i: int) -> Value:
    high = load(U8, 1, block + (LAYOUTS[Type.IQ2_S].qh + i // 4))
    return _low_byte(Type.IQ2_S, block, i) | _high_bits(high, 2 * (i % 4), 2)


def _iq3_xxs_words(block: Value) -> Value:
    return load(U32, 8, block + LAYOUTS[Type.IQ3_XXS].scales)


def _iq3_s_number(block: Value, i: int) -> Value:
    high = load(U8, 1, block + (LAYOUTS[Type.IQ3_S].qh + i // 8))
    return _low_byte(Type.IQ3_S, block, i) | _high_bits(high, i % 8, 1)


def _iq1_s_number(block: Value, i: int) -> Value:
    high = load(U16, 1, block + (LAYOUTS[Type.IQ1_S].qh + 2 * (i // 4)))
    return _low_byte(Type.IQ1_S, block, i) | _high_bits(high, 3 * (i % 4), 3)


def _iq1_s_scale(block: Value) -> Value:
    layout = LAYOUTS[Type.IQ1_S]
    codes = (load(U16, 8, block + layout.qh) >> 12) & 7
    return _odd(codes.to(I32)) * splat_f16(8, block + layout.d)


def iq1_s(blocks: Sequence[Value]) -> Unpacked:
    unpacked = _IQ1_S.in_order(blocks)
    return unpacked._replace(minimum=_iq1_s_minimum(blocks[0], unpacked.scale))


def iq1_s_shuffled(blocks: Sequence[Value]) -> ShuffledBlocks:
    unpacked = _IQ1_S.shuffled(blocks)
    return unpacked._replace(minimum=_iq1_s_minimum(blocks[0], unpacked.scale))


def _iq1_s_minimum(block: Value, scale: Value) -> Value:
    """scale (1 - delta), as codes are 1 larger than their points.

    Delta is 1/8, or -1/8 if the highest bit is set.
    """
    high = load(U16, 8, block + LAYOUTS[Type.IQ1_S].qh)
    return scale * select(high < 0x8000, const(0.875, F32, 8), const(1.125, F32, 8))


def _iq1_m_number(block: Value, i: int) -> Value:
    high = load(U8, 1, block + (LAYOUTS[Type.IQ1_M].qh + i // 2))
    return _low_byte(Type.IQ1_M, block, i) | _high_bits(high, 4 * (i % 2), 3)


def _iq1_m_deltas(block: Value) -> Finish:
    """Codes of 8 (point + delta) from those of a positive delta.

    They are 2 less if the highest bit of a nibble is set.
    """
    twice = load(U8, 16, block + LAYOUTS[Type.IQ1_M].qh).permute([i // 2 for i in range(32)]).bitcast(U16)
    twos = (((twice >> 2) & 0x0002) | ((twice >> 6) & 0x0200)).bitcast(U8)
    return lambda points, segments: points - twos.permute([2 * s + i // 8 for s in segments for i in range(16)])


def _iq1_m_scale(block: Value) -> Value:
    packed = load(U16, 4, block + LAYOUTS[Type.IQ1_M].scales)
    parts = (packed >> 12) << const_vector([0, 4, 8, 12], U16)  # of the float16 scale of the block
    d = f16_to_f32(splat(reduce(parts, lambda a, b: a | b), 16))
    words = packed.permute([i // 4 for i in range(16)]).to(U32)
    return _odd((words >> const_vector([0, 3, 6, 9] * 4, U32)) & 7) * (d * 0.125)


IQ2_XXS = GridUnpacker(
    Type.IQ2_XXS, 1, ZERO_POINTS[Type.IQ2_XXS],
    number=lambda block, i: _low_byte(Type.IQ2_XXS, block, 8 * (i // 4) + i % 4),
    finish=lambda block: _signs_of_words(Type.IQ2_XXS, _iq2_xxs_words(block)),
    scale=lambda block: _word_scales(Type.IQ2_XXS, _iq2_xxs_words(block), block, 1 / 8),
)  # fmt: skip
IQ2_XS = GridUnpacker(
    Type.IQ2_XS, 1, ZERO_POINTS[Type.IQ2_XS],
    number=lambda block, i: load(U16, 1, block + (LAYOUTS[Type.IQ2_XS].qs + 2 * i)).to(I64) & 511,
    finish=_iq2_xs_signs,
    scale=lambda block: _nibble_scales(Type.IQ2_XS, block, 1 / 8),
)  # fmt: skip
IQ2_S = GridUnpacker(
    Type.IQ2_S, 1, ZERO_POINTS[Type.IQ2_S],
    number=_iq2_s_number,
    finish=lambda block: _signs_in_memory(Type.IQ2_S, block),
    scale=lambda block: _nibble_scales(Type.IQ2_S, block, 1 / 8),
)  # fmt: skip
IQ3_XXS = GridUnpacker(
    Type.IQ3_XXS, 1, ZERO_POINTS[Type.IQ3_XXS],
    number=lambda block, i: _low_byte(Type.IQ3_XXS, block, i),
    finish=lambda block: _signs_of_words(Type.IQ3_XXS, _iq3_xxs_words(block)),
    scale=lambda block: _word_scales(Type.IQ3_XXS, _iq3_xxs_words(block), block, 1 / 4),
)  # fmt: skip
IQ3_S = GridUnpacker(
    Type.IQ3_S, 1, ZERO_POINTS[Type.IQ3_S],
    number=_iq3_s_number,
    finish=lambda block: _signs_in_memory(Type.IQ3_S, block),
    scale=lambda block: _nibble_scales(Type.IQ3_S, block, 1),
)  # fmt: skip
IQ1_M = GridUnpacker(Type.IQ1_M, 8, ZERO_POINTS[Type.IQ1_M] + 1, _iq1_m_number, _iq1_m_deltas, _iq1_m_scale)
_IQ1_S = GridUnpacker(Type.IQ1_S, 1, 1, _iq1_s_number, lambda block: lambda points, segments: points, _iq1_s_scale)
