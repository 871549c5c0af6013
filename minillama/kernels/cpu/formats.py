"""The table of weight types: the properties that kernels need, and how to unpack blocks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type

from minillama.gguf.block_layouts import LAYOUTS
from minillama.kernels.cpu import unpack_blocks, unpack_grids, unpack_ternary
from minillama.kernels.cpu.simd import F32, U16, Value, bf16_to_f32, f16_to_f32, load
from minillama.kernels.cpu.unpack_blocks import (
    IQ4_CODE_BOOK,
    MXFP4_CODE_BOOK,
    MXFP4_OFFSET,
    SIGNED_OFFSET,
    Unpacked,
)
from minillama.kernels.cpu.unpack_shuffled import (
    IN_ORDER,
    LOW_NIBBLES_FIRST,
    Q4_K_PERMUTATION,
    CodeGroup,
    ShuffledBlocks,
    iq4_xs_shuffled,
    q4_k_shuffled,
    shuffled_nibbles,
)

Unpack = Callable[[Sequence[Value]], Unpacked]
UnpackShuffled = Callable[[Sequence[Value]], ShuffledBlocks]


@dataclass(frozen=True)
class Format:
    """A quantised type: weight = scale (code - zero_point) - minimum, code unsigned.

    `unpack` takes the addresses of `blocks_per_load` blocks or of one. `unpack_shuffled` takes those of
    `blocks_per_load` blocks and needs fewer instructions, but its codes are in the order of `permutation`.
    """

    unpack: Unpack
    weights: int  # of a block
    bytes: int  # of a block
    blocks_per_load: int
    group: int  # weights that share a scale
    zero_point: int = 0  # 0: a type with minima
    largest: int = 0  # largest code; 0: twice the zero point
    unpack_shuffled: UnpackShuffled | None = None
    permutation: tuple[int, ...] = IN_ORDER
    rows: int = 2  # computed at a time in decoding: as many as fit in registers next to unpacking

    def unpack_gemv(self, addresses: Sequence[Value]) -> ShuffledBlocks:
        """Unpack for GEMV: shuffled if the type supports it for that many blocks."""
        if self.unpack_shuffled is not None and len(addresses) == self.blocks_per_load:
            return self.unpack_shuffled(addresses)
        unpacked, code_groups, weight = self.unpack(addresses), [], 0
        for codes in unpacked.codes:
            groups = [(weight + 16 * quarter) // self.group for quarter in range(codes.lanes // 16)]
            code_groups.append(CodeGroup([codes], groups))
            weight += codes.lanes
        return ShuffledBlocks(code_groups, unpacked.scale, unpacked.minimum)

    @property
    def codes_above_127(self) -> bool:
        """Whether codes exceed 127."""
        return self.zero_point == SIGNED_OFFSET

    @property
    def has_minimum(self) -> bool:
        """Whether groups have minima: the types without a zero point."""
        return self.zero_point == 0

    @property
    def largest_code(self) -> int:
        """No code exceeds it."""
        return self.largest or min(2 * self.zero_point, 255)


def _block_32(
    kind: Type,
    unpack: Unpack,
    zero_point: int = 0,
    largest: int = 0,
    unpack_shuffled: UnpackShuffled | None = None,
) -> Format:
    """A type with blocks of 32 weights; four blocks fill two vectors."""
    permutation = IN_ORDER if unpack_shuffled is None else LOW_NIBBLES_FIRST
    group = LAYOUTS[kind].group
    sizes = (*GGML_QUANT_SIZES[kind], 4, group)
    return Format(unpack, *sizes, zero_point, largest, unpack_shuffled, permutation)


def _super_block(
    kind: Type,
    unpack: Unpack,
    zero_point: int = 0,
    largest: int = 0,
    unpack_shuffled: UnpackShuffled | None = None,
    permutation: tuple[int, ...] = IN_ORDER,
    rows: int = 2,
) -> Format:
    """A type with blocks of 256 weights."""
    sizes = (*GGML_QUANT_SIZES[kind], 1, LAYOUTS[kind].group)
    return Format(unpack, *sizes, zero_point, largest, unpack_shuffled, permutation, rows)


def _grid(kind: Type, unpacker: unpack_grids.GridUnpacker) -> Format:
    """A type whose codes are points of a grid; shuffled if groups have two halves."""
    zero_point = unpack_grids.ZERO_POINTS[kind]
    if LAYOUTS[kind].group == 16:
        return _super_block(kind, unpacker.in_order, zero_point, rows=1)
    return _super_block(
        kind, unpacker.in_order, zero_point, unpack_shuffled=unpacker.shuffled, permutation=LOW_NIBBLES_FIRST, rows=1
    )


FORMATS: dict[Type, Format] = {
    Type.Q4_0: _block_32(
        Type.Q4_0,
        unpack_blocks.q4_0,
        zero_point=8,
        unpack_shuffled=shuffled_nibbles(Type.Q4_0, unpack_blocks.q4_0),
    ),
    Type.Q4_1: _block_32(
        Type.Q4_1,
        unpack_blocks.q4_1,
        largest=15,
        unpack_shuffled=shuffled_nibbles(Type.Q4_1, unpack_blocks.q4_1),
    ),
    Type.Q5_0: _block_32(Type.Q5_0, unpack_blocks.q5_0, zero_point=16),
    Type.Q5_1: _block_32(Type.Q5_1, unpack_blocks.q5_1, largest=31),
    Type.Q8_0: _block_32(Type.Q8_0, unpack_blocks.q8_0, zero_point=SIGNED_OFFSET),
    Type.IQ4_NL: _block_32(
        Type.IQ4_NL,
        unpack_blocks.iq4_nl,
        zero_point=SIGNED_OFFSET,
        unpack_shuffled=shuffled_nibbles(Type.IQ4_NL, unpack_blocks.iq4_nl, IQ4_CODE_BOOK),
    ),
    Type.MXFP4: _block_32(
        Type.MXFP4,
        unpack_blocks.mxfp4,
        zero_point=MXFP4_OFFSET,
        unpack_shuffled=shuffled_nibbles(Type.MXFP4, unpack_blocks.mxfp4, MXFP4_CODE_BOOK),
    ),
    Type.Q2_K: _super_block(Type.Q2_K, unpack_blocks.q2_k, largest=3),
    Type.Q3_K: _super_block(Type.Q3_K, unpack_blocks.q3_k, zero_point=4),
    Type.Q4_K: _super_block(
        Type.Q4_K,
        unpack_blocks.q4_k,
        largest=15,
        unpack_shuffled=q4_k_shuffled,
        permutation=Q4_K_PERMUTATION,
    ),
    Type.Q5_K: _super_block(Type.Q5_K, unpack_blocks.q5_k, largest=31),
    Type.Q6_K: _super_block(Type.Q6_K, unpack_blocks.q6_k, zero_point=32),
    Type.IQ4_XS: _super_block(
        Type.IQ4_XS,
        unpack_blocks.iq4_xs,
        zero_point=SIGNED_OFFSET,
        unpack_shuffled=iq4_xs_shuffled,
        permutation=LOW_NIBBLES_FIRST,
    ),
    Type.NVFP4: Format(unpack_blocks.nvfp4, *GGML_QUANT_SIZES[Type.NVFP4], 4, 16, MXFP4_OFFSET),
    Type.TQ1_0: _super_block(Type.TQ1_0, unpack_ternary.tq1_0, zero_point=1, rows=1),
    Type.TQ2_0: _super_block(
        Type.TQ2_0,
        unpack_ternary.tq2_0,
        zero_point=1,
        largest=3,
        unpack_shuffled=unpack_ternary.tq2_0_shuffled,
        permutation=LOW_NIBBLES_FIRST,
        rows=1,
    ),
    Type.IQ1_S: _super_block(
        Type.IQ1_S,
        unpack_grids.iq1_s,
        largest=2,
        unpack_shuffled=unpack_grids.iq1_s_shuffled,
        permutation=LOW_NIBBLES_FIRST,
        rows=1,
    ),
    Type.IQ1_M: _grid(Type.IQ1_M, unpack_grids.IQ1_M),
    Type.IQ2_XXS: _grid(Type.IQ2_XXS, unpack_grids.IQ2_XXS),
    Type.IQ2_XS: _grid(Type.IQ2_XS, unpack_grids.IQ2_XS),
    Type.IQ2_S: _grid(Type.IQ2_S, unpack_grids.IQ2_S),
    Type.IQ3_XXS: _grid(Type.IQ3_XXS, unpack_grids.IQ3_XXS),
    Type.IQ3_S: _grid(Type.IQ3_S, unpack_grids.IQ3_S),
}


def _load_f32(lanes: int, address: Value) -> Value:
    return load(F32, lanes, address)


def _load_f16(lanes: int, address: Value) -> Value:
    return f16_to_f32(load(U16, lanes, address))


def _load_bf16(lanes: int, address: Value) -> Value:
    return bf16_to_f32(load(U16, lanes, address))


@dataclass(frozen=True)
class FloatFormat:
    """A float type: `load_f32` loads consecutive values as float32."""

    load_f32: Callable[[int, Value], Value]
    bytes: int  # of a value
    bf16_terms: int  # bfloat16 numbers that add up to a value


FLOAT_FORMATS: dict[Type, FloatFormat] = {
    Type.F32: FloatFormat(_load_f32, 4, 3),
    Type.F16: FloatFormat(_load_f16, 2, 2),
    Type.BF16: FloatFormat(_load_bf16, 2, 1),
}
