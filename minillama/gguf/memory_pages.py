"""Pages of a model's file: large ones where the system has them, mapped before they are needed, and kept if asked."""

import contextlib
import ctypes
import mmap
import os
import platform
import sys
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import UInt8

from minillama.errors import ResourceError

_POPULATE_READ = 22  # Linux's MADV_POPULATE_READ, since 5.14; Python has no name for it
_STRETCH = 64 << 20  # bytes between two signs of life


def advise_huge_pages(mapping: mmap.mmap) -> None:
    """Linux then reads a file that is not in memory yet in larger pieces, and maps it with fewer, larger pages."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            mapping.madvise(mmap.MADV_HUGEPAGE)


def prefault_pages(memory: UInt8[np.ndarray, "bytes"]) -> Iterator[int]:
    """Map all pages of a mapped file, reading those that are not in memory, as llama.cpp has it done; yields the bytes
    done, stretch after stretch.

    Page after page, when a product first touches them, it would take several times as long. Where the system does not
    know how, nothing happens.
    """
    for start in range(0, memory.nbytes, _STRETCH):
        size = min(_STRETCH, memory.nbytes - start)
        if sys.platform == "linux":
            _call("madvise", memory.ctypes.data + start, size, _POPULATE_READ)
        yield size


def lock_pages(memory: Iterable[UInt8[np.ndarray, "bytes"]]) -> None:
    """Lock memory, mapped or not, until it is given back; what is not in memory yet is read now.

    Raises ResourceError where the system forbids it. Part may be locked then, which does no harm.
    """
    memory = list(memory)
    size = f"{sum(whole.nbytes for whole in memory) / 2**20:.0f} MiB"
    if sys.platform not in ("linux", "darwin"):
        raise ResourceError(f"cannot lock {size} of weights in memory: not supported on {platform.system()}")
    for whole in memory:
        if problem := _call("mlock", whole.ctypes.data, whole.nbytes):
            raise ResourceError(
                f"cannot lock {size} of weights in memory: {os.strerror(problem)}, RLIMIT_MEMLOCK is {_limit()}; "
                "raise it with `ulimit -l unlimited`, or have it raised where the hub or the container sets it"
            )


def _call(name: str, address: int, size: int, *numbers: int) -> int:
    """A system call on a stretch of memory, during which other threads go on; 0, or the number of the error."""
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * len(numbers)]
    return ctypes.get_errno() if function(address, size, *numbers) else 0


def _limit() -> str:
    import resource  # not there on Windows

    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return "unlimited" if limit == resource.RLIM_INFINITY else f"{limit / 2**20:.0f} MiB"
