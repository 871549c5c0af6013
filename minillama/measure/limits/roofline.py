"""The roofline of a machine: memory bandwidth and peak arithmetic speed.

A program with `intensity` operations per byte cannot be faster than min(flops, bandwidth x intensity) (Williams,
Waterman and Patterson: Roofline, Communications of the ACM 52(4), 2009). Decoding reads all weights for two operations
each, so it is bound by memory. The tokens of a prompt share what is read, so a prompt is bound by arithmetic.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from minillama import env
from minillama.engine.loading.load_params import config_of
from minillama.engine.loading.model_files import resolve
from minillama.errors import OptionError
from minillama.gguf import GGUF, TensorType, open_gguf
from minillama.gguf.kv_cache_types import read_cache_types
from minillama.kernels import SUPPORTED, matmul
from minillama.measure.host.child_process import call_in_child
from minillama.measure.limits.bandwidth import (
    PASSES,
    SIZE,
    best_seconds,
    cpu_bandwidth,
    device_bandwidth,
    random_weight,
)
from minillama.measure.limits.work_per_token import Work, trial_work
from minillama.measure.trial import Trial

MATRIX_SIZE = 2048  # rows and columns, as in a layer of a model with a billion weights
PROMPT_TOKENS = 512  # rows of activations that are multiplied with it
MATMUL_REPEATS = 16
XLA_FLOAT32 = "float32 (XLA)"
QUICK_SIZE, QUICK_PASSES, QUICK_REPEATS = 256 << 20, 6, 3  # with quick=True


@dataclass(frozen=True)
class Roofline:
    """Measured limits of a machine. Made by `measure_roofline`."""

    bandwidth: float  # bytes per second, read from memory
    flops: float  # floating-point operations per second of a matmul with prompt-sized activations
    arithmetic: str  # which matmul: XLA's of float32, or that of a weight type such as Q8_0
    threads: int  # CPU threads; without meaning for an accelerator
    device: str  # JAX's name of the device kind

    @property
    def ridge(self) -> float:
        """Operations per byte above which arithmetic is the limit instead of memory."""
        return self.flops / self.bandwidth

    def attainable(self, intensity: float) -> float:
        """Operations per second that a program with this many operations per byte can reach."""
        return min(self.flops, self.bandwidth * intensity)

    def tokens_per_second(self, work: Work) -> float:
        """Upper limit of tokens per second at this work per token."""
        return self.attainable(work.intensity) / work.operations

    def predict(self, model: str | Path | None, trial: Trial, *, ubatch_size: int = 512) -> float:
        """Upper limit of tokens per second of a test on a model file.

        The KV cache is f16. model: None for the built-in one. Trial(512, 0) reads a prompt, Trial(0, 128) decodes. The
        limit holds only for models larger than the CPU caches: smaller models are read from the caches and have other
        bottlenecks.
        """
        return self.tokens_per_second(model_work(model, trial, ubatch_size=ubatch_size))

    def predict_decode(self, model: str | Path | None = None, depth: int = 0) -> float:
        """Upper limit of decode speed after `depth` tokens: bandwidth / bytes per token."""
        return self.predict(model, Trial(0, 1, depth))

    def predict_prompt(self, model: str | Path | None = None, tokens: int = 512) -> float:
        """Upper limit of tokens per second of a prompt."""
        return self.predict(model, Trial(tokens, 0))

    def as_dict(self) -> dict[str, object]:
        """Plain values for `json.dumps`."""
        return asdict(self)


def measure_roofline(threads: int | None = None, *, kind: TensorType | None = None, quick: bool = False) -> Roofline:
    """Measure bandwidth and arithmetic speed of the device of this process.

    threads: CPU threads; None for the current number. Another number is measured in a child process, because JAX fixes
    its threads at the start; it is at most the number that this process is bound to.
    kind: weight type of the timed matmul; None for float32 through XLA.
    quick: take 1 to 2 seconds only; other load then changes the result more.
    Raises OptionError for an unsupported weight type or a number of threads below 1.
    """
    if kind is not None and kind not in SUPPORTED:
        raise OptionError(
            f"no matmul for weights of type {kind.name}; supported: {', '.join(t.name for t in SUPPORTED)}"
        )
    if threads is not None and threads < 1:
        raise OptionError(f"threads is {threads}; it counts processor cores, so 1 or more")
    here = env.thread_limits()[1]
    if threads in (None, here):
        return Roofline(**_measure(here, kind, quick))
    name = None if kind is None else kind.name
    return Roofline(**call_in_child(measure_in_child, threads, name, quick))  # type: ignore[arg-type]


def measure_in_child(threads: int, kind: str | None, quick: bool) -> dict[str, object]:
    """Measure in a child process with a number of threads; takes and returns plain values."""
    env.prepare(threads=threads)
    return _measure(env.thread_limits()[1], None if kind is None else TensorType[kind], quick)


def model_work(
    model: str | Path | None,
    trial: Trial,
    *,
    ubatch_size: int = 512,
    cache_type_k: str = "f16",
    cache_type_v: str = "f16",
) -> Work:
    """Work per token of a test on a model file; None: the built-in model."""
    file = open_gguf(resolve(model))
    return trial_work(file, config_of(file), read_cache_types(cache_type_k, cache_type_v), trial, ubatch_size)


def main_weight_type(file: GGUF) -> TensorType:
    """The most frequent weight type of the layers."""
    counts: Counter[TensorType] = Counter()
    for name, tensor in file.tensors.items():
        if name.startswith("blk.") and len(tensor.shape) > 1:
            counts[tensor.type] += prod(tensor.shape)
    return counts.most_common(1)[0][0]


def matmul_flops(
    kind: TensorType | None = None, *, rows: int = PROMPT_TOKENS, side: int = MATRIX_SIZE, repeats: int = MATMUL_REPEATS
) -> float:
    """Operations per second of a matmul [rows, side] x [side, side], the best of several.

    kind: weight type of the matrix; None for float32 through XLA.
    """
    device = jax.devices()[0]
    rng = np.random.default_rng(0)
    x = jax.device_put(rng.standard_normal((rows, side), np.float32), device)
    if kind is None:
        product, weight = jax.jit(jnp.matmul), jax.device_put(rng.standard_normal((side, side), np.float32), device)
    else:
        product, weight = jax.jit(matmul), random_weight(kind, side, device)
    seconds = best_seconds(lambda: jax.block_until_ready(product(x, weight)), repeats)
    return 2 * rows * side * side / seconds


def _measure(threads: int, kind: TensorType | None, quick: bool) -> dict[str, object]:
    size, passes, products = (QUICK_SIZE, QUICK_PASSES, QUICK_REPEATS) if quick else (SIZE, PASSES, MATMUL_REPEATS)
    device = jax.devices()[0]
    on_cpu = device.platform == "cpu"
    return {
        "bandwidth": cpu_bandwidth(size=size, passes=passes) if on_cpu else device_bandwidth(),
        "flops": matmul_flops(kind, repeats=products),
        "arithmetic": XLA_FLOAT32 if kind is None else kind.name,
        "threads": threads,
        "device": device.device_kind,
    }
