"""The table of types: what a kernel has to know of each, beside how its blocks are unpacked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type

from minillama.kernels.cpu.matmul import unpack_blocks
from minillama.kernels.cpu.matmul.unpack_blocks import (
    HALVES,
    IQ4,
    MXFP4,
    NATURAL,
    Q4_K_HALVES,
    SIGNED,
    Run,
    Runs,
    Unpacked,
)
from minillama.kernels.cpu.simd import F32, U16, Value, from_bfloat, from_half, load


@dataclass(frozen=True)
class Format:
    """How a quantised type is read: `unpack` takes the addresses of as many blocks as `together` says, or of one.

    `shortcut` does the same for `together` blocks in the order `order`, with fewer instructions.
    """

    unpack: Callable[[Sequence[Value]], Unpacked]
    weights: int  # in a block
    bytes: int  # of a block
    together: int  # blocks
    group: int
    zero: int = 0
    minimum: bool = False
    shortcut: Callable[[Sequence[Value]], Runs] | None = None
    order: tuple[int, ...] = NATURAL

    def runs(self, addresses: Sequence[Value]) -> Runs:
        """Some blocks as runs: by the shortcut for `together` of them, in their own order for one alone."""
        if self.shortcut is not None and len(addresses) == self.together:
            return self.shortcut(addresses)
        unpacked, runs, weight = self.unpack(addresses), [], 0
        for codes in unpacked.codes:
            groups = [(weight + 16 * quarter) // self.group for quarter in range(codes.lanes // 16)]
            runs.append(Run([codes], groups))
            weight += codes.lanes
        return Runs(runs, unpacked.scale, unpacked.minimum)

    @property
    def wide(self) -> bool:
        """Whether codes exceed 127."""
        return self.zero == SIGNED


def _small(
    kind: Type,
    unpack: Callable[[Sequence[Value]], Unpacked],
    zero: int,
    minimum: bool = False,
    shortcut: Callable[[Sequence[Value]], Runs] | None = None,
) -> Format:
    order = NATURAL if shortcut is None else HALVES
    return Format(unpack, *GGML_QUANT_SIZES[kind], 4, 32, zero, minimum, shortcut, order)


def _super(
    kind: Type,
    unpack: Callable[[Sequence[Value]], Unpacked],
    group: int,
    zero: int = 0,
    minimum: bool = False,
    shortcut: Callable[[Sequence[Value]], Runs] | None = None,
    order: tuple[int, ...] = NATURAL,
) -> Format:
    return Format(unpack, *GGML_QUANT_SIZES[kind], 1, group, zero, minimum, shortcut, order)


FORMATS: dict[Type, Format] = {
    Type.Q4_0: _small(Type.Q4_0, unpack_blocks.q4_0, 8, shortcut=unpack_blocks.four_blocks(2, unpack_blocks.q4_0)),
    Type.Q4_1: _small(
        Type.Q4_1, unpack_blocks.q4_1, 0, minimum=True, shortcut=unpack_blocks.four_blocks(4, unpack_blocks.q4_1)
    ),
    Type.Q5_0: _small(Type.Q5_0, unpack_blocks.q5_0, 16),
    Type.Q5_1: _small(Type.Q5_1, unpack_blocks.q5_1, 0, minimum=True),
    Type.Q8_0: _small(Type.Q8_0, unpack_blocks.q8_0, SIGNED),
    Type.IQ4_NL: _small(
        Type.IQ4_NL, unpack_blocks.iq4_nl, SIGNED, shortcut=unpack_blocks.four_blocks(2, unpack_blocks.iq4_nl, IQ4)
    ),
    Type.MXFP4: _small(
        Type.MXFP4, unpack_blocks.mxfp4, 12, shortcut=unpack_blocks.four_blocks(1, unpack_blocks.mxfp4, MXFP4)
    ),
    Type.Q2_K: _super(Type.Q2_K, unpack_blocks.q2_k, 16, minimum=True),
    Type.Q3_K: _super(Type.Q3_K, unpack_blocks.q3_k, 16, zero=4),
    Type.Q4_K: _super(
        Type.Q4_K, unpack_blocks.q4_k, 32, minimum=True, shortcut=unpack_blocks.q4_k_runs, order=Q4_K_HALVES
    ),
    Type.Q5_K: _super(Type.Q5_K, unpack_blocks.q5_k, 32, minimum=True),
    Type.Q6_K: _super(Type.Q6_K, unpack_blocks.q6_k, 16, zero=32),
    Type.IQ4_XS: _super(
        Type.IQ4_XS, unpack_blocks.iq4_xs, 32, zero=SIGNED, shortcut=unpack_blocks.iq4_xs_runs, order=HALVES
    ),
}


def _whole(lanes: int, address: Value) -> Value:
    return load(F32, lanes, address)


def _half(lanes: int, address: Value) -> Value:
    return from_half(load(U16, lanes, address))


def _bfloat(lanes: int, address: Value) -> Value:
    return from_bfloat(load(U16, lanes, address))


@dataclass(frozen=True)
class Plain:
    """A type without blocks: `read` makes float32 of some neighbours at an address."""

    read: Callable[[int, Value], Value]
    bytes: int  # of a number
    parts: int  # bfloat16s whose sum it is


PLAIN: dict[Type, Plain] = {
    Type.F32: Plain(_whole, 4, 3),
    Type.F16: Plain(_half, 2, 2),
    Type.BF16: Plain(_bfloat, 2, 1),
}
