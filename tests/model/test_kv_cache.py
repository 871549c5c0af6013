"""The cache's ways of storing: what is written is read, up to the rounding of the type, and takes what is said."""

from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gguf.quants import quantize
from tiny_models import write_tiny

from minillama.errors import OptionError
from minillama.gguf import open_gguf
from minillama.gguf.kv_cache_types import CacheType, CacheTypes, read_cache_types
from minillama.gguf.types import TensorType
from minillama.model import cache_bytes, empty_cache, read_config
from minillama.model.states.stores import Plain, Quantised, Store, empty_store

# Largest error in units of the number itself: half a step of the type's significand. Or in units of the largest of its
# block: half a step of amax / 127 of q8_0, a whole step where codes have no +8 or +16, half of 1/15 or 1/31 of a range
# of at most 2 amax, half of the widest gap of iq4_nl's values; and the rounding of the scale to float16.
ROUNDING = {
    CacheType.F32: 0.0, CacheType.F16: 2**-11, CacheType.BF16: 2**-8, CacheType.Q8_0: 0.5 / 127 + 2**-11,
    CacheType.Q4_0: 1 / 8 + 2**-11, CacheType.Q4_1: 1 / 15 + 2**-10, CacheType.IQ4_NL: 0.2,
    CacheType.Q5_0: 1 / 16 + 2**-11, CacheType.Q5_1: 1 / 31 + 2**-10,
}  # fmt: skip
BLOCK, H = 32, 64


def random(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) * 10 ** rng.uniform(-1, 1, (*shape[:-1], 1))).astype(np.float32)


@jax.jit
def written(store: Store, new: np.ndarray, starts: np.ndarray) -> tuple[Store, jax.Array]:
    """A store after a write, and all that it holds."""
    store = store.write(new, starts)
    return store, store.decode()


@pytest.mark.parametrize("kind", CacheType)
@pytest.mark.parametrize("batch", [1, 3])
def test_write_is_numpys_slice_assignment(kind: CacheType, batch: int) -> None:
    expected, new = np.zeros((batch, 2, 9, H), np.float32), random(batch, 3, 2, H)
    starts = np.array([6, 0, 2][:batch], np.int32)
    store, decoded = written(empty_store(kind, batch, 2, 9, H), new, starts)
    for row, start in enumerate(starts):
        expected[row, :, start : start + 3] = new[row].swapaxes(0, 1)
    blocks = np.abs(expected).reshape(batch, 2, 9, -1, BLOCK)
    unit = np.repeat(blocks.max(-1), BLOCK, -1) if kind.is_quantised else np.abs(expected)
    assert (np.abs(np.asarray(decoded) - expected) <= ROUNDING[kind] * 1.001 * unit).all()
    part = jax.jit(lambda store: store.read(jnp.int32(2), 5))(store)
    np.testing.assert_array_equal(np.asarray(part), np.asarray(decoded)[:, :, 2:7], strict=True)


def test_a_head_has_ggmls_bytes() -> None:
    new = random(1, 5, 2, H)
    store, _ = written(empty_store(CacheType.Q4_0, 1, 2, 5, H), new, np.zeros(1, np.int32))
    assert isinstance(store, Quantised)
    np.testing.assert_array_equal(np.asarray(store.blocks[0]), quantize(new[0].swapaxes(0, 1), TensorType.Q4_0))


@pytest.mark.parametrize(("keys", "values"), list(pairwise([*CacheType, CacheType.F32])))
def test_bytes_are_those_of_the_arrays(tmp_path: Path, keys: CacheType, values: CacheType) -> None:
    file, types = open_gguf(write_tiny(tmp_path / "m.gguf", "qwen3")), CacheTypes(keys, values)
    config = read_config(file.metadata, 300)
    cache = empty_cache(config, 48, types, batch=2)
    assert [isinstance(store, Plain) for store in (cache.layers[0].keys, cache.layers[0].values)] == [
        not kind.is_quantised for kind in (keys, values)
    ]
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(cache.layers))
    assert cache_bytes(config, 48, types, batch=2) == held
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(cache.resize(96))) == 2 * held + cache.length.nbytes


@pytest.mark.parametrize("kind", CacheType)
def test_growing_keeps_what_was_there(kind: CacheType) -> None:
    store, decoded = written(empty_store(kind, 2, 3, 4, H), random(2, 4, 3, H), np.zeros(2, np.int32))
    grown = store.resize(7)
    after = np.asarray(jax.jit(lambda store: store.decode())(grown))
    assert (store.capacity, grown.capacity) == (4, 7)
    np.testing.assert_array_equal(after[:, :, :4], np.asarray(decoded))
    assert not after[:, :, 4:].any()


def test_types_are_named_as_in_llama_cpp() -> None:
    assert read_cache_types("f16", "f16") == CacheTypes()
    types = read_cache_types("q8_0", "bf16")
    assert types == CacheTypes(CacheType.Q8_0, CacheType.BF16)
    assert (str(types), str(CacheTypes())) == ("q8_0/bf16", "f16")
    with pytest.raises(OptionError, match=r"cache_type_v is 'q4_k'; supported: f32, .*q8_0, q4_0, .*q5_1$"):
        read_cache_types("f16", "q4_k")


def test_a_head_that_does_not_divide_into_blocks(tmp_path: Path) -> None:
    file = open_gguf(write_tiny(tmp_path / "m.gguf", "llama"))
    message = r"^cache_type_v is q8_0, in blocks of 32 values, but a head of this model has 16; use f16$"
    types = CacheTypes(values=CacheType.Q8_0)
    with pytest.raises(OptionError, match=message):
        empty_cache(read_config(file.metadata, 300), 32, types)
