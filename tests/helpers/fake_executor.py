"""A device without a model: the next token is a hash of the seed and of the tokens in the slot."""

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minillama.engine.batching.executor import SampledToken
from minillama.engine.generation.context_shift import kept_tokens, shift
from minillama.engine.result import Reason

END = 2  # the end token
EMPTY = -7  # an unspecified position


def next_token(seed: int, tokens: Sequence[int]) -> int:
    """The token after some others: the end token once in 16."""
    found = zlib.crc32(np.array([seed, *tokens], np.int64).tobytes())
    return END if found % 16 == 0 else 3 + found // 16 % 290


def lone_text(
    ids: Sequence[int], *, n: int, seed: int, capacity: int, shifts: bool, keep: int = 0, add_bos: bool = True
) -> tuple[list[int], Reason]:
    """The tokens and the reason of a request that is alone: the reference implementation."""
    tokens, written = list(ids), []
    while n < 0 or len(written) < n:
        written.append(next_token(seed, tokens))
        if written[-1] == END:
            return written, Reason.STOP
        if len(written) == n:
            break
        if len(tokens) + 1 >= capacity:
            if not shifts:
                return written, Reason.LENGTH
            tokens = shift(tokens, kept_tokens(keep, len(ids), capacity, add_bos=add_bos))
        tokens.append(written[-1])
    return written, Reason.LIMIT


@dataclass
class FakeClock:
    """Seconds that pass only when the device works."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class DeviceError(Exception):
    """A failure of the device."""


@dataclass
class Compilation:
    """A sampler that is ready after a few turns."""

    chain: str
    compiled: list[str]
    then: Callable[[], None]
    turns: int = 3

    def turn(self) -> None:
        self.turns -= 1
        if self.turns == 0:
            self.compiled.append(self.chain)
            self.then()


@dataclass
class FakeExecutor:
    """Slots of tokens; every call checks that it could be served by a real cache.

    fails: numbers of the calls that fail. A slot that does not rewind goes on where it is, or begins anew. A chain
    that is no None is rare. compilations: those under way, at most one; a test gives them turns. most_rare: rare
    samplers that slots may use before another one is compiled.
    """

    slots: int
    capacity: int
    clock: FakeClock
    rewinds: bool = True
    fails: set[int] = field(default_factory=set)
    seconds: float = 1.0  # of a token of a prompt
    compilations: list[Compilation] = field(default_factory=list)
    most_rare: int = 1
    calls: int = 0
    waits: int = 0

    def __post_init__(self) -> None:
        self.cells: list[list[int]] = [[] for _ in range(self.slots)]
        self.seeds = [0] * self.slots
        self.compiled: list[str] = []
        self._chains: list[str | None] = [None] * self.slots
        self._latest = [EMPTY] * self.slots
        self._unread: list[object] = []

    def prefill(self, slot: int, start: int, ids: Sequence[int]) -> None:
        self._call(len(ids))
        assert len(ids) > 0 and start + len(ids) <= self.capacity
        self._go_back(slot, start)
        self.cells[slot] += ids

    def is_ready(self, chain: Any, busy: Collection[int], then: Callable[[], None]) -> bool:
        assert set(busy) < set(range(self.slots)), "a request is asked for when it has a slot"
        if chain is None or chain in self.compiled:
            return True
        in_use = {self._chains[slot] for slot in busy} - {None}
        if not self.compilations and len(in_use) < self.most_rare:
            self.compilations.append(Compilation(chain, self.compiled, then))
        return False

    def is_rare(self, chain: Any) -> bool:
        return chain is not None

    def join(self, slot: int, chain: Any, seed: int, ids: Sequence[int]) -> None:
        self._call(1)
        assert chain is None or chain in self.compiled
        self.seeds[slot], self._latest[slot], self._chains[slot] = seed, ids[-1], chain

    def step(self, slots: Sequence[int], positions: Sequence[int]) -> list[SampledToken]:
        self._call(10)
        assert len(set(slots)) == len(slots) > 0
        for slot, position in zip(slots, positions, strict=True):
            assert position < self.capacity
            self._go_back(slot, position)
            self.cells[slot].append(self._latest[slot])
            self._latest[slot] = next_token(self.seeds[slot], self.cells[slot])
        draw = [SampledToken(self._latest[slot], -1.0) for slot in slots]
        self._unread.append(draw)
        return draw

    def verify(
        self, slots: Sequence[int], positions: Sequence[int], texts: Sequence[Sequence[int]], size: int
    ) -> list[list[SampledToken]]:
        self._call(12)
        assert self.rewinds and max(map(len, texts)) <= size and size * len(slots) <= 32
        found = []
        for slot, position, text in zip(slots, positions, texts, strict=True):
            assert (
                self._chains[slot] is None and text[0] == self._latest[slot] and position + len(text) <= self.capacity
            )
            self._go_back(slot, position)
            tokens = []
            for token, guess in zip(text, [*text[1:], None], strict=True):
                self.cells[slot].append(token)
                tokens.append(next_token(self.seeds[slot], self.cells[slot]))
                if tokens[-1] != guess:
                    break
            self._latest[slot] = tokens[-1]
            found.append([SampledToken(token, -1.0) for token in tokens])
        self._unread.append(found)
        return found

    def read_all(self, draw: list[SampledToken] | list[list[SampledToken]]) -> list[list[SampledToken]]:
        assert self._unread.pop(0) is draw, "draws are read once, in order"
        return [[each] if isinstance(each, SampledToken) else each for each in draw]

    def wait(self, work: Any) -> None:
        self.waits += 1

    def copy(self, source: int, target: int, count: int) -> None:
        self._call(1)
        assert source != target and count <= len(self.cells[source])
        assert self.rewinds or count == len(self.cells[source])
        self.cells[target] = self.cells[source][:count]

    def warm_ups(self, draft_sizes: Iterable[tuple[int, int]] = ()) -> Iterator[str]:
        yield "nothing to compile"

    def save(self, slot: int, count: int) -> np.ndarray:
        self._call(1)
        assert count <= len(self.cells[slot])
        assert self.rewinds or count == len(self.cells[slot])
        return np.array(self.cells[slot][:count], np.int64)

    def load(self, slot: int, saved: np.ndarray) -> None:
        self._call(1)
        self.cells[slot] = saved.tolist()

    def _call(self, cost: int) -> None:
        self.calls += 1
        self.clock.now += cost * self.seconds
        if self.calls in self.fails:
            raise DeviceError("out of order")

    def _go_back(self, slot: int, position: int) -> None:
        held = len(self.cells[slot])
        assert position <= held if self.rewinds else position in (0, held)
        self.cells[slot] = self.cells[slot][:position]
