"""A saved slot: the beginning of a text, outside of the cache."""

from typing import Any

from minillama.engine.backends.base import Backend, Handle

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

    def handle(self) -> Handle:
        """The text where programs find it."""
        return self._backend.from_host(self._content)
