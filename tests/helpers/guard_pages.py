"""Operands next to a page that no access survives.

`guarded` copies an array so that it ends before such a page, or starts after one with `GUARD_PAGES=start` in the
environment. A kernel that reads or writes past it ends the process with SIGSEGV.
"""

import ctypes
import mmap
import os

import numpy as np

MODES = ("end", "start")
PROT_NONE = 0
_PAGE = mmap.PAGESIZE


def guarded(array: np.ndarray, side: str = os.environ.get("GUARD_PAGES", "end")) -> np.ndarray:
    """A copy next to a guard page."""
    if side not in MODES:
        raise ValueError(f"GUARD_PAGES is {side!r}; expected {' or '.join(MODES)}")
    pages = -(-array.nbytes // _PAGE)
    memory = np.frombuffer(mmap.mmap(-1, (pages + 2) * _PAGE), np.uint8)  # a guard page on both sides
    for page in (0, pages + 1):
        _protect(memory.ctypes.data + page * _PAGE)
    first = _PAGE if side == "start" else (pages + 1) * _PAGE - array.nbytes
    copy = memory[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _protect(address: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(_PAGE), PROT_NONE):
        raise OSError(ctypes.get_errno(), "mprotect")
