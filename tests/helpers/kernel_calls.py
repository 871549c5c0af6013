"""Memory and calls of kernels; `emulated_arm` has the same for another processor."""

from collections.abc import Callable

import numpy as np
from guard_pages import guarded

from minillama.kernels.cpu.runtime.machine_code import callable_at


class InThisProcess:
    """Kernels of this processor, found by their names."""

    def __init__(self, find: Callable[[str], int]) -> None:
        self._find = find

    def guarded(self, array: np.ndarray) -> np.ndarray:
        """A copy next to a guard page."""
        return guarded(array)

    def call(self, name: str, args: np.ndarray, *numbers: int) -> int:
        """Call a function with the address of its arguments, and some numbers."""
        return callable_at(self._find(name), 1 + len(numbers))(args.ctypes.data, *numbers)
