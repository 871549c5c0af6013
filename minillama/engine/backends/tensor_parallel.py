"""Tensor parallelism: matrices sharded over a device mesh, one program for all devices.

Each device runs a program on its own rows and columns, heads and cache, inside of `jax.shard_map`. Only the collectives
of `model.collectives` exchange data. The devices may belong to one process or to several.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from minillama.array_types import Int
from minillama.engine.backends.base import BackendDefaults, Handle
from minillama.engine.backends.programs.program import Kind, Program
from minillama.engine.backends.programs.whole_model import WholeModel
from minillama.engine.loading.load_params import Advance
from minillama.engine.loading.load_sharded_params import ShardedLoader
from minillama.gguf import GGUF
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.kernels import Weight
from minillama.model import Cache, Config, Params, empty_cache
from minillama.parallel.sharding.head_assignment import assign_heads
from minillama.parallel.sharding.partition_specs import AXIS, per_device_config, tensor_mesh
from minillama.parallel.sharding.pipeline_transport import group_transport
from minillama.parallel.sharding.shards import make_sharded
from minillama.sampling import Sampling
from minillama.sampling.chain_builder import build_packed_chain

logger = logging.getLogger("minillama")

REPLICATED = PartitionSpec()
CACHES = (Kind.CACHE, Kind.SAVED)
HEADS = PartitionSpec(None, AXIS)  # of a layer's state: [B, K, S, ...]
VOCABULARY = PartitionSpec(None, AXIS)  # of logits [B, V], which stay where they were computed


@dataclass(frozen=True)
class Layout:
    """The static facts of a sharded program."""

    mesh: Mesh
    config: Config  # as one device sees the model
    specs: tuple[PartitionSpec, ...]  # of each leaf of the parameters

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Computed once: every call of a program needs it, and there are hundreds of leaves."""
        return hash((self.mesh, self.config, self.specs))


@dataclass(frozen=True, eq=False)
class TensorParallelBackend(BackendDefaults):
    """Every device computes a part of every layer."""

    params: Params
    config: Config
    layout: Layout

    @property
    def devices(self) -> tuple[jax.Device, ...]:
        return tuple(self.layout.mesh.devices.flat)

    def call(self, program: Program, *args: Any) -> Any:
        return _compiled(program)(self.layout, self.params, *args)

    def chain(self, sampling: Sampling, *, is_shared: bool = False) -> Handle:
        return self._replicated(build_packed_chain(sampling, self.config.vocab_size, is_shared=is_shared))

    def new_cache(self, capacity: int, types: CacheTypes, batch: int = 1, chunk: int | None = None) -> Handle:
        def layers(place: int, device: jax.Device) -> Any:
            cache = empty_cache(self.layout.config, capacity, types, batch, chunk=chunk)
            return jax.device_put(cache.layers, device)

        length = self._replicated(np.zeros(batch, np.int32))
        return Cache(make_sharded(self.layout.mesh, HEADS, layers), length, capacity)

    def put(self, ids: Int[np.ndarray, "B T"]) -> Handle:
        return self._replicated(ids)

    def truncate(self, cache: Handle, length: Int[np.ndarray, "B"]) -> Handle:
        return replace(cache, length=self._replicated(length))

    def broadcast(self, number: int) -> int:
        return number if jax.process_count() == 1 else int(group_transport().broadcast(jnp.uint32(number)))

    def _replicated(self, tree: Any) -> Any:
        """The same arrays on every device."""
        return make_sharded(self.layout.mesh, REPLICATED, lambda _, device: jax.device_put(tree, device))


@cache
def _compiled(program: Program) -> Callable[..., Any]:
    """A jitted and sharded program as a function of layout, parameters and arguments."""

    def run(layout: Layout, params: Params, *args: Any) -> Any:
        return _sharded(program, layout, params, args)

    run.__name__ = program.name
    static = (0, *(2 + place for place in program.positions(Kind.STATIC)))
    return jax.jit(run, static_argnums=static, donate_argnums=tuple(2 + place for place in program.donated))


def _sharded(program: Program, layout: Layout, params: Params, args: Sequence[Any]) -> Any:
    """Run a program on every device with its shard of parameters, caches and logits."""
    weights, weights_structure = jax.tree.flatten(params)  # trees of specs would be invalid `Params` and `Cache`s
    static = {place: args[place] for place in program.positions(Kind.STATIC)}
    split = [jax.tree.flatten(None if place in static else arg) for place, arg in enumerate(args)]
    specs = [_specs(kind, leaves) for kind, (leaves, _) in zip(program.takes, split, strict=True)]
    cache_specs = next((spec for kind, spec in zip(program.takes, specs, strict=True) if kind is Kind.CACHE), [])
    structures = []

    def on_device(weights: list[Array], *leaves: list[Array]) -> Any:
        index = lax.axis_index(AXIS)
        shard = jax.tree.map(
            lambda leaf: leaf.device_shard(index, layout.mesh.devices.size) if isinstance(leaf, Weight) else leaf,
            jax.tree.unflatten(weights_structure, weights),
            is_leaf=lambda leaf: isinstance(leaf, Weight),
        )
        values = [jax.tree.unflatten(structure, leaf) for leaf, (_, structure) in zip(leaves, split, strict=True)]
        results = program.function(
            WholeModel(shard, layout.config), *(static.get(place, value) for place, value in enumerate(values))
        )
        flat = [jax.tree.flatten(result) for result in (results if len(program.gives) > 1 else (results,))]
        structures[:] = [structure for _, structure in flat]
        return [leaves for leaves, _ in flat]

    found = jax.shard_map(
        on_device,
        mesh=layout.mesh,
        in_specs=(list(layout.specs), *specs),
        out_specs=[cache_specs if kind in CACHES else _spec(kind) for kind in program.gives],
        check_vma=False,  # the CPU kernels have no rule for it
    )(weights, *(leaves for leaves, _ in split))
    results = tuple(map(jax.tree.unflatten, structures, found))
    return results if len(results) > 1 else results[0]


def _spec(kind: Kind) -> PartitionSpec:
    return VOCABULARY if kind is Kind.LOGITS else REPLICATED


def _specs(kind: Kind, leaves: Sequence[Array]) -> list[PartitionSpec]:
    """The specs of an argument's leaves.

    Of a cache, all but the lengths are sharded by heads.
    """
    if kind in CACHES:
        return [HEADS if leaf.ndim > 1 else REPLICATED for leaf in leaves]
    return [_spec(kind)] * len(leaves)


def tensor_parallel(
    file: GGUF, config: Config, ctx_size: int, devices: Sequence[jax.Device], advance: Advance = lambda size: None
) -> TensorParallelBackend:
    """Load a model sharded over devices.

    Raises OptionError where heads or blocks do not divide, and the errors of `load_params`.
    """
    own = per_device_config(config, len(devices))
    division = assign_heads(config.attention, len(devices))
    if division.kv_replicas > 1:
        logger.warning(
            "%d key/value heads for %d devices: each head and its part of the cache is on %d devices",
            config.head_count_kv, len(devices), division.kv_replicas,
        )  # fmt: skip
    mesh = tensor_mesh(devices)
    params = ShardedLoader(file, config, mesh, advance).load(ctx_size)
    specs = tuple(leaf.sharding.spec for leaf in jax.tree.leaves(params))
    return TensorParallelBackend(params, config, Layout(mesh, own, specs))
