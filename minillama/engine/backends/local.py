"""The backend of one device: every program is one compiled function."""

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from minillama.array_types import Int
from minillama.engine.backends.base import BackendDefaults, Caller, Handle
from minillama.engine.backends.packed_params import PackedParams, pack
from minillama.engine.backends.programs import text_programs
from minillama.engine.backends.programs.program import Kind, Program
from minillama.engine.backends.programs.whole_model import WholeModel
from minillama.engine.compile.executable_cache import CachedJit
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import Config, Params, empty_cache
from minillama.sampling import Sampling
from minillama.sampling.chain_builder import build_packed_chain


@dataclass(frozen=True, eq=False)
class LocalBackend(BackendDefaults):
    """All layers on one device of this process."""

    params: Params
    config: Config
    device: jax.Device

    @property
    def devices(self) -> tuple[jax.Device, ...]:
        return (self.device,)

    @cached_property
    def _packed(self) -> PackedParams:
        return pack(self.params)

    def call(self, program: Program, *args: Any) -> Any:
        return _compiled(program)(self._packed, self.config, *args)

    def apart(self) -> Caller:
        return OwnPrograms(self._packed, self.config)

    def chain(self, sampling: Sampling, *, is_shared: bool = False) -> Handle:
        return jax.device_put(build_packed_chain(sampling, self.config.vocab_size, is_shared=is_shared), self.device)

    def new_cache(self, capacity: int, types: CacheTypes, batch: int = 1, chunk: int | None = None) -> Handle:
        return jax.device_put(empty_cache(self.config, capacity, types, batch, chunk=chunk), self.device)

    def put(self, ids: Int[np.ndarray, "B T"]) -> Handle:
        return jax.device_put(ids, self.device)

    def truncate(self, cache: Handle, length: Int[np.ndarray, "B"]) -> Handle:
        return replace(cache, length=jax.device_put(length, self.device))  # no program to compile

    def temporary_bytes(self, size: int, cache: Handle) -> int | None:
        function = _compiled(text_programs.prefill).function
        weights, weights_structure = jax.tree.flatten(self._packed)
        states, cache_structure = jax.tree.flatten(cache)

        def flat(weights: list[jax.Array], states: list[jax.Array], ids: jax.Array, n_valid: jax.Array) -> Any:
            packed, cache = jax.tree.unflatten(weights_structure, weights), jax.tree.unflatten(cache_structure, states)
            return function(packed, self.config, cache, ids, n_valid)

        ids, n_valid = jax.ShapeDtypeStruct((1, size), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.int32)
        stats = jax.jit(flat, donate_argnums=1).lower(weights, states, ids, n_valid).compile().memory_analysis()
        return None if stats is None else stats.temp_size_in_bytes


class OwnPrograms:
    """Calls with compiled programs that go when it goes."""

    def __init__(self, packed: PackedParams, config: Config) -> None:
        self._packed, self._config = packed, config
        self._functions: dict[Program, Any] = {}

    def call(self, program: Program, *args: Any) -> Any:
        """Run a program; see `Backend.call`."""
        function = self._functions.get(program)
        if function is None:
            function = self._functions[program] = _jitted(program).jitted
        return function(self._packed, self._config, *args)


@cache
def _compiled(program: Program) -> CachedJit:
    return _jitted(program)


def _jitted(program: Program) -> CachedJit:
    """A program as a jitted function of packed parameters, configuration and arguments."""

    def run(packed: PackedParams, config: Config, *args: Any) -> Any:
        return program.function(WholeModel(packed.unpack(), config), *args)

    run.__name__ = program.name
    static = (1, *(2 + place for place in program.positions(Kind.STATIC)))
    donated = tuple(2 + place for place in program.donated)
    return CachedJit(run, static, donated)
