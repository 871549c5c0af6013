"""A server with slots on a virtual clock: the scheduler's decisions, and no model.

One turn of the server is one step of all texts that are generated, then one chunk of the oldest prompt that is not read
yet. The decisions are two functions: `admit` chooses slots for waiting requests, `next_chunk` the size of a chunk.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from minillama.lab.language import translate

MOST_TURNS = 100_000


class StalledError(Exception):
    """A scheduler that makes no progress, or that decides the impossible."""


@dataclass(frozen=True)
class SimulatedRequest:
    """A request: arrival in seconds, tokens of the prompt, number of answer tokens."""

    number: int
    arrived: float
    prompt: tuple[int, ...]
    n: int


@dataclass(frozen=True)
class Costs:
    """Seconds of the server's work, and the most tokens of one pass."""

    step: float = 0.020  # of a step, for any number of texts: the weights are read once
    row: float = 0.001  # more, for each text
    token: float = 0.001  # of each token of a prompt
    ubatch: int = 512

    def step_seconds(self, rows: int) -> float:
        """Seconds of a step; 0 without a text."""
        return self.step + rows * self.row if rows else 0.0


@dataclass(frozen=True)
class SlotView:
    """A slot, as `admit` sees it; `tokens` are those in its cache."""

    number: int
    is_free: bool
    tokens: tuple[int, ...]
    last_used: float


Admit = Callable[[Sequence[SimulatedRequest], Sequence[SlotView]], Sequence[tuple[int, int]]]
NextChunk = Callable[[int, int, float, Costs], int]


@dataclass(frozen=True)
class Policy:
    """The decisions of a scheduler.

    gap_limit: longest gap between two tokens that `next_chunk` should allow, in seconds. together: a batch keeps its
    slots until its last text has ended (static batching).
    """

    admit: Admit
    next_chunk: NextChunk
    gap_limit: float = 0.1
    together: bool = False


@dataclass(frozen=True)
class Span:
    """Work of a slot from `begin` to `end`. kind: prompt, decode, or wasted (a row without a text)."""

    slot: int
    request: int
    kind: str
    begin: float
    end: float


@dataclass
class SimulatedRun:
    """All that happened, by the number of the request."""

    slots: int
    spans: list[Span] = field(default_factory=list)
    started: dict[int, float] = field(default_factory=dict)
    cached: dict[int, int] = field(default_factory=dict)  # tokens of the prompt that were not read again
    tokens: dict[int, list[float]] = field(default_factory=dict)  # times of the tokens
    arrived: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def first_tokens(self) -> list[float]:
        """Seconds from arrival to first token of each request."""
        return [times[0] - self.arrived[number] for number, times in sorted(self.tokens.items())]

    @property
    def gaps(self) -> list[float]:
        """Seconds between two tokens of a text, of all texts."""
        return [float(gap) for times in self.tokens.values() for gap in np.diff(times)]

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens by the time of the whole run."""
        return sum(map(len, self.tokens.values())) / self.seconds

    @property
    def utilisation(self) -> float:
        """Share of the slots' time that is spent on a text."""
        busy = sum(span.end - span.begin for span in self.spans if span.kind != "wasted")
        return busy / (self.slots * self.seconds)


@dataclass
class _Slot:
    number: int
    request: SimulatedRequest | None = None
    left: int = 0  # tokens of the prompt that are not read
    written: int = 0
    tokens: tuple[int, ...] = ()
    last_used: float = 0.0

    @property
    def is_done(self) -> bool:
        return self.request is not None and self.written >= self.request.n

    @property
    def generates(self) -> bool:
        return self.request is not None and self.left == 0 and not self.is_done

    def view(self) -> SlotView:
        return SlotView(self.number, self.request is None, self.tokens, self.last_used)


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of equal tokens at the beginning of two texts."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def simulate(requests: Sequence[SimulatedRequest], slots: int, costs: Costs, policy: Policy) -> SimulatedRun:
    """Serve all requests. Raises StalledError for decisions that are impossible or make no progress."""
    server = _Server(slots, costs, policy)
    coming = deque(sorted(requests, key=lambda request: (request.arrived, request.number)))
    for _ in range(MOST_TURNS):
        while coming and coming[0].arrived <= server.now + 1e-12:
            server.waiting.append(coming.popleft())
        if not server.turn():
            if not coming:
                break
            server.now = coming[0].arrived
    if server.waiting or any(slot.request for slot in server.slots):
        raise StalledError(translate("requests are left, and nothing happens"))
    server.run.arrived = {request.number: request.arrived for request in requests}
    server.run.seconds = server.now
    return server.run


class _Server:
    """The state between two turns."""

    def __init__(self, slots: int, costs: Costs, policy: Policy) -> None:
        self.now = 0.0
        self.waiting: list[SimulatedRequest] = []
        self.slots = [_Slot(number) for number in range(slots)]
        self.run = SimulatedRun(slots)
        self._costs, self._policy = costs, policy

    def turn(self) -> bool:
        """One turn; False if there is nothing to do."""
        self._admit()
        rows = [slot for slot in self.slots if slot.generates]
        padded = [slot for slot in self.slots if slot.is_done] if rows else []  # together only
        reading = [slot for slot in self.slots if slot.left]
        if not rows and not reading:
            return False
        begin = self.now
        self.now += self._costs.step_seconds(len(rows) + len(padded))
        for slot in rows:
            self._write(slot)
            self._span(slot, "decode", begin)
        for slot in padded:
            self._span(slot, "wasted", begin)
        if reading:
            self._read(min(reading, key=lambda slot: slot.request.number if slot.request else 0), len(rows))
        self._release()
        return True

    def _admit(self) -> None:
        waiting = {request.number: request for request in self.waiting}
        for number, place in self._policy.admit(tuple(self.waiting), tuple(slot.view() for slot in self.slots)):
            if number not in waiting or not 0 <= place < len(self.slots) or self.slots[place].request is not None:
                raise StalledError(
                    translate("request {number} cannot begin in slot {place}", number=number, place=place)
                )
            request, slot = waiting.pop(number), self.slots[place]
            cached = min(common_prefix(slot.tokens, request.prompt), len(request.prompt) - 1)
            slot.request, slot.left, slot.written = request, len(request.prompt) - cached, 0
            slot.tokens = request.prompt
            self.run.started[number], self.run.cached[number] = self.now, cached
            self.run.tokens[number] = []
        self.waiting = list(waiting.values())

    def _read(self, slot: _Slot, rows: int) -> None:
        chunk = self._policy.next_chunk(slot.left, rows, self._policy.gap_limit, self._costs)
        if not 1 <= chunk <= min(slot.left, self._costs.ubatch):
            raise StalledError(
                translate(
                    "a chunk of {chunk} tokens, with {left} left and -ub {ubatch}",
                    chunk=chunk, left=slot.left, ubatch=self._costs.ubatch,
                )
            )  # fmt: skip
        begin = self.now
        self.now += chunk * self._costs.token
        slot.left -= chunk
        self._span(slot, "prompt", begin)
        if slot.left == 0:
            self._write(slot)

    def _write(self, slot: _Slot) -> None:
        assert slot.request is not None
        slot.written += 1
        self.run.tokens[slot.request.number].append(self.now)

    def _release(self) -> None:
        is_held = self._policy.together and any(slot.request and not slot.is_done for slot in self.slots)
        for slot in [] if is_held else [slot for slot in self.slots if slot.is_done]:
            slot.request, slot.last_used = None, self.now

    def _span(self, slot: _Slot, kind: str, begin: float) -> None:
        """Add a span, joined with the one before if that goes on."""
        assert slot.request is not None
        number, spans = slot.request.number, self.run.spans
        last = next((at for at in reversed(range(len(spans))) if spans[at].slot == slot.number), None)
        if last is not None and (spans[last].request, spans[last].kind, spans[last].end) == (number, kind, begin):
            begin = spans.pop(last).begin
        spans.append(Span(slot.number, number, kind, begin, self.now))


# ---- two policies, and the requests of the lab ----


def admit_batch(waiting: Sequence[SimulatedRequest], slots: Sequence[SlotView]) -> list[tuple[int, int]]:
    """Static batching: the next batch begins when all slots are free."""
    if not all(slot.is_free for slot in slots):
        return []
    return [(request.number, slot.number) for request, slot in zip(waiting, slots, strict=False)]


def admit_any(waiting: Sequence[SimulatedRequest], slots: Sequence[SlotView]) -> list[tuple[int, int]]:
    """Continuous batching: the first requests take the free slots, in their order."""
    free = [slot.number for slot in slots if slot.is_free]
    return [(request.number, slot) for request, slot in zip(waiting, free, strict=False)]


def whole_prompt(left: int, rows: int, limit: float, costs: Costs) -> int:
    """As many tokens as a pass takes, however long the others wait."""
    return min(left, costs.ubatch)


def mixed_requests(count: int = 20, *, rate: float | None = None, seed: int = 13) -> list[SimulatedRequest]:
    """Requests with prompts of 20 to 199 tokens and answers of 4 to 80.

    rate: arrivals per second; None: all at 0.
    """
    random = np.random.default_rng(seed)
    arrived = np.zeros(count) if rate is None else np.cumsum(random.exponential(1 / rate, count))
    lengths, answers = random.integers(20, 200, count), random.integers(4, 81, count)
    return [
        SimulatedRequest(number, float(arrived[number]), tuple(random.integers(1, 1000, lengths[number]).tolist()),
                         int(answers[number]))
        for number in range(count)
    ]  # fmt: skip
