"""A program: a function of a model, and the kinds of its arguments and results.

A program is a function of a model `m` (its parameters, or a device's share of them) and of values: caches, samplers,
token ids. It has a batch axis everywhere: B texts, with a length and a sampler state each. By the kinds of its values a
backend compiles it, shards it over devices, or sends it to workers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jax import Array

from minillama.array_types import Float, Int, UInt32
from minillama.model import Cache, Config

Ids = Int[Array | np.ndarray, "B T"]
Counts = Int[Array | np.ndarray, "B"]
Masks = UInt32[Array | np.ndarray, "B words"]


def one_text(number: int) -> Int[np.ndarray, "1"]:
    """A number of one text, as programs take it."""
    return np.full(1, number, np.int32)


class Kind(Enum):
    """The kinds of values that programs take and give."""

    CACHE = auto()  # Cache
    SAVED = auto()  # Cache of one text, kept
    CHAIN = auto()  # PackedChain of samplers
    CHAINS = auto()  # PackedChain of each of N slots
    STATE = auto()  # SamplerState of B texts; None in a process without the output head
    LOGITS = auto()  # float32 [B, V]; sharded over the vocabulary where devices share the model
    HIDDEN = auto()  # float32 [B, T, D], on the device that has the output head
    NUMBERS = auto()  # float32, the same everywhere
    DRAFT = auto()  # VerifiedDraft
    IDS = auto()  # int32 [B, T]; or the tokens of a VerifiedDraft
    LATEST = auto()  # int32 [N, 1], the latest token of each slot
    COUNTS = auto()  # int32 [B] or [n], or None
    WINDOW = auto()  # int32 [B, W]
    SEEDS = auto()  # uint32 [B, 624]: the first words of the random numbers of B texts
    MASKS = auto()  # uint32 [B, ceil(V / 32)]: bits of the tokens that B texts may go on with; or None
    STATIC = auto()  # a Python int that the program is compiled for


@runtime_checkable
class Model(Protocol):
    """The local part of a model: all of it, a shard, or a pipeline stage."""

    config: Config

    def forward(
        self, cache: Cache, ids: Ids, valid: Counts | None = None, *, keeps: bool = False
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """Run T tokens of each text; hidden states after the last norm.

        valid: tokens that count, None for all. keeps: whether `cache` is needed again, for `advance`.
        """

    def forward_last(self, cache: Cache, ids: Ids, n_valid: Counts) -> tuple[Float[Array, "B D"], Cache]:
        """Run the first `n_valid` of T tokens; the hidden state of each text's last one."""

    def head(
        self, compute: Callable[..., tuple[Any, Any]], *args: Any, blank: Callable[[], Any] | None = None
    ) -> tuple[Any, Any]:
        """Call `compute(params, config, *args)` where the output head is.

        It gives a value that all processes get, of the same shapes as `blank()`, and one that stays there.
        """

    def advance(self, cache: Cache, after: Cache, ids: Ids, count: Int[Array, "B"]) -> Cache:
        """`after`, the cache after `ids`, but with only `count` tokens more than `cache`.

        States that cannot go back run these tokens again.
        """


@dataclass(frozen=True)
class Program:
    """A function of a model with the kinds of its arguments and results."""

    function: Callable[..., Any]
    takes: tuple[Kind, ...]
    gives: tuple[Kind, ...]
    donates: bool  # whether it takes over the memory of the caches and states that it is given

    @property
    def name(self) -> str:
        """Its name, also on the wire."""
        return self.function.__name__

    def positions(self, *kinds: Kind) -> tuple[int, ...]:
        """The places of its arguments of some kinds, not counting the model."""
        return tuple(place for place, kind in enumerate(self.takes) if kind in kinds)

    @property
    def donated(self) -> tuple[int, ...]:
        """The places of the arguments whose memory it takes over."""
        return self.positions(Kind.CACHE, Kind.STATE) if self.donates else ()


def program(
    *, takes: tuple[Kind, ...], gives: tuple[Kind, ...], donates: bool = True
) -> Callable[[Callable[..., Any]], Program]:
    """Declare a program."""
    return lambda function: Program(function, takes, gives, donates)
