"""Pipeline parallelism: stages of consecutive layers, on several devices or in several processes.

This is llama.cpp's `--split-mode layer`, and the form of its RPC. It adds memory. A prompt of several chunks gains some
speed, because a stage takes the next chunk while the following ones still work; a single token gains none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.array_types import Float, Int
from minillama.engine.backends.base import BackendDefaults, Handle
from minillama.engine.backends.programs.program import Counts, Ids, Program
from minillama.engine.loading.layer_placement import Placement, Segment, split_layers, with_sources
from minillama.engine.loading.load_params import Advance, load_segment
from minillama.errors import OptionError
from minillama.gguf import GGUF
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.kernels import Weight
from minillama.model import Cache, Config, Params, empty_cache
from minillama.model.cache import LayerState
from minillama.model.forward import embed_tokens, output_norm, run_layers
from minillama.model.layers.per_layer_embeddings import per_layer_embeddings
from minillama.model.params import Block, PerLayerEmbeddings
from minillama.parallel.sharding.pipeline_transport import group_transport
from minillama.sampling import Sampling
from minillama.sampling.chain_builder import build_packed_chain


@runtime_checkable
class Transport(Protocol):
    """The transport of activations to the next stage, and of results to all."""

    is_first: bool  # whether this process has the token embedding
    is_last: bool  # whether it has the output head

    def send_next(self, x: Float[Array, "B T D"], source: int) -> Float[Array, "B T D"]:
        """Give a stage's result to the next one."""

    def broadcast(self, tree: Any) -> Any:
        """The last stage's value; the others call it with arrays of the same shapes."""


class DeviceTransport:
    """Stages on devices of this process, which copies activations when the next stage needs them."""

    is_first = is_last = True

    def send_next(self, x: Float[Array, "B T D"], source: int) -> Float[Array, "B T D"]:
        return x

    def broadcast(self, tree: Any) -> Any:
        return tree


@dataclass(frozen=True)
class Stage:
    """One stage of a pipeline."""

    layers: Segment | None  # counted from this process's first layer; None for a stage of another process
    first_layer: int = 0  # its number in the whole model


@dataclass(frozen=True, eq=False)
class PipelineBackend(BackendDefaults):
    """The stages of a model; a program runs stage by stage in compiled parts.

    params, and the caches made here, hold only the layers of this process.
    """

    params: Params
    config: Config
    stages: tuple[Stage, ...]
    transport: Transport
    placement: Placement  # of this process's layers and, last, of the head
    devices: tuple[jax.Device, ...]

    def call(self, program: Program, *args: Any) -> Any:
        return program.function(self, *args)

    def forward(
        self, cache: Cache, ids: Ids, valid: Counts | None = None, *, keeps: bool = False
    ) -> tuple[Float[Array, "B T D"], Cache]:
        x, after = self._run(cache, ids, valid, keeps=keeps and self.config.is_recurrent)
        if valid is not None:
            after = self._with_count(cache, after, valid)
        return (self._norm(x) if self.transport.is_last else x), after

    def forward_last(self, cache: Cache, ids: Ids, n_valid: Counts) -> tuple[Float[Array, "B D"], Cache]:
        x, after = self._run(cache, ids, n_valid, last_only=True)
        return (self._norm(x)[:, 0] if self.transport.is_last else x[:, 0]), self._with_count(cache, after, n_valid)

    def head(
        self, compute: Callable[..., tuple[Any, Any]], *args: Any, blank: Callable[[], Any] | None = None
    ) -> tuple[Any, Any]:
        """Run the head on the last process.

        Without `blank`, the first column of what stays there goes to all, which is ready when that is: the other
        processes return it in its place. With `blank`, they return None.
        """
        if not self.transport.is_last:
            shared = self.transport.broadcast(jnp.zeros((len(args[0]), 1)) if blank is None else blank())
            return shared, shared if blank is None else None
        args = jax.device_put(args, self.placement.devices[-1])
        shared, kept = _compiled_head(compute)(self.params.head_only(), self.config, *args)
        return self.transport.broadcast(kept[:, :1] if blank is None else shared), kept

    def advance(self, cache: Cache, after: Cache, ids: Ids, count: Counts) -> Cache:
        if self.config.is_recurrent:
            _, after = self._run(cache, ids, count, last_only=True)
        return self._with_count(cache, after, count)

    def _with_count(self, cache: Cache, after: Cache, count: Counts) -> Cache:
        return replace(after, length=cache.length + jax.device_put(count, *cache.length.devices()))

    def chain(self, sampling: Sampling, *, is_shared: bool = False) -> Handle:
        return jax.device_put(
            build_packed_chain(sampling, self.config.vocab_size, is_shared=is_shared), self.placement.devices[-1]
        )

    def new_cache(self, capacity: int, types: CacheTypes, batch: int = 1, chunk: int | None = None) -> Handle:
        devices = self.placement.devices[:-1]
        first = next((stage.first_layer for stage in self.stages if stage.layers is not None), 0)
        layers = self.config.layers[first : first + len(devices)]
        cache = empty_cache(self.config, capacity, types, batch, layers, chunk)
        placed = tuple(jax.device_put(state, device) for state, device in zip(cache.layers, devices, strict=True))
        return replace(cache, layers=placed, length=jax.device_put(cache.length, self.placement.devices[0]))

    def truncate(self, cache: Handle, length: Int[np.ndarray, "B"]) -> Handle:
        return replace(cache, length=jax.device_put(length, self.placement.devices[0]))

    def broadcast(self, number: int) -> int:
        return int(self.transport.broadcast(jnp.uint32(number)))

    def _run(
        self,
        cache: Cache,
        ids: Ids,
        valid: Counts | None,
        *,
        last_only: bool = False,
        keeps: bool = False,
    ) -> tuple[Float[Array, "B _ D"], Cache]:
        """Run all stages; only the last process can use the result.

        valid, last_only: as of `run_layers`. keeps: do not take over the memory of the cache.
        """
        run_stage = _run_stage_and_keep if keeps else _run_stage
        states, params = list(cache.layers), self.params
        x, own = jnp.zeros((*ids.shape, self.config.embedding_length)), None
        if self.transport.is_first or params.per_layer is not None:
            ids = jax.device_put(ids, self.placement.devices[0])
            x, own = _embed(params.token_embd, params.per_layer, self.config, ids)
        for number, stage in enumerate(self.stages):
            if (segment := stage.layers) is not None:
                here = slice(segment.first, segment.last)
                is_end = self.transport.is_last and number + 1 == len(self.stages)
                values = x, cache.length, params.rope_factors, own, valid, cache.slots
                x, states[here] = run_stage(
                    params.blocks[here], self.config, tuple(states[here]), stage.first_layer, last_only and is_end,
                    *jax.device_put(values, segment.device),
                )  # fmt: skip
            if number + 1 < len(self.stages):
                x = self.transport.send_next(x, number)
        return x, replace(cache, layers=tuple(states), length=cache.length + jnp.int32(ids.shape[1]))

    def _norm(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return _output_norm(self.params.head_only(), self.config, jax.device_put(x, self.placement.devices[-1]))


@partial(jax.jit, static_argnames="config")
def _embed(
    token_embd: Weight, per_layer: PerLayerEmbeddings | None, config: Config, ids: Ids
) -> tuple[Float[Array, "B T D"], Float[Array, "B T L P"] | None]:
    x = embed_tokens(token_embd, config, ids)
    return x, per_layer_embeddings(per_layer, config, ids, x)


def _layers_of_stage(
    blocks: tuple[Block, ...],
    config: Config,
    states: tuple[LayerState, ...],
    first: int,
    last_only: bool,
    x: Float[Array, "B T D"],
    length: Int[Array, "B"],
    rope_factors: Float[Array, "pairs"] | None,
    per_layer: Float[Array, "B T L P"] | None,
    valid: Int[Array, "B"] | None,
    slots: Int[Array, "B"] | None,
) -> tuple[Float[Array, "B _ D"], tuple[LayerState, ...]]:
    """Some consecutive layers, from number `first` of the model."""
    cache = Cache(states, length, 0, slots)
    x, cache = run_layers(
        blocks, config, x, cache, rope_factors, first, per_layer=per_layer, valid=valid, last_only=last_only
    )
    return x, cache.layers


_run_stage_and_keep = jax.jit(_layers_of_stage, static_argnames=("config", "first", "last_only"))
_run_stage = jax.jit(_layers_of_stage, static_argnames=("config", "first", "last_only"), donate_argnames="states")


@partial(jax.jit, static_argnames="config")
def _output_norm(head: Params, config: Config, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    return output_norm(head, config, x)


@cache
def _compiled_head(compute: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    return jax.jit(compute, static_argnums=1)


def pipeline_of_devices(params: Params, config: Config, placement: Placement) -> PipelineBackend:
    """Stages on several devices of this process."""
    stages = tuple(Stage(segment, segment.first) for segment in placement.segments())
    return PipelineBackend(params, config, stages, DeviceTransport(), placement, placement.devices)


def pipeline_of_processes(
    file: GGUF, config: Config, ctx_size: int, shares: Sequence[float] = (), advance: Advance = lambda size: None
) -> PipelineBackend:
    """Load this process's layers, by llama.cpp's rule for `--tensor-split`.

    Raises OptionError for shares that leave nothing to the last process, and the errors of `load_params`.
    """
    group = group_transport()
    devices = tuple(group.mesh.devices.flat)
    *placed, head = with_sources(split_layers(config.block_count, None, devices[0], devices, shares), config).devices
    if head != devices[-1]:
        raise OptionError(f"the last of {group.n_stages} workers has a share of 0, but it has the head; leave it out")
    here = devices[group.stage]
    mine = [layer for layer, device in enumerate(placed) if device == here]  # none is possible: the head is a layer too
    params = load_segment(
        file, config, ctx_size, here, mine, embeds=group.is_first, unembeds=group.is_last, advance=advance
    )
    own = Stage(Segment(here, 0, len(mine)), mine[0] if mine else 0)
    stages = tuple(own if stage == group.stage else Stage(None) for stage in range(group.n_stages))
    return PipelineBackend(params, config, stages, group, Placement((here,) * (len(mine) + 1)), devices)
