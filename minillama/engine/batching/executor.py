"""The interface between the scheduler and the device: slots, chunks, steps and draws."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from minillama.array_types import UInt32
from minillama.engine.generation.top_probs import ReportedTop

Masks = Sequence["UInt32[np.ndarray, 'W'] | None"] | None  # of each text, see `GrammarState.allowed`; None for all
Chunk = Any  # a handle of a chunk that the device computes
Draw = Any  # a handle of the tokens that one call has sampled


@dataclass(frozen=True)
class SampledToken:
    """A token, its log-probability, and the report of the likeliest tokens in its place."""

    token: int
    logprob: float
    report: ReportedTop | None = None


@runtime_checkable
class Executor(Protocol):
    """N slots of fixed capacity on the device.

    Calls return before the device has computed; `read` and `wait` wait. Work is done in the order of the calls.
    """

    capacity: int  # positions of a slot
    rewinds: bool  # whether a slot can go back to any earlier position

    def prefill(self, slot: int, start: int, ids: Sequence[int]) -> Chunk:
        """Run tokens in a slot, from position `start` on."""

    def is_ready(self, chain: Any, busy: Collection[int], then: Callable[[], None]) -> bool:
        """Whether the programs of a chain are compiled; otherwise they will be, one after another.

        busy: slots whose samplers are in use. then: called in another thread when a compilation has ended. Raises what
        the compilation has raised.
        """

    def is_rare(self, chain: Any) -> bool:
        """Whether a sampler draws alone, so that its texts get no drafts."""

    def join(self, slot: int, chain: Any, seed: int, ids: Sequence[int]) -> None:
        """Put a request's sampler into a slot, and its last token as the latest one."""

    def step(self, slots: Sequence[int], positions: Sequence[int], allowed: Masks = None) -> Draw:
        """Run the latest token of some slots at these positions; draw the next of each.

        allowed: the tokens of each slot that a grammar allows; None for all.
        """

    def verify(self, slots: Sequence[int], positions: Sequence[int], texts: Sequence[Sequence[int]], size: int) -> Draw:
        """Run the latest token of some slots and a draft; draw while it is right.

        texts: the latest token and the draft of each slot, at most `size` tokens. Only where `rewinds`.
        """

    def read_all(self, draw: Draw) -> list[tuple[SampledToken, ...]]:
        """Wait for all tokens of a draw, in the order of its slots.

        Several where a draft was right.
        """

    def wait(self, work: Chunk | Draw) -> None:
        """Wait for a chunk or a draw."""

    def copy(self, source: int, target: int, count: int) -> None:
        """Copy the first `count` tokens of a slot to another one; all, where not `rewinds`."""

    def warm_ups(self, draft_sizes: Iterable[tuple[int, int]] = ()) -> Iterator[str]:
        """Compile one program after another; yields their names. No slot changes.

        draft_sizes: texts in a pass over drafts, and tokens of each.
        """

    def save(self, slot: int, count: int) -> Any:
        """A copy of the first `count` tokens of a slot, outside of the cache."""

    def load(self, slot: int, saved: Any) -> None:
        """Put a saved copy into a slot."""
