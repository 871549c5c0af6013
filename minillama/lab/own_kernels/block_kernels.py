"""Products of Q4_0 rows and a vector around a body that a learner writes.

The loops, the addresses and the sums are here; the body sees the blocks and the activations of one step, and cannot
address other memory by them.

    dequantise_product(block, x, sums) -> sums      one block: 32 weights, x in float32
    integer_product(blocks, x, sums) -> sums        four blocks: 128 weights, x as int8 codes

The sums are 16 lanes of float32.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minillama.errors import OptionError
from minillama.kernels.cpu.simd import (
    F32,
    I8,
    I32,
    U8,
    U16,
    Element,
    Isa,
    Module,
    Value,
    Var,
    concat,
    const,
    f16_to_f32,
    load,
    loop,
    reduce_sum,
    store,
    vector,
)
from minillama.lab.language import translate

BLOCK_BYTES, BLOCK_WEIGHTS, ZERO_POINT = 18, 32, 8  # of Q4_0: a float16 and 16 bytes of codes
BLOCKS = 4  # of a step of the loop
STEP = BLOCKS * BLOCK_WEIGHTS
SUM_LANES = 16
FUNCTION = "product"  # its name in the machine code
Body = Callable[["Blocks", "FloatInput | CodedInput", Value], object]
_ALLOWED = {  # beginnings of the names of intrinsics
    "avx512": ("avx2.", "avx512."),
    "amx": ("avx2.", "avx512."),
    "avx-vnni": ("avx2.", "avx512.vpdpbusd.128", "avx512.vpdpbusd.256"),
    "avx2": ("avx2.",),
}


class Blocks:
    """One Q4_0 block, or four consecutive ones, at a hidden address."""

    def __init__(self, address: Value, count: int) -> None:
        self._address, self._count = address, count

    def load(self, element: Element, lanes: int, at: int) -> Value:
        """Load consecutive elements, `at` bytes after the beginning of the blocks.

        Raises OptionError if they are not inside.
        """
        size, end = self._count * BLOCK_BYTES, lanes * element.bits // 8
        if not isinstance(at, int) or not 0 <= at <= size - end:
            raise OptionError(
                translate(
                    "load of {end} bytes at {at}; the blocks have {size} bytes, and a load stays inside",
                    end=end, at=at, size=size,
                )
            )  # fmt: skip
        return load(element, lanes, self._address + at)

    def quants(self) -> Value:
        """The bytes with two codes each: U8, 16 for each block."""
        return concat(*(self.load(U8, 16, BLOCK_BYTES * i + 2) for i in range(self._count)))

    def scales(self) -> Value:
        """The scales in float32, one for each block; of a single block a scalar."""
        return f16_to_f32(vector([self.load(U16, 1, BLOCK_BYTES * i) for i in range(self._count)]))


class FloatInput:
    """The 32 activations of one block, float32."""

    def __init__(self, address: Value) -> None:
        self._address = address

    def low(self) -> Value:
        """F32 x 16: those of the low four bits."""
        return load(F32, 16, self._address)

    def high(self) -> Value:
        """F32 x 16: those of the high four bits."""
        return load(F32, 16, self._address + 64)


class CodedInput:
    """The 128 activations of four blocks: int8 codes, and two numbers for each block."""

    def __init__(self, address: Value) -> None:
        self._address = address

    def low(self) -> Value:
        """I8 x 64: codes of the low four bits, 16 for each block."""
        return load(I8, 64, self._address)

    def high(self) -> Value:
        """I8 x 64: codes of the high four bits."""
        return load(I8, 64, self._address + 64)

    def scales(self) -> Value:
        """F32 x 4: the scale of each block's codes."""
        return load(F32, 4, self._address + 128)

    def corrections(self) -> Value:
        """I32 x 4: the start of each of the four lanes of a block."""
        return load(I32, 4, self._address + 144)


@dataclass(frozen=True)
class Shape:
    """Call of a body: blocks, input, bytes of a step of activations."""

    blocks: int
    view: Callable[[Value], FloatInput | CodedInput]
    step_bytes: int


FLOAT = Shape(1, FloatInput, 4 * STEP)
CODED = Shape(BLOCKS, CodedInput, STEP + 8 * BLOCKS)


def write_product(body: Body, shape: Shape) -> Callable[[Module], None]:
    """Definition of `product(weights, x, y, rows, steps)` with this body: y = W x, row by row."""

    def kernel(weights: Value, x: Value, y: Value, rows: Value, steps: Value) -> None:
        for row in loop(0, rows):
            first, sums = weights + row * steps * (BLOCKS * BLOCK_BYTES), Var(const(0.0, F32, SUM_LANES))
            for step in loop(0, steps):
                for block in range(0, BLOCKS, shape.blocks):
                    at = first + step * (BLOCKS * BLOCK_BYTES) + block * BLOCK_BYTES
                    source = x + step * shape.step_bytes + block * (shape.step_bytes // BLOCKS)
                    sums.value = _checked(body(Blocks(at, shape.blocks), shape.view(source), sums.value))
            store(reduce_sum(sums.value), y + row * 4)

    def write(module: Module) -> None:
        module.define(FUNCTION, 5, kernel)
        _refuse_foreign(str(module.ir), module.isa)

    return write


def _checked(sums: object) -> Value:
    """The new sums; raises OptionError if they are something else."""
    if not isinstance(sums, Value):
        raise OptionError(
            translate(
                "the kernel returned {kind}; return the new sums, a value of the SIMD language",
                kind=type(sums).__name__,
            )
        )
    if sums.element != F32 or sums.lanes != SUM_LANES:
        kind = ("F" if sums.element.is_float else "I" if sums.element.signed else "U") + str(sums.element.bits)
        raise OptionError(
            translate(
                "the kernel returned {kind} x {lanes}; the sums are F32 x {want}",
                kind=kind, lanes=sums.lanes, want=SUM_LANES,
            )
        )  # fmt: skip
    return sums


def _refuse_foreign(text: str, isa: Isa) -> None:
    """Raise OptionError for instructions that LLVM cannot select here: it would end the process."""
    for name in re.findall(r'"?llvm\.x86\.([\w.]+)', text):
        if not name.startswith(_ALLOWED.get(isa.value, ())) or "bf16" in name:
            raise OptionError(
                translate(
                    "the instruction {name} is not for this exercise; use dot, or plain vector operations", name=name
                )
            )


def float_input(x: np.ndarray) -> np.ndarray:
    """The vector x as `FloatInput` reads it: float32 in order."""
    return np.ascontiguousarray(x, np.float32)


def corrections(codes: np.ndarray) -> np.ndarray:
    """Start of a lane of each block, int32 [..., blocks].

    codes: int8 [..., blocks, 32]. A block has four lanes.
    """
    return (-ZERO_POINT * codes.astype(np.int32).sum(-1) // 4).astype(np.int32)


def quantise_input(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales, float32 [blocks], and int8 codes [blocks, 32] of a vector."""
    blocks = np.asarray(x, np.float32).reshape(-1, BLOCK_WEIGHTS)
    scales = np.abs(blocks).max(-1) / np.float32(127)
    codes = np.rint(np.divide(blocks, scales[:, None], out=np.zeros_like(blocks), where=scales[:, None] > 0))
    return scales, codes.astype(np.int8)


def coded_input(x: np.ndarray) -> np.ndarray:
    """The vector x as `CodedInput` reads it: bytes, step after step."""
    scales, codes = quantise_input(x)
    halves = codes.reshape(-1, BLOCKS, 2, 16).transpose(0, 2, 1, 3).reshape(-1, STEP)
    parts = (halves, scales.reshape(-1, BLOCKS), corrections(codes).reshape(-1, BLOCKS))
    return np.concatenate([np.ascontiguousarray(part).view(np.uint8) for part in parts], axis=1).reshape(-1)
