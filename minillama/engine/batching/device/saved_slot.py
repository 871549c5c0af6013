"""A saved slot: the beginning of a text, outside of the cache."""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from minillama.engine.backends.base import Backend, Handle, HostCopy
from minillama.errors import FormatError, UnsupportedError

LEAST_SAVED = 64  # positions; sizes are powers of two, because each one is a compilation


def saved_sizes(room: int) -> tuple[int, ...]:
    """The sizes of saved slots, smallest first; `room`: positions of a slot."""
    sizes = [LEAST_SAVED]
    while sizes[-1] < room:
        sizes.append(2 * sizes[-1])
    return tuple(min(size, room) for size in sizes)


class SavedSlot:
    """The first `count` tokens of a slot, in the host's memory.

    Of workers: in their memory.
    """

    def __init__(self, backend: Backend, handle: Handle, count: int) -> None:
        self.count = count
        self._backend = backend
        self._content: Any = backend.to_host(handle)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return self._content.nbytes

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """Its arrays; raises UnsupportedError where workers have them."""
        if not isinstance(self._content, HostCopy):
            raise UnsupportedError("slots of remote workers cannot be saved to a file; serve the model without workers")
        return self._content.arrays

    def with_arrays(self, arrays: Sequence[np.ndarray]) -> "SavedSlot":
        """The same copy with other numbers, in arrays of the same shapes and types."""
        shapes = [(array.shape, array.dtype) for array in self.arrays]
        if [(array.shape, array.dtype) for array in arrays] != shapes:
            raise FormatError("the arrays of a saved slot have other shapes than those of this engine")
        other = copy(self)
        other._content = replace(self._content, arrays=tuple(arrays))
        return other

    def handle(self) -> Handle:
        """The text where programs find it."""
        return self._backend.from_host(self._content)
