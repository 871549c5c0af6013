"""The forward pass against its float64 twin and against llama.cpp's logits, for every family."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_forward import forward as slow_forward
from tiny_models import VARIANTS, write_tiny

from minillama.engine.loading.load_params import load_params, unused_tensors
from minillama.errors import FormatError
from minillama.gguf import GGUF, dequantize, open_gguf
from minillama.gguf.kv_cache_types import CacheType, CacheTypes
from minillama.model import Cache, Config, Params, empty_cache, read_config
from minillama.model.forward import forward, run_layers, unembed
from minillama.model.layer_kinds import Attention

CTX = 256
EXACT = CacheTypes(CacheType.F32, CacheType.F32)
# fmt: off
ARCHITECTURES = (
    "chatglm", "gemma2", "gemma3", "glm4", "llama-linear", "llama2", "llama3", "mistral", "mixtral", "phi3",
    "phi3-longrope", "qwen2", "qwen2-yarn", "qwen2moe", "qwen3", "qwen3moe", "wide",
)
QUANTISATIONS = (
    "BF16", "F16", "IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K_M", "Q4_0", "Q4_1", "Q4_K_M", "Q5_0", "Q5_1",
    "Q5_K_M", "Q6_K", "Q8_0",
)
# fmt: on
IDS = np.random.default_rng(7).integers(3, 300, 24).astype(np.int32)


@partial(jax.jit, static_argnames="config")
def logits_of(params: Params, config: Config, ids: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
    hidden, cache = forward(params, config, ids, cache)
    return unembed(params, config, hidden), cache


def open_model(path: Path) -> tuple[GGUF, Config, Params]:
    file = open_gguf(path)
    config = read_config(file.metadata, file.tensors["token_embd.weight"].shape[0])
    return file, config, load_params(file, config, CTX, [jax.devices("cpu")[0]] * (config.block_count + 1))


@pytest.fixture(scope="module", params=sorted(VARIANTS))
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[GGUF, Config, Params]:
    return open_model(write_tiny(tmp_path_factory.mktemp("tiny") / f"{request.param}.gguf", request.param))


# Rounding of a key or value relative to the usual size of one: half a step of the significand; for q8_0 half a step
# and the rounding of the scale, relative to the largest of 32, which is within three times the usual one
ROUNDING = {CacheType.F16: 2**-11, CacheType.BF16: 2**-8, CacheType.Q8_0: 3 * (0.5 / 127 + 2**-11)}


def rounded_bound(config: Config, kind: CacheType) -> float:
    """How far a cache of a type may move the logits, in standard deviations.

    A layer's attention moves by the rounding of its values, and by that of its keys times the size of the scores, a
    few in all; the layers add up.
    """
    return 5 * config.block_count * ROUNDING[kind] * sharpness(config)


def sharpness(config: Config) -> float:
    """The size of attention scores, where 1 / sqrt(H) gives 1: so much more an error of a key moves a weight.

    At least 1: smaller scores make no other part of a layer more exact.
    """
    sizes = [layer.scale * layer.key_length**0.5 for layer in config.layers if isinstance(layer, Attention)]
    return max([1.0, *sizes])


def roundings(config: Config) -> list[CacheType]:
    """The types that a model can be held to; coarse ones may choose another expert, which no bound covers."""
    if config.expert_count:
        return [CacheType.F16]
    return [kind for kind in ROUNDING if not kind.is_quantised or config.key_length % 32 == 0]


def worst(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference in standard deviations of the expected logits."""
    return float(np.abs(got - expected).max() / expected.std())


class TestEveryVariant:
    def test_forward_is_the_formulas(self, tiny: tuple[GGUF, Config, Params]) -> None:
        file, config, params = tiny
        tensors = {name: dequantize(tensor).astype(np.float64) for name, tensor in file.tensors.items()}
        expected = slow_forward(file.metadata, tensors, IDS.tolist(), CTX)
        got, _ = logits_of(params, config, jnp.asarray(IDS[None]), empty_cache(config, 32, EXACT))
        assert worst(np.asarray(got[0]), expected) < 1e-4
        assert not unused_tensors(file, config)

    def test_cache_changes_nothing(self, tiny: tuple[GGUF, Config, Params]) -> None:
        """Whole, in pieces, and token by token: the same logits."""
        _, config, params = tiny
        whole, _ = logits_of(params, config, jnp.asarray(IDS[None]), empty_cache(config, 32, EXACT))
        cache, parts = empty_cache(config, 32, EXACT), []
        for piece in (IDS[:8], IDS[8:16], *(IDS[i : i + 1] for i in range(16, 20))):
            logits, cache = logits_of(params, config, jnp.asarray(piece[None]), cache)
            parts.append(np.asarray(logits[0]))
        assert int(cache.length[0]) == 20
        assert worst(np.concatenate(parts), np.asarray(whole[0, :20])) < 1e-5 * sharpness(config)

    def test_rounded_caches_are_close_to_the_exact_one(self, tiny: tuple[GGUF, Config, Params]) -> None:
        _, config, params = tiny
        exact, _ = logits_of(params, config, jnp.asarray(IDS[None]), empty_cache(config, 32, EXACT))
        for kind in roundings(config):
            cache = empty_cache(config, 32, CacheTypes(kind, kind))
            got, _ = logits_of(params, config, jnp.asarray(IDS[None]), cache)
            assert 0 < worst(np.asarray(got), np.asarray(exact)) < rounded_bound(config, kind), kind

    def test_what_lies_beyond_the_length_is_never_seen(self, tiny: tuple[GGUF, Config, Params]) -> None:
        """Garbage behind the valid positions (padding of an earlier chunk) has no influence."""
        _, config, params = tiny
        clean = empty_cache(config, 32, EXACT)
        layers = [
            state if layer.is_recurrent else jax.tree.map(lambda leaf: leaf + 1e3, state)  # a memory has no positions
            for layer, state in zip(config.layers, clean.layers, strict=True)
        ]
        dirty = replace(clean, layers=tuple(layers))
        ids = jnp.asarray(IDS[None, :8])
        np.testing.assert_array_equal(
            np.asarray(logits_of(params, config, ids, clean)[0]), np.asarray(logits_of(params, config, ids, dirty)[0])
        )

    def test_rows_of_a_batch_are_independent(self, tiny: tuple[GGUF, Config, Params]) -> None:
        _, config, params = tiny
        batch = np.stack([IDS[:8], IDS[8:16]])
        together, _ = logits_of(params, config, jnp.asarray(batch), empty_cache(config, 32, EXACT, batch=2))
        alone, _ = logits_of(params, config, jnp.asarray(batch[1:]), empty_cache(config, 32, EXACT))
        assert worst(np.asarray(together[1]), np.asarray(alone[0])) < 1e-5 * sharpness(config)


def test_growing_the_cache_changes_nothing(tmp_path: Path) -> None:
    _, config, params = open_model(write_tiny(tmp_path / "m.gguf", "gemma2"))
    _, small = logits_of(params, config, jnp.asarray(IDS[None, :8]), empty_cache(config, 16, EXACT))
    _, large = logits_of(params, config, jnp.asarray(IDS[None, :8]), empty_cache(config, 64, EXACT))
    following = jnp.asarray(IDS[None, 8:9])
    got, grown = logits_of(params, config, following, small.resize(64))
    expected, _ = logits_of(params, config, following, large)
    assert grown.capacity == 64
    assert worst(np.asarray(got), np.asarray(expected)) < 1e-6


def test_layers_can_run_in_two_parts(tmp_path: Path) -> None:
    """What splitting a model over devices rests on, local layers and their numbers included."""
    _, config, params = open_model(write_tiny(tmp_path / "m.gguf", "gemma3"))
    x = jax.random.normal(jax.random.key(0), (1, 8, config.embedding_length))
    whole, _ = run_layers(params.blocks, config, x, empty_cache(config, 16, EXACT), params.rope_factors)
    first, second = (empty_cache(config, 16, EXACT, layers=part) for part in (config.layers[:4], config.layers[4:]))
    half, _ = run_layers(params.blocks[:4], config, x, first, params.rope_factors)
    rest, _ = run_layers(params.blocks[4:], config, half, second, params.rope_factors, first=4)
    assert worst(np.asarray(rest), np.asarray(whole)) < 1e-6


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    file = open_gguf(write_tiny(tmp_path / "m.gguf", "llama"))
    config = read_config(dict(file.metadata) | {"llama.block_count": 3}, 300)
    with pytest.raises(FormatError, match=r"tensor blk\.2\.attn_norm\.weight is missing"):
        load_params(file, config, CTX, [jax.devices("cpu")[0]] * 4)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    file = open_gguf(write_tiny(tmp_path / "m.gguf", "llama"))
    config = read_config(dict(file.metadata) | {"llama.attention.head_count_kv": 4}, 300)
    with pytest.raises(FormatError, match=r"blk\.0\.attn_k\.weight has shape \(32, 64\); expected \(64, 64\)"):
        load_params(file, config, CTX, [jax.devices("cpu")[0]] * 3)


class TestAgainstLlamaCpp:
    """Logits that llama.cpp computed at every position."""

    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_architecture(self, reference: Path, name: str) -> None:
        golden = np.load(reference / "arch" / "golden.npz")
        _, config, params = open_model(reference / "arch" / f"{name}.gguf")
        ids = golden[f"{name}.tokens"].astype(np.int32)
        got, _ = logits_of(params, config, jnp.asarray(ids[None]), empty_cache(config, CTX, EXACT))
        # llama.cpp reads gemma's GELU from a float16 table
        exact = 2e-3 if name.startswith("gemma") else 1e-4
        assert worst(np.asarray(got[0]), golden[f"{name}.logits"]) < exact
        for kind in roundings(config):
            cache = empty_cache(config, CTX, CacheTypes(kind, kind))
            got, _ = logits_of(params, config, jnp.asarray(ids[None]), cache)
            assert worst(np.asarray(got[0]), golden[f"{name}.logits"]) < exact + rounded_bound(config, kind), kind

    @pytest.mark.parametrize("name", QUANTISATIONS)
    def test_quantised(self, reference: Path, name: str) -> None:
        golden = np.load(reference / "quant" / "golden.npz")
        _, config, params = open_model(reference / "quant" / f"wide-{name}.gguf")
        ids, expected = golden[f"wide-{name}.tokens"].astype(np.int32), golden[f"wide-{name}.logits"]
        got, _ = logits_of(params, config, jnp.asarray(ids[None]), empty_cache(config, CTX, EXACT))
        difference = np.asarray(got[0]) - expected
        # llama.cpp rounds activations to 8 bits before a quantised product, to 16 for F16 and BF16
        bound = {"F16": 0.001, "BF16": 0.01}.get(name, 0.025)
        assert np.sqrt((difference**2).mean()) / expected.std() < bound
