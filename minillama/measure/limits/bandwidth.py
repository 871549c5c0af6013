"""Memory read bandwidth, the upper limit of decode speed."""

import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

SIZE = 512 << 20  # bytes; many times the largest CPU cache of one socket
PASSES = 24


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


def device_bandwidth(*, size: int = SIZE, passes: int = PASSES) -> float:
    """Bytes per second that JAX's first device reads from its memory; best of several sums."""
    whole = jnp.ones(size // 4, jnp.float32)
    total = jax.jit(jnp.sum)
    jax.block_until_ready(total(whole))
    best = 0.0
    for _ in range(passes):
        started = time.perf_counter()
        jax.block_until_ready(total(whole))
        best = max(best, whole.nbytes / (time.perf_counter() - started))
    return best
