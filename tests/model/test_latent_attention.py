"""Latent attention: the absorbed form against the formula, its state, its sizes, and files of 2024."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import write_tiny

from minillama.engine.loading.load_params import load_params
from minillama.engine.loading.split_kv_b import split_kv_b
from minillama.errors import FormatError, OptionError
from minillama.gguf import Tensor, open_gguf
from minillama.gguf.kv_cache_types import CacheType, CacheTypes
from minillama.measure.limits.work_per_token import attention_operations, cache_bytes_read
from minillama.model import Config, cache_bytes, empty_cache, read_config
from minillama.model.architectures import Gating
from minillama.model.config import Rope
from minillama.model.forward import forward
from minillama.model.layer_kinds import LatentAttention
from minillama.model.layers.attention import attend, attention, attention_in_tiles, attention_weights
from minillama.model.state_sizes import position_bytes
from minillama.model.states.latents import Latents
from minillama.model.states.stores import empty_store
from minillama.random_models.known_shapes import SHAPES
from minillama.random_models.model_writer import write_random_model

RANK, ROPE, CAPACITY = 32, 16, 300
CPU = jax.devices("cpu")[0]


def written_out(
    q: np.ndarray, latents: np.ndarray, k_b: np.ndarray, v_b: np.ndarray, positions: np.ndarray, scale: float
) -> np.ndarray:
    """A key and a value for each head and position: q [T, N, H], latents [S, RANK + ROPE]."""
    out = []
    for t, position in enumerate(positions):
        seen = latents[: position + 1].astype(np.float64)
        keys = np.einsum("hcd,sc->hsd", k_b, seen[:, :RANK])
        keys = np.concatenate([keys, np.broadcast_to(seen[:, RANK:], (len(k_b), len(seen), ROPE))], axis=-1)
        scores = np.einsum("hd,hsd->hs", q[t], keys) * scale
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out.append(np.einsum("hs,sc,hvc->hv", weights, seen[:, :RANK], v_b).reshape(-1))
    return np.stack(out)


@pytest.mark.parametrize("kind", [CacheType.F16])
@pytest.mark.parametrize(("heads", "start", "time"), [(20, 120, 3), (128, 7, 1), (6, 150, 40)])
def test_the_absorbed_form_is_the_formula(kind: CacheType, heads: int, start: int, time: int) -> None:
    """By the CPU kernel, in tiles, and at once; the values are a view of the keys."""
    rng, nope, value = np.random.default_rng(heads), 24, 40
    q = rng.standard_normal((time, heads, nope + ROPE), np.float32)
    k_b = rng.standard_normal((heads, RANK, nope), np.float32) / 5
    v_b = rng.standard_normal((heads, value, RANK), np.float32) / 5
    new = rng.standard_normal((1, start + time, 1, RANK + ROPE), np.float32)
    state = Latents(empty_store(kind, 1, 1, CAPACITY, RANK + ROPE)).write(jnp.asarray(new), jnp.zeros(1, jnp.int32))
    positions = start + np.arange(time, dtype=np.int32)
    expected = written_out(q, np.asarray(state.keys.decode())[0, 0], k_b, v_b, positions, 0.15)
    absorbed = np.concatenate([np.einsum("tnd,ncd->tnc", q[..., :nope], k_b), q[..., nope:]], axis=-1)
    given = jnp.asarray(absorbed[None]), state.keys, state.values(RANK), jnp.asarray(positions[None])
    constants = {"scale": 0.15, "softcap": 0.0, "window": 0}
    weights = attention_weights(given[0], state.keys, given[3], **constants)
    tiled = jax.jit(partial(attention_in_tiles, **constants, tile=64))
    for mixed in (attention(*given, **constants), tiled(*given), attend(weights, given[2])):
        got = np.einsum("tnc,nvc->tnv", np.asarray(mixed).reshape(time, heads, RANK), v_b).reshape(time, -1)
        np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("latent") / "m.gguf", "deepseek2-2024")


@settings(max_examples=10)
@given(st.sets(st.integers(1, 3)))
def test_any_split_of_a_text_gives_the_same_state(tiny: Path, cuts: set[int]) -> None:
    config, run = states_of(tiny)
    ids = np.arange(3, 7, dtype=np.int32)[None]  # few: every length of a part is compiled
    exact = CacheTypes(CacheType.F32, CacheType.F32)
    whole, cache = run(ids, empty_cache(config, 16, exact)), empty_cache(config, 16, exact)
    for first, last in zip([0, *sorted(cuts)], [*sorted(cuts), 4], strict=True):
        cache = run(ids[:, first:last], cache)
    for one, other in zip(jax.tree.leaves(cache), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-5)


_STATES: dict[Path, tuple] = {}


def states_of(path: Path) -> tuple:
    """The configuration of a file, and a compiled pass that returns the cache."""
    if path not in _STATES:
        file = open_gguf(path)
        config = read_config(file.metadata, 300)
        params = load_params(file, config, 64, [CPU] * (config.block_count + 1))
        compiled = jax.jit(lambda ids, cache: forward(params, config, ids, cache)[1])
        _STATES[path] = config, lambda ids, cache: compiled(jnp.asarray(ids), cache)
    return _STATES[path]


@pytest.mark.parametrize("kind", CacheType)
def test_bytes_of_the_latents(tmp_path: Path, kind: CacheType) -> None:
    """One array for keys and values, of one type."""
    file, types = open_gguf(write_tiny(tmp_path / "m.gguf", "deepseek2")), CacheTypes(kind, kind)
    config = read_config(file.metadata, 300)
    if kind.is_quantised:  # 48 numbers
        with pytest.raises(OptionError, match="in blocks of 32 values, but a head of this model has 48"):
            cache_bytes(config, 64, types)
        return
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(empty_cache(config, 64, types, batch=2).layers))
    assert cache_bytes(config, 64, types, batch=2) == held == 2 * 64 * 2 * position_bytes(config.layers[0], types)
    assert cache_bytes_read(config, types, [10]) == 10 * 2 * position_bytes(config.layers[0], types)
    assert attention_operations(config, [10]) == 2 * 2 * 10 * 4 * (48 + 32)  # layers, multiply-adds, positions, heads


def test_keys_and_values_of_two_types_are_refused(tmp_path: Path) -> None:
    config = read_config(open_gguf(write_tiny(tmp_path / "m.gguf", "deepseek2")).metadata, 300)
    message = r"cache_type_k is q8_0 and cache_type_v is f16, but this model .* \(latent attention\); use one type"
    with pytest.raises(OptionError, match=message):
        empty_cache(config, 64, CacheTypes(CacheType.Q8_0, CacheType.F16))


class TestConfig:
    @pytest.fixture
    def metadata(self, tmp_path: Path) -> dict[str, object]:
        return dict(open_gguf(write_tiny(tmp_path / "m.gguf", "deepseek2")).metadata)

    def read(self, metadata: dict[str, object], vocab: int = 300, **keys: object) -> Config:
        return read_config(metadata | {f"deepseek2.{key}": value for key, value in keys.items()}, vocab)

    def test_the_kind_of_a_layer(self, metadata: dict[str, object]) -> None:
        config = self.read(metadata)
        layer = config.layer(0)
        assert isinstance(layer, LatentAttention)
        assert (layer.nope_length, layer.rope_length, layer.cached_length) == (32, 16, 48)
        assert config.attention == layer.absorbed
        assert (config.head_count, config.head_count_kv, config.key_length, config.value_length) == (4, 1, 48, 32)

    def test_yarn_acts_on_the_scores(self, metadata: dict[str, object]) -> None:
        """The file holds 0.1 times DeepSeek's multiplier; without it the rotation has the magnitude too."""
        config = self.read(metadata)
        assert config.rope.log_multiplier == 1  # the rotation's own magnitude is 1
        assert config.layer(0).scale == pytest.approx((1 + 0.07 * np.log(4)) ** 2 / np.sqrt(48))
        plain = self.read(metadata, **{"rope.scaling.yarn_log_multiplier": 0.0})
        assert plain.layer(0).scale == pytest.approx((1 + 0.1 * np.log(4)) ** 2 / np.sqrt(48))
        assert plain.rope == replace(config.rope, log_multiplier=0.0)
        assert isinstance(plain.rope, Rope)

    def test_a_magnitude_without_a_square(self, metadata: dict[str, object]) -> None:
        with pytest.raises(FormatError, match="which is too large"):
            self.read(metadata, **{"rope.scaling.yarn_log_multiplier": 1e200})

    @pytest.mark.parametrize(("layers", "vocab", "gating"), [
        (47, 154880, Gating.SIGMOID), (48, 154880, Gating.SIGMOID),
        (46, 154880, Gating.SOFTMAX), (47, 300, Gating.SOFTMAX),
    ])  # fmt: skip
    def test_gating_of_files_without_a_key(
        self, metadata: dict[str, object], layers: int, vocab: int, gating: Gating
    ) -> None:
        del metadata["deepseek2.expert_gating_func"]
        assert self.read(metadata, vocab, block_count=layers).experts.gating is gating
        assert self.read(metadata, vocab, block_count=layers, expert_gating_func=1).experts.gating is Gating.SOFTMAX

    def test_a_key_without_room_for_the_latent_is_refused(self, metadata: dict[str, object]) -> None:
        message = "rope.dimension_count is 48; expected less than the 48 channels of a key"
        with pytest.raises(FormatError, match=message):
            self.read(metadata, **{"rope.dimension_count": 48})

    def test_a_temperature_needs_its_length(self, metadata: dict[str, object]) -> None:
        with pytest.raises(FormatError, match=r"attention\.temperature_length is missing"):
            self.read(metadata, **{"attention.temperature_scale": 0.1})


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.Q8_0, Type.Q4_0])
def test_the_maps_of_a_file_of_2024(kind: Type) -> None:
    """Rows are, head by head, those of keys and then those of values; some heads may be taken."""
    layer = LatentAttention(3, 64, 16, key_length=40, value_length=32, scale=1.0)
    values = np.random.default_rng(0).standard_normal((3 * (24 + 32), 64), np.float32)
    raw = quantize(values, kind).view(np.uint8)
    tensor = Tensor("attn_kv_b", values.shape, kind, raw, 0, Path("none"))
    k_b, v_b = split_kv_b(tensor, layer, range(1, 3), CPU)
    exact = dequantize(raw.view(np.float16) if kind is Type.F16 else raw, kind).reshape(3, 56, 64)[1:]
    x = np.eye(64, dtype=np.float32)[None].repeat(2, 0)
    np.testing.assert_array_equal(np.asarray(k_b.batched_product(jnp.asarray(x[:, :24, :24]))), exact[:, :24])
    assert v_b.shape == (2, 32, 64)
    got = np.asarray(v_b.batched_product(jnp.asarray(x))).swapaxes(1, 2)
    np.testing.assert_allclose(got, exact[:, 24:], atol=0.02)  # activations are rounded to 8 bits


@pytest.mark.slow
def test_a_random_model_of_its_shape_runs(tmp_path: Path) -> None:
    """GLM-4.7-Flash with fewer and smaller parts, quantised: a dense layer and one of experts."""
    shape = SHAPES["glm-4.7-flash-8l"]
    vocabulary = replace(shape.vocabulary, size=512, special=((0, "<|endoftext|>", 3),), bos=0, eos=0, padding=0)
    keys = {
        **shape.keys, "expert_count": 4, "expert_feed_forward_length": 256, "attention.q_lora_rank": 256,
        "attention.kv_lora_rank": 256, "attention.key_length": 256 + 64, "attention.value_length": 256,
    }  # fmt: skip
    small = replace(shape, layers=2, embedding=256, heads=4, feed_forward=256, keys=keys, vocabulary=vocabulary)
    file = open_gguf(write_random_model(tmp_path / "m.gguf", small, "Q4_K_M"))
    config = read_config(file.metadata, 512)
    assert config.experts.gating is Gating.SIGMOID and config.experts.scale == pytest.approx(1.8)
    params = load_params(file, config, 64, [CPU] * 3)
    x, _ = forward(params, config, jnp.arange(5)[None], empty_cache(config, 16, CacheTypes()))
    assert np.isfinite(np.asarray(x)).all()
