"""Changes of weights, each against a few lines of plain loops."""

import numpy as np
import pytest
from gguf import quants

from minillama.convert.folder.folder_config import FolderConfig
from minillama.convert.weights.fused_weights import split_alternating_experts, split_experts, split_rows
from minillama.convert.weights.head_order import adjacent_pairs
from minillama.convert.weights.latent_attention import split_latent_projection
from minillama.convert.weights.lazy_weight import LazyWeight, constant_weight, stacked
from minillama.convert.weights.mxfp4_blocks import mxfp4_weight
from minillama.convert.weights.rope_factors import llama3_factors
from minillama.convert.weights.scaled_weights import unscaled
from minillama.convert.weights.value_head_order import split_interleaved_heads, tile_value_heads
from minillama.errors import FormatError
from minillama.gguf import TensorType

HEADS = {"linear_num_value_heads": 4, "linear_key_head_dim": 3, "linear_value_head_dim": 2}
RNG = np.random.default_rng(3)


def weight(name: str, *shape: int, parts: int = 1) -> LazyWeight:
    values = RNG.standard_normal(shape, np.float32)
    return LazyWeight(name, shape, lambda: iter(np.array_split(values, parts) if shape else [values]))


def config(**values: object) -> FolderConfig:
    return FolderConfig(None, "", values, values.get("rope_parameters", {}), 1)  # type: ignore[arg-type]


def test_adjacent_pairs() -> None:
    heads, half = 3, 4
    values = RNG.standard_normal((heads * 2 * half, 5), np.float32)
    expected = np.empty_like(values)
    for head in range(heads):
        for pair in range(half):
            for side in range(2):
                expected[head * 2 * half + 2 * pair + side] = values[head * 2 * half + side * half + pair]
    np.testing.assert_array_equal(adjacent_pairs(values, heads), expected)
    np.testing.assert_array_equal(adjacent_pairs(values[:, 0], heads), expected[:, 0])


@pytest.mark.parametrize("keys", [2, 4])
def test_tiled_value_heads(keys: int) -> None:
    """Value head j of the file uses key head j % keys; before, key head j // (values / keys)."""
    settings = config(
        linear_num_key_heads=keys, linear_num_value_heads=4, linear_key_head_dim=3, linear_value_head_dim=2
    )
    group = 4 // keys
    old_head = [(new % keys) * group + new // keys for new in range(4)]
    z = weight("model.layers.0.linear_attn.in_proj_z.weight", 8, 5)
    rows = np.concatenate([z.whole()[2 * head : 2 * head + 2] for head in old_head])
    np.testing.assert_array_equal(tile_value_heads(z, settings).whole(), rows)
    out = weight("model.layers.0.linear_attn.out_proj.weight", 5, 8)
    columns = np.concatenate([out.whole()[:, 2 * head : 2 * head + 2] for head in old_head], axis=1)
    np.testing.assert_array_equal(tile_value_heads(out, settings).whole(), columns)
    fused = weight("model.layers.0.linear_attn.in_proj_qkv.weight", 6 * keys + 8, 5)
    first = fused.whole()[: 6 * keys]
    rows = np.concatenate([first, *(fused.whole()[6 * keys + 2 * head : 6 * keys + 2 * head + 2] for head in old_head)])
    np.testing.assert_array_equal(tile_value_heads(fused, settings).whole(), rows)
    bias = weight("model.layers.0.linear_attn.dt_proj.bias", 4)
    np.testing.assert_array_equal(tile_value_heads(bias, settings).whole(), bias.whole()[old_head])


def test_interleaved_heads() -> None:
    settings = config(linear_num_key_heads=2, **HEADS)
    fused = weight("model.layers.0.linear_attn.in_proj_qkvz.weight", 2 * (3 + 3 + 4 + 4), 5)
    heads = fused.whole().reshape(2, 14, 5)
    qkv, z = split_interleaved_heads(fused, settings)
    expected = np.concatenate([heads[h, a:b] for a, b in ((0, 3), (3, 6), (6, 10)) for h in range(2)])
    np.testing.assert_array_equal(qkv.whole(), expected)
    np.testing.assert_array_equal(z.whole(), np.concatenate([heads[h, 10:] for h in range(2)]))
    assert (qkv.shape, z.shape) == (qkv.whole().shape, z.whole().shape)
    with pytest.raises(FormatError, match=r"has 27 rows; config\.json's DeltaNet heads need 28"):
        split_interleaved_heads(weight("in_proj_qkvz.weight", 27, 5), settings)


@pytest.mark.parametrize("parts", [1, 3])
def test_fused_matrices(parts: int) -> None:
    fused = weight("a", 3, 4, 5, parts=parts)
    for split, expected in (
        (split_experts(fused), (fused.whole()[:, :2], fused.whole()[:, 2:])),
        (split_alternating_experts(fused), (fused.whole()[:, ::2], fused.whole()[:, 1::2])),
    ):
        for one, values in zip(split, expected, strict=True):
            assert one.shape == values.shape
            np.testing.assert_array_equal(one.whole(), values)
    with pytest.raises(FormatError, match=r"a has 3 rows; expected 1 \+ 1"):
        split_rows(fused, 1, 1)
    with pytest.raises(FormatError, match="expected gate and up in axis 1"):
        split_experts(weight("b", 3, 5, 4))


def test_latent_projection() -> None:
    heads, key, value, latent = 2, 3, 4, 5
    fused = weight("x.kv_b_proj.weight", heads * (key + value), latent)
    k, v = split_latent_projection(fused, heads, key, value)
    for head in range(heads):
        rows = fused.whole()[head * (key + value) : (head + 1) * (key + value)]
        np.testing.assert_array_equal(k.whole()[head], rows[:key].T)
        np.testing.assert_array_equal(v.whole()[head], rows[key:])
    assert (k.name, k.shape, v.shape) == ("x.k_b_proj.weight", (2, 5, 3), (2, 4, 5))


@pytest.mark.parametrize("parts", [1, 2])
def test_mxfp4_values(parts: int) -> None:
    """Decoded blocks have the values of the checkpoint: code book times power of two, low nibble first."""
    raw = RNG.integers(0, 256, (2, 6, 3, 16)).astype(np.uint8)
    scales = RNG.integers(118, 132, (2, 6, 3)).astype(np.uint8)
    book = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    expected = np.stack([book[raw & 15], book[raw >> 4]], axis=-1).reshape(2, 6, 3, 32)
    expected = (expected * np.exp2(scales.astype(np.float32) - 127)[..., None]).reshape(2, 6, 96)
    blocks = LazyWeight("x_blocks", raw.shape, lambda: iter(np.array_split(raw, parts)))
    for start, step in ((0, 1), (0, 2), (1, 2)):
        packed = mxfp4_weight("x", blocks, constant_weight("x_scales", scales), start, step)
        assert packed.shape == expected[:, start::step].shape
        np.testing.assert_array_equal(quants.dequantize(packed.whole(), TensorType.MXFP4), expected[:, start::step])


def test_scales_of_fp8() -> None:
    """One scale for a block of rows and columns, for a row, or for all."""
    matrix = weight("a.weight", 6, 5, parts=3)
    values = matrix.whole()
    for shape, block, expected in (
        ((3, 2), [2, 3], lambda s: values * s.repeat(2, 0).repeat(3, 1)[:6, :5]),
        ((6,), None, lambda s: values * s[:, None]),
        ((), None, lambda s: values * s),
        ((1,), None, lambda s: values * s),
    ):
        scale = weight("a.weight_scale_inv", *shape)
        settings = config(quantization_config={"quant_method": "fp8", "weight_block_size": block})
        (found,) = unscaled([matrix, scale, weight("a.activation_scale", 1)], settings)
        np.testing.assert_array_equal(found.whole(), expected(scale.whole()))


def test_stacks_read_one_at_a_time() -> None:
    made: list[int] = []

    def one(index: int) -> LazyWeight:
        return LazyWeight(str(index), (2, 2), lambda: made.append(index) or iter([np.full((2, 2), index)]))

    parts = stacked("all", [one(index) for index in range(3)]).pieces()
    assert next(parts).shape == (1, 2, 2) and made == [0]
    with pytest.raises(FormatError, match=r"b has the shape \[1, 2\], a \[2, 2\]"):
        stacked("all", [weight("a", 2, 2), weight("b", 1, 2)])


def test_llama3_factors() -> None:
    """Numbers of llama.cpp's converter: 1 for short waves, the factor for long ones."""
    rope = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64, "rope_theta": 5e5}
    rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    (found,) = llama3_factors(config(head_dim=16, rope_parameters=rope))
    np.testing.assert_allclose(found.whole(), [1.0, 2.4422596, 8, 8, 8, 8, 8, 8], rtol=1e-6)
    assert llama3_factors(config(head_dim=16)) == []
