"""Transfers between pipeline processes: activations to the next stage, results to all."""

from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import jax
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from minillama.array_types import Shaped

AXIS = "stage"

Tree = TypeVar("Tree")


@dataclass(frozen=True)
class PipelineTransport:
    """Processes of a pipeline in execution order, one device each.

    Every method is a collective: all processes call it, with arrays of the same shapes and types.
    """

    mesh: Mesh

    @property
    def n_stages(self) -> int:
        return self.mesh.devices.size

    @property
    def stage(self) -> int:
        """Index of this process's stage."""
        return jax.process_index()

    @property
    def is_first(self) -> bool:
        return self.stage == 0

    @property
    def is_last(self) -> bool:
        return self.stage == self.n_stages - 1

    def send_next(self, x: Shaped[Array, "*axes"], source: int) -> Shaped[Array, "*axes"]:
        """Send stage `source`'s array to stage `source + 1`; other stages receive zeros."""
        return self._to_local(_send_next(self.mesh, self._to_global(x), source))

    def broadcast(self, tree: Tree) -> Tree:
        """Broadcast the last stage's arrays to all stages."""
        return jax.tree.map(self._to_local, _broadcast(self.mesh, jax.tree.map(self._to_global, tree)))

    def _to_global(self, x: Shaped[Array, "*axes"]) -> Shaped[Array, "stages *axes"]:
        """Global array of all processes' arrays, one row for each stage."""
        sharding = NamedSharding(self.mesh, PartitionSpec(AXIS))
        shape = (self.n_stages, *x.shape)
        return jax.make_array_from_single_device_arrays(shape, sharding, [jax.device_put(x[None], self._device)])

    def _to_local(self, x: Shaped[Array, "stages *axes"]) -> Shaped[Array, "*axes"]:
        return x.addressable_shards[0].data[0]

    @property
    def _device(self) -> jax.Device:
        return self.mesh.devices.flat[self.stage]


def group_transport() -> PipelineTransport:
    """Transport between all processes of the `jax.distributed` group."""
    first = [next(d for d in jax.devices() if d.process_index == process) for process in range(jax.process_count())]
    return PipelineTransport(Mesh(np.array(first), (AXIS,)))


@partial(jax.jit, static_argnames=("mesh", "source"))
def _send_next(mesh: Mesh, x: Shaped[Array, "stages *axes"], source: int) -> Shaped[Array, "stages *axes"]:
    def body(x: Array) -> Array:
        return lax.ppermute(x, AXIS, [(source, source + 1)])

    spec = PartitionSpec(AXIS)
    return jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)(x)


@partial(jax.jit, static_argnames="mesh")
def _broadcast(mesh: Mesh, tree: Tree) -> Tree:
    def body(tree: Tree) -> Tree:
        return jax.tree.map(lambda x: lax.all_gather(x[0], AXIS)[-1:], tree)

    spec = PartitionSpec(AXIS)
    return jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)(tree)
