"""A mapped model file: huge pages, prefaulting, locking, and changes of the file since."""

import contextlib
import ctypes
import mmap
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import numpy as np

from minillama.array_types import UInt8
from minillama.errors import ResourceError

_POPULATE_READ = 22  # MADV_POPULATE_READ of Linux 5.14, which Python does not define
_WILL_NEED = 3  # MADV_WILLNEED of macOS
_CHUNK = 64 << 20  # bytes between two reports of progress


def advise_huge_pages(mapping: mmap.mmap) -> None:
    """Let Linux read an uncached file in larger units and map it with huge pages."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            mapping.madvise(mmap.MADV_HUGEPAGE)


def start_prefault(files: Iterable[UInt8[np.ndarray, "_"]]) -> Iterator[int]:
    """Prefault mapped files in a thread that starts now; yields the bytes of each chunk."""
    done: SimpleQueue[int | None] = SimpleQueue()

    def prefault(files: Sequence[UInt8[np.ndarray, "_"]]) -> None:
        try:
            for memory in files:
                for size in prefault_pages(memory):
                    done.put(size)
        finally:
            done.put(None)

    Thread(target=prefault, args=(list(files),), daemon=True).start()
    return _until_none(done)


def _until_none(queue: "SimpleQueue[int | None]") -> Iterator[int]:
    while (size := queue.get()) is not None:
        yield size


def prefault_pages(memory: UInt8[np.ndarray, "bytes"]) -> Iterator[int]:
    """Prefault all pages of a mapped file; yields the bytes of each chunk.

    llama.cpp does the same. Pages that are not in memory are read. Page faults during the first matmul would take
    several times as long. macOS only begins to read them; other systems have no such function.
    """
    advice = {"linux": _POPULATE_READ, "darwin": _WILL_NEED}.get(sys.platform)
    for start in range(0, memory.nbytes, _CHUNK):
        size = min(_CHUNK, memory.nbytes - start)
        if advice is not None:
            _call("madvise", memory.ctypes.data + start, size, advice)
        yield size


def lock_pages(memory: Iterable[UInt8[np.ndarray, "bytes"]]) -> None:
    """Lock memory, mapped or not, until it is freed.

    Pages that are not in memory are read now. Raises ResourceError if the system does not permit it. A part may be
    locked then, which is harmless.
    """
    memory = list(memory)
    size = f"{sum(whole.nbytes for whole in memory) / 2**20:.0f} MiB"
    if sys.platform not in ("linux", "darwin"):
        raise ResourceError(f"cannot lock {size} of weights in memory: not supported on {platform.system()}")
    for whole in memory:
        if problem := _call("mlock", whole.ctypes.data, whole.nbytes):
            raise ResourceError(
                f"cannot lock {size} of weights in memory: {os.strerror(problem)}, RLIMIT_MEMLOCK is {_limit()}; "
                "raise it with `ulimit -l unlimited`, or in the settings of the hub or container"
            )


@dataclass(frozen=True, eq=False)
class OpenedFile:
    """A mapped file as it was when it was opened."""

    path: Path
    mapping: mmap.mmap
    status: os.stat_result

    def check(self) -> None:
        """Raise ResourceError if the file has become shorter, or was written to.

        Without this check the missing pages of a shorter file end the process with SIGBUS, and new content gives wrong
        numbers without a word. A file of the same name that replaced this one is harmless: the mapping keeps the old
        file. A change after the check is not found before the next one.
        """
        if (size := self.mapping.size()) < self.status.st_size:
            raise ResourceError(
                f"{self.path} has become shorter since it was opened: {size} bytes, not {self.status.st_size}; "
                "load the model again when the file is complete"
            )
        try:
            now = self.path.stat()
        except OSError:  # deleted or renamed
            return
        is_same_file = (now.st_dev, now.st_ino) == (self.status.st_dev, self.status.st_ino)
        if is_same_file and now.st_mtime_ns != self.status.st_mtime_ns:
            raise ResourceError(f"{self.path} was written to since it was opened; load the model again")


def _call(name: str, address: int, size: int, *numbers: int) -> int:
    """Call the system for a range of memory, without the GIL; 0 or errno."""
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * len(numbers)]
    return ctypes.get_errno() if function(address, size, *numbers) else 0


def _limit() -> str:
    import resource  # not there on Windows

    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return "unlimited" if limit == resource.RLIM_INFINITY else f"{limit / 2**20:.0f} MiB"
