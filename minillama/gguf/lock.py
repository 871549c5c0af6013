"""Keep a model's bytes in memory, so that the system never swaps them out or drops their pages."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterable

import numpy as np
from jaxtyping import UInt8

from minillama.errors import ResourceError


def lock(memory: Iterable[UInt8[np.ndarray, "bytes"]]) -> None:
    """Lock memory, mapped or not, until it is given back; what is not in memory yet is read now.

    Raises ResourceError where the system forbids it. Part may be locked then, which does no harm.
    """
    memory = list(memory)
    size = f"{sum(whole.nbytes for whole in memory) / 2**20:.0f} MiB"
    if sys.platform not in ("linux", "darwin"):
        raise ResourceError(f"cannot lock {size} of weights in memory: not supported on {platform.system()}")
    for whole in memory:
        if problem := _mlock(whole.ctypes.data, whole.nbytes):
            raise ResourceError(
                f"cannot lock {size} of weights in memory: {os.strerror(problem)}, RLIMIT_MEMLOCK is {_limit()}; "
                "raise it with `ulimit -l unlimited`, or have it raised where the hub or the container sets it"
            )


def _mlock(address: int, size: int) -> int:
    """The system call; 0, or the number of the error."""
    function = ctypes.CDLL(None, use_errno=True).mlock
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return ctypes.get_errno() if function(address, size) else 0


def _limit() -> str:
    import resource  # not there on Windows

    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return "unlimited" if limit == resource.RLIM_INFINITY else f"{limit / 2**20:.0f} MiB"
