"""Blocks written inside XLA have ggml's bytes, ties included."""

from functools import cache

import jax
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import quants
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference_blocks import block_bytes

from minillama.kernels.decode_blocks import decode, dequantize
from minillama.kernels.encode_blocks import ENCODERS, encode

ROWS = (64, 96)
KINDS = sorted(ENCODERS)
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.lower())
magnitudes = st.floats(2**-10, 2**13, width=32)
numbers = st.one_of(st.just(0.0), magnitudes, magnitudes.map(lambda x: -x), st.integers(-20, 20).map(lambda n: n / 4))


@cache
def encoder(kind: Type):
    return jax.jit(lambda x: encode(x, kind))


def rows() -> np.ndarray:
    """Normal numbers of many sizes, some with a loud channel; quarters, where many fall between two codes; zeros."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(ROWS) * 10 ** rng.uniform(-2, 3, (ROWS[0], 1))).astype(np.float32)
    x[10:20, 5::32] *= 60
    x[20:40] = rng.integers(-17, 17, (20, ROWS[1])) / 4
    x[40:50] = (rng.integers(-17, 17, (10, ROWS[1])) * rng.uniform(0, 1, (10, 1))).astype(np.float32)
    x[50, :32] = 0
    return x + np.float32(0)  # without -0


def same_bytes(x: np.ndarray, kind: Type) -> None:
    """Bit for bit; the scale of IQ4_NL to its last bit, as its sums have another order."""
    got, expected = np.asarray(encoder(kind)(x)), block_bytes(x, kind)
    if kind is Type.IQ4_NL:
        got, expected = (blocks.reshape(-1, 18) for blocks in (got, expected))
        scales = (np.ascontiguousarray(blocks[:, :2]).view(np.float16).ravel() for blocks in (got, expected))
        np.testing.assert_array_max_ulp(*scales, maxulp=1)
        got, expected = got[:, 2:], expected[:, 2:]
    np.testing.assert_array_equal(got, expected)


@by_kind
def test_bytes_are_ggmls(kind: Type) -> None:
    same_bytes(rows(), kind)


@by_kind
@given(x=arrays(np.float32, (1, 32), elements=numbers))
def test_bytes_of_any_block(kind: Type, x: np.ndarray) -> None:
    same_bytes(x + np.float32(0), kind)


@by_kind
def test_what_is_written_is_read(kind: Type) -> None:
    """As the gguf package reads the same bytes."""
    raw = block_bytes(rows(), kind)
    got = jax.jit(lambda raw: dequantize(decode(raw, kind)))(raw)
    np.testing.assert_array_equal(np.asarray(got), quants.dequantize(raw, kind))
