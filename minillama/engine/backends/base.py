"""The interface of a backend, which runs the programs of one open model.

Caches, samplers, states and logits belong to the backend that made them. Callers pass them back, and read tokens,
log-probabilities and logits as numbers.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from minillama.array_types import Int
from minillama.engine.backends.programs.program import Program
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import Config
from minillama.sampling import Sampling

Handle = Any  # a cache, chain, state or array where the backend computes


@dataclass(frozen=True)
class HostCopy:
    """Arrays of devices in the host's memory, and the way back to their devices."""

    arrays: tuple[np.ndarray, ...]
    shardings: tuple[jax.sharding.Sharding, ...]
    structure: jax.tree_util.PyTreeDef

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays)


@runtime_checkable
class Caller(Protocol):
    """A way to call programs."""

    def call(self, program: Program, *args: Any) -> Any:
        """Run a program; see `Backend.call`."""


@runtime_checkable
class Backend(Protocol):
    """A way to call the programs of a model."""

    config: Config

    @property
    def devices(self) -> tuple[jax.Device, ...]:
        """The devices of this process, the output head's last; empty for remote workers."""

    def call(self, program: Program, *args: Any) -> Any:
        """Run a program; the arguments and results are of the kinds that it declares.

        A cache or sampler state that is passed cannot be used again.
        """

    def apart(self) -> Caller | None:
        """Calls from any thread, with compiled programs that go when it goes.

        None where all calls must come in one order.
        """

    def chain(self, sampling: Sampling, *, is_shared: bool = False) -> Handle:
        """The chain of samplers of these options; see `build_chain`."""

    def new_cache(self, capacity: int, types: CacheTypes, batch: int = 1, chunk: int | None = None) -> Handle:
        """An empty cache with room for `capacity` tokens in each of `batch` texts.

        chunk: most tokens of a pass, where the caller slides the windows of layers that have one; None: they keep all.
        """

    def put(self, ids: Int[np.ndarray, "B T"]) -> Handle:
        """Token ids as the programs return them, so that they run the same compiled code."""

    def truncate(self, cache: Handle, length: Int[np.ndarray, "B"]) -> Handle:
        """The same cache with only the first `length` tokens of each text.

        Recurrent states stay as they are: they cannot go back.
        """

    def checkpoint(self, cache: Handle) -> Handle:
        """A copy of the states that cannot go back; see `restore`."""

    def restore(self, cache: Handle, saved: Handle, length: Int[np.ndarray, "B"]) -> Handle:
        """The cache as at a checkpoint, with `length` tokens of each text."""

    def to_host(self, saved: Handle) -> Any:
        """A saved text in the host's memory, with its `nbytes`.

        Of workers: in their memory.
        """

    def from_host(self, copy: Any) -> Handle:
        """A saved text from the host's memory."""

    def broadcast(self, number: int) -> int:
        """The number of one process, for all that run this program."""

    def temporary_bytes(self, size: int, cache: Handle) -> int | None:
        """Temporary memory of a prefill of `size` tokens, None if XLA does not report it."""

    def close(self) -> None:
        """Release the workers, if there are any."""


class BackendDefaults:
    """Defaults of backends in one process."""

    def apart(self) -> Caller | None:
        return None

    def put(self, ids: Int[np.ndarray, "B T"]) -> Handle:
        return ids

    def truncate(self, cache: Handle, length: Int[np.ndarray, "B"]) -> Handle:
        raise NotImplementedError

    def checkpoint(self, cache: Handle) -> Handle:
        return cache.checkpoint()

    def restore(self, cache: Handle, saved: Handle, length: Int[np.ndarray, "B"]) -> Handle:
        return self.truncate(cache.restored(saved), length)

    def to_host(self, saved: Handle) -> HostCopy:
        leaves, structure = jax.tree.flatten(saved)
        arrays = tuple(np.asarray(leaf) for leaf in leaves)
        return HostCopy(arrays, tuple(leaf.sharding for leaf in leaves), structure)

    def from_host(self, copy: HostCopy) -> Handle:
        return jax.tree.unflatten(copy.structure, jax.device_put(list(copy.arrays), list(copy.shardings)))

    def broadcast(self, number: int) -> int:
        return number

    def temporary_bytes(self, size: int, cache: Handle) -> int | None:
        return None

    def close(self) -> None:
        return
