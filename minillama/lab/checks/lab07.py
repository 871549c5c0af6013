"""Graded items of lab 07: int8, block scales, bits per weight, model size, importance."""

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from minillama.gguf.quantisation_mixes import Mix
from minillama.gguf.types import BLOCKS, TensorType
from minillama.lab.grading.check import Answer, Mistake, NotYet, Score, as_array, call, expect_equal, graded
from minillama.lab.grading.check import score as score_of
from minillama.lab.grading.course_seed import hidden_cases, hidden_random, whole
from minillama.lab.language import message, translate
from minillama.random_models.known_shapes import shape_named
from minillama.random_models.model_writer import tensor_specs

LAB = "07"


def _matrices() -> dict[str, np.ndarray]:
    """Hidden matrices; each exposes one mistake."""
    random = hidden_random(707)
    plain = random.normal(size=(5, 64)).astype(np.float32)
    uneven = plain * np.array([[1e-3], [1.0], [30.0], [0.2], [5.0]], np.float32)
    negative = -np.abs(random.normal(size=(3, 40))).astype(np.float32)
    empty = random.normal(size=(4, 16)).astype(np.float32)
    empty[2] = 0.0
    return {
        message("an ordinary matrix"): plain,
        message("rows of very different size"): uneven,
        message("negative numbers alone"): negative,
        message("a row of zeros"): empty,
    }


@graded(LAB, "1. int8, a scale a row")
def int8_rows(answer: Answer) -> str:
    """`int8_rows(x [R, C]) -> (codes [R, C], d [R])` with |x - d q| <= d / 2 everywhere."""
    for label, x in _matrices().items():
        got = call(answer, x, case=label)
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise NotYet("return two things: the codes and the scales")
        codes, d = as_array(got[0]), as_array(got[1])
        if codes.shape != x.shape:
            raise NotYet(translate("the codes have the shape {got}, and x has {want}", got=codes.shape, want=x.shape))
        _scales(x, d, label)
        _codes(x, codes, d.reshape(-1, 1), label)
    return "no error above d / 2, in any row."


def _scales(x: np.ndarray, d: np.ndarray, label: str) -> None:
    if d.size == 1 and len(x) > 1:
        raise NotYet(
            "one scale for the whole matrix: then its largest row decides for all rows. Use one per row: axis=1"
        )
    if d.size == x.shape[1] != len(x):
        raise NotYet("one scale a column: take the maximum along the row, axis=1")
    if d.size != len(x):
        raise NotYet(translate("{scales} scales for {rows} rows", scales=d.size, rows=len(x)))
    d, largest = d.reshape(-1), np.abs(x).max(1)
    if not np.all(np.isfinite(d)):
        raise NotYet(translate("the scales hold nan or infinity ({label})", label=translate(label)))
    others = (largest / 127, x.max(1) / 127, largest / 128, largest / 255, (x.max(1) - x.min(1)) / 255,
              127 / (largest + 1e-30), largest)  # fmt: skip
    near = [np.allclose(d, other, rtol=1e-4, atol=0) for other in others]
    if near[0] or np.allclose(d[largest > 0], largest[largest > 0] / 127, rtol=1e-4, atol=0):
        return
    if near[1]:
        raise NotYet(
            "the largest *magnitude* decides: max of |x|, because a row may reach further below zero than above"
        )
    if near[2]:
        raise NotYet("128 does not fit in int8, whose largest number is 127: d = max|x| / 127")
    if near[3] or near[4]:
        raise NotYet("symmetric means codes from -127 to 127 and zero at zero: d = max|x| / 127")
    if near[5]:
        raise NotYet("that is 1/d: x is about d * q")
    if near[6]:
        raise NotYet("d is the *step*: the largest magnitude / 127")
    raise NotYet(translate("other scales than max|x| / 127 of each row, for {label}", label=translate(label)))


def _codes(x: np.ndarray, codes: np.ndarray, d: np.ndarray, label: str) -> None:
    if not np.all(np.isfinite(codes)):
        raise NotYet("0 / 0 is nan: a row of zeros has the scale 0, and its codes are 0")
    if np.any(codes != np.rint(codes)):
        raise NotYet("the codes are not whole numbers: np.rint, then .astype(np.int8)")
    exact = np.divide(x, d, out=np.zeros(x.shape), where=d > 0)
    clear = np.abs(exact - np.rint(exact)) > 1e-3  # rounding may give slightly less than a whole number
    for rule, hint in (
        (np.trunc, message("astype(np.int8) cuts towards zero, an error of up to d: np.rint first")),
        (np.floor, message("floor is wrong by up to d: np.rint goes to the nearest")),
    ):
        if np.any(clear) and np.array_equal(codes[clear], rule(exact[clear])):
            raise NotYet(hint)
    if np.any(np.abs(codes) > 127):
        raise NotYet("a code beyond 127 does not fit in int8: round to the nearest, then it never happens")
    lost = np.abs(x - d * codes)
    if np.any(lost > d / 2 * (1 + 1e-4) + 1e-30):
        row, column = (int(place) for place in np.unravel_index(int(np.argmax(lost - d / 2)), lost.shape))
        text = translate(
            "for {label} the error at row {row}, column {column} is {lost:.3g}, more than d / 2 = {half:.3g}: "
            "np.rint(x / d)",
            label=translate(label), row=row, column=column, lost=lost[row, column], half=d[row, 0] / 2,
        )  # fmt: skip
        raise NotYet(text)


def _round_trip(
    x: np.ndarray, size: int, bits: int, *, less: int = 1, rint: Answer = np.rint, axis: int = -1
) -> np.ndarray:
    """Quantise to `bits` bits with a scale for every `size` neighbours, and back."""
    blocks = np.asarray(x, np.float64).reshape(-1, size)
    top = 2 ** (bits - 1) - less
    largest = np.abs(blocks).max() if axis == 0 else np.abs(blocks).max(1, keepdims=True)
    d = np.broadcast_to(largest / top, blocks.shape)
    codes = rint(np.divide(blocks, d, out=np.zeros_like(blocks), where=d > 0))
    return np.asarray(d * codes).reshape(x.shape)  # type: ignore[operator]


@graded(LAB, "2. a scale a block")
def round_trip(answer: Answer) -> str:
    """`round_trip(x [R, C], size, bits) -> [R, C]`: quantised by blocks of `size`, and back."""
    mistakes = (
        Mistake("the scale is one a row in yours, whatever `size` is: reshape to blocks first",
                lambda x, size, bits: _round_trip(x, x.shape[1], bits)),
        Mistake("the scale is one for all in yours: the maximum along the last axis of the blocks, keepdims=True",
                lambda x, size, bits: _round_trip(x, size, bits, axis=0)),
        Mistake("a block is a run of neighbours in a row; yours takes every n-th number or goes down the columns",
                lambda x, size, bits: _round_trip(x.T.copy(), size, bits).T if x.shape[0] % size == 0 else np.zeros(0)),
        Mistake("the largest code is 2^(bits - 1) - 1: 7 for 4 bits, 127 for 8",
                lambda x, size, bits: _round_trip(x, size, bits, less=0)),
        Mistake("the largest code is 2^(bits - 1) - 1, because one bit is the sign",
                lambda x, size, bits: _round_trip(x, size, bits + 1)),
        Mistake("yours is always 8 bits", lambda x, size, bits: _round_trip(x, size, 8)),
        Mistake("cut towards zero; np.rint goes to the nearest",
                lambda x, size, bits: _round_trip(x, size, bits, rint=np.trunc)),
        Mistake("these are the codes; times d they become the values again",
                lambda x, size, bits: np.rint(_round_trip(x, size, bits) / _scale(x, size, bits))),
    )  # fmt: skip
    random = hidden_random(717)
    for rows, columns, size, bits in ((32, 64, 32, 4), (2, 128, 16, 8), (3, 96, 32, 3), (4, 64, 64, 5)):
        x = random.normal(size=(rows, columns)).astype(np.float32)
        x *= np.exp(random.normal(size=(rows, 1))).astype(np.float32)
        label = translate("blocks of {size} and {bits} bits", size=size, bits=bits)
        expect_equal(answer, (x, size, bits), _round_trip, mistakes, tolerance=1e-4, case=label)
    x[1] = 0.0
    expect_equal(answer, (x, 32, 4), _round_trip, mistakes, tolerance=1e-4, case=message("a block of zeros"))
    return "any block, any number of bits."


def _scale(x: np.ndarray, size: int, bits: int) -> np.ndarray:
    largest = np.abs(np.asarray(x, np.float64).reshape(-1, size)).max(1, keepdims=True)
    d = np.where(largest > 0, largest, 1.0) / (2 ** (bits - 1) - 1)
    return np.broadcast_to(d, (len(d), size)).reshape(x.shape)


# (bits of a code, weights of a block, bits of a block's scales, weights of a super-block, bits of its own scales)
FORMATS: dict[TensorType, tuple[int, int, int, int, int]] = {
    TensorType.Q6_K: (6, 16, 8, 256, 16),
    TensorType.Q4_K: (4, 32, 12, 256, 32),
    TensorType.Q8_0: (8, 32, 16, 32, 0),
    TensorType.Q4_0: (4, 32, 16, 32, 0),
    TensorType.Q4_1: (4, 32, 32, 32, 0),
    TensorType.Q3_K: (3, 16, 6, 256, 16),
    TensorType.Q2_K: (2, 16, 8, 256, 32),
}


def _bits(code: int, block: int, scales: int, super_block: int, super_scales: int) -> float:
    return code + scales / block + super_scales / super_block


@graded(LAB, "3. bits a weight")
def bits_per_weight(answer: Answer) -> str:
    """`bits_per_weight(code, block, scales, super_block, super_scales)`, scales included."""
    mistakes = (
        Mistake("the scales take bits too", lambda c, b, s, bb, ss: float(c)),
        Mistake("the super-block's own scales are missing", lambda c, b, s, bb, ss: c + s / b),
        Mistake("a block's scales are shared by `block` weights, not by the super-block",
                lambda c, b, s, bb, ss: c + (s + ss) / bb),
        Mistake("the super-block's scales are there once in `super_block` weights",
                lambda c, b, s, bb, ss: c + (s + ss) / b),
        Mistake("per weight, not per super-block", lambda c, b, s, bb, ss: _bits(c, b, s, bb, ss) * bb),
        Mistake("per weight, not per block", lambda c, b, s, bb, ss: _bits(c, b, s, bb, ss) * b),
        Mistake("bits, not bytes", lambda c, b, s, bb, ss: _bits(c, b, s, bb, ss) / 8),
        Mistake("no rounding: 4.5 bits are 4.5 bits", lambda c, b, s, bb, ss: round(_bits(c, b, s, bb, ss))),
    )  # fmt: skip
    for kind, numbers in FORMATS.items():
        expect_equal(answer, numbers, _bits, mistakes, tolerance=1e-9, case=kind.name)
    return translate("what {count} formats of GGUF really take.", count=len(FORMATS))


def weights_by_type(shape: str, mix: str) -> dict[str, int]:
    """Number of weights of each type in a mix's file of a model."""
    found: Counter[str] = Counter()
    for tensor in tensor_specs(shape_named(shape), Mix.named(mix)):
        found[tensor.type.name] += math.prod(tensor.shape)
    return dict(found)


BITS: dict[str, float] = {kind.name: 8 * size / count for kind, (count, size) in BLOCKS.items()}


def _gigabytes(weights: Mapping[str, int], bits: Mapping[str, float]) -> float:
    return sum(count * bits[kind] for kind, count in weights.items()) / 8e9


@graded(LAB, "4. the size of a model")
def gigabytes(answer: Answer) -> str:
    """`gigabytes(weights by type, bits by type) -> 10^9 bytes`."""
    mistakes = (
        Mistake("GiB: divide by 10^9, as llama.cpp's file lists and disks do",
                lambda w, b: _gigabytes(w, b) * 1e9 / 2**30),
        Mistake("bits, not bytes: eight bits to the byte", lambda w, b: 8 * _gigabytes(w, b)),
        Mistake("bytes, not GB", lambda w, b: 1e9 * _gigabytes(w, b)),
        Mistake("MB, not GB", lambda w, b: 1e3 * _gigabytes(w, b)),
        Mistake("all weights as the most frequent type: the mix keeps some in more bits",
                lambda w, b: sum(w.values()) * b[max(w, key=w.__getitem__)] / 8e9),
        Mistake("the mean over types gives a norm of 4096 numbers the weight of a matrix: count the weights",
                lambda w, b: sum(w.values()) * float(np.mean([b[kind] for kind in w])) / 8e9),
        Mistake("only the most frequent type is counted",
                lambda w, b: w[max(w, key=w.__getitem__)] * b[max(w, key=w.__getitem__)] / 8e9),
    )  # fmt: skip
    for shape, mix in (("llama-3.2-1b", "Q4_K_M"), ("tinyllama-1.1b", "Q2_K"), ("llama-2-7b", "Q4_K_M"),
                       ("qwen2.5-0.5b", "Q8_0")):  # fmt: skip
        expect_equal(
            answer, (weights_by_type(shape, mix), BITS), _gigabytes, mistakes, tolerance=1e-6, case=f"{shape} {mix}"
        )
    for counts in hidden_cases(704, *[whole(10**5, 10**9)] * 3):
        weights = dict(zip(("F32", "Q4_K", "Q6_K"), counts, strict=True))
        expect_equal(answer, (weights, BITS), _gigabytes, mistakes, tolerance=1e-6, case=f"{weights}")
    return "four models, all types counted."


def _best_scale(x: np.ndarray, codes: np.ndarray, importance: np.ndarray) -> float:
    x, codes, importance = (np.asarray(each, np.float64) for each in (x, codes, importance))
    return float((importance * x * codes).sum() / (importance * codes**2).sum())


@graded(LAB, "5. what importance changes")
def best_scale(answer: Answer) -> str:
    """`best_scale(x, codes, importance) -> d` of the least Σ importance (x - d codes)²."""
    mistakes = (
        Mistake("the importance is missing: multiply both sums with it",
                lambda x, q, w: _best_scale(x, q, np.ones_like(w))),
        Mistake("importance enters once: it weighs the *squared* error", lambda x, q, w: _best_scale(x, q, w**2)),
        Mistake("importance enters once: it weighs the *squared* error", lambda x, q, w: _best_scale(w * x, q, w)),
        Mistake("inverted: Σ w x q is the numerator", lambda x, q, w: 1 / _best_scale(x, q, w)),
        Mistake("the denominator is Σ w q², not Σ w x²", lambda x, q, w: (w * x * q).sum() / (w * x**2).sum()),
        Mistake("the importance belongs into the denominator too",
                lambda x, q, w: (w * x * q).sum() / (q.astype(float) ** 2).sum()),
        Mistake("that is max|x| / largest code: no sum, no importance",
                lambda x, q, w: np.abs(x).max() / np.abs(q).max()),
    )  # fmt: skip
    random = hidden_random(757)
    for size in (8, 32, 256):
        x = random.normal(size=size)
        codes = np.rint(x / np.abs(x).max() * 7)
        importance = np.exp(2 * random.normal(size=size))
        expect_equal(answer, (x, codes, importance), _best_scale, mistakes, tolerance=1e-6,
                     case=translate("{size} weights", size=size))  # fmt: skip
    return "the same bytes and the same format, spent where activations are large."


ITEMS = (int8_rows, round_trip, bits_per_weight, gigabytes, best_scale)


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
