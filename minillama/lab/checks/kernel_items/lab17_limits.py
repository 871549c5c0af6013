"""Graded items of lab 17: instructions that memory allows, the correction of a zero point."""

import numpy as np

from minillama.lab.grading.check import Answer, Mistake, expect_equal, graded
from minillama.lab.grading.course_seed import hidden_cases, hidden_random, one_of, real
from minillama.lab.language import translate
from minillama.lab.own_kernels.block_kernels import corrections

LAB = "17"


def _allowed(bandwidth: float, frequency: float, per_cycle: float, bits: float) -> float:
    return frequency * per_cycle * bits / 8 / bandwidth


ALLOWED_MISTAKES = (
    Mistake("a weight has `bits` bits, and the bandwidth is in bytes: divide by 8", lambda b, f, p, w: f * p * w / b),
    Mistake("those are instructions a *byte*: a weight has bits / 8 bytes", lambda b, f, p, w: f * p / b),
    Mistake("a core runs `per_cycle` instructions in each cycle", lambda b, f, p, w: f * w / 8 / b),
    Mistake("`per_cycle` on the wrong side: more instructions a cycle allow more",
            lambda b, f, p, w: f / p * w / 8 / b),
    Mistake("inverted: that is weights an instruction", lambda b, f, p, w: 1 / _allowed(b, f, p, w)),
    Mistake("`bits` on the wrong side: larger weights take longer to read, and allow more instructions",
            lambda b, f, p, w: f * p * 8 / w / b),
    Mistake("that is weights a second of memory; how many instructions does the core run meanwhile?",
            lambda b, f, p, w: b * 8 / w),
)  # fmt: skip
MACHINES = ((12e9, 3e9, 2.0, 4.5), (25e9, 4.2e9, 3.0, 8.5), (5e9, 2.1e9, 1.5, 16.0))


@graded(LAB, "1. instructions that memory allows")
def instructions_allowed(answer: Answer) -> str:
    """`instructions_allowed(bandwidth, frequency, per_cycle, bits)` -> instructions a weight."""
    draws = (real(2e9, 1e11), real(1e9, 6e9), real(1.0, 6.0), one_of(2.5, 4.5, 6.5, 8.5, 16.0))
    for machine in (*MACHINES, *hidden_cases(1701, *draws)):
        case = translate("{bits} bits a weight", bits=machine[3])
        expect_equal(answer, machine, _allowed, ALLOWED_MISTAKES, tolerance=1e-6, case=case)
    return "more than this, and the core is the limit; fewer, and memory is."


def _correction(codes: np.ndarray) -> np.ndarray:
    return corrections(codes)


def _sums(codes: np.ndarray) -> np.ndarray:
    return codes.astype(np.int64).sum(-1)


CORRECTION_MISTAKES = (
    Mistake("in int8 the product with 8 overflows: sum first, or convert to int32 first",
            lambda c: (np.multiply(c, np.int8(-8), dtype=np.int8)).astype(np.int64).sum(-1) / 4),
    Mistake("the sign: the zero point is *subtracted* from each code", lambda c: 2 * _sums(c)),
    Mistake("each of the four lanes starts with a quarter of it; else it counts four times", lambda c: -8 * _sums(c)),
    Mistake("the zero point is missing: 8 times the sum of the codes, shared by four lanes", lambda c: -_sums(c) / 4),
    Mistake("the zero point is 8, not 16: a code has 16 values, and 8 of them are below zero",
            lambda c: -4 * _sums(c)),
    Mistake("one number for each block: sum over the 32 codes of a block, the last axis",
            lambda c: -2 * c.astype(np.int64).sum(0)),
    Mistake("one number for each block, not one for all", lambda c: -2 * c.astype(np.int64).sum()),
    Mistake("-8 for each of the 32 weights is right only if all activations are 1: multiply with their codes",
            lambda c: np.full(len(c), -8 * 32 / 4)),
)  # fmt: skip


@graded(LAB, "3. the correction of the zero point")
def correction(answer: Answer) -> str:
    """`correction(x_codes [blocks, 32])` -> start of each of the four lanes of a block, [blocks]."""
    random = hidden_random(17)
    for blocks in (3, 5):
        codes = random.integers(-127, 128, (blocks, 32)).astype(np.int8)
        expect_equal(answer, (codes,), _correction, CORRECTION_MISTAKES, case=translate("{count} blocks", count=blocks))
    return "exact integers; a product of unsigned codes has become one of signed weights."
