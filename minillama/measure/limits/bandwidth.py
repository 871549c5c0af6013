"""How fast this machine reads its memory, which bounds how fast a model can decode."""

import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

SIZE = 512 << 20  # bytes; many times the largest cache of a processor for one socket
PASSES = 24


def read_bandwidth(threads: int, *, size: int = SIZE, passes: int = PASSES) -> float:
    """Bytes a second that `threads` threads together read, the best of several passes.

    Each thread sums its own part of a buffer as 64-bit integers with numpy, which compiles to wide loads and additions
    and holds no lock meanwhile; sums, maxima and bitwise reductions of 8 to 64 bits all end within a few percent of
    each other, so it is the memory that is timed. A pass lasts from the start of the first to the end of the last
    thread. The best counts, for whatever else the machine does can only slow a pass down.
    """
    whole = np.ones(size // 8, np.uint64)  # written, so that every page is really there
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
    """Bytes a second that JAX's first device reads from its own memory, the best of several passes: a compiled sum."""
    whole = jnp.ones(size // 4, jnp.float32)
    total = jax.jit(jnp.sum)
    jax.block_until_ready(total(whole))
    best = 0.0
    for _ in range(passes):
        started = time.perf_counter()
        jax.block_until_ready(total(whole))
        best = max(best, whole.nbytes / (time.perf_counter() - started))
    return best
