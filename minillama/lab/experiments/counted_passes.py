"""Counted and timed forward passes, and a model larger than the CPU's caches."""

import atexit
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache as once
from functools import partial
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.array_types import Float, Float32, Int
from minillama.engine.llm import LLM
from minillama.engine.load import load
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.lab.lab_models import LabModel
from minillama.lab.measuring import measuring
from minillama.lab.own_model import scaled
from minillama.measure.speed.llama_bench import measure_trial
from minillama.measure.trial import Trial
from minillama.model import Cache, Config, Params, empty_cache
from minillama.model.forward import forward, unembed
from minillama.random_models.known_shapes import shape_named
from minillama.random_models.model_writer import write_random_model


class CountedModel:
    """A model as a function (tokens, cache) -> (logits of the last token, cache), with counters.

    A pass donates the memory of its input cache, as a decode step does.
    """

    def __init__(self, llm: LLM, capacity: int = 128) -> None:
        """capacity: positions of the caches from `empty`."""
        self._llm, self._capacity = llm, capacity
        self.calls = self.tokens = 0
        self.programs: set[tuple[int, int]] = set()  # (tokens of a pass, capacity): XLA compiles each separately

    def empty(self) -> Cache:
        """An empty cache."""
        return empty_cache(self._llm.config, self._capacity, self._llm.cache_types)

    def __call__(self, tokens: Sequence[int], cache: Cache) -> tuple[Float32[np.ndarray, "V"], Cache]:
        """Run `tokens` after the cached ones, and wait for the result."""
        self.calls += 1
        self.tokens += len(tokens)
        self.programs.add((len(tokens), cache.capacity))
        logits, cache = _run(self._llm.params, self._llm.config, jnp.asarray(np.array([tokens], np.int32)), cache)
        return np.asarray(logits), cache


@partial(jax.jit, static_argnames="config", donate_argnames="cache")
def _run(params: Params, config: Config, ids: Int[Array, "1 T"], cache: Cache) -> tuple[Float[Array, "V"], Cache]:
    hidden, cache = forward(params, config, ids, cache)
    return unembed(params, config, hidden[0, -1]), cache


@measuring("passes of a lab")
def pass_seconds(llm: LLM, size: int, *, repetitions: int = 7) -> float:
    """Median seconds of a pass of `size` tokens on an empty context, without compile time."""
    model = CountedModel(llm)
    tokens = list(range(3, 3 + size))
    model(tokens, model.empty())
    return median_seconds(lambda cache: model(tokens, cache), model.empty, repetitions)


def median_seconds(call: Callable[[Cache], object], make: Callable[[], Cache], repetitions: int) -> float:
    """Median seconds of `call(made)`, without the time of `made = make()`."""
    times = []
    for _ in range(repetitions):
        made = jax.block_until_ready(make())
        started = time.perf_counter()
        call(made)
        times.append(time.perf_counter() - started)
    return median(times)


@measuring("tokens of a lab")
def one_more_token(llm: LLM, depth: int, *, cached: bool, repetitions: int = 9) -> float:
    """Median seconds of one more token after `depth` others, with or without a KV cache.

    Measured as in `minillama bench`: tg at a depth, or pp of that many tokens. The context must have room.
    """
    length = 16 if cached else 1
    trial = Trial(0, length, depth) if cached else Trial(depth, 0)
    samples, _ = measure_trial(llm, trial, repetitions, n_batch=llm.batches.batch_size)
    return median(samples) / 1e9 / length


def decode_speeds(llm: LLM, depths: Sequence[int], types: CacheTypes) -> Iterator[tuple[int, float]]:
    """Decode speed at each depth: (depth, tokens/s); fewer repetitions for a large model."""
    llm = replace(llm, cache_types=types)
    repetitions = scaled(9, llm, tokens=160, seconds=15, least=2)
    for depth in depths:
        yield depth, 1 / one_more_token(llm, depth, cached=True, repetitions=repetitions)


@once
def big_model(file_type: str = "Q8_0") -> Path:
    """A GGUF file of 73 MB (F16: 137) with random weights, larger than a CPU's caches.

    The shape is that of a small Llama. The file is written once per process, in a fraction of a second, and
    removed at its end.
    """
    folder = tempfile.TemporaryDirectory(prefix="minillama-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    return big_file(file_type).path(Path(folder.name))


@once
def _big(file_type: str) -> LLM:
    return load(big_model(file_type), ctx_size=512, progress=False)


@measuring("decode speeds of a lab")
def decode_speed_ratio(file_type: str, base: str = "F16", *, turns: int = 3) -> float:
    """Decode speed of one shape in `file_type` over that in `base`.

    Median of interleaved A/B rounds, because other load then disturbs both. Files have 26 MB (Q2_K) to 275 MB (F32).
    The base's file stays until the process ends.
    """
    old = _big(base)
    with tempfile.TemporaryDirectory(prefix="minillama-", ignore_cleanup_errors=True) as folder:
        new = load(big_file(file_type).path(Path(folder)), ctx_size=512, progress=False)
        ratios = []
        for _ in range(turns):
            slow = one_more_token(old, 0, cached=True, repetitions=3)
            ratios.append(slow / one_more_token(new, 0, cached=True, repetitions=3))
        return median(ratios)


def big_file(file_type: str) -> LabModel:
    """The file of `big_model`."""
    shape = replace(
        shape_named("tiny"), name="big", title="Big", size_label="69M", layers=6, embedding=1024, heads=16, kv_heads=4,
        head_size=64, feed_forward=2816, context=4096,
    )  # fmt: skip
    return LabModel(f"big-{file_type.lower()}.gguf", lambda path: write_random_model(path, shape, file_type))
