"""Samplers of the slots, in pools of one structure each.

Slots whose chains have the same structure draw together, in one program. So another structure costs a program that
draws, and never one that runs the model.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from minillama.engine.backends.base import Backend, Handle
from minillama.engine.backends.programs import slot_programs

MOST_POOLS = 8  # kept without slots; the least recently used goes


@dataclass(eq=False)
class SamplerPool:
    """A chain and a state for every slot, and the slots that use theirs."""

    chains: Handle
    states: Handle
    slots: set[int] = field(default_factory=set)


class SamplerPools:
    """The pools by structure, the most recently used last."""

    def __init__(self, backend: Backend, slots: int) -> None:
        self._backend, self._count = backend, slots
        self._pools: dict[Hashable, SamplerPool] = {}

    def join(self, slot: int, chain: Handle) -> SamplerPool:
        """The pool where a slot's new sampler belongs."""
        for pool in self._pools.values():
            pool.slots.discard(slot)
        pool = self._pools.pop(chain.structure, None)
        if pool is None:
            pool = SamplerPool(*self._backend.call(slot_programs.new_samplers, chain, self._count))
        self._pools[chain.structure] = pool
        pool.slots.add(slot)
        self._drop_unused()
        return pool

    def of(self, slots: Sequence[int]) -> list[SamplerPool]:
        """The pools of some slots."""
        return [pool for pool in self._pools.values() if not pool.slots.isdisjoint(slots)]

    def _drop_unused(self) -> None:
        unused = [structure for structure, pool in self._pools.items() if not pool.slots]
        for structure in unused[: max(0, len(self._pools) - MOST_POOLS)]:
            del self._pools[structure]
