"""Arguments of every program by their kinds; tools compile with them and run nothing."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from minillama.engine.backends.programs import slot_programs
from minillama.engine.backends.programs.program import Kind, Program
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import Config
from minillama.sampling import Sampling

# programs that change the row of one text only, and those that take few tokens
OF_ONE_TEXT = frozenset(
    {"prefill_slot", "join_slot", "copy_slot", "save_slot", "load_slot", "slide_slot", "new_samplers"}
)
TOKENS = {"generate": 1, "join_slot": 1, "run_drafts": 4, "verify_slots": 4}
LEFT_OUT = {("generate", "n_draft"), ("hidden", "valid")}  # None there is the usual case


@dataclass(frozen=True)
class Sizes:
    """Sizes of a compiled program: texts, tokens of a prompt, positions of the cache."""

    batch: int = 1
    tokens: int = 512
    capacity: int = 512


@runtime_checkable
class Maker(Protocol):
    """The part of a backend that makes caches and samplers."""

    config: Config

    def new_cache(self, capacity: int, types: CacheTypes, batch: int = 1, chunk: int | None = None) -> Any:
        """See `Backend.new_cache`."""

    def chain(self, sampling: Sampling, *, is_shared: bool = False) -> Any:
        """See `Backend.chain`."""

    def call(self, program: Program, *args: Any) -> Any:
        """See `Backend.call`."""


def program_arguments(
    program: Program, maker: Maker, sizes: Sizes, types: CacheTypes, sampling: Sampling
) -> tuple[Any, ...]:
    """Arguments of a program after the model: zeros, and an int for each static one."""
    config, slots = maker.config, sizes.batch
    rows = 1 if program.name in OF_ONE_TEXT else slots
    tokens, window = TOKENS.get(program.name, sizes.tokens), maker.chain(sampling).window
    static = {"first": 0, "slots": slots, "capacity": 2 * sizes.capacity, "count": sizes.capacity // 2}
    make: Mapping[Kind, Callable[[], Any]] = {
        Kind.CACHE: lambda: maker.new_cache(sizes.capacity, types, slots),
        Kind.SAVED: lambda: maker.new_cache(static["count"], types, 1),
        Kind.CHAIN: lambda: maker.chain(sampling),
        Kind.CHAINS: lambda: _samplers(maker, sampling, slots)[0],
        Kind.STATE: lambda: _samplers(maker, sampling, slots)[1],
        Kind.LOGITS: lambda: np.zeros((rows, config.vocab_size), np.float32),
        Kind.HIDDEN: lambda: np.zeros((rows, tokens, config.embedding_length), np.float32),
        Kind.IDS: lambda: np.zeros((rows, tokens), np.int32),
        Kind.LATEST: lambda: np.zeros((slots, 1), np.int32),
        Kind.COUNTS: lambda: np.zeros(rows, np.int32),
        Kind.WINDOW: lambda: np.zeros((rows, window), np.int32),
        Kind.SEEDS: lambda: np.zeros((rows, 624), np.uint32),
        Kind.MASKS: lambda: None,
    }
    names = list(inspect.signature(program.function).parameters)[1:]

    def value(name: str, kind: Kind) -> Any:
        if kind is Kind.STATIC:
            return static[name]
        return None if (program.name, name) in LEFT_OUT else make[kind]()

    return tuple(value(name, kind) for name, kind in zip(names, program.takes, strict=True))


def _samplers(maker: Maker, sampling: Sampling, slots: int) -> tuple[Any, Any]:
    return maker.call(slot_programs.new_samplers, maker.chain(sampling), slots)
