"""Quantised KV caches: the rotation of heads, and the logits of the float64 twin whose keys and values are rounded."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_forward import forward as slow_forward
from reference_blocks import hadamard_matrix, through_cache
from test_forward import CTX, IDS, logits_of, open_model
from tiny_models import VARIANTS, write_tiny
from tiny_variants import with_heads

from minillama.gguf import GGUF, dequantize
from minillama.gguf.kv_cache_types import CacheType, CacheTypes
from minillama.model import Config, Params, empty_cache
from minillama.model.states.hadamard import hadamard, hadamard_product, key_rotation, value_rotation
from minillama.model.states.stores import Store, empty_store

QUANTISED = [kind for kind in CacheType if kind.is_quantised]
by_kind = pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.value)


@pytest.mark.parametrize("size", [1, 64, 256])
@pytest.mark.parametrize("form", [hadamard, hadamard_product])
def test_hadamard_is_the_matrix(form: Callable[[jax.Array, int], jax.Array], size: int) -> None:
    x = np.random.default_rng(0).standard_normal((3, 2, 2 * size), np.float32)
    expected = (x.reshape(3, 2, 2, size) @ hadamard_matrix(size)).reshape(x.shape)
    got = form(jnp.asarray(x), size)
    np.testing.assert_allclose(np.asarray(got), expected, atol=2e-6)
    np.testing.assert_allclose(np.asarray(form(got, size)), x, atol=2e-6)


@pytest.mark.parametrize(
    ("kind", "size", "keys", "values"),
    [("f16", 128, 1, 1), ("q8_0", 32, 1, 1), ("q4_0", 96, 1, 1), ("q8_0", 64, 64, 64), ("q4_1", 128, 128, 64),
     ("iq4_nl", 192, 64, 64), ("q5_0", 256, 256, 64), ("q5_1", 576, 64, 64)],
)  # fmt: skip
def test_heads_rotate_as_in_llama_cpp(kind: str, size: int, keys: int, values: int) -> None:
    """Heads of whole 64s; keys by the largest power of two that divides a head, values by 64."""
    store = empty_store(CacheType(kind), 1, 1, 1, size)
    assert (key_rotation(store), value_rotation(store)) == (keys, values)


def open_wide(folder: Path, name: str, size: int) -> tuple[GGUF, Config, Params]:
    """A tiny model with longer heads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, "wide", with_heads(VARIANTS[name], size))
        return open_model(write_tiny(folder / "m.gguf", "wide"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[GGUF, Config, Params]:
    return open_wide(tmp_path_factory.mktemp("wide"), "qwen3", 64)


def rms(difference: np.ndarray) -> float:
    return float(np.sqrt((difference**2).mean()))


def check_twin(file: GGUF, config: Config, params: Params, types: CacheTypes) -> None:
    """A number between two codes may fall to either, so a tenth of what rounding does is left."""
    tensors = {name: dequantize(tensor).astype(np.float64) for name, tensor in file.tensors.items()}
    twin = partial(slow_forward, file.metadata, tensors, IDS.tolist(), CTX)
    kinds = types.keys.tensor_type, types.values.tensor_type
    rounded, exact = twin(partial(through_cache, kinds=kinds)), twin()
    got, _ = logits_of(params, config, jnp.asarray(IDS[None]), empty_cache(config, 32, types))
    assert 0 < rms(rounded - exact) / exact.std() < 0.15
    assert rms(np.asarray(got[0]) - rounded) < 0.1 * rms(rounded - exact)


class TestLogits:
    @by_kind
    def test_are_those_of_rounded_keys_and_values(self, wide: tuple[GGUF, Config, Params], kind: CacheType) -> None:
        check_twin(*wide, CacheTypes(kind, kind))

    def test_of_windows_and_shared_layers(self, tmp_path: Path) -> None:
        """Gemma 4: heads of two lengths, values that begin as the keys, layers that read those of others."""
        exact_enough = CacheTypes(CacheType.Q8_0, CacheType.Q8_0)  # for scores without a factor
        check_twin(*open_wide(tmp_path, "gemma4", 128), exact_enough)

    def test_of_pieces_are_those_of_the_whole(self, wide: tuple[GGUF, Config, Params]) -> None:
        _, config, params = wide
        types = CacheTypes(CacheType.Q4_0, CacheType.Q5_1)
        whole, _ = logits_of(params, config, jnp.asarray(IDS[None]), empty_cache(config, 32, types))
        cache, parts = empty_cache(config, 32, types), []
        for piece in (IDS[:16], *(IDS[i : i + 1] for i in range(16, 20))):
            logits, cache = logits_of(params, config, jnp.asarray(piece[None]), cache)
            parts.append(np.asarray(logits[0]))
        assert rms(np.concatenate(parts) - np.asarray(whole[0, :20])) < 0.01 * float(whole.std())


@partial(jax.jit, static_argnums=2)
def kept_keys(store: Store, keys: np.ndarray, rotation: int) -> jax.Array:
    return store.encode(hadamard(keys, rotation)).decode()


@by_kind
def test_loud_channels_cost_little(kind: CacheType) -> None:
    """One channel of keys, 50 times the others, would else take the scale of its block."""
    rng = np.random.default_rng(0)
    keys, q = rng.standard_normal((2, 1, 1, 64, 64), np.float32)
    keys[..., 3] *= 50
    store = empty_store(kind, 1, 1, 64, 64)

    def error(rotation: int) -> float:
        kept, queries = kept_keys(store, keys, rotation), jax.jit(hadamard, static_argnums=1)(q, rotation)
        scores = np.einsum("BKSH,BKTH->BKTS", np.asarray(kept), np.asarray(queries))
        return rms(scores - np.einsum("BKSH,BKTH->BKTS", keys, q))

    assert error(64) < error(1)
