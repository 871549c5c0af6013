"""The backend of a leader: worker processes run the programs.

Each call is one message to all workers, and they all run it (`remote_worker`). The first one sends back what the leader
needs: tokens, log-probabilities, logits. All other values stay with the workers, and a number stands for each here.
Calls do not wait for each other, so that a step is on its way while the last token becomes text.
"""

import math
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from minillama.array_types import Int
from minillama.engine.backends.base import BackendDefaults, Handle
from minillama.engine.backends.programs.program import Kind, Program
from minillama.engine.backends.programs.text_programs import gather_rows, generate
from minillama.engine.backends.programs.verified_draft import VerifiedDraft
from minillama.engine.backends.remote_calls.remote_arguments import ARRAY
from minillama.engine.compile.compile_timer import count_seconds
from minillama.errors import FormatError
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import Config, cache_bytes
from minillama.parallel.workers.wire import Message
from minillama.parallel.workers.worker_group import WorkerGroup
from minillama.sampling import Sampling
from minillama.sampling.chain_builder import ChainStructure, chain_structure
from minillama.sampling.stages.top_tokens import TopTokens


class RemoteHandle:
    """A value that the workers hold; they drop it when this object is gone."""

    def __init__(self, backend: "RemoteBackend", number: int) -> None:
        self.number = number
        self._backend = backend
        weakref.finalize(self, backend.dropped.append, number)

    def block_until_ready(self) -> "RemoteHandle":
        """Wait until the workers have computed it."""
        self._backend.ask("ready", self.number)
        return self

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        (array,) = self._backend.ask("fetch", self.number)
        return array if dtype is None else array.astype(dtype)


@dataclass(frozen=True)
class CacheShape:
    """The sizes of a cache, as of `Backend.new_cache`."""

    capacity: int
    batch: int
    types: CacheTypes
    chunk: int | None


class RemoteCache(RemoteHandle):
    """A cache of the workers; `is_deleted` once a program has taken over its memory."""

    def __init__(self, backend: "RemoteBackend", number: int, shape: CacheShape) -> None:
        super().__init__(backend, number)
        self.shape, self.capacity, self.batch = shape, shape.capacity, shape.batch
        self.nbytes = cache_bytes(backend.config, shape.capacity, shape.types, shape.batch, shape.chunk)
        self.donated = False

    def is_deleted(self) -> bool:
        """Whether a program has taken it over."""
        return self.donated


class RemoteChain(RemoteHandle):
    """A chain of the workers, with its window of recent tokens and its structure."""

    def __init__(self, backend: "RemoteBackend", number: int, structure: ChainStructure) -> None:
        super().__init__(backend, number)
        self.window, self.structure = structure.window, structure


@dataclass(frozen=True, eq=False)
class RemoteFuture:
    """An array that the first worker sends unasked: one field of a VerifiedDraft."""

    draft: RemoteHandle
    field: int

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        array = self.draft._backend.answer(self.draft.number)[self.field]
        return array if dtype is None else array.astype(dtype)


class DraftShape(NamedTuple):
    """The shape of a VerifiedDraft that the first worker sends."""

    batch: int
    tokens: int
    counted: bool
    top: int  # likeliest tokens in the place of each; 0 where they are not reported

    def fits(self, arrays: Sequence[np.ndarray], vocab_size: int) -> bool:
        """Whether arrays are such a draft: tokens of the vocabulary, log-probabilities, and their number."""
        kinds = [(array.dtype, array.shape) for array in arrays]
        each, count = (self.batch, self.tokens), [(np.int32, (self.batch,))] * self.counted
        several = (*each, self.top)
        top = [(np.int32, several), (np.float32, several), (np.float32, each)] if self.top else []
        if kinds != [(np.int32, each), (np.float32, each), *count, *top]:
            return False
        counts = arrays[2] if self.counted else np.int32(self.tokens)
        ids = [arrays[0], *([arrays[-3]] if self.top else [])]
        is_token = all(np.all((array >= 0) & (array < vocab_size)) for array in ids)
        return bool(is_token and np.all((counts >= 1) & (counts <= self.tokens)))

    def draft(self, handle: RemoteHandle) -> VerifiedDraft:
        """The draft whose arrays the first worker will send."""
        fields = [RemoteFuture(handle, place) for place in range(2 + self.counted + 3 * (self.top > 0))]
        count = fields[2] if self.counted else None
        return VerifiedDraft(*fields[:2], count, TopTokens(*fields[-3:]) if self.top else None)


class RemoteBackend(BackendDefaults):
    """The programs of a model that workers have opened."""

    def __init__(self, group: WorkerGroup, config: Config) -> None:
        self.config = config
        self.group = group
        self.dropped: deque[int] = deque()
        self._numbers = 0
        self._compiling = 0.0  # seconds that the first worker has spent on it
        self._answers: dict[int, tuple[np.ndarray, ...]] = {}
        self._awaited: dict[int, DraftShape | int] = {}  # by the number of the call; int: a number of arrays

    @property
    def devices(self) -> tuple[jax.Device, ...]:
        return ()

    def open(self, ctx_size: int, *, layers: bool, shares: Sequence[float], use_mmap: bool, use_mlock: bool) -> None:
        """Let the workers open the model that they were offered.

        Raises what its loading raises there.
        """
        values = {"ctx_size": ctx_size, "layers": layers, "shares": [float(share) for share in shares]}
        values |= {"use_mmap": use_mmap, "use_mlock": use_mlock}
        self.group.send(Message("open", values))
        message = self.group.receive()
        if message.op != "opened":
            raise FormatError(f"the first worker sent {message.op[:20]!r} where 'opened' is due")

    def call(self, program: Program, *args: Any) -> Any:
        number = self._send(program.name, *args, results=len(program.gives))
        results = tuple(self._result(program, args, kind, number + i) for i, kind in enumerate(program.gives))
        if program.donates:
            for cache in (args[place] for place in program.positions(Kind.CACHE)):
                cache.donated = True
        return results if len(results) > 1 else results[0]

    def chain(self, sampling: Sampling, *, is_shared: bool = False) -> Handle:
        biases = [(token, None if bias == -np.inf else bias) for token, bias in sampling.logit_bias]
        number = self._send("chain", sampling={**asdict(sampling), "logit_bias": biases}, is_shared=is_shared)
        return RemoteChain(self, number, chain_structure(sampling, self.config.vocab_size, is_shared=is_shared))

    def new_cache(self, capacity: int, types: CacheTypes, batch: int = 1, chunk: int | None = None) -> Handle:
        names = [types.keys.value, types.values.value]
        number = self._send("new_cache", capacity=capacity, types=names, batch=batch, chunk=chunk)
        return RemoteCache(self, number, CacheShape(capacity, batch, types, chunk))

    def truncate(self, cache: Handle, length: Int[np.ndarray, "B"]) -> Handle:
        return RemoteCache(self, self._send("truncate", cache, length), cache.shape)

    def checkpoint(self, cache: Handle) -> Handle:
        return RemoteCache(self, self._send("checkpoint", cache), cache.shape)

    def restore(self, cache: Handle, saved: Handle, length: Int[np.ndarray, "B"]) -> Handle:
        return RemoteCache(self, self._send("restore", cache, saved, length), cache.shape)

    def to_host(self, saved: Handle) -> Handle:
        return saved

    def from_host(self, copy: Handle) -> Handle:
        return copy

    def close(self) -> None:
        self.group.close()

    def ask(self, op: str, number: int) -> tuple[np.ndarray, ...]:
        """Let the first worker answer about a value, at once."""
        asked = self._send(op, value=number)
        self._awaited[asked] = 1 if op == "fetch" else 0
        arrays = self.answer(asked)
        del self._answers[asked]  # no handle stands for it whose end would drop it
        return arrays

    def answer(self, number: int) -> tuple[np.ndarray, ...]:
        """The arrays that the first worker sends about a call.

        Kept until its result is dropped.
        """
        while number not in self._answers:
            message = self.group.receive()
            answered, compiling = message.values.get("number"), message.values.get("compiling")
            known = type(answered) is int and self._is_awaited(answered, message.arrays) and _is_seconds(compiling)
            if message.op != "told" or not known:
                raise FormatError(f"the first worker sends {message.op[:20]!r} {answered!r:.20}, which is not expected")
            del self._awaited[answered]
            self._answers[answered] = message.arrays
            count_seconds(compiling - self._compiling)  # so that timings here report it separately
            self._compiling = compiling
        return self._answers[number]

    def _is_awaited(self, number: int, arrays: tuple[np.ndarray, ...]) -> bool:
        """Whether these arrays are the answer to a call."""
        awaited = self._awaited.get(number)
        if isinstance(awaited, DraftShape):
            return awaited.fits(arrays, self.config.vocab_size)
        return awaited == len(arrays)

    def _send(self, op: str, *args: Any, results: int = 1, **values: Any) -> int:
        """Send a call to all workers; the number of the first of its results."""
        gone = [self.dropped.popleft() for _ in range(len(self.dropped))]
        for number in gone:
            self._answers.pop(number, None)
        first = self._numbers
        self._numbers += results
        arrays = tuple(arg for arg in args if isinstance(arg, np.ndarray))
        head = {**values, "args": [_encoded(arg) for arg in args], "number": first, "forget": gone}
        self.group.send(Message(op, head, arrays))
        return first

    def _result(self, program: Program, args: Sequence[Any], kind: Kind, number: int) -> Any:
        if kind in (Kind.CACHE, Kind.SAVED):
            cache = args[program.takes.index(Kind.CACHE)]
            capacity = next((args[place] for place in program.positions(Kind.STATIC)), cache.capacity)
            batch = 1 if kind is Kind.SAVED else len(args[1]) if program is gather_rows else cache.batch
            return RemoteCache(self, number, replace(cache.shape, capacity=capacity, batch=batch))
        if kind is Kind.CHAINS:
            return RemoteChain(self, number, args[program.positions(Kind.CHAIN)[0]].structure)
        if kind is not Kind.DRAFT:
            return RemoteHandle(self, number)
        draft = RemoteHandle(self, number)
        counted = program is generate and args[4] is not None
        batch = args[0].batch if program is generate else len(args[program.positions(Kind.SEEDS, Kind.COUNTS)[0]])
        top = args[program.positions(Kind.CHAIN, Kind.CHAINS)[-1]].structure.top
        shape = DraftShape(batch, args[3].shape[1] if counted else 1, counted, top)
        self._awaited[number] = shape
        return shape.draft(draft)


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _encoded(arg: Any) -> int | str | None:
    """An argument as JSON: a handle's number, a number, or a stand-in for an array."""
    if isinstance(arg, RemoteFuture):
        return arg.draft.number
    if isinstance(arg, RemoteHandle):
        return arg.number
    return ARRAY if isinstance(arg, np.ndarray) else arg
