"""Copies of slots in the host's memory, by their tokens: llama.cpp's `--cache-ram`.

The least recently used ones go where their bytes exceed the limit.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from minillama.engine.batching.policy.radix_tree import RadixTree
from minillama.engine.batching.policy.slot_choice import reusable


@runtime_checkable
class Saved(Protocol):
    """A copy of a slot that an executor made."""

    @property
    def nbytes(self) -> int:
        """Bytes of it."""
        ...


class _Entry(NamedTuple):
    """A copy, and the number of its first tokens that chunks ran."""

    saved: Any
    read: int


class PrefixCache:
    """Saved slots in a radix tree of their tokens.

    limit: most bytes of all of them; 0 keeps none.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.nbytes = limit, 0
        self._saved: OrderedDict[tuple[int, ...], _Entry] = OrderedDict()  # the least recently used first
        self._tree: RadixTree[tuple[int, ...]] = RadixTree()

    def __len__(self) -> int:
        return len(self._saved)

    def add(self, tokens: Sequence[int], saved: Saved, read: int) -> None:
        """Keep a copy of a slot that holds these tokens; `read` as of `Slot`."""
        key = tuple(tokens)
        if not key or saved.nbytes > self.limit:
            return
        if key in self._saved:
            self._drop(key)
        self._saved[key] = _Entry(saved, read)
        self._tree.insert(key, key)
        self.nbytes += saved.nbytes
        while self.nbytes > self.limit:
            self._drop(next(iter(self._saved)))

    def length(self, ids: Sequence[int], *, rewinds: bool) -> int:
        """Tokens at the beginning of `ids` that a copy has.

        rewinds: whether a slot can go back to a part of a copy; otherwise it is all of it.
        """
        return self._find(ids, rewinds)[0]

    def take(self, ids: Sequence[int], *, rewinds: bool) -> Any:
        """The copy with the longest common prefix, which is the most recently used one then."""
        key = self._find(ids, rewinds)[1]
        assert key is not None
        self._saved.move_to_end(key)
        return self._saved[key].saved

    def clear(self) -> None:
        """Drop all copies."""
        for key in list(self._saved):
            self._drop(key)

    def _find(self, ids: Sequence[int], rewinds: bool) -> tuple[int, tuple[int, ...] | None]:
        if not rewinds:
            return self._tree.longest_whole(ids)
        length, key = self._tree.longest(ids)
        return (length, None) if key is None else (reusable(length, self._saved[key].read), key)

    def _drop(self, key: tuple[int, ...]) -> None:
        self.nbytes -= self._saved.pop(key).saved.nbytes
        self._tree.remove(key)
