"""The forward pass against its float64 twin and against llama.cpp's logits, for every family."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_forward import forward as slow_forward
from tiny_models import VARIANTS, write_tiny

from minillama.engine.loading.load_params import load_params, unused_tensors
from minillama.errors import FormatError, UnsupportedError
from minillama.gguf import GGUF, dequantize, open_gguf
from minillama.gguf.kv_cache_types import CacheType, CacheTypes
from minillama.model import (
    FAMILIES,
    Cache,
    Config,
    Params,
    empty_cache,
    forward,
    read_config,
    unembed,
)
from minillama.model.forward import run_layers

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
    return 5 * config.block_count * ROUNDING[kind]


def roundings(config: Config) -> list[CacheType]:
    """The types that a model can be held to; coarse ones may choose another expert, which no bound covers."""
    if config.expert_count:
        return [CacheType.F16]
    return [kind for kind in ROUNDING if kind is not CacheType.Q8_0 or config.key_length % 32 == 0]


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
        assert worst(np.concatenate(parts), np.asarray(whole[0, :20])) < 1e-5

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
        dirty = Cache(jax.tree.map(lambda leaf: leaf + 1e3, clean.layers), clean.length)
        ids = jnp.asarray(IDS[None, :8])
        np.testing.assert_array_equal(
            np.asarray(logits_of(params, config, ids, clean)[0]), np.asarray(logits_of(params, config, ids, dirty)[0])
        )

    def test_rows_of_a_batch_are_independent(self, tiny: tuple[GGUF, Config, Params]) -> None:
        _, config, params = tiny
        batch = np.stack([IDS[:8], IDS[8:16]])
        together, _ = logits_of(params, config, jnp.asarray(batch), empty_cache(config, 32, EXACT, batch=2))
        alone, _ = logits_of(params, config, jnp.asarray(batch[1:]), empty_cache(config, 32, EXACT))
        assert worst(np.asarray(together[1]), np.asarray(alone[0])) < 1e-5


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
    half, _ = run_layers(params.blocks[:4], config, x, empty_cache(config, 16, EXACT, layers=4), params.rope_factors)
    rest, _ = run_layers(
        params.blocks[4:], config, half, empty_cache(config, 16, EXACT, layers=3), params.rope_factors, first=4
    )
    assert worst(np.asarray(rest), np.asarray(whole)) < 1e-6


class TestConfig:
    @pytest.fixture
    def metadata(self, tmp_path: Path) -> dict[str, object]:
        return dict(open_gguf(write_tiny(tmp_path / "m.gguf", "llama")).metadata)

    def test_unknown_architecture_lists_the_known(self, metadata: dict[str, object]) -> None:
        with pytest.raises(UnsupportedError, match=r"'mamba' .*supported: chatglm, gemma2, .*qwen3moe"):
            read_config(metadata | {"general.architecture": "mamba"}, 300)

    @pytest.mark.parametrize(
        "key", ["block_count", "embedding_length", "attention.head_count", "attention.layer_norm_rms_epsilon"]
    )
    def test_a_missing_key_is_named(self, metadata: dict[str, object], key: str) -> None:
        del metadata[f"llama.{key}"]
        with pytest.raises(FormatError, match=f"llama.{key} is missing"):
            read_config(metadata, 300)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("block_count", 0), ("block_count", "two"), ("embedding_length", -4), ("attention.head_count", True),
            ("attention.head_count_kv", 3), ("rope.freq_base", float("nan")), ("rope.dimension_count", 7),
            ("rope.dimension_count", 1000), ("expert_count", 2**40), ("rope.scaling.type", "spiral"),
            ("attention.head_count", np.array([4, 2])), ("nextn_predict_layers", 99), ("nextn_predict_layers", 2),
            ("rope.freq_base", 0.0), ("rope.scaling.factor", -2.0), ("rope.scaling.original_context_length", 0),
        ],
    )  # fmt: skip
    def test_an_impossible_value_is_one_clear_line(self, metadata: dict[str, object], key: str, value: object) -> None:
        with pytest.raises((FormatError, UnsupportedError)) as caught:
            read_config(metadata | {f"llama.{key}": value}, 300)
        assert "\n" not in str(caught.value)
        assert key.split(".")[-1] in str(caught.value) or "heads" in str(caught.value)

    def test_one_value_for_all_layers_may_be_an_array(self, metadata: dict[str, object]) -> None:
        config = read_config(metadata | {"llama.attention.head_count_kv": np.array([2, 2], np.int32)}, 300)
        assert config.head_count_kv == 2

    @pytest.mark.parametrize(
        ("key", "value"),
        [("rope.freq_base", 1.0), ("rope.scaling.yarn_beta_fast", 0.0), ("rope.scaling.yarn_beta_slow", -1.0)],
    )
    def test_an_impossible_value_of_yarn(self, metadata: dict[str, object], key: str, value: float) -> None:
        yarn = metadata | {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}
        assert read_config(yarn, 300).rope.original_context_length == metadata["llama.context_length"]
        with pytest.raises(FormatError, match=rf"llama\.{key} is {value}; expected a number above"):
            read_config(yarn | {f"llama.{key}": value}, 300)

    @pytest.mark.parametrize(
        ("name", "defaults"),
        [
            (
                "gemma2",
                {"attention.sliding_window": 4096, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
            ),
            ("gemma3", {"attention.sliding_window": 0, "rope.freq_base_swa": 10000.0}),
        ],
    )
    def test_defaults_are_those_of_llama_cpp(self, name: str, defaults: dict[str, object], tmp_path: Path) -> None:
        given = dict(open_gguf(write_tiny(tmp_path / "m.gguf", name)).metadata)
        for key in defaults:
            given.pop(f"{name}.{key}", None)
        assert read_config(given, 300) == read_config(given | {f"{name}.{key}": v for key, v in defaults.items()}, 300)

    @pytest.mark.parametrize(
        ("pattern", "windows"),
        [(None, [3, 3]), (2, [3, 0]), (1, [0, 0]), (0, [3, 3]), (np.array([False, True]), [0, 3])],
    )
    def test_layers_with_a_sliding_window(self, pattern: object, windows: list[int], tmp_path: Path) -> None:
        given = dict(open_gguf(write_tiny(tmp_path / "m.gguf", "gemma3")).metadata)
        given |= {"gemma3.block_count": 2, "gemma3.attention.sliding_window": 3, "gemma3.rope.freq_base_swa": 5000.0}
        if pattern is not None:
            given["gemma3.attention.sliding_window_pattern"] = pattern
        config = read_config(given, 300)
        assert [config.layer(layer).sliding_window for layer in range(2)] == windows
        assert config.rope_local.freq_base == 5000.0

    def test_a_pattern_of_too_few_layers(self, tmp_path: Path) -> None:
        given = dict(open_gguf(write_tiny(tmp_path / "m.gguf", "gemma3")).metadata)
        with pytest.raises(FormatError, match=r"sliding_window_pattern has 1 values; expected one for each"):
            read_config(given | {"gemma3.attention.sliding_window_pattern": np.array([True])}, 300)

    def test_every_family_has_a_tiny_model(self) -> None:
        assert {variant.architecture for variant in VARIANTS.values()} == set(FAMILIES)


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
