"""A model whose matrices are cut among the devices of a mesh: the same forward pass, one program for all of them.

Each device runs `model.forward` on its own rows and columns, heads and cache, inside `jax.shard_map`; the sums that
`model.spread` asks for are all that travels. The devices may be of one process or of several.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Float, Int

from minillama.engine.backends.base import Executor, Kept
from minillama.engine.backends.programs import Choice, Run, first_state, sample, sample_along, score
from minillama.engine.loading.load_params import Advance
from minillama.engine.loading.load_sharded_params import SpreadLoader
from minillama.gguf import GGUF
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.kernels import Weight
from minillama.model import Cache, Config, Params, empty_cache, forward, grow, take, unembed
from minillama.model.collectives import joined
from minillama.model.forward import forward_last, unembed_here
from minillama.parallel.sharding.partition_specs import AXIS, assign_heads, per_device_config, tensor_mesh
from minillama.parallel.sharding.pipeline_transport import group_transport
from minillama.parallel.sharding.shards import make_sharded
from minillama.sampling import Chain, SamplerState, Sampling, build_chain
from minillama.sampling.sharded_sampling import sample_sharded, shardable_stages

logger = logging.getLogger("minillama")

EVERYWHERE = PartitionSpec()
HEADS = PartitionSpec(None, AXIS)  # of a store of the cache: [B, K, S, ...]
VOCABULARY = PartitionSpec(AXIS)  # of logits, which stay where they were computed


@dataclass(frozen=True)
class Layout:
    """What a program for all devices depends on besides shapes."""

    mesh: Mesh
    config: Config  # as one device sees the model
    specs: tuple[PartitionSpec, ...]  # of each leaf of the parameters

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Asked for with every call of a program, and not quick to find for hundreds of leaves."""
        return hash((self.mesh, self.config, self.specs))

    @property
    def devices(self) -> int:
        return self.mesh.devices.size

    def spread(
        self,
        body: Callable[..., Any],
        params: Params | None,
        cache: Cache | None,
        *arguments: Any,
        logits: Float[Array, "R"] | None = None,
        result: PartitionSpec = EVERYWHERE,
        gives_cache: bool = True,
    ) -> Any:
        """Run `body(params, cache, *arguments, logits)` on every device, with its own part of all but the arguments.

        The body gets no logits where there are none. It gives (result, cache), or the result alone; `result` says
        whether that is the same everywhere.
        """
        weights, structure = jax.tree.flatten(params)  # trees of specs would be weights and caches that hold no arrays
        stores, cache_structure = jax.tree.flatten(cache)
        parts = [] if logits is None else [logits]
        of_cache = [HEADS if leaf.ndim > 1 else EVERYWHERE for leaf in stores]

        def on_device(weights: list[Array], stores: list[Array], *arguments: Any) -> Any:
            place = lax.axis_index(AXIS)
            own = jax.tree.map(
                lambda leaf: leaf.device_shard(place, self.devices) if isinstance(leaf, Weight) else leaf,
                jax.tree.unflatten(structure, weights),
                is_leaf=lambda leaf: isinstance(leaf, Weight),
            )
            found = body(own, jax.tree.unflatten(cache_structure, stores), *arguments)
            return (found[0], jax.tree.leaves(found[1])) if gives_cache else found

        found = jax.shard_map(
            on_device,
            mesh=self.mesh,
            in_specs=(
                list(self.specs) if weights else [],
                of_cache,
                *(EVERYWHERE for _ in arguments),
                *(VOCABULARY for _ in parts),
            ),
            out_specs=(result, of_cache) if gives_cache else result,
            check_vma=False,  # kernels of our own have no rule for it
        )(weights, stores, *arguments, *parts)
        return (found[0], jax.tree.unflatten(cache_structure, found[1])) if gives_cache else found


@dataclass(frozen=True, eq=False)
class Spread(Executor):
    """Tensor parallelism: every device computes a part of every layer."""

    params: Params
    config: Config
    layout: Layout

    @property
    def devices(self) -> tuple[jax.Device, ...]:
        return tuple(self.layout.mesh.devices.flat)

    def agree(self, number: int) -> int:
        return number if jax.process_count() == 1 else int(group_transport().broadcast(jnp.uint32(number)))

    def chain(self, sampling: Sampling) -> Kept:
        return self._everywhere(build_chain(sampling, self.config.vocab_size))

    def new_cache(self, capacity: int, types: CacheTypes, batch: int = 1) -> Kept:
        mesh, config = self.layout.mesh, self.layout.config

        def stores(place: int, device: jax.Device) -> tuple[Any, Any]:
            cache = empty_cache(config, capacity, types, batch)
            return jax.device_put((cache.keys, cache.values), device)

        return Cache(*make_sharded(mesh, HEADS, stores), self._everywhere(np.zeros(batch, np.int32)))

    def enlarge(self, cache: Kept, capacity: int) -> Kept:
        return _enlarge(self.layout, capacity, cache)

    def set_length(self, cache: Kept, length: Int[np.ndarray, "B"]) -> Kept:
        return replace(cache, length=self._everywhere(length))

    def take(self, cache: Kept, rows: Int[np.ndarray, "n"]) -> Kept:
        return _take(self.layout, cache, rows)

    def read(self, ids: Int[np.ndarray, "1 T"], valid: int, cache: Kept) -> tuple[Kept, Kept]:
        return _read(self.layout, self.params, ids, np.int32(valid), cache)

    def read_all(self, ids: Int[np.ndarray, "1 T"], cache: Kept) -> tuple[Kept, Kept]:
        return _read_all(self.layout, self.params, ids, cache)

    def run(self, ids: Int[np.ndarray, "B T"], cache: Kept) -> tuple[Kept, Kept]:
        return _run(self.layout, self.params, ids, cache)

    def score(self, hidden: Kept, targets: Int[np.ndarray, "B T"], first: int = 0) -> Kept:
        return _score(self.layout, self.params, hidden, targets, first)

    def decode(self, ids: Int[np.ndarray, "1 1"], cache: Kept) -> tuple[Kept, Kept]:
        return _read(self.layout, self.params, ids, np.int32(1), cache)

    def begin(
        self, chain: Kept, seed: int, recent: Int[np.ndarray, "W"], count: int, logits: Kept
    ) -> tuple[Choice, Kept]:
        return _begin(self.layout, chain, np.uint32(seed), recent, np.int32(count), logits)

    def step(self, chain: Kept, state: Kept, token: Kept | int, cache: Kept) -> tuple[Choice, Kept, Kept]:
        if isinstance(token, int):
            token = self._everywhere(np.int32(token))
        return _step(self.layout, self.params, chain, state, token, cache)

    def verify(
        self, chain: Kept, state: Kept, ids: Int[np.ndarray, "1 T"], drafted: int, cache: Kept
    ) -> tuple[Run, Kept, Kept]:
        return _verify(self.layout, self.params, chain, state, ids, np.int32(drafted), cache)

    def _everywhere(self, tree: Any) -> Any:
        """The same arrays on every device."""
        return make_sharded(self.layout.mesh, EVERYWHERE, lambda _, device: jax.device_put(tree, device))


@partial(jax.jit, static_argnames=("layout", "capacity"))
def _enlarge(layout: Layout, capacity: int, cache: Cache) -> Cache:
    return layout.spread(lambda _, cache: (None, grow(cache, capacity)), None, cache)[1]


@partial(jax.jit, static_argnames="layout")
def _take(layout: Layout, cache: Cache, rows: Int[Array, "n"]) -> Cache:
    return layout.spread(lambda _, cache, rows: (None, take(cache, rows)), None, cache, rows)[1]


@partial(jax.jit, static_argnames="layout", donate_argnames="cache")
def _read(
    layout: Layout, params: Params, ids: Int[Array, "1 T"], valid: Int[Array, ""], cache: Cache
) -> tuple[Float[Array, "V"], Cache]:
    def body(params: Params, cache: Cache, ids: Array, valid: Array) -> tuple[Array, Cache]:
        hidden, cache = forward_last(params, layout.config, ids, cache, valid)
        return unembed_here(params, layout.config, hidden[0]), cache

    return layout.spread(body, params, cache, ids, valid, result=VOCABULARY)


@partial(jax.jit, static_argnames="layout", donate_argnames="cache")
def _read_all(
    layout: Layout, params: Params, ids: Int[Array, "1 T"], cache: Cache
) -> tuple[Float[Array, "T V"], Cache]:
    def body(params: Params, cache: Cache, ids: Array) -> tuple[Array, Cache]:
        hidden, cache = forward(params, layout.config, ids, cache)
        return unembed(params, layout.config, hidden[0]), cache

    return layout.spread(body, params, cache, ids)


@partial(jax.jit, static_argnames="layout", donate_argnames="cache")
def _run(layout: Layout, params: Params, ids: Int[Array, "B T"], cache: Cache) -> tuple[Float[Array, "B T D"], Cache]:
    def body(params: Params, cache: Cache, ids: Array) -> tuple[Array, Cache]:
        return forward(params, layout.config, ids, cache)

    return layout.spread(body, params, cache, ids)


@partial(jax.jit, static_argnames=("layout", "first"))
def _score(
    layout: Layout, params: Params, hidden: Float[Array, "B S D"], targets: Int[Array, "B T"], first: int
) -> Float[Array, "B T"]:
    def body(params: Params, _: None, hidden: Array, targets: Array) -> Array:
        return score(params, layout.config, hidden, targets, first)

    return layout.spread(body, params, None, hidden, targets, gives_cache=False)


@partial(jax.jit, static_argnames="layout")
def _begin(
    layout: Layout,
    chain: Chain,
    seed: Array,
    recent: Int[Array, "W"],
    count: Int[Array, ""],
    logits: Float[Array, "V"],
) -> tuple[Choice, SamplerState]:
    def body(_: None, __: None, chain: Chain, seed: Array, recent: Array, count: Array, logits: Array) -> Any:
        return _sample(layout, chain, first_state(chain, seed, recent, count), logits)

    return layout.spread(body, None, None, chain, seed, recent, count, logits=logits, gives_cache=False)


def _sample(
    layout: Layout, chain: Chain, state: SamplerState, logits: Float[Array, "R"]
) -> tuple[Choice, SamplerState]:
    """Draw from logits of which each device has some: only the best travel, where the chain allows it."""
    if not shardable_stages(chain):
        return sample(chain, state, joined(logits, AXIS)[: layout.config.vocab_size])
    token, logprob, state = sample_sharded(chain, state, logits, AXIS)
    return Choice(token, logprob), state


@partial(jax.jit, static_argnames="layout", donate_argnames=("state", "cache"))
def _step(
    layout: Layout, params: Params, chain: Chain, state: SamplerState, token: Int[Array, ""], cache: Cache
) -> tuple[Choice, SamplerState, Cache]:
    def body(params: Params, cache: Cache, chain: Chain, state: SamplerState, token: Array) -> Any:
        hidden, cache = forward(params, layout.config, token.reshape(1, 1), cache)
        return _sample(layout, chain, state, unembed_here(params, layout.config, hidden[0, 0])), cache

    (choice, state), cache = layout.spread(body, params, cache, chain, state, token)
    return choice, state, cache


@partial(jax.jit, static_argnames="layout", donate_argnames=("state", "cache"))
def _verify(
    layout: Layout,
    params: Params,
    chain: Chain,
    state: SamplerState,
    ids: Int[Array, "1 T"],
    drafted: Int[Array, ""],
    cache: Cache,
) -> tuple[Run, SamplerState, Cache]:
    def body(params: Params, cache: Cache, chain: Chain, state: SamplerState, ids: Array, drafted: Array) -> Any:
        hidden, after = forward(params, layout.config, ids, cache)
        run, state = sample_along(chain, state, unembed(params, layout.config, hidden[0]), ids, drafted)
        return (run, state), replace(after, length=cache.length + run.count)

    (run, state), cache = layout.spread(body, params, cache, chain, state, ids, drafted)
    return run, state, cache


def spread_model(
    file: GGUF, config: Config, ctx_size: int, devices: Sequence[jax.Device], advance: Advance = lambda size: None
) -> Spread:
    """Cut a model among devices.

    Raises OptionError where heads or blocks do not divide, and what `load_params` raises.
    """
    division = assign_heads(config, len(devices))
    if division.kv_replicas > 1:
        logger.warning(
            "%d key/value heads for %d devices: each is held by %d of them, and so is its part of the cache",
            config.head_count_kv, len(devices), division.kv_replicas,
        )  # fmt: skip
    mesh = tensor_mesh(devices)
    params = SpreadLoader(file, config, mesh, division, advance).load(ctx_size)
    specs = tuple(leaf.sharding.spec for leaf in jax.tree.leaves(params))
    return Spread(params, config, Layout(mesh, per_device_config(config, division), specs))
