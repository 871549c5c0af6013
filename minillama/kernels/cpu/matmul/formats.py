"""The table of types: what a kernel has to know of each, beside how its blocks are unpacked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type

from minillama.kernels.cpu.matmul import unpack_blocks
from minillama.kernels.cpu.matmul.unpack_blocks import (
    IN_ORDER,
    IQ4,
    LOW_NIBBLES_FIRST,
    MXFP4,
    Q4_K_PERMUTATION,
    SIGNED_OFFSET,
    CodeGroup,
    ShuffledBlocks,
    Unpacked,
)
from minillama.kernels.cpu.simd import F32, U16, Value, bf16_to_f32, f16_to_f32, load


@dataclass(frozen=True)
class Format:
    """How a quantised type is read: `unpack` takes the addresses of as many blocks as `together` says, or of one.

    `shortcut` does the same for `together` blocks in the order `order`, with fewer instructions.
    """

    unpack: Callable[[Sequence[Value]], Unpacked]
    weights: int  # in a block
    bytes: int  # of a block
    blocks_per_load: int  # blocks
    group: int
    zero_point: int = 0
    minimum: bool = False
    unpack_shuffled: Callable[[Sequence[Value]], ShuffledBlocks] | None = None
    permutation: tuple[int, ...] = IN_ORDER

    def unpack_gemv(self, addresses: Sequence[Value]) -> ShuffledBlocks:
        """Some blocks as runs: by the shortcut for `together` of them, in their own order for one alone."""
        if self.unpack_shuffled is not None and len(addresses) == self.blocks_per_load:
            return self.unpack_shuffled(addresses)
        unpacked, runs, weight = self.unpack(addresses), [], 0
        for codes in unpacked.codes:
            groups = [(weight + 16 * quarter) // self.group for quarter in range(codes.lanes // 16)]
            runs.append(CodeGroup([codes], groups))
            weight += codes.lanes
        return ShuffledBlocks(runs, unpacked.scale, unpacked.minimum)

    @property
    def codes_above_127(self) -> bool:
        """Whether codes exceed 127."""
        return self.zero_point == SIGNED_OFFSET


def _small(
    kind: Type,
    unpack: Callable[[Sequence[Value]], Unpacked],
    zero_point: int,
    minimum: bool = False,
    unpack_shuffled: Callable[[Sequence[Value]], ShuffledBlocks] | None = None,
) -> Format:
    permutation = IN_ORDER if unpack_shuffled is None else LOW_NIBBLES_FIRST
    return Format(unpack, *GGML_QUANT_SIZES[kind], 4, 32, zero_point, minimum, unpack_shuffled, permutation)


def _super(
    kind: Type,
    unpack: Callable[[Sequence[Value]], Unpacked],
    group: int,
    zero_point: int = 0,
    minimum: bool = False,
    unpack_shuffled: Callable[[Sequence[Value]], ShuffledBlocks] | None = None,
    permutation: tuple[int, ...] = IN_ORDER,
) -> Format:
    return Format(unpack, *GGML_QUANT_SIZES[kind], 1, group, zero_point, minimum, unpack_shuffled, permutation)


FORMATS: dict[Type, Format] = {
    Type.Q4_0: _small(
        Type.Q4_0, unpack_blocks.q4_0, 8, unpack_shuffled=unpack_blocks.shuffled_nibbles(2, unpack_blocks.q4_0)
    ),
    Type.Q4_1: _small(
        Type.Q4_1,
        unpack_blocks.q4_1,
        0,
        minimum=True,
        unpack_shuffled=unpack_blocks.shuffled_nibbles(4, unpack_blocks.q4_1),
    ),
    Type.Q5_0: _small(Type.Q5_0, unpack_blocks.q5_0, 16),
    Type.Q5_1: _small(Type.Q5_1, unpack_blocks.q5_1, 0, minimum=True),
    Type.Q8_0: _small(Type.Q8_0, unpack_blocks.q8_0, SIGNED_OFFSET),
    Type.IQ4_NL: _small(
        Type.IQ4_NL,
        unpack_blocks.iq4_nl,
        SIGNED_OFFSET,
        unpack_shuffled=unpack_blocks.shuffled_nibbles(2, unpack_blocks.iq4_nl, IQ4),
    ),
    Type.MXFP4: _small(
        Type.MXFP4,
        unpack_blocks.mxfp4,
        12,
        unpack_shuffled=unpack_blocks.shuffled_nibbles(1, unpack_blocks.mxfp4, MXFP4),
    ),
    Type.Q2_K: _super(Type.Q2_K, unpack_blocks.q2_k, 16, minimum=True),
    Type.Q3_K: _super(Type.Q3_K, unpack_blocks.q3_k, 16, zero_point=4),
    Type.Q4_K: _super(
        Type.Q4_K,
        unpack_blocks.q4_k,
        32,
        minimum=True,
        unpack_shuffled=unpack_blocks.q4_k_shuffled,
        permutation=Q4_K_PERMUTATION,
    ),
    Type.Q5_K: _super(Type.Q5_K, unpack_blocks.q5_k, 32, minimum=True),
    Type.Q6_K: _super(Type.Q6_K, unpack_blocks.q6_k, 16, zero_point=32),
    Type.IQ4_XS: _super(
        Type.IQ4_XS,
        unpack_blocks.iq4_xs,
        32,
        zero_point=SIGNED_OFFSET,
        unpack_shuffled=unpack_blocks.iq4_xs_shuffled,
        permutation=LOW_NIBBLES_FIRST,
    ),
}


def _whole(lanes: int, address: Value) -> Value:
    return load(F32, lanes, address)


def _half(lanes: int, address: Value) -> Value:
    return f16_to_f32(load(U16, lanes, address))


def _bfloat(lanes: int, address: Value) -> Value:
    return bf16_to_f32(load(U16, lanes, address))


@dataclass(frozen=True)
class FloatFormat:
    """A type without blocks: `read` makes float32 of some neighbours at an address."""

    load_f32: Callable[[int, Value], Value]
    bytes: int  # of a number
    bf16_terms: int  # bfloat16s whose sum it is


FLOAT_FORMATS: dict[Type, FloatFormat] = {
    Type.F32: FloatFormat(_whole, 4, 3),
    Type.F16: FloatFormat(_half, 2, 2),
    Type.BF16: FloatFormat(_bfloat, 2, 1),
}
