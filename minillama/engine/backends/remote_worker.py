"""A worker's process, once it has joined its group: it opens the model, and computes what the leader calls for.

The calls are those of `Executor` and no others; values are known by the numbers that the leader gave them
(`engine.remote`).
"""

import math
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from minillama import env
from minillama.engine.compile.compile_timer import compile_seconds
from minillama.engine.loading.device_sharing import Sharing
from minillama.engine.loading.memory_budget import give_back, lock_weights
from minillama.errors import FormatError
from minillama.parallel.workers.model_transfer import receive_model
from minillama.parallel.workers.wire import Connection, Message
from minillama.parallel.workers.worker_process import JoinedGroup

_LOOK_SECONDS = 0.1  # how often a process that waits for the leader looks whether answering has failed


def follow(joined: JoinedGroup) -> None:
    """Open what the leader offers, and do what it says."""
    connection = joined.connection
    paths: tuple[Path, ...] = ()
    follower: Follower | None = None
    while (message := _next_message(connection, follower)).op != "leave":
        if message.op == "model":
            paths = receive_model(connection, message, env.models_dir())
        elif message.op == "open" and paths:
            follower = Follower(_open(paths[0], message.values), connection if joined.index == 0 else None)
            if joined.index == 0:
                connection.send(Message("opened"))
        elif follower is not None:
            follower.obey(message)
        else:
            raise FormatError(f"the leader says {message.op[:20]!r}, but no model is open")


def _next_message(connection: Connection, follower: "Follower | None") -> Message:
    """What the leader says next; raises what has failed meanwhile in the thread that answers it.

    That thread does not end the connection, through which the worker is to say why its process has ended.
    """
    while not connection.wait_readable(_LOOK_SECONDS):
        if follower is not None:
            follower.check()
    return connection.receive()


def _open(path: Path, values: Mapping[str, object]) -> Any:
    """The executor of this process: one part of what all processes of the group compute together."""
    from minillama.engine.backends.choose import open_here, place
    from minillama.gguf import open_gguf
    from minillama.model import read_config

    ctx_size, shares = values.get("ctx_size"), values.get("shares")
    if type(ctx_size) is not int or not isinstance(shares, list) or {type(share) for share in shares} - {int, float}:
        raise FormatError(f"the leader says {ctx_size!r:.40} of ctx_size, {shares!r:.40} of shares")
    file = open_gguf(path, use_mmap=values.get("use_mmap") is True)
    config = read_config(file.metadata, vocab_size=file.tensors["token_embd.weight"].shape[0])
    sharing = Sharing("layer" if values.get("layers") is True else "tensor", shares)
    executor = open_here(sharing, file, config, ctx_size, place(sharing, config.block_count, None))
    if values.get("use_mlock") is True:
        lock_weights(file)
    give_back()
    return executor


class Follower:
    """The values that a leader has made, by number, and the calls that make them.

    connection: where to send what the leader asks for; None in all processes but the first.
    """

    def __init__(self, executor: Any, connection: Connection | None) -> None:
        self._executor, self._connection = executor, connection
        self._values: dict[int, Any] = {}
        self._to_tell: queue.SimpleQueue[tuple[dict[str, Any], tuple[Any, ...], bool]] = queue.SimpleQueue()
        self._problem: Exception | None = None
        self._compiled = self._trimmed = compile_seconds()
        if connection is not None:
            threading.Thread(target=self._tell_all, daemon=True).start()

    def obey(self, message: Message) -> None:
        """Compute one call; raises FormatError for what is none."""
        self.check()
        call = _CALLS.get(message.op)
        if call is None:
            raise FormatError(f"the leader says {message.op[:20]!r}, which is no call")
        try:
            call(self, _Arguments(message, self._values))
            for number in message.values.get("forget", ()):
                self._values.pop(number, None)
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise FormatError(f"the leader's {message.op} cannot be understood: {error!r:.80}") from error
        if compile_seconds() > self._trimmed:
            self._trimmed = compile_seconds()
            give_back()

    def check(self) -> None:
        """Raise what has kept the leader from being told."""
        if self._problem is not None:
            raise self._problem

    def keep(self, number: int, *values: Any) -> None:
        """Remember what a call gives, under consecutive numbers."""
        self._values.update(enumerate(values, number))

    def tell(self, number: int, *arrays: Any, content: bool = True) -> None:
        """Let the leader have some arrays, or only know that they have been computed, once they have been.

        In a thread of its own: the next call may start meanwhile.
        """
        if self._connection is not None:
            values = {"number": number, "compiling": compile_seconds() - self._compiled}
            self._to_tell.put((values, arrays, content))

    def _tell_all(self) -> None:
        assert self._connection is not None
        try:
            while True:
                values, arrays, content = self._to_tell.get()
                jax.block_until_ready(arrays)
                found = tuple(np.asarray(array) for array in arrays) if content else ()
                self._connection.send(Message("told", values, found))
        except Exception as problem:
            self._problem = problem


class _Arguments:
    """What a message says, checked as it is asked for."""

    def __init__(self, message: Message, known: Mapping[int, Any]) -> None:
        self._values, self._known = message.values, known
        self.arrays = message.arrays
        self.number = self.whole("number")

    def whole(self, name: str) -> int:
        value = self._values[name]
        if type(value) is not int:
            raise TypeError(f"{name} is {value!r:.40}")
        return value

    def known(self, name: str) -> Any:
        return self._known[self.whole(name)]

    def has(self, name: str) -> bool:
        return name in self._values

    def ids(self) -> np.ndarray:
        (array,) = self.arrays
        if array.dtype != np.int32:
            raise TypeError(f"ids of type {array.dtype}")
        return array

    def value(self, name: str) -> Any:
        return self._values[name]


def _chain(self: Follower, given: _Arguments) -> None:
    from minillama.sampling import Sampling

    options = dict(given.value("sampling"))
    options["logit_bias"] = [(token, -math.inf if bias is None else bias) for token, bias in options["logit_bias"]]
    self.keep(given.number, self._executor.chain(Sampling(**options)))


def _new_cache(self: Follower, given: _Arguments) -> None:
    from minillama.gguf.kv_cache_types import read_cache_types

    types = read_cache_types(*given.value("types"))
    self.keep(given.number, self._executor.new_cache(given.whole("capacity"), types, given.whole("batch")))


def _enlarge(self: Follower, given: _Arguments) -> None:
    self.keep(given.number, self._executor.enlarge(given.known("cache"), given.whole("capacity")))


def _set_length(self: Follower, given: _Arguments) -> None:
    self.keep(given.number, self._executor.set_length(given.known("cache"), given.ids()))


def _take(self: Follower, given: _Arguments) -> None:
    self.keep(given.number, self._executor.take(given.known("cache"), given.ids()))


def _read(self: Follower, given: _Arguments) -> None:
    self.keep(given.number, *self._executor.read(given.ids(), given.whole("valid"), given.known("cache")))


def _read_all(self: Follower, given: _Arguments) -> None:
    self.keep(given.number, *self._executor.read_all(given.ids(), given.known("cache")))


def _run(self: Follower, given: _Arguments) -> None:
    self.keep(given.number, *self._executor.run(given.ids(), given.known("cache")))


def _score(self: Follower, given: _Arguments) -> None:
    self.keep(given.number, self._executor.score(given.known("hidden"), given.ids(), given.whole("first")))


def _decode(self: Follower, given: _Arguments) -> None:
    self.keep(given.number, *self._executor.decode(given.ids(), given.known("cache")))


def _begin(self: Follower, given: _Arguments) -> None:
    choice, state = self._executor.begin(
        given.known("chain"), given.whole("seed"), given.ids(), given.whole("count"), given.known("logits")
    )
    self.keep(given.number, choice, state)
    self.tell(given.number, *choice)


def _step(self: Follower, given: _Arguments) -> None:
    token = given.known("chosen").token if given.has("chosen") else given.whole("token")
    results = self._executor.step(given.known("chain"), given.known("state"), token, given.known("cache"))
    self.keep(given.number, *results)
    self.tell(given.number, *results[0])


def _verify(self: Follower, given: _Arguments) -> None:
    results = self._executor.verify(
        given.known("chain"), given.known("state"), given.ids(), given.whole("drafted"), given.known("cache")
    )
    self.keep(given.number, *results)
    self.tell(given.number, *results[0])


def _ready(self: Follower, given: _Arguments) -> None:
    self.tell(given.number, given.known("value"), content=False)


def _fetch(self: Follower, given: _Arguments) -> None:
    self.tell(given.number, given.known("value"))


_CALLS: Mapping[str, Callable[[Follower, _Arguments], None]] = {
    "chain": _chain,
    "new_cache": _new_cache,
    "enlarge": _enlarge,
    "set_length": _set_length,
    "take": _take,
    "read": _read,
    "read_all": _read_all,
    "run": _run,
    "score": _score,
    "decode": _decode,
    "begin": _begin,
    "step": _step,
    "verify": _verify,
    "ready": _ready,
    "fetch": _fetch,
}
