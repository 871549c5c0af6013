"""Memory read bandwidth, the upper limit of decode speed."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from minillama import env
from minillama.engine.loading.memory_budget import available_bytes
from minillama.gguf import TensorType
from minillama.gguf.types import row_bytes
from minillama.kernels import Weight, matmul, portable_weight
from minillama.kernels.cpu_available import type_kernels_error

SIZE = 512 << 20  # bytes; many times the largest CPU cache of one socket
LARGE_SIZE = 4 << 30  # of an accelerator
PASSES = 24


def bandwidth_of_threads(threads: int) -> float:
    """`cpu_bandwidth` of a fresh process with a number of threads."""
    env.prepare(threads=threads)
    return cpu_bandwidth()


def cpu_bandwidth(*, size: int = SIZE, passes: int = PASSES) -> float:
    """Bytes per second that this process reads from memory in the fastest of three ways.

    Plain sums read one stream a thread. Decoding products read several rows at once, with prefetches, so that more
    requests are under way: a roof of sums alone would be exceeded.
    """
    products = (product_bandwidth(kind, size=size, passes=passes) for kind in (TensorType.Q8_0, TensorType.F16))
    return max(read_bandwidth(env.thread_limits()[1], size=size, passes=passes), *products)


def read_bandwidth(threads: int, *, size: int = SIZE, passes: int = PASSES) -> float:
    """Bytes per second that `threads` threads together read from memory, the best of several passes.

    Each thread sums its part of a buffer as 64-bit integers with numpy, which uses vector loads and releases Python's
    lock. Sums, maxima and bitwise reductions of 8 to 64 bits agree within a few percent, so memory is the limit. A pass
    lasts from the start of the first thread to the end of the last. The best pass counts, because other load can only
    slow a pass down.
    """
    whole = np.ones(size // 8, np.uint64)  # written, so that every page is resident
    parts = np.array_split(whole, threads)
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(passes):
            started = time.perf_counter()
            for _ in pool.map(np.sum, parts):
                pass
            best = max(best, whole.nbytes / (time.perf_counter() - started))
    return best


def device_bandwidth(*, size: int = LARGE_SIZE, passes: int = PASSES) -> float:
    """Bytes per second that JAX's first device reads from its memory; best of several sums.

    size: see `array_bytes`. A launch would be a fifth of the time of 512 MB on a GPU.
    """
    whole, total = jnp.ones(array_bytes(size) // 4, jnp.float32), jax.jit(jnp.sum)
    return whole.nbytes / best_seconds(lambda: jax.block_until_ready(total(whole)), passes)


def array_bytes(most: int) -> int:
    """Bytes of a measured array: at most a quarter of the first device's free memory."""
    return min(most, available_bytes(jax.devices()[0]) // 4)


def product_bandwidth(kind: TensorType, *, size: int = SIZE, passes: int = PASSES) -> float:
    """Bytes per second that a matrix-vector product reads, as in decoding; best of several.

    size: bytes of the matrix, about. 0.0 where this processor has no kernel of the type.
    """
    if type_kernels_error(kind) is not None:
        return 0.0
    device, side = jax.devices()[0], int((size * 32 / row_bytes(32, kind)) ** 0.5) // 256 * 256
    weight, x = random_weight(kind, side, device), jax.device_put(np.ones((1, side), np.float32), device)
    product = jax.jit(matmul)
    return side * row_bytes(side, kind) / best_seconds(lambda: jax.block_until_ready(product(x, weight)), passes)


def random_weight(kind: TensorType, side: int, device: jax.Device) -> Weight:
    """A random square matrix; these bytes give finite scales and values in every type."""
    raw = np.random.default_rng(0).integers(0x30, 0x40, (side, row_bytes(side, kind)), np.uint8)
    if device.platform == "cpu" and type_kernels_error(kind) is None:
        from minillama.kernels.cpu.mapped_weight import map_weight

        return map_weight(jax.device_put(raw.reshape(-1), device), 0, kind, (side, side))
    return portable_weight(raw, kind, device)


def best_seconds(call: Callable[[], object], repeats: int) -> float:
    """Shortest time of several calls, after one call that compiles."""
    call()
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best
