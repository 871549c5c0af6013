"""Portable weights of every type against the gguf library's dequantisation and numpy products."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from hypothesis import given
from hypothesis import strategies as st

from minillama.errors import FormatError, UnsupportedError
from minillama.gguf import Tensor
from minillama.gguf.block_layouts import LAYOUTS
from minillama.kernels import (
    SUPPORTED,
    Files,
    bytes_on,
    embed,
    load_vector,
    load_weight,
    load_weights,
    matmul,
    portable_weight,
)
from minillama.kernels import weight as weights
from minillama.kernels.decode_blocks import DECODERS, decode
from minillama.kernels.decode_blocks import dequantize as dequantize_groups

DEVICE = jax.devices("cpu")[0]
FLOATS = {Type.F32: np.float32, Type.F16: np.float16}


def random_bytes(kind: Type, rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Rows of random blocks whose weights are finite and of ordinary size."""
    rng = np.random.default_rng(seed)
    if kind in FLOATS:
        return rng.standard_normal((rows, width)).astype(FLOATS[kind]).view(np.uint8)
    if kind is Type.BF16:
        return (rng.standard_normal((rows, width), np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    block, size = GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (rows, width // block, size), np.uint8)
    layout = LAYOUTS[kind]
    for at in (layout.d, layout.m):
        if at is not None:
            scale = rng.uniform(-0.01, 0.01, raw.shape[:2]).astype(np.float16)
            raw[..., at : at + 2] = scale[..., None].view(np.uint8)
    if kind is Type.MXFP4:
        raw[..., layout.exponent] = rng.integers(118, 128, raw.shape[:2])
    if kind is Type.NVFP4:
        raw[..., :4] = rng.integers(0x10, 0x30, (*raw.shape[:2], 4))
    if kind is Type.IQ1_M:  # the highest bits of the float16 scale, whose parts are in four words
        raw[..., [51, 53, 55]] &= 0x0F
        raw[..., 53] |= 0xC0
        raw[..., 55] |= 0x10
    return raw.reshape(rows, -1)


@pytest.mark.parametrize("kind", SUPPORTED, ids=lambda kind: kind.name)
class TestEveryType:
    """48 rows of 512."""

    @pytest.fixture
    def raw(self, kind: Type) -> np.ndarray:
        return random_bytes(kind, 48, 512)

    def test_values_are_those_of_the_gguf_library(self, kind: Type, raw: np.ndarray) -> None:
        weight = portable_weight(raw, kind, DEVICE)
        expected = dequantize(raw, kind)
        assert weight.shape == (48, 512)
        # XLA may fuse d q - m into one rounding where numpy rounds twice
        np.testing.assert_allclose(np.asarray(embed(jnp.arange(48), weight)), expected, rtol=3e-7, atol=3e-8)

    def test_whole_matrices_of_an_accelerator(
        self, kind: Type, raw: np.ndarray, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In two pieces and a rest; bfloat16 rounds both factors by 2**-9 at most."""
        weight = portable_weight(raw, kind, DEVICE)
        if not isinstance(weight, weights.RowsLast):
            pytest.skip("float32, which is never decoded")
        monkeypatch.setattr(weights, "MOST_DECODED", 20 * 512)
        x, decoded = np.random.default_rng(1).standard_normal((6, 512), np.float32), dequantize(raw, kind)
        expected, size = x @ decoded.T, np.abs(x) @ np.abs(decoded).T
        with jax.default_matmul_precision("highest"):
            error = np.abs(np.asarray(weight.gemm_by_matrices(jnp.asarray(x))) - expected)
        assert (error <= 1e-5 * size).all()
        error = np.abs(np.asarray(weight.gemm_by_matrices(jnp.asarray(x))) - expected)
        assert (error <= 2**-7.9 * size).all() and (kind is Type.BF16 or error.max() > 1e-5 * size.max())

    @pytest.mark.parametrize("rows", [1, 3, weights.MAX_GEMV_ROWS + 1])
    def test_products_are_numpys(self, kind: Type, raw: np.ndarray, rows: int) -> None:
        x = np.random.default_rng(1).standard_normal((rows, 512), np.float32)
        expected = x.astype(np.float64) @ dequantize(raw, kind).astype(np.float64).T
        got = jax.jit(matmul)(jnp.asarray(x), portable_weight(raw, kind, DEVICE))
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(np.asarray(got), expected, rtol=0, atol=3e-6 * np.abs(expected).max())

    def test_embedding_rows_are_the_matrix_rows(self, kind: Type, raw: np.ndarray) -> None:
        weight = portable_weight(raw, kind, DEVICE)
        got = embed(jnp.array([[3, 47], [0, 3]]), weight)
        assert got.shape == (2, 2, 512)
        np.testing.assert_allclose(np.asarray(got[0, 1]), dequantize(raw, kind)[47], rtol=3e-7, atol=3e-8)
        np.testing.assert_array_equal(np.asarray(got[0, 0]), np.asarray(got[1, 1]))

    def test_an_expert_is_its_own_matrix(self, kind: Type, raw: np.ndarray) -> None:
        stack = portable_weight(raw.reshape(3, 16, -1), kind, DEVICE)
        assert stack.shape == (3, 16, 512)
        second = stack.expert(jnp.int32(1))
        alone = portable_weight(raw[16:32], kind, DEVICE)
        for leaf, expected in zip(jax.tree.leaves(second), jax.tree.leaves(alone), strict=True):
            np.testing.assert_array_equal(np.asarray(leaf), np.asarray(expected))


@partial(jax.jit, static_argnames="kind")
def _plain(raw: jax.Array, kind: Type) -> jax.Array:
    return dequantize_groups(decode(raw, kind))


@pytest.mark.parametrize("kind", DECODERS, ids=lambda kind: kind.name)
@given(data=st.data())
def test_any_bytes_decode_as_in_the_gguf_library(kind: Type, data: st.DataObject) -> None:
    """Including blocks with infinities and NaN, which the library gives as well."""
    block, size = GGML_QUANT_SIZES[kind]
    raw = np.frombuffer(data.draw(st.binary(min_size=2 * size, max_size=2 * size)), np.uint8).reshape(2, size)
    with np.errstate(all="ignore"):
        expected = dequantize(raw, kind)
    got = np.asarray(_plain(jnp.asarray(raw), kind))
    assert got.shape == (2, block)
    with np.errstate(all="ignore"):
        # XLA on CPU flushes subnormal numbers to zero; an overflow in between may be infinite on one side only
        ordinary = np.isfinite(expected) & (np.abs(expected) < 1e30)
        scale = np.maximum(np.abs(expected).max(1, where=ordinary, initial=0), 1e-30)[:, None]
        assert (np.abs(got - expected) <= 3e-7 * scale + 1e-30)[ordinary].all()
        assert not np.isfinite(got[np.isnan(expected)]).any()


EXACT = tuple(kind for kind in DECODERS if kind.name.startswith(("NVFP4", "TQ", "IQ1_", "IQ2_", "IQ3_")))


@pytest.mark.parametrize("kind", EXACT, ids=lambda kind: kind.name)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_finite_block_is_exact(kind: Type, seed: int) -> None:
    """Scales are short enough that no product is rounded: all equal numbers of the gguf library."""
    raw = np.random.default_rng(seed).integers(0, 256, (40, GGML_QUANT_SIZES[kind][1]), np.uint8)
    with np.errstate(all="ignore"):
        expected = dequantize(raw, kind)
    finite = np.isfinite(expected).all(1)
    np.testing.assert_array_equal(np.asarray(_plain(jnp.asarray(raw), kind))[finite], expected[finite])


@pytest.mark.parametrize("tile", [30, 50, 128])
def test_a_matrix_is_decoded_in_tiles(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    """Tiles that divide the rows, leave a remainder, or are larger than the matrix."""
    raw = random_bytes(Type.Q4_0, 100, 64)
    x = np.random.default_rng(2).standard_normal((40, 64), np.float32)
    monkeypatch.setattr(weights, "TILE_ROWS", tile)
    got = matmul(jnp.asarray(x), portable_weight(raw, Type.Q4_0, DEVICE))
    np.testing.assert_allclose(np.asarray(got), x @ dequantize(raw, Type.Q4_0).T, rtol=1e-5, atol=1e-5)


def test_a_quantised_weight_takes_little_more_memory_than_its_bytes() -> None:
    raw = random_bytes(Type.Q4_0, 256, 1024)
    leaves = jax.tree.leaves(portable_weight(raw, Type.Q4_0, DEVICE))
    assert sum(leaf.nbytes for leaf in leaves) == raw.nbytes


@pytest.mark.parametrize("kind", [Type.F16, Type.Q4_0, Type.Q6_K, Type.IQ2_S, Type.TQ1_0], ids=lambda kind: kind.name)
def test_the_bytes_on_a_device_are_known_before(monkeypatch: pytest.MonkeyPatch, kind: Type) -> None:
    raw = random_bytes(kind, 48, 512)
    tensor = Tensor("w", (48, 512), kind, raw, 0, Path("model.gguf"))
    assert bytes_on(DEVICE, tensor) == raw.nbytes  # in place
    monkeypatch.setattr(load_weights, "reads_in_place", lambda device: False)
    leaves = jax.tree.leaves(portable_weight(raw, kind, DEVICE))
    assert bytes_on(DEVICE, tensor) == sum(leaf.nbytes for leaf in leaves)


def test_an_unsupported_type_is_named_with_the_supported_ones() -> None:
    with pytest.raises(UnsupportedError, match=r"Q1_0 in blk\.3\.ffn_up\.weight; supported: F32, F16.*Q6_K"):
        memory = np.zeros(18, np.uint8)
        tensor = Tensor("blk.3.ffn_up.weight", (1, 128), Type.Q1_0, memory[None], 0, Path("model.gguf"))
        load_weight(tensor, Files({tensor.file: memory}), DEVICE)


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.BF16])
def test_vectors_become_float32(kind: Type) -> None:
    raw = random_bytes(kind, 1, 32)[0]
    got = load_vector(raw, kind, "v", DEVICE)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(got), dequantize(raw, kind).reshape(-1))


def test_a_quantised_vector_is_refused() -> None:
    with pytest.raises(FormatError, match=r"output_norm\.weight is a vector of type Q8_0; expected F32"):
        load_vector(np.zeros(34, np.uint8), Type.Q8_0, "output_norm.weight", DEVICE)
