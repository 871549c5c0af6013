"""Layers of one model in several processes: what goes from each to the next, and what the last one tells all others."""

from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import jax
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Shaped

AXIS = "stage"

Tree = TypeVar("Tree")


@dataclass(frozen=True)
class Stages:
    """The processes of a group, each with its first device, in the order in which they compute."""

    mesh: Mesh

    @property
    def count(self) -> int:
        return self.mesh.devices.size

    @property
    def here(self) -> int:
        """The number of this process."""
        return jax.process_index()

    @property
    def is_last(self) -> bool:
        return self.here == self.count - 1

    def hand_on(self, x: Shaped[Array, "*axes"], source: int) -> Shaped[Array, "*axes"]:
        """Give an array from one stage to the next; all processes call it, with arrays of one shape."""
        return self._own(_hand_on(self.mesh, self._together(x), source))

    def tell(self, tree: Tree) -> Tree:
        """What the last stage has, for all; the others call it with arrays of the same shapes."""
        return jax.tree.map(self._own, _tell(self.mesh, jax.tree.map(self._together, tree)))

    def _together(self, x: Shaped[Array, "*axes"]) -> Shaped[Array, "stages *axes"]:
        """The processes' arrays as one."""
        sharding = NamedSharding(self.mesh, PartitionSpec(AXIS))
        shape = (self.count, *x.shape)
        return jax.make_array_from_single_device_arrays(shape, sharding, [jax.device_put(x[None], self._device)])

    def _own(self, x: Shaped[Array, "stages *axes"]) -> Shaped[Array, "*axes"]:
        return x.addressable_shards[0].data[0]

    @property
    def _device(self) -> jax.Device:
        return self.mesh.devices.flat[self.here]


def stages_of_group() -> Stages:
    """All processes of this process's group."""
    first = [next(d for d in jax.devices() if d.process_index == process) for process in range(jax.process_count())]
    return Stages(Mesh(np.array(first), (AXIS,)))


@partial(jax.jit, static_argnames=("mesh", "source"))
def _hand_on(mesh: Mesh, x: Shaped[Array, "stages *axes"], source: int) -> Shaped[Array, "stages *axes"]:
    def body(x: Array) -> Array:
        return lax.ppermute(x, AXIS, [(source, source + 1)])

    spec = PartitionSpec(AXIS)
    return jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)(x)


@partial(jax.jit, static_argnames="mesh")
def _tell(mesh: Mesh, tree: Tree) -> Tree:
    def body(tree: Tree) -> Tree:
        return jax.tree.map(lambda x: lax.all_gather(x[0], AXIS)[-1:], tree)

    spec = PartitionSpec(AXIS)
    return jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)(tree)
