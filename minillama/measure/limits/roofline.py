"""The two roofs over a machine: bytes that its memory gives in a second, and operations that its arithmetic does.

A program that does `intensity` operations for each byte it reads cannot be faster than min(flops, bandwidth x
intensity) (Williams, Waterman and Patterson: Roofline, Communications of the ACM 52(4), 2009). Decoding a token reads
all weights for two operations each, and lies under the slope; a prompt shares what it reads, and lies under the flat.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from minillama import env
from minillama.engine.loading.model_files import resolve
from minillama.errors import OptionError
from minillama.gguf import GGUF, TensorType, open_gguf
from minillama.gguf.kv_cache_types import read_cache_types
from minillama.gguf.types import row_bytes
from minillama.kernels import SUPPORTED, Weight, matmul, portable_weight
from minillama.kernels.cpu_available import type_kernels_error
from minillama.measure.host.child_process import call_in_child
from minillama.measure.limits.bandwidth import PASSES, SIZE, device_bandwidth, read_bandwidth
from minillama.measure.limits.work_per_token import Work, trial_work
from minillama.measure.trial import Trial
from minillama.model import read_config

MATRIX_SIZE = 2048  # of the matrix that is multiplied: one of a layer of a model of a billion weights
PROMPT_TOKENS = 512  # tokens of a prompt that are multiplied with it at once
MATMUL_REPEATS = 16
XLA_FLOAT32 = "float32 (XLA)"
QUICK_SIZE, QUICK_PASSES, QUICK_REPEATS = 256 << 20, 6, 3  # for those who wait


@dataclass(frozen=True)
class Roofline:
    """What a machine can do at most, as measured. Made by `measure_roofline`."""

    bandwidth: float  # bytes a second, read from memory
    flops: float  # floating-point operations a second of a matrix product as a prompt needs it
    arithmetic: str  # which product: XLA's of float32, or that of a type of weights, as Q8_0
    threads: int  # of the processor; it says nothing about an accelerator
    device: str  # JAX's name for the kind of device

    @property
    def ridge(self) -> float:
        """Operations a byte from which on arithmetic is the limit, and no longer memory."""
        return self.flops / self.bandwidth

    def attainable(self, intensity: float) -> float:
        """Operations a second that a program with this many operations a byte can reach."""
        return min(self.flops, self.bandwidth * intensity)

    def tokens_per_second(self, work: Work) -> float:
        """The most tokens a second, of which each asks for that much."""
        return self.attainable(work.intensity) / work.operations

    def predict(self, model: str | Path | None, trial: Trial, *, ubatch_size: int = 512) -> float:
        """The most tokens a second of a test on a model file (None: the built-in one), with a cache of f16.

        Trial(512, 0) reads a prompt, Trial(0, 128) decodes. It is an upper limit, and only for models that do not fit
        in the processor's caches: a small one is read from there, and waits for other things.
        """
        return self.tokens_per_second(model_work(model, trial, ubatch_size=ubatch_size))

    def predict_decode(self, model: str | Path | None = None, depth: int = 0) -> float:
        """The most tokens a second of decoding behind `depth` tokens: bandwidth / bytes of a token."""
        return self.predict(model, Trial(0, 1, depth))

    def predict_prompt(self, model: str | Path | None = None, tokens: int = 512) -> float:
        """The most tokens a second of reading a prompt."""
        return self.predict(model, Trial(tokens, 0))

    def as_dict(self) -> dict[str, object]:
        """The same as plain values, ready for `json.dumps`."""
        return asdict(self)


def measure_roofline(threads: int | None = None, *, kind: TensorType | None = None, quick: bool = False) -> Roofline:
    """Measure the device that computes here; seconds at most, 1 to 2 with `quick`, which a busy machine misleads more.

    threads: of the processor. None: those in force here. Another number is measured in a process of its own, since JAX
    settles its threads when it starts; no more than this process is bound to.
    kind: the weights' type, whose own product is timed, as prompts use it; None for float32 through XLA.
    Raises OptionError for a type that no product is known for, or a number of threads below 1.
    """
    if kind is not None and kind not in SUPPORTED:
        raise OptionError(
            f"no product for weights of type {kind.name}; supported: {', '.join(t.name for t in SUPPORTED)}"
        )
    if threads is not None and threads < 1:
        raise OptionError(f"threads is {threads}; it counts processor cores, so 1 or more")
    here = env.thread_limits()[1]
    if threads in (None, here):
        return Roofline(**_measure(here, kind, quick))
    name = None if kind is None else kind.name
    return Roofline(**call_in_child(measure_in_child, threads, name, quick))  # type: ignore[arg-type]


def measure_in_child(threads: int, kind: str | None, quick: bool) -> dict[str, object]:
    """What `measure_roofline` starts in a process of its own; plain values only."""
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
    """What a token of a test on a model file takes, by formula, without loading it; None: the built-in model."""
    file = open_gguf(resolve(model))
    config = read_config(file.metadata, vocab_size=file.tensors["token_embd.weight"].shape[0])
    return trial_work(file, config, read_cache_types(cache_type_k, cache_type_v), trial, ubatch_size)


def main_weight_type(file: GGUF) -> TensorType:
    """The type of most weights of the layers, whose product a prompt spends its time in."""
    counts: Counter[TensorType] = Counter()
    for name, tensor in file.tensors.items():
        if name.startswith("blk.") and len(tensor.shape) > 1:
            counts[tensor.type] += prod(tensor.shape)
    return counts.most_common(1)[0][0]


def matmul_flops(
    kind: TensorType | None = None, *, rows: int = PROMPT_TOKENS, side: int = MATRIX_SIZE, repeats: int = MATMUL_REPEATS
) -> float:
    """Operations a second of a product of `rows` activations with a matrix, the best of several.

    kind: how the weights are stored, whose own product is timed; None for float32 through XLA.
    """
    device = jax.devices()[0]
    rng = np.random.default_rng(0)
    x = jax.device_put(rng.standard_normal((rows, side), np.float32), device)
    if kind is None:
        product, weight = jax.jit(jnp.matmul), jax.device_put(rng.standard_normal((side, side), np.float32), device)
    else:
        product, weight = jax.jit(matmul), _random_weight(kind, side, device)
    seconds = _best_seconds(lambda: jax.block_until_ready(product(x, weight)), repeats)
    return 2 * rows * side * side / seconds


def _measure(threads: int, kind: TensorType | None, quick: bool) -> dict[str, object]:
    size, passes, products = (QUICK_SIZE, QUICK_PASSES, QUICK_REPEATS) if quick else (SIZE, PASSES, MATMUL_REPEATS)
    device = jax.devices()[0]
    on_cpu = device.platform == "cpu"
    return {
        "bandwidth": read_bandwidth(threads, size=size, passes=passes) if on_cpu else device_bandwidth(size=size),
        "flops": matmul_flops(kind, repeats=products),
        "arithmetic": XLA_FLOAT32 if kind is None else kind.name,
        "threads": threads,
        "device": device.device_kind,
    }


def _random_weight(kind: TensorType, side: int, device: jax.Device) -> Weight:
    """A square matrix of a type. Bytes of this range make ordinary numbers of every type's scales and values."""
    raw = np.random.default_rng(0).integers(0x30, 0x40, (side, row_bytes(side, kind)), np.uint8)
    if device.platform == "cpu" and type_kernels_error(kind) is None:
        from minillama.kernels.cpu.mapped_weight import map_weight

        return map_weight(jax.device_put(raw.reshape(-1), device), 0, kind, (side, side))
    return portable_weight(raw, kind, device)


def _best_seconds(call: Callable[[], object], repeats: int) -> float:
    """Of several calls behind one that compiles; whatever else the machine does can only slow a call down."""
    call()
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best
