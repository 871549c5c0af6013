"""The arguments of a leader's call: handles, arrays and numbers, read by kind.

Every reader raises KeyError, TypeError or ValueError for a message of another form.
"""

from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any

import jax
import numpy as np

from minillama.engine.backends.programs.program import Kind
from minillama.engine.backends.programs.verified_draft import VerifiedDraft
from minillama.engine.backends.remote_calls.remote_checks import HeldCache, in_range
from minillama.parallel.workers.wire import Message
from minillama.sampling import SamplerState
from minillama.sampling.packed_chain import PackedChain

ARRAY = "array"  # stands in a message for the next of its arrays
MOST_NUMBER = 1 << 53  # of a value
ARRAYS = {
    Kind.IDS: (np.int32, 2),
    Kind.LATEST: (np.int32, 2),
    Kind.COUNTS: (np.int32, 1),
    Kind.WINDOW: (np.int32, 2),
    Kind.SEEDS: (np.uint32, 2),
    Kind.MASKS: (np.uint32, 2),
}
MAY_BE_NONE = (Kind.COUNTS, Kind.MASKS)
HANDLES: Mapping[Kind, type | UnionType] = {
    Kind.CACHE: HeldCache,
    Kind.SAVED: HeldCache,
    Kind.CHAIN: PackedChain,
    Kind.CHAINS: PackedChain,
    Kind.STATE: SamplerState | None,  # None in the stages of a pipeline that do not sample
    Kind.LATEST: jax.Array,
    Kind.LOGITS: jax.Array,
    Kind.HIDDEN: jax.Array,
}


class Arguments:
    """The arguments of a message, checked one by one."""

    def __init__(self, message: Message, known: Mapping[int, Any]) -> None:
        self._values, self._known = message.values, known
        self._arrays = list(message.arrays)
        self.number = in_range(self._values["number"], "number", 0, MOST_NUMBER)
        self.args = self._values.get("args", [])
        if not isinstance(self.args, list):
            raise TypeError(f"args is {self.args!r:.40}")

    def whole(self, name: str) -> int:
        """An integer value."""
        return _whole(self._values[name], name)

    def value(self, name: str) -> Any:
        """Any value; the caller checks it."""
        return self._values[name]

    def optional(self, name: str) -> Any:
        """Any value, or None where there is none; the caller checks it."""
        return self._values.get(name)

    def of(self, kinds: Sequence[Kind]) -> list[Any]:
        """The positional arguments, which must be of these kinds."""
        if len(self.args) != len(kinds):
            raise TypeError(f"{len(self.args)} arguments, not {len(kinds)}")
        found = [self._argument(kind, arg) for kind, arg in zip(kinds, self.args, strict=True)]
        if self._arrays:
            raise TypeError(f"{len(self._arrays)} arrays too many")
        return found

    def _argument(self, kind: Kind, arg: Any) -> Any:
        if kind is Kind.STATIC:
            return _whole(arg, "a static argument")
        if arg is None and kind in MAY_BE_NONE:
            return None
        if arg == ARRAY and kind in ARRAYS:
            return self._array(*ARRAYS[kind])
        value = self._known[_whole(arg, "a handle")]
        if kind is Kind.IDS:
            return instance(value, VerifiedDraft).tokens
        return instance(value, HANDLES[kind])

    def _array(self, dtype: type, axes: int) -> np.ndarray:
        array = self._arrays.pop(0)
        if array.dtype != dtype or array.ndim != axes:
            raise TypeError(f"an array {array.dtype}[{array.ndim} axes], not {np.dtype(dtype)}[{axes} axes]")
        return array


def _whole(value: object, name: str) -> int:
    if type(value) is not int:
        raise TypeError(f"{name} is {value!r:.40}")
    return value


def instance(value: Any, kind: Any) -> Any:
    """A value of a kind; raises TypeError for another one."""
    if not isinstance(value, kind):
        raise TypeError(f"a value of type {type(value).__name__[:40]} where another kind is due")
    return value
