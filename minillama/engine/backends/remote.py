"""The leader's side: an executor whose steps are computed by a group of workers.

Each call goes to all workers as one message, and they all compute it (`engine.follow`); the first one sends back what
the leader asks for: tokens, log-probabilities, logits. Everything else stays there, and is known here by a number.
Calls do not wait for each other, so a step is on its way while the text of the last one is made.
"""

import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from minillama.engine.backends.base import Executor, Kept
from minillama.engine.backends.programs import Choice, Run
from minillama.engine.compile.compile_timer import count_seconds
from minillama.errors import FormatError
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import Config, cache_bytes
from minillama.parallel.workers.leader import WorkerGroup
from minillama.parallel.workers.wire import Message
from minillama.sampling import Sampling
from minillama.sampling.chain import penalty_window


class Held:
    """A value that the workers hold; they forget it when this is gone."""

    def __init__(self, remote: "Remote", number: int) -> None:
        self.number = number
        self._remote = remote
        weakref.finalize(self, remote.forgotten.append, number)

    def block_until_ready(self) -> "Held":
        """Wait until the workers have computed it."""
        self._remote.ask("ready", self.number)
        return self

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        (array,) = self._remote.ask("fetch", self.number)
        return array if dtype is None else array.astype(dtype)


class HeldCache(Held):
    """A cache; `spent` once it was given to a step, which takes its memory over."""

    def __init__(self, remote: "Remote", number: int, capacity: int, batch: int, types: CacheTypes) -> None:
        super().__init__(remote, number)
        self.capacity, self.batch, self.types = capacity, batch, types
        self.nbytes = cache_bytes(remote.config, capacity, types, batch)
        self.spent = False

    def is_deleted(self) -> bool:
        """Whether a step has taken it."""
        return self.spent


class HeldChain(Held):
    """A chain of samplers, with the number of tokens that it looks back on."""

    def __init__(self, remote: "Remote", number: int, window: int) -> None:
        super().__init__(remote, number)
        self.window = window


@dataclass(frozen=True, eq=False)
class Told:
    """A number or an array that the first worker sends without being asked again: one part of what a call gives."""

    held: Held
    part: int

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        array = self.held._remote.answer(self.held.number)[self.part]
        return array if dtype is None else array.astype(dtype)

    def __int__(self) -> int:
        return int(np.asarray(self).item())

    def __float__(self) -> float:
        return float(np.asarray(self).item())


class Remote(Executor):
    """The steps of a model that workers have opened."""

    def __init__(self, group: WorkerGroup, config: Config) -> None:
        self.config = config
        self.group = group
        self.forgotten: deque[int] = deque()
        self._numbers = 0
        self._compiling = 0.0  # seconds that the first worker has spent on it
        self._answers: dict[int, tuple[np.ndarray, ...]] = {}
        self._awaited: set[int] = set()

    @property
    def devices(self) -> tuple[jax.Device, ...]:
        """None of this process's."""
        return ()

    def open(self, ctx_size: int, *, layers: bool, shares: Sequence[float], use_mmap: bool, use_mlock: bool) -> None:
        """Let the workers open the model that they were offered; raises what its loading raises there."""
        values = {"ctx_size": ctx_size, "layers": layers, "shares": [float(share) for share in shares]}
        values |= {"use_mmap": use_mmap, "use_mlock": use_mlock}
        self.group.send(Message("open", values))
        message = self.group.receive()
        if message.op != "opened":
            raise FormatError(f"the first worker says {message.op[:20]!r} where 'opened' is due")

    def chain(self, sampling: Sampling) -> Kept:
        biases = [(token, None if bias == -np.inf else bias) for token, bias in sampling.logit_bias]
        number = self._call("chain", sampling={**asdict(sampling), "logit_bias": biases})
        return HeldChain(self, number, penalty_window(sampling))

    def new_cache(self, capacity: int, types: CacheTypes, batch: int = 1) -> Kept:
        number = self._call("new_cache", capacity=capacity, types=[types.keys.value, types.values.value], batch=batch)
        return HeldCache(self, number, capacity, batch, types)

    def enlarge(self, cache: Kept, capacity: int) -> Kept:
        return HeldCache(
            self, self._call("enlarge", cache=cache, capacity=capacity), capacity, cache.batch, cache.types
        )

    def set_length(self, cache: Kept, length: Int[np.ndarray, "B"]) -> Kept:
        return self._like(cache, self._call("set_length", length, cache=cache), len(length))

    def take(self, cache: Kept, rows: Int[np.ndarray, "n"]) -> Kept:
        return self._like(cache, self._call("take", rows, cache=cache), len(rows))

    def read(self, ids: Int[np.ndarray, "1 T"], valid: int, cache: Kept) -> tuple[Kept, Kept]:
        return self._and_cache(cache, self._call("read", ids, valid=valid, cache=cache))

    def read_all(self, ids: Int[np.ndarray, "1 T"], cache: Kept) -> tuple[Kept, Kept]:
        return self._and_cache(cache, self._call("read_all", ids, cache=cache))

    def run(self, ids: Int[np.ndarray, "B T"], cache: Kept) -> tuple[Kept, Kept]:
        return self._and_cache(cache, self._call("run", ids, cache=cache))

    def score(self, hidden: Kept, targets: Int[np.ndarray, "B T"], first: int = 0) -> Kept:
        return Held(self, self._call("score", targets, hidden=hidden, first=first))

    def decode(self, ids: Int[np.ndarray, "1 1"], cache: Kept) -> tuple[Kept, Kept]:
        return self._and_cache(cache, self._call("decode", ids, cache=cache))

    def begin(
        self, chain: Kept, seed: int, recent: Int[np.ndarray, "W"], count: int, logits: Kept
    ) -> tuple[Choice, Kept]:
        number = self._call("begin", recent, chain=chain, seed=seed, count=count, logits=logits)
        self._awaited.add(number)
        return self._choice(number), Held(self, number + 1)

    def step(self, chain: Kept, state: Kept, token: Kept | int, cache: Kept) -> tuple[Choice, Kept, Kept]:
        if isinstance(token, Told):
            number = self._call("step", chain=chain, state=state, chosen=token.held, cache=cache, gives=3)
        else:
            number = self._call("step", chain=chain, state=state, token=token, cache=cache, gives=3)
        self._awaited.add(number)
        return self._choice(number), Held(self, number + 1), self._like(cache, number + 2)

    def verify(
        self, chain: Kept, state: Kept, ids: Int[np.ndarray, "1 T"], drafted: int, cache: Kept
    ) -> tuple[Run, Kept, Kept]:
        number = self._call("verify", ids, chain=chain, state=state, drafted=drafted, cache=cache, gives=3)
        self._awaited.add(number)
        held = Held(self, number)
        run = Run(*(Told(held, part) for part in range(3)))
        return run, Held(self, number + 1), self._like(cache, number + 2)

    def close(self) -> None:
        """Let the workers go."""
        self.group.close()

    def ask(self, op: str, number: int) -> tuple[np.ndarray, ...]:
        """What the first worker says of a value."""
        asked = self._call(op, value=number)
        self._awaited.add(asked)
        arrays = self.answer(asked)
        del self._answers[asked]  # no handle stands for it whose end would let go of it
        return arrays

    def answer(self, number: int) -> tuple[np.ndarray, ...]:
        """The arrays that the first worker sends about a call, which are remembered until its result is forgotten."""
        while number not in self._answers:
            message = self.group.receive()
            told, compiling = message.values.get("number"), message.values.get("compiling")
            known = type(told) is int and told in self._awaited and isinstance(compiling, int | float)
            if message.op != "told" or not known:
                raise FormatError(
                    f"the first worker sends {message.op[:20]!r} {told!r:.20}, for which nobody has asked"
                )
            self._awaited.discard(told)
            self._answers[told] = message.arrays
            count_seconds(compiling - self._compiling)  # so that timings here tell it apart
            self._compiling = compiling
        return self._answers[number]

    def _call(self, op: str, *arrays: np.ndarray, gives: int = 2, **values: Any) -> int:
        """Send a call to all workers; the number of its first result, of which there are at most `gives`."""
        gone = [self.forgotten.popleft() for _ in range(len(self.forgotten))]
        for number in gone:
            self._answers.pop(number, None)
        first = self._numbers
        self._numbers += gives
        if isinstance(cache := values.get("cache"), HeldCache) and op in SPENDING:
            cache.spent = True
        plain = {name: value.number if isinstance(value, Held) else value for name, value in values.items()}
        self.group.send(Message(op, {**plain, "number": first, "forget": gone}, arrays))
        return first

    def _choice(self, number: int) -> Choice:
        held = Held(self, number)
        return Choice(Told(held, 0), Told(held, 1))

    def _and_cache(self, cache: HeldCache, number: int) -> tuple[Held, HeldCache]:
        return Held(self, number), self._like(cache, number + 1)

    def _like(self, cache: HeldCache, number: int, batch: int | None = None) -> HeldCache:
        return HeldCache(self, number, cache.capacity, cache.batch if batch is None else batch, cache.types)


SPENDING = frozenset({"read", "read_all", "run", "decode", "step", "verify"})  # calls that take a cache's memory over
