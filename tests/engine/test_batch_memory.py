"""Requests of a batch engine leave nothing but their copies in the prefix cache."""

import gc
import random
import weakref

import jax
import pytest
from tiny_models import write_tiny

import minillama as ml
from minillama.engine.batching.batch_engine import BatchEngine
from minillama.engine.batching.batch_stream import BatchStream, finish_all

CTX, SLOTS = 256, 4


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> ml.LLM:
    path = write_tiny(tmp_path_factory.mktemp("tiny") / "llama.gguf", "llama")
    return ml.load(path, ctx_size=CTX, progress=False, cache_type_k="f32", cache_type_v="f32")


@pytest.mark.parametrize("cache_ram", [0, 1])
def test_requests_leave_only_their_copies(llm: ml.LLM, cache_ram: int) -> None:
    with llm.batch_engine(SLOTS, cache_ram=cache_ram) as engine:
        finish_all([engine.submit([3, 4], n=2, cache_prompt=False)])
        empty = _array_bytes()
        _ask_different(engine, 60, seed=0)
        held = engine.metrics().ram_bytes
        assert (0.8 * cache_ram) * (1 << 20) <= held <= cache_ram << 20  # full, so that copies now go
        left = _ask_different(engine, 60, seed=1)
        assert _array_bytes() - empty <= cache_ram << 20
        assert len(left) <= SLOTS


def _ask_different(engine: BatchEngine, count: int, seed: int) -> "weakref.WeakSet[BatchStream]":
    """Finish requests with different prompts; the streams of them that are still there."""
    chance, left = random.Random(seed), weakref.WeakSet[BatchStream]()
    for _ in range(count):
        stream = engine.submit([chance.randrange(3, 60) for _ in range(20)], n=2, seed=seed, ignore_eos=True)
        left.add(stream)
        stream.finish()
    del stream
    gc.collect()
    return left


def _array_bytes() -> int:
    gc.collect()
    return sum(array.nbytes for array in jax.live_arrays())
