"""A model whose layers lie in several processes, which compute one after the other, as llama.cpp's RPC has it.

All processes call the same methods; each runs its own layers, and hands what comes out to the next. The first embeds,
the last has the head, samples, and tells the others what it has drawn. This adds memory, and for prompts of several
chunks some speed, for a process takes the next chunk while others still have the last one; a single token gets none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from minillama.engine.backends import programs
from minillama.engine.backends.base import Executor, Kept
from minillama.engine.backends.programs import Choice, Run
from minillama.engine.loading.layer_placement import split_layers
from minillama.engine.loading.load_params import Advance, load_segment
from minillama.errors import OptionError
from minillama.gguf import GGUF
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import Cache, Config, Params, empty_cache, take
from minillama.parallel.sharding.pipeline_transport import PipelineTransport, group_transport
from minillama.sampling import Sampling, build_chain
from minillama.sampling.sampler_state import new_state


@dataclass(frozen=True, eq=False)
class Layered(Executor):
    """Layers `first` and following of a model, in this process; `params` and caches hold these only."""

    params: Params
    config: Config
    stages: PipelineTransport
    first: int

    @property
    def devices(self) -> tuple[jax.Device, ...]:
        return tuple(self.stages.mesh.devices.flat)

    def agree(self, number: int) -> int:
        return int(self.stages.broadcast(jnp.uint32(number)))

    def chain(self, sampling: Sampling) -> Kept:
        return build_chain(sampling, self.config.vocab_size)

    def new_cache(self, capacity: int, types: CacheTypes, batch: int = 1) -> Kept:
        return empty_cache(self.config, capacity, types, batch, layers=len(self.params.blocks))

    def enlarge(self, cache: Kept, capacity: int) -> Kept:
        return programs.enlarge(cache, capacity)

    def set_length(self, cache: Kept, length: Int[np.ndarray, "B"]) -> Kept:
        return replace(cache, length=jax.device_put(length))

    def take(self, cache: Kept, rows: Int[np.ndarray, "n"]) -> Kept:
        return take(cache, rows)

    def read(self, ids: Int[np.ndarray, "1 T"], valid: int, cache: Kept) -> tuple[Kept, Kept]:
        """Of the logits only the last process knows; the others get a number that is there when they are."""
        length = cache.length + np.int32(valid)
        x, after = self._forward(ids, cache)
        logits = self._of_last(lambda: programs.last_logits(self.params, self.config, self._normed(x), np.int32(valid)))
        done = self.stages.broadcast(jnp.zeros(1) if logits is None else logits[:1])
        return done if logits is None else logits, replace(after, length=length)

    def read_all(self, ids: Int[np.ndarray, "1 T"], cache: Kept) -> tuple[Kept, Kept]:
        x, cache = self._forward(ids, cache)
        logits = self._of_last(lambda: programs.all_logits(self.params, self.config, self._normed(x)))
        blank = (ids.shape[1], self.config.vocab_size)
        return self.stages.broadcast(jnp.zeros(blank) if logits is None else logits), cache

    def run(self, ids: Int[np.ndarray, "B T"], cache: Kept) -> tuple[Kept, Kept]:
        """Of the hidden states only the last process knows."""
        x, cache = self._forward(ids, cache)
        return (self._normed(x) if self.stages.is_last else x), cache

    def score(self, hidden: Kept, targets: Int[np.ndarray, "B T"], first: int = 0) -> Kept:
        wanted = jnp.asarray(targets)
        found = self._of_last(lambda: programs.score(programs.head_of(self.params), self.config, hidden, wanted, first))
        return self.stages.broadcast(jnp.zeros(targets.shape) if found is None else found)

    def decode(self, ids: Int[np.ndarray, "1 1"], cache: Kept) -> tuple[Kept, Kept]:
        return self.read(ids, 1, cache)

    def begin(
        self, chain: Kept, seed: int, recent: Int[np.ndarray, "W"], count: int, logits: Kept
    ) -> tuple[Choice, Kept]:
        number = np.asarray(seed, np.uint32), recent, np.asarray(count, np.int32)
        drawn = self._of_last(lambda: programs.begin(chain, *number, logits))
        return self._told(drawn, new_state(0, chain.window, chain.sampler.initial_mu()))

    def step(self, chain: Kept, state: Kept, token: Kept | int, cache: Kept) -> tuple[Choice, Kept, Kept]:
        ids = jnp.asarray(np.array([[token]], np.int32)) if isinstance(token, int) else token.reshape(1, 1)
        x, cache = self._forward(ids, cache)
        drawn = self._of_last(
            lambda: programs.choose(
                chain, state, programs.last_logits(self.params, self.config, self._normed(x), np.int32(1))
            )
        )
        return *self._told(drawn, state), cache

    def verify(
        self, chain: Kept, state: Kept, ids: Int[np.ndarray, "1 T"], drafted: int, cache: Kept
    ) -> tuple[Run, Kept, Kept]:
        length, size = cache.length + 0, ids.shape[1]
        x, after = self._forward(ids, cache)
        drawn = self._of_last(
            lambda: programs.choose_run(
                chain,
                state,
                programs.all_logits(self.params, self.config, self._normed(x)),
                jnp.asarray(ids),
                np.int32(drafted),
            )
        )
        nothing = Run(jnp.zeros(size, jnp.int32), jnp.zeros(size), jnp.int32(0))
        run = self.stages.broadcast(nothing if drawn is None else drawn[0])
        return run, state if drawn is None else drawn[1], replace(after, length=length + run.count)

    def _forward(self, ids: Int[np.ndarray, "B T"] | Array, cache: Cache) -> tuple[Float[Array, "B T D"], Cache]:
        """Through all stages; what comes out is the last one's to use."""
        here, ids = self.stages.stage, jnp.asarray(ids)
        if here == 0:
            x = programs.embed_ids(self.params.token_embd, self.config, ids)
        else:
            x = jnp.zeros((*ids.shape, self.config.embedding_length))
        length = cache.length + jnp.int32(ids.shape[1])
        for stage in range(self.stages.n_stages):
            if stage == here:
                stores, factors = (cache.keys, cache.values), self.params.rope_factors
                x, cache = programs.run_segment(
                    self.params.blocks, self.config, x, stores, cache.length, factors, self.first
                )
            if stage + 1 < self.stages.n_stages:
                x = self.stages.send_next(x, stage)
        return x, replace(cache, length=length)

    def _normed(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return programs.normed(programs.head_of(self.params), self.config, x)

    def _of_last(self, compute: Any) -> Any:
        return compute() if self.stages.is_last else None

    def _told(self, drawn: tuple[Choice, Kept] | None, state: Kept) -> tuple[Choice, Kept]:
        """What the last process has drawn, and its state; the others have no use for theirs."""
        choice = Choice(jnp.int32(0), jnp.float32(0)) if drawn is None else drawn[0]
        return self.stages.broadcast(choice), state if drawn is None else drawn[1]


def layer_model(
    file: GGUF, config: Config, ctx_size: int, shares: Sequence[float] = (), advance: Advance = lambda size: None
) -> Layered:
    """This process's layers, as many as its share says, by llama.cpp's rule.

    Raises OptionError for shares that leave nothing to the last process, and what `load_params` raises.
    """
    stages = group_transport()
    devices = list(stages.mesh.devices.flat)
    *placed, head = split_layers(config.block_count, None, devices[0], devices, shares).devices
    if head != devices[-1]:
        raise OptionError(f"the last of {stages.n_stages} workers has a share of 0, but it has the head; leave it out")
    here = devices[stages.stage]
    mine = [layer for layer, device in enumerate(placed) if device == here]  # none is possible: the head is a layer too
    params = load_segment(
        file, config, ctx_size, here, mine, embeds=stages.stage == 0, unembeds=stages.is_last, advance=advance
    )
    return Layered(params, config, stages, mine[0] if mine else 0)
