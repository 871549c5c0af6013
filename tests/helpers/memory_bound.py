"""A bound for the memory of test processes: JAX keeps every program that a process has compiled."""

import ctypes
import gc
import sys

import jax
import psutil

MOST = 2 << 30  # bytes; beyond them, the programs of earlier tests go


def bound_memory() -> None:
    """Drop the compiled programs of a process that has grown; the cache on disk has them."""
    if psutil.Process().memory_info().rss < MOST:
        return
    jax.clear_caches()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
