"""Quantising rows: the same bytes as ggml, and as reference searches over one sub-block."""

import hashlib
import math

import numpy as np
import pytest
from gguf import quants
from hypothesis import given, settings
from hypothesis import strategies as st

from minillama.errors import FormatError, UnsupportedError
from minillama.gguf.quantise import QUANTISERS, quantise_rows
from minillama.gguf.quantise.scale_search import (
    ScaleTrials,
    fit_minimum,
    fit_positive,
    fit_signed,
    minimum_codes,
    refine_signed,
)
from minillama.gguf.types import BLOCKS, TensorType

ROUNDED = [type for type in QUANTISERS if type is not TensorType.F32]
FLOAT = np.float32

# sha256 of what ggml_quantize_chunk of llama.cpp 0c1e570 makes of `weights()`: without and with `importance()`.
GGML = {
    "F16": ("738ce8867ac847a4", "738ce8867ac847a4"),
    "BF16": ("486d54bca8c8dc48", "486d54bca8c8dc48"),
    "Q4_0": ("5ce9961b742fce1a", "f74bc42b41b92acc"),
    "Q4_1": ("10a6622b09032329", "c17af9ea1e643db4"),
    "Q5_0": ("3b8fa9b74b7972f5", "a1b77a534af5d312"),
    "Q5_1": ("15a9f7c91968c01c", "064d58a5334fac6a"),
    "Q8_0": ("ed150f304f58b6f6", "ed150f304f58b6f6"),
    "Q2_K": ("ba06cb1d8e69c3e8", "e82c6d11c790333d"),
    "Q3_K": ("82787d5063ebd07d", "42eb9ef77099141f"),
    "Q4_K": ("c4170d2865f1c394", "75bc8c7f0731acf0"),
    "Q5_K": ("f92f58d4b113238a", "bc6e0a4b9be8bd73"),
    "Q6_K": ("47c784ecb1ab268d", "71bc6a21a757af2c"),
    "IQ4_NL": ("ea2ad41704ab031c", "cbd28b9b15ce8c55"),
    "IQ4_XS": ("5ea0af7c073c3f41", "e02721bfc3b6f142"),
}

# Maximum error of rounding, in standard deviations of normal weights (llama.cpp's is the same).
ERROR = {
    "F16": 3e-4, "BF16": 2e-3, "Q8_0": 0.006, "Q6_K": 0.02, "Q5_K": 0.04, "Q5_1": 0.045, "Q5_0": 0.05, "Q4_K": 0.075,
    "IQ4_XS": 0.08, "IQ4_NL": 0.08, "Q4_1": 0.09, "Q4_0": 0.1, "Q3_K": 0.16, "Q2_K": 0.3,
}  # fmt: skip


def weights() -> np.ndarray:
    """[8, 512] numbers that are the same in any language, with sub-blocks of several sizes, zeros and constants."""
    n = np.arange(8 * 512, dtype=np.uint64)
    u = ((n * 2654435761 + 12345) % 2**32) / 2**32 - 0.5
    x = np.ldexp(u * u * u, -(n // 32 % 5).astype(np.int32)).astype(FLOAT).reshape(8, 512)
    x[1, 32:64] = 0
    x[2, :256] = 0
    x[3, 64:96] = 0.01
    x[4, 256:288] = -0.01
    return x


def importance() -> np.ndarray:
    return ((np.arange(512) * 40503 % 1000 + 1) / 100).astype(FLOAT)


def normal(rows: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (rows, length)).astype(FLOAT)


@pytest.mark.parametrize("type", ROUNDED, ids=lambda type: type.name)
def test_the_same_bytes_as_ggml(type: TensorType) -> None:
    for given_importance, digest in zip((None, importance()), GGML[type.name], strict=True):
        rows = quantise_rows(weights(), type, given_importance)
        assert hashlib.sha256(rows.tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16"])
def test_legacy_types_equal_those_of_gguf_py(name: str) -> None:
    for x in (weights(), normal(64, 256)):
        assert np.array_equal(quantise_rows(x, TensorType[name]), quants.quantize(x, TensorType[name]))


@pytest.mark.parametrize("type", ROUNDED, ids=lambda type: type.name)
def test_rounding_error_is_small(type: TensorType) -> None:
    x = normal(32, 512)
    error = quants.dequantize(quantise_rows(x, type), type) - x
    assert np.sqrt(np.mean(error**2)) < ERROR[type.name]
    uneven = np.where(np.arange(512) % 7 == 0, FLOAT(100), FLOAT(0.01))
    weighed = quants.dequantize(quantise_rows(x, type, uneven), type) - x
    if type.name not in ("F16", "BF16", "Q8_0"):
        assert np.mean(weighed**2 * uneven) < np.mean(error**2 * uneven), "importances are of no use"


@pytest.mark.parametrize("type", ROUNDED, ids=lambda type: type.name)
@pytest.mark.parametrize("weighed", [False, True])
def test_rows_are_independent(type: TensorType, weighed: bool) -> None:
    x, by = weights(), importance() if weighed else None
    together = quantise_rows(x, type, by)
    assert np.array_equal(together, np.concatenate([quantise_rows(x[i : i + 1], type, by) for i in range(len(x))]))
    block = BLOCKS[type][0]
    if type not in (TensorType.F16, TensorType.BF16) and not weighed:
        one = quantise_rows(x[:1, :block], type, by)
        assert np.array_equal(one, together[:1, : one.shape[1]])


ODD = {
    "zeros": np.zeros(256),
    "minus zeros": np.full(256, -0.0),
    "constant": np.full(256, 0.37),
    "negative constant": np.full(256, -0.37),
    "one": np.eye(1, 256)[0],
    "smallest floats": np.linspace(-1e-40, 1e-40, 256),
    "tiny": np.linspace(-1e-20, 1e-20, 256),
    "large": np.linspace(-900, 1000, 256),
    "large among tiny": np.where(np.arange(256) % 100 == 0, 1.0, 1e-12),
}


@pytest.mark.parametrize("type", ROUNDED, ids=lambda type: type.name)
@pytest.mark.parametrize("name", ODD)
def test_unusual_rows(type: TensorType, name: str) -> None:
    x = ODD[name].astype(FLOAT)[None]
    for by in (None, np.ones(256, FLOAT), np.zeros(256, FLOAT)):
        read = quants.dequantize(quantise_rows(x, type, by), type)
        assert np.isfinite(read).all()
        if by is None:
            assert np.abs(read - x).max() <= np.abs(x).max() * 0.55 + 1e-7  # what float16 scales cannot say
            if "zeros" in name:
                assert not read.any()


@settings(max_examples=25)
@given(st.sampled_from(ROUNDED), st.integers(0, 2**32 - 1), st.floats(-8, 3), st.floats(0, 3), st.booleans())
def test_any_weights(type: TensorType, seed: int, size: float, spread: float, weighed: bool) -> None:
    """Finite; errors at most the largest weight and the rounding of float16 scales; the same again."""
    rng = np.random.default_rng(seed)
    by_block = 10 ** rng.uniform(size - spread, size, (2, 32))
    x = (rng.normal(0, 1, (2, 512)) * np.repeat(by_block, 16, axis=1)).astype(FLOAT)
    by = (rng.random(512) ** 4).astype(FLOAT) if weighed else None
    rows = quantise_rows(x, type, by)
    read = quants.dequantize(rows, type)
    assert np.isfinite(read).all()
    unsaid = 2**-25 * 128 * 32  # half a step of the smallest float16, times the largest scale and code (Q6_K's)
    assert np.abs(read - x).max() <= 1.1 * np.abs(x).max() + 1.1 * unsaid
    assert np.array_equal(rows, quantise_rows(x, type, by))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_weights(bad: float) -> None:
    x = weights()
    x[5, 7] = bad
    with pytest.raises(FormatError, match=rf"weight 7 of row 5 is {bad}"):
        quantise_rows(x, TensorType.Q4_K)


def test_invalid_requests() -> None:
    with pytest.raises(FormatError, match=r"weights of up to 1e\+30 are too large for Q4_0"):
        quantise_rows(np.full((1, 32), 1e30, FLOAT), TensorType.Q4_0)
    with pytest.raises(FormatError, match="too large for F16"):
        quantise_rows(np.full((1, 32), 1e6, FLOAT), TensorType.F16)
    with pytest.raises(UnsupportedError, match="a row of 96 is not a multiple of the Q4_K block of 256"):
        quantise_rows(normal(1, 96), TensorType.Q4_K)
    with pytest.raises(UnsupportedError, match="cannot quantise to IQ2_XS; supported: F32, F16"):
        quantise_rows(normal(1, 256), TensorType.IQ2_XS)


# Reference implementations of the searches: one sub-block, one number at a time.


def nearest(x: float, low: int, top: int) -> np.float32:
    return FLOAT(min(max(round(float(x)), low), top))  # Python's ties go to even, too


def added(*terms: list[np.float32]) -> list[np.float32]:
    return [sum(numbers, FLOAT(0)) for numbers in terms]


def one_minimum(x: np.ndarray, w: np.ndarray, top: int, trials: ScaleTrials) -> tuple[np.float32, np.float32, list]:
    low, high = min(x.min(), FLOAT(0)), x.max()
    weight_sum, x_sum = added(list(w), list(w * x))

    def judge(scale: np.float32, minimum: np.float32, codes: list) -> np.float32:
        missed = [scale * q + minimum - a for a, q in zip(x, codes, strict=True)]
        return added([b * (m * m) for b, m in zip(w, missed, strict=True)])[0]

    codes = [nearest(FLOAT(top) / (high - low) * (a - low), 0, top) for a in x]
    minimum, scale = low, FLOAT(1) / (FLOAT(top) / (high - low))
    best = judge(scale, minimum, codes)
    for i in range(trials.last + 1):
        inverse = (FLOAT(trials.start) + FLOAT(trials.step) * FLOAT(i) + FLOAT(top)) / (high - minimum)
        tried = [nearest(inverse * (a - minimum), 0, top) for a in x]
        first, square, along = added(
            [b * q for b, q in zip(w, tried, strict=True)],
            [b * q * q for b, q in zip(w, tried, strict=True)],
            [b * q * a for a, b, q in zip(x, w, tried, strict=True)],
        )
        determinant = weight_sum * square - first * first
        if determinant > 0:
            new_scale = (weight_sum * along - x_sum * first) / determinant
            new_minimum = (square * x_sum - first * along) / determinant
            if new_minimum > 0:
                new_scale, new_minimum = along / square, FLOAT(0)
            if (error := judge(new_scale, new_minimum, tried)) < best:
                best, scale, minimum, codes = error, new_scale, new_minimum, tried
    return scale, -minimum, codes


def one_signed(x: np.ndarray, w: np.ndarray, top: int) -> np.float32:
    largest = x[np.abs(x).argmax()]
    best, scale = FLOAT(-1), FLOAT(0)
    for turn in [0, *range(-9, 0), *range(1, 10)]:
        inverse = -(FLOAT(top) + FLOAT(0.1) * FLOAT(turn)) / largest
        codes = [nearest(inverse * a, -top, top - 1) for a in x]
        along, square = added(
            [b * a * q for a, b, q in zip(x, w, codes, strict=True)], [b * q * q for b, q in zip(w, codes, strict=True)]
        )
        if best < 0 or (square > 0 and along * along > best * square):
            scale = along / square
            best = scale * along
    return scale


def one_refined(x: np.ndarray, top: int) -> tuple[np.float32, list]:
    inverse = FLOAT(-top) / x[np.abs(x).argmax()]
    codes = [nearest(inverse * a, -top, top - 1) for a in x]
    along, square = added(
        [a * a * a * q for a, q in zip(x, codes, strict=True)], [a * a * q * q for a, q in zip(x, codes, strict=True)]
    )
    for _ in range(5):
        before = list(codes)
        for i, a in enumerate(x):
            w, rest_along = a * a, along - a * a * a * codes[i]
            if rest_along > 0:
                rest_square = square - w * codes[i] * codes[i]
                new = nearest(a * rest_square / rest_along, -top, top - 1)
                new_along, new_square = rest_along + w * a * new, rest_square + w * new * new
                if new != codes[i] and new_square > 0 and new_along**2 * square > along**2 * new_square:
                    codes[i], along, square = new, new_along, new_square
        if codes == before:
            break
    return along / square, [code + top for code in codes]


@pytest.mark.parametrize("trials", [ScaleTrials(-1.0, 0.1, 20), ScaleTrials(-0.9, 0.05, 36)])
def test_search_for_scale_and_minimum_agrees_with_the_reference(trials: ScaleTrials) -> None:
    x = normal(32, 12)
    x[:, 3:6] += 2
    w = np.abs(normal(32, 12, 1)) + FLOAT(0.1)
    fit = fit_minimum(x, w, 15, trials)
    codes = minimum_codes(x, fit, 15)
    for i in range(x.shape[1]):
        scale, minimum, wanted = one_minimum(x[:, i], w[:, i], 15, trials)
        assert (fit.scale[i], fit.minimum[i]) == (scale, minimum)
        assert codes[:, i].tolist() == wanted


def test_search_for_a_signed_scale_agrees_with_the_reference() -> None:
    x, w = normal(16, 12), np.abs(normal(16, 12, 1))
    for top in (4, 8, 32):
        assert fit_signed(x, w, top).scale.tolist() == [one_signed(x[:, i], w[:, i], top) for i in range(12)]


def test_refinement_agrees_with_the_reference() -> None:
    x = normal(16, 40)
    scale, codes = refine_signed(x, 4)
    for i in range(x.shape[1]):
        assert (scale[i], codes[:, i].tolist()) == one_refined(x[:, i], 4)


def test_fitted_scales_have_a_smaller_error_than_those_of_the_largest() -> None:
    x, w = np.abs(normal(8, 500)), np.abs(normal(8, 500, 1))
    scale, codes = fit_positive(x, w, 15)
    plain = x.max(axis=0) / FLOAT(15)
    error = np.sum(w * (x - scale * codes) ** 2, axis=0)
    assert error.sum() < 0.98 * np.sum(w * (x - plain * np.rint(x / plain)) ** 2)
    assert (codes.min() >= 0, codes.max()) == (True, 15)


def test_constants_of_the_searches() -> None:
    assert math.isclose(ScaleTrials(-1.0, 0.1, 20).factors(15)[-1], 16, rel_tol=1e-6)
    assert len(ScaleTrials(-0.9, 0.05, 36).factors(31)) == 37
