"""Samplers of the slots, in pools of one structure each.

Slots whose chains have the same structure draw together, in one program. So another structure costs a program that
draws, and never one that runs the model. The usual structures are compiled before requests come; a rare one is
compiled in a thread while the request waits, and its slots draw one by one, so that one compilation is enough.
"""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field

from minillama.engine.backends.base import Backend, Caller, Handle
from minillama.engine.backends.programs import slot_programs
from minillama.engine.batching.device.rare_sampler import RareCompilation

MOST_POOLS = 8  # rare structures that are kept compiled; the least recently used goes


@dataclass(eq=False)
class SamplerPool:
    """A chain and a state for every slot, and the slots that use theirs.

    caller: calls its programs; for a rare structure they are its own, and go with it.
    """

    chains: Handle
    states: Handle
    caller: Caller
    is_rare: bool
    slots: set[int] = field(default_factory=set)


class SamplerPools:
    """The pools by structure, the most recently used last.

    usual: the structures whose slots draw together; where a backend cannot compile in another thread, all do.
    """

    def __init__(self, backend: Backend, slots: int) -> None:
        self.usual: set[Hashable] = set()
        self._backend, self._count = backend, slots
        self._pools: dict[Hashable, SamplerPool] = {}
        self._compiling: RareCompilation | None = None

    def is_rare(self, chain: Handle) -> bool:
        """Whether a chain has programs of its own."""
        return chain.structure not in self.usual and self._backend.apart() is not None

    def is_ready(self, chain: Handle, busy: Collection[int], then: Callable[[], None]) -> bool:
        """Whether the programs of a chain are compiled; otherwise they will be, one after another.

        busy: slots whose samplers are in use. then: called in another thread when a compilation has ended. Raises what
        the compilation has raised.
        """
        structure = chain.structure
        if structure in self._pools or not self.is_rare(chain):
            return True
        if self._compiling is not None:
            if not self._compiling.is_done:
                return False
            ended, self._compiling = self._compiling, None
            if ended.structure == structure or not ended.has_failed:
                self._pools[ended.structure] = self._rare_pool(ended)
            if structure in self._pools:
                return True
        if self._make_room(busy):
            self._compiling = RareCompilation(self._backend, chain, self._count, then)
        return False

    def compile(self, chain: Handle) -> None:
        """Compile the programs of a rare chain now."""
        if chain.structure not in self._pools and self.is_rare(chain):
            self._pools[chain.structure] = self._rare_pool(
                RareCompilation(self._backend, chain, self._count, lambda: None)
            )

    def join(self, slot: int, chain: Handle) -> SamplerPool:
        """The pool where a slot's new sampler belongs."""
        for pool in self._pools.values():
            pool.slots.discard(slot)
        self.compile(chain)
        pool = self._pools.pop(chain.structure, None)
        if pool is None:
            pool = SamplerPool(
                *self._backend.call(slot_programs.new_samplers, chain, self._count), self._backend, is_rare=False
            )
        self._pools[chain.structure] = pool
        pool.slots.add(slot)
        self._drop({slot for pool in self._pools.values() for slot in pool.slots}, MOST_POOLS)
        return pool

    def of(self, slots: Sequence[int]) -> list[SamplerPool]:
        """The pools of some slots."""
        return [pool for pool in self._pools.values() if not pool.slots.isdisjoint(slots)]

    def _rare_pool(self, compiled: RareCompilation) -> SamplerPool:
        chains, states = compiled.result()
        return SamplerPool(chains, states, compiled.caller, is_rare=True)

    def _make_room(self, busy: Collection[int]) -> bool:
        """Whether one more rare structure may be compiled; others that no slot uses go."""
        self._drop(busy, MOST_POOLS - 1)
        return len(self._droppable) < MOST_POOLS

    @property
    def _droppable(self) -> list[Hashable]:
        return [structure for structure in self._pools if structure not in self.usual]

    def _drop(self, busy: Collection[int], most: int) -> None:
        """Keep at most this number of rare structures, and those that busy slots use."""
        surplus = len(self._droppable) - most
        for structure in self._droppable:
            if surplus > 0 and self._pools[structure].slots.isdisjoint(busy):
                del self._pools[structure]
                surplus -= 1
