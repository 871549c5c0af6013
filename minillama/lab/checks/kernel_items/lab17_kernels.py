"""Graded items of lab 17: two kernels, by their results, their instructions and their bytes."""

from functools import cache, wraps

import numpy as np

from minillama.errors import OptionError, ResourceError
from minillama.kernels.cpu.simd import F32, I32, Value, const, dot_narrow, fma
from minillama.lab.grading.check import Answer, Comparison, Mistake, NotYet, call, compared, graded, is_close
from minillama.lab.grading.course_seed import hidden_random, hidden_seed
from minillama.lab.language import message, translate
from minillama.lab.own_kernels.block_kernels import CODED, FLOAT, STEP, Blocks, Body, CodedInput, FloatInput, Shape
from minillama.lab.own_kernels.traced_kernels import (
    CountedKernel,
    compiled,
    loaded_product,
    random_blocks,
    run_guarded,
)

LAB = "17"
MOST_INSTRUCTIONS, MOST_BYTES = 1.5, 1.02  # times those of the check's own kernel
TOLERANCE = 1e-5


def check_kernel(answer: Answer, shape: Shape, right: Body, mistakes: tuple[Mistake, ...]) -> str:
    """Check a body: trace, compile, run in a child process, compare, count.

    Raises NotYet. The praise has no counts, because they differ by processor.
    """
    weights = random_blocks(3, 3 * STEP, hidden_seed(5))
    x = hidden_random(6).standard_normal(3 * STEP).astype(np.float32)

    @wraps(answer)
    def compile_it() -> CountedKernel:
        return compiled(answer, shape)

    def outcome(body: Answer) -> np.ndarray:
        return loaded_product(_trusted(body, shape), shape)(weights, x)

    kernel = call(compile_it)
    assert isinstance(kernel, CountedKernel)
    comparison = compared(Comparison(outcome, right, mistakes, TOLERANCE))
    try:
        got = run_guarded(kernel, shape, weights, x)
    except ResourceError as error:
        raise NotYet(str(error)) from None
    want = outcome(right)
    if not is_close(got, want, TOLERANCE):
        hint = comparison.hint(got) if np.all(np.isfinite(got)) else message("the result holds nan or infinity")
        raise NotYet(
            hint or translate("wrong value: row 0 is {got:.6g}, and should be {want:.6g}", got=got[0], want=want[0])
        )
    _check_counts(kernel, _trusted(right, shape))
    return translate(
        "right, and at most {most} times the instructions of the check's own kernel.", most=MOST_INSTRUCTIONS
    )


@cache
def _trusted(body: Body, shape: Shape) -> CountedKernel:
    """A compiled body of this module."""
    return compiled(body, shape)


def _check_counts(kernel: CountedKernel, own: CountedKernel) -> None:
    """Raise NotYet if the kernel has too many instructions or loads too many bytes."""
    try:
        instructions, size = kernel.instructions, kernel.loaded_bytes
    except OptionError as error:
        raise NotYet(str(error)) from None
    most, most_bytes = MOST_INSTRUCTIONS * own.instructions, MOST_BYTES * own.loaded_bytes
    kinds = translate(", ").join(f"{count} {translate(kind)}" for kind, count in kernel.count.kinds.items())
    if instructions > most:
        raise NotYet(
            translate(
                "right, but {instructions:.2f} instructions a weight; at most {most:.2f} ({kinds} for {step} weights)",
                instructions=instructions, most=most, kinds=kinds, step=STEP,
            )
        )  # fmt: skip
    if size > most_bytes:
        raise NotYet(
            translate(
                "right, but it loads {size:.2f} bytes a weight; at most {most:.2f}: load each byte once",
                size=size, most=most_bytes,
            )
        )  # fmt: skip


def _halves(block: Blocks) -> tuple[Value, Value]:
    raw = block.quants()
    return (raw & 15).to(I32), (raw >> 4).to(I32)


def _product(low: Value, high: Value, x: FloatInput, sums: Value) -> Value:
    return fma(high, x.high(), fma(low, x.low(), sums))


def _dequantise(block: Blocks, x: FloatInput, sums: Value, zero_point: int = 8) -> Value:
    low, high = (((codes - zero_point).to(F32)) * block.scales() for codes in _halves(block))
    return _product(low, high, x, sums)


def _crossed(block: Blocks, x: FloatInput, sums: Value) -> Value:
    low, high = (((codes - 8).to(F32)) * block.scales() for codes in _halves(block))
    return _product(high, low, x, sums)


def _unshifted(block: Blocks, x: FloatInput, sums: Value) -> Value:
    raw = block.quants()
    low, high = ((codes.to(I32) - 8).to(F32) * block.scales() for codes in (raw & 15, raw & 240))
    return _product(low, high, x, sums)


def _unmasked(block: Blocks, x: FloatInput, sums: Value) -> Value:
    raw = block.quants()
    low, high = ((codes.to(I32) - 8).to(F32) * block.scales() for codes in (raw, raw >> 4))
    return _product(low, high, x, sums)


def _wrapped(block: Blocks, x: FloatInput, sums: Value) -> Value:
    raw = block.quants()
    low, high = ((codes - 8).to(F32) * block.scales() for codes in (raw & 15, raw >> 4))
    return _product(low, high, x, sums)


def _unscaled(block: Blocks, x: FloatInput, sums: Value) -> Value:
    low, high = ((codes - 8).to(F32) for codes in _halves(block))
    return _product(low, high, x, sums)


def _sums_scaled(block: Blocks, x: FloatInput, sums: Value) -> Value:
    return _unscaled(block, x, sums) * block.scales()


DEQUANTISE_MISTAKES = (
    Mistake("codes are 0 to 15, weights are signed: subtract the zero point 8",
            lambda b, x, s: _dequantise(b, x, s, 0)),
    Mistake("the zero point of four bits is 8: code 8 is the weight 0", lambda b, x, s: _dequantise(b, x, s, 7)),
    Mistake("bytes below 8 wrap: convert to I32 before you subtract the zero point", _wrapped),
    Mistake("crossed: the low four bits are the first 16 weights, for x.low()", _crossed),
    Mistake("shift the high four bits down: raw >> 4", _unshifted),
    Mistake("mask the low four bits: raw & 15", _unmasked),
    Mistake("multiply with the scale of the block", _unscaled),
    Mistake("the scale is for this block's products only, not for the sums of the blocks before", _sums_scaled),
    Mistake("add to `sums`: the blocks before are in them", lambda b, x, s: _dequantise(b, x, const(0.0, F32, 16))),
    Mistake("the products of x.high() are missing", lambda b, x, s: fma(
        (_halves(b)[0] - 8).to(F32) * b.scales(), x.low(), s)),
)  # fmt: skip


@graded(LAB, "2. a kernel that dequantises")
def dequantise_product(answer: Answer) -> str:
    """`dequantise_product(block, x, sums)` -> new sums, F32 x 16."""
    return check_kernel(answer, FLOAT, _dequantise, DEQUANTISE_MISTAKES)


_OWN = [lane // 4 for lane in range(16)]  # block of each lane
_TURNED = [lane % 4 for lane in range(16)]


def _integer(
    blocks: Blocks, x: CodedInput, sums: Value, *, start: list[int] | None = _OWN, scale: list[int] = _OWN,
    crossed: bool = False, factors: tuple[bool, bool] = (True, True), sign: int = 1,
) -> Value:  # fmt: skip
    """The right kernel; each keyword makes one mistake."""
    raw = blocks.quants()
    xs = [x.high(), x.low()] if crossed else [x.low(), x.high()]
    first = const(0, I32, 16) if start is None else x.corrections().permute(start) * sign
    dots = dot_narrow([raw & 15, raw >> 4], xs, 15, first)
    one = const(1.0, F32, 4)
    both = (blocks.scales() if factors[0] else one) * (x.scales() if factors[1] else one)
    return fma(dots.to(F32), both.permute(scale), sums)


def _late(blocks: Blocks, x: CodedInput, sums: Value) -> Value:
    """Corrections added after the scale."""
    return _integer(blocks, x, sums, start=None) + x.corrections().permute(_OWN).to(F32)


INTEGER_MISTAKES = (
    Mistake("the zero point is missing: start the lanes of a block with x.corrections()",
            lambda b, x, s: _integer(b, x, s, start=None)),
    Mistake("the sign: x.corrections() are negative already; add them", lambda b, x, s: _integer(b, x, s, sign=-1)),
    Mistake("crossed: the low four bits belong to x.low()", lambda b, x, s: _integer(b, x, s, crossed=True)),
    Mistake("lane i belongs to block i // 4: so do its scales", lambda b, x, s: _integer(b, x, s, scale=_TURNED)),
    Mistake("lane i belongs to block i // 4: so do its corrections", lambda b, x, s: _integer(b, x, s, start=_TURNED)),
    Mistake("the scales of the activations are missing: x.scales()",
            lambda b, x, s: _integer(b, x, s, factors=(True, False))),
    Mistake("the scales of the blocks are missing: blocks.scales()",
            lambda b, x, s: _integer(b, x, s, factors=(False, True))),
    Mistake("corrections are integers of the codes: add them before the scales multiply", _late),
    Mistake("add to `sums`: the blocks before are in them", lambda b, x, s: _integer(b, x, const(0.0, F32, 16))),
)  # fmt: skip


@graded(LAB, "4. a kernel of integers")
def integer_product(answer: Answer) -> str:
    """`integer_product(blocks, x, sums)` -> new sums, F32 x 16."""
    return check_kernel(answer, CODED, _integer, INTEGER_MISTAKES)
