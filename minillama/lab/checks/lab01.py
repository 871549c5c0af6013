"""Graded items of lab 01: bandwidth, intensity, the two roofs, a model's bound, the ridge.

All items are formulas and do not depend on the machine's speed.
"""

import math

from minillama.lab.grading.check import Answer, Mistake, Score, expect_equal, graded
from minillama.lab.grading.check import score as score_of
from minillama.lab.grading.course_seed import hidden_cases, one_of, real, whole
from minillama.lab.language import translate

LAB = "01"


def _bandwidth(elements: int, itemsize: int, arrays_read: int, arrays_written: int, seconds: float) -> float:
    return elements * itemsize * (arrays_read + arrays_written) / seconds


@graded(LAB, "1. bandwidth: what counts as traffic")
def bandwidth(answer: Answer) -> str:
    """`bandwidth(elements, itemsize, arrays_read, arrays_written, seconds) -> bytes a second`."""
    mistakes = (
        Mistake("written arrays count too: arrays read *plus* written", lambda n, i, r, w, s: n * i * r / s),
        Mistake("read arrays count too: arrays read *plus* written", lambda n, i, r, w, s: n * i * w / s),
        Mistake("each array counts separately: how many are there?", lambda n, i, r, w, s: n * i / s),
        Mistake("elements are not bytes: each has itemsize of them", lambda n, i, r, w, s: n * (r + w) / s),
        Mistake("bytes a second, not GB: leave out the 1e9", lambda *a: _bandwidth(*a) / 1e9),
        Mistake("bytes a second, not GiB: leave out the 2**30", lambda *a: _bandwidth(*a) / 2**30),
        Mistake("bytes, not bits", lambda *a: 8 * _bandwidth(*a)),
        Mistake("bytes *per* second: divide by the seconds", lambda n, i, r, w, s: n * i * (r + w) * s),
        Mistake("bytes *per* second: divide by the seconds", lambda n, i, r, w, s: n * i * (r + w)),
        Mistake("arrays are added up, not multiplied", lambda n, i, r, w, s: n * i * r * w / s),
    )
    cases = ((77, 8, 3, 2, 4.0), (1000, 8, 2, 1, 0.5), (1 << 20, 4, 1, 1, 1e-3), (12345, 2, 1, 0, 2e-6))
    draws = (whole(1000, 10**6), one_of(2, 4, 8), whole(1, 5), whole(1, 3), real(1e-6, 4.0))
    for case in (*cases, *hidden_cases(101, *draws)):
        label = translate("{read} arrays read, {written} written", read=case[2], written=case[3])
        expect_equal(answer, case, _bandwidth, mistakes, tolerance=1e-9, case=label)
    return "every array counts once for each time it is read or written."


def _intensity(rows: int, inner: int, columns: int, weight_bits: float, *, activations: float = 1.0) -> float:
    moved = inner * columns * weight_bits / 8 + activations * 4 * (rows * inner + rows * columns)
    return 2 * rows * inner * columns / moved


@graded(LAB, "2. arithmetic intensity of a product")
def intensity(answer: Answer) -> str:
    """`intensity(rows, inner, columns, weight_bits) -> operations per byte` of x [rows, inner] @ w [inner, columns]."""
    mistakes = (
        Mistake("a multiplication *and* an addition: two operations", lambda *a: _intensity(*a) / 2),
        Mistake("weight_bits are bits: 8 of them make a byte", lambda m, k, n, b: _intensity(m, k, n, 8 * b)),
        Mistake("the activations count too: x is read, the result is written, 4 bytes a number",
                lambda *a: _intensity(*a, activations=0.0)),
        Mistake("the result is written: rows x columns numbers more",
                lambda m, k, n, b: 2 * m * k * n / (k * n * b / 8 + 4 * m * k)),
        Mistake("x is read: rows x inner numbers more",
                lambda m, k, n, b: 2 * m * k * n / (k * n * b / 8 + 4 * m * n)),
        Mistake("activations are float32: 4 bytes each, whatever the weights are",
                lambda m, k, n, b: 2 * m * k * n / ((k * n + m * k + m * n) * b / 8)),
        Mistake("one number of float32 has 4 bytes", lambda *a: _intensity(*a, activations=0.25)),
        Mistake("the matrix is read once for all rows, not once for each",
                lambda m, k, n, b: 2 * m * k * n / (m * k * n * b / 8 + 4 * m * (k + n))),
        Mistake("every row is multiplied with the whole matrix: rows x inner x columns products",
                lambda m, k, n, b: _intensity(m, k, n, b) / m),
        Mistake("operations per byte, not bytes per operation", lambda *a: 1 / _intensity(*a)),
    )  # fmt: skip
    cases = ((7, 640, 96, 8.5), (1, 4096, 4096, 8.5), (512, 4096, 4096, 32.0), (64, 2048, 5632, 4.5))
    draws = (whole(1, 512), whole(64, 8192), whole(64, 8192), one_of(2.5, 4.5, 6.5, 8.5, 16.0))
    for case in (*cases, *hidden_cases(102, *draws)):
        label = f"rows={case[0]}, inner={case[1]}, columns={case[2]}, weight_bits={case[3]}"
        expect_equal(answer, case, _intensity, mistakes, tolerance=1e-6, case=label)
    return "two operations a byte for a vector in Q8_0, hundreds for a matrix."


def _attainable(intensity: float, bandwidth: float, flops: float) -> float:
    return min(flops, bandwidth * intensity)


@graded(LAB, "3. attainable operations a second")
def attainable(answer: Answer) -> str:
    """`attainable(intensity, bandwidth, flops) -> operations a second`."""
    mistakes = (
        Mistake("the arithmetic is a roof as well, and the *lower* one counts: min, not max", lambda i, b, f: b * i),
        Mistake("the memory is a roof as well, and the *lower* one counts: min, not max", lambda i, b, f: f),
        Mistake("bytes a second times operations a byte: multiply, do not divide", lambda i, b, f: min(f, b / i)),
        Mistake("that is the share of the peak; multiply by flops", lambda i, b, f: min(1.0, b * i / f)),
        Mistake("both are limits at the same time, they do not add up", lambda i, b, f: 1 / (1 / f + 1 / (b * i))),
        Mistake("flops is a roof by itself, without the intensity", lambda i, b, f: min(f * i, b * i)),
    )
    cases = ((0.5, 100e9, 30e9), (2.0, 10e9, 100e9), (50.0, 10e9, 100e9), (0.25, 3e12, 9e14), (10.0, 10e9, 100e9))
    for case in (*cases, *hidden_cases(103, real(0.1, 100.0), real(1e10, 3e12), real(1e11, 1e14), count=4)):
        label = translate(
            "intensity {intensity:g} under {bandwidth:.3g} bytes/s and {flops:.3g} operations/s",
            intensity=case[0],
            bandwidth=case[1],
            flops=case[2],
        )
        expect_equal(answer, case, _attainable, mistakes, tolerance=1e-9, case=label)
    return "the lower of the two roofs."


def _bound(weights: float, bits: float, cache: float, bandwidth: float, flops: float) -> float:
    return min(bandwidth / (weights * bits / 8 + cache), flops / (2 * weights))


@graded(LAB, "4. the bound of a model")
def bound(answer: Answer) -> str:
    """`bound(weights, weight_bits, cache_bytes, bandwidth, flops) -> tokens a second`."""
    mistakes = (
        Mistake("bits, not bytes: 8 of them make a byte", lambda w, b, c, m, f: min(m / (w * b + c), f / 2 / w)),
        Mistake("the cache is read for every token too", lambda w, b, c, m, f: min(m / (w * b / 8), f / 2 / w)),
        Mistake("arithmetic is a roof as well: each weight takes two operations a token",
                lambda w, b, c, m, f: m / (w * b / 8 + c)),
        Mistake("a weight is multiplied *and* added: two operations",
                lambda w, b, c, m, f: min(m / (w * b / 8 + c), f / w)),
        Mistake("both are limits at the same time: the slower one counts, the times do not add up",
                lambda w, b, c, m, f: 1 / ((w * b / 8 + c) / m + 2 * w / f)),
        Mistake("tokens a second, not seconds a token", lambda *a: 1 / _bound(*a)),
        Mistake("that is operations a second; divide by the operations of a token",
                lambda w, *a: _bound(w, *a) * 2 * w),
        Mistake("the memory is a roof as well, and the *lower* roof counts: min, not max",
                lambda w, b, c, m, f: f / (2 * w)),
    )  # fmt: skip
    cases = (
        (1e9, 8.5, 0.0, 20e9, 200e9),
        (7e9, 4.5, 2e9, 50e9, 400e9),
        (1e8, 2.0, 0.0, 400e9, 5e9),
        (3e9, 4.5, 5e8, 1e12, 4e14),
    )
    draws = (real(1e8, 7e10), one_of(2.5, 4.5, 6.5, 8.5, 16.0), real(1e6, 1e10), real(1e10, 3e12), real(1e10, 1e14))
    for case in (*cases, *hidden_cases(104, *draws, count=4)):
        label = translate(
            "{weights:.3g} weights of {bits:g} bits, {cache:.3g} bytes of cache",
            weights=case[0],
            bits=case[1],
            cache=case[2],
        )
        expect_equal(answer, case, _bound, mistakes, tolerance=1e-9, case=label)
    return "bandwidth over bytes of a token, unless the arithmetic is slower still."


def _rows(weight_bits: float, bandwidth: float, flops: float) -> int:
    return max(1, math.ceil(flops / bandwidth * weight_bits / 16 - 1e-9))


def _is_between(weight_bits: float, bandwidth: float, flops: float) -> bool:
    """True if no order of the operations could round the rows to another whole number."""
    return 0.01 < flops / bandwidth * weight_bits / 16 % 1 < 0.99


@graded(LAB, "5. which side of the ridge")
def ridge_rows(answer: Answer) -> str:
    """`ridge_rows(weight_bits, bandwidth, flops) -> the fewest tokens of an arithmetic-bound pass`."""
    mistakes = (
        Mistake("a weight takes two operations for each token", lambda b, m, f: math.ceil(f / m * b / 8)),
        Mistake("bits, not bytes: 8 of them make a byte", lambda b, m, f: math.ceil(f / m * b / 2)),
        Mistake("tokens are whole: round up, because with fewer the memory is still the limit",
                lambda b, m, f: math.floor(f / m * b / 16)),
        Mistake("tokens are whole: round up, because with fewer the memory is still the limit",
                lambda b, m, f: round(f / m * b / 16)),
        Mistake("tokens are whole: round up, with math.ceil", lambda b, m, f: f / m * b / 16),
        Mistake("that is the ridge itself, in operations a byte; how many tokens give this intensity?",
                lambda b, m, f: f / m),
        Mistake("the ridge is flops / bandwidth, not the other way round", lambda b, m, f: math.ceil(m / f * b / 16)),
        Mistake("with fewer bits, arithmetic is the limit sooner: multiply by the bits",
                lambda b, m, f: math.ceil(f / m * 8 / b / 2)),
    )  # fmt: skip
    cases = ((16.0, 10e9, 100e9), (8.5, 16e9, 161e9), (4.5, 16e9, 161e9), (16.0, 3.35e12, 9.9e14))
    draws = (one_of(2.5, 4.5, 6.5, 8.5, 16.0), real(1e10, 3e12), real(1e11, 1e15))
    for case in (*cases, *hidden_cases(105, *draws, fits=_is_between)):
        label = translate(
            "weights of {bits:g} bits, {bandwidth:.3g} bytes/s, {flops:.3g} operations/s",
            bits=case[0],
            bandwidth=case[1],
            flops=case[2],
        )
        expect_equal(answer, case, _rows, mistakes, case=label)
    return "a few tokens on a processor, hundreds on a GPU: fewer, and memory is the limit."


ITEMS = (bandwidth, intensity, attainable, bound, ridge_rows)


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
