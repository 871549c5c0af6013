"""The worker's side of `RemoteBackend`: open the leader's model, run its calls.

The table of programs is also the table of calls. It gives the kinds of their arguments, and nothing else can be
called. A value has the number that the leader gave it.
"""

import math
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any

import jax
import numpy as np

from minillama import env
from minillama.engine.backends.base import Backend
from minillama.engine.backends.programs import ARRAY, PROGRAMS, Kind, Program, VerifiedDraft
from minillama.engine.compile.compile_timer import compile_seconds
from minillama.engine.loading.device_sharing import DeviceSharing
from minillama.engine.loading.memory_budget import give_back, lock_weights
from minillama.errors import FormatError
from minillama.gguf.kv_cache_types import read_cache_types
from minillama.model import Cache
from minillama.parallel.workers.model_transfer import receive_model
from minillama.parallel.workers.wire import Connection, Message
from minillama.parallel.workers.worker_process import JoinedGroup
from minillama.sampling import Chain, SamplerState

_POLL_SECONDS = 0.1  # between checks, while waiting for the leader, that the answering thread still works


def follow(joined: JoinedGroup) -> None:
    """Serve one leader: open its model, run its calls."""
    connection = joined.connection
    paths: tuple[Path, ...] = ()
    worker: RemoteWorker | None = None
    while (message := _next_message(connection, worker)).op != "leave":
        if message.op == "model":
            paths = receive_model(connection, message, env.models_dir())
        elif message.op == "open" and paths:
            backend, check_file = _open(paths[0], message.values)
            worker = RemoteWorker(backend, connection if joined.index == 0 else None, check_file)
            if joined.index == 0:
                connection.send(Message("opened"))
        elif worker is not None:
            worker.obey(message)
        else:
            raise FormatError(f"the leader sent {message.op[:20]!r}, but no model is open")


def _next_message(connection: Connection, worker: "RemoteWorker | None") -> Message:
    """The leader's next message.

    Raises the error that has ended the answering thread, if there is one.

    That thread leaves the connection open, so that the worker can send the reason why its process ends.
    """
    while not connection.wait_readable(_POLL_SECONDS):
        if worker is not None:
            worker.check()
    return connection.receive()


def _open(path: Path, values: Mapping[str, object]) -> tuple[Backend, Callable[[], None]]:
    """The backend of this process, and the check of its file.

    The backend is one part of its group's. The check raises ResourceError if the file has changed since.
    """
    from minillama.engine.backends.choose import open_here, place
    from minillama.engine.loading.load_params import config_of
    from minillama.gguf import open_gguf

    ctx_size, shares = values.get("ctx_size"), values.get("shares")
    if type(ctx_size) is not int or not isinstance(shares, list) or {type(share) for share in shares} - {int, float}:
        raise FormatError(f"the leader sent ctx_size {ctx_size!r:.40} and shares {shares!r:.40}")
    file = open_gguf(path, use_mmap=values.get("use_mmap") is True)
    config = config_of(file)
    sharing = DeviceSharing("layer" if values.get("layers") is True else "tensor", shares)
    backend = open_here(sharing, file, config, ctx_size, place(sharing, config.block_count, None))
    if values.get("use_mlock") is True:
        lock_weights(file)
    give_back()
    return backend, file.check_unchanged


class RemoteWorker:
    """The values that a leader has made, by number, and the calls that make them.

    connection: to send answers to the leader; None in all processes but the first. check_file: called when a generation
    begins.
    """

    def __init__(
        self, backend: Backend, connection: Connection | None, check_file: Callable[[], None] = lambda: None
    ) -> None:
        self.backend, self._connection, self.check_file = backend, connection, check_file
        self._values: dict[int, Any] = {}
        self._to_tell: queue.SimpleQueue[tuple[dict[str, Any], tuple[Any, ...], bool]] = queue.SimpleQueue()
        self._problem: Exception | None = None
        self._compiled = self._trimmed = compile_seconds()
        if connection is not None:
            threading.Thread(target=self._tell_all, daemon=True).start()

    def obey(self, message: Message) -> None:
        """Run one call; raises FormatError for an unknown or malformed one."""
        self.check()
        call = CALLS.get(message.op)
        if call is None:
            raise FormatError(f"the leader sent {message.op[:20]!r}, which is no call")
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
        """Raise the error that has ended the answering thread, if there is one."""
        if self._problem is not None:
            raise self._problem

    def store(self, number: int, *values: Any) -> None:
        """Keep the results of a call under consecutive numbers."""
        self._values.update(enumerate(values, number))

    def known(self, number: int) -> Any:
        """The value with a number."""
        return self._values[number]

    def tell(self, number: int, *arrays: Any, content: bool = True) -> None:
        """Send computed arrays to the leader; content=False sends only the message that they are ready.

        Another thread waits for them, so that the next call can start meanwhile.
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
    """The arguments of a message, checked one by one."""

    def __init__(self, message: Message, known: Mapping[int, Any]) -> None:
        self._values, self._known = message.values, known
        self._arrays = list(message.arrays)
        self.number = self.whole("number")
        self.args = self._values.get("args", [])
        if not isinstance(self.args, list):
            raise TypeError(f"args is {self.args!r:.40}")

    def whole(self, name: str) -> int:
        """An integer value."""
        return _whole(self._values[name], name)

    def value(self, name: str) -> Any:
        """Any value; the caller checks it."""
        return self._values[name]

    def of(self, kinds: Sequence[Kind]) -> list[Any]:
        """The positional arguments, which must be of these kinds."""
        if len(self.args) != len(kinds):
            raise TypeError(f"{len(self.args)} arguments, not {len(kinds)}")
        found = [self._argument(kind, arg) for kind, arg in zip(kinds, self.args, strict=True)]
        if self._arrays:
            raise TypeError(f"{len(self._arrays)} arrays too many")
        return found

    def _argument(self, kind: Kind, arg: Any) -> Any:
        if kind is Kind.STATIC:
            return _whole(arg, "a static argument")
        if arg is None and kind is Kind.COUNTS:
            return None
        if arg == ARRAY and kind in ARRAYS:
            return self._array(*ARRAYS[kind])
        value = self._known[_whole(arg, "a handle")]
        if kind is Kind.IDS:
            return _instance(value, VerifiedDraft).tokens
        return _instance(value, HANDLES[kind])

    def _array(self, dtype: type, axes: int) -> np.ndarray:
        array = self._arrays.pop(0)
        if array.dtype != dtype or array.ndim != axes:
            raise TypeError(f"an array {array.dtype}[{array.ndim} axes], not {np.dtype(dtype)}[{axes} axes]")
        return array


ARRAYS = {Kind.IDS: (np.int32, 2), Kind.COUNTS: (np.int32, 1), Kind.WINDOW: (np.int32, 2), Kind.SEEDS: (np.uint32, 1)}
HANDLES: Mapping[Kind, type | UnionType] = {
    Kind.CACHE: Cache,
    Kind.CHAIN: Chain,
    Kind.STATE: SamplerState | None,  # None in the stages of a pipeline that do not sample
    Kind.LOGITS: jax.Array,
    Kind.HIDDEN: jax.Array,
}


def _whole(value: object, name: str) -> int:
    if type(value) is not int:
        raise TypeError(f"{name} is {value!r:.40}")
    return value


def _instance(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"a value of type {type(value).__name__[:40]} where another kind is due")
    return value


def _chain(worker: RemoteWorker, given: _Arguments) -> None:
    from minillama.sampling import Sampling

    given.of(())
    worker.check_file()
    options = dict(given.value("sampling"))
    options["logit_bias"] = [(token, -math.inf if bias is None else bias) for token, bias in options["logit_bias"]]
    worker.store(given.number, worker.backend.chain(Sampling(**options)))


def _new_cache(worker: RemoteWorker, given: _Arguments) -> None:
    given.of(())
    worker.check_file()
    types = read_cache_types(*given.value("types"))
    worker.store(given.number, worker.backend.new_cache(given.whole("capacity"), types, given.whole("batch")))


def _truncate(worker: RemoteWorker, given: _Arguments) -> None:
    worker.store(given.number, worker.backend.truncate(*given.of((Kind.CACHE, Kind.COUNTS))))


def _ready(worker: RemoteWorker, given: _Arguments) -> None:
    worker.tell(given.number, worker.known(given.whole("value")), content=False)


def _fetch(worker: RemoteWorker, given: _Arguments) -> None:
    worker.tell(given.number, worker.known(given.whole("value")))


def _run_program(program: Program) -> Callable[[RemoteWorker, _Arguments], None]:
    def run(worker: RemoteWorker, given: _Arguments) -> None:
        found = worker.backend.call(program, *given.of(program.takes))
        results = found if len(program.gives) > 1 else (found,)
        worker.store(given.number, *results)
        if program.gives[0] is Kind.DRAFT:
            worker.tell(given.number, *(field for field in results[0] if field is not None))

    return run


CALLS: Mapping[str, Callable[[RemoteWorker, _Arguments], None]] = {
    "chain": _chain,
    "new_cache": _new_cache,
    "truncate": _truncate,
    "ready": _ready,
    "fetch": _fetch,
    **{name: _run_program(program) for name, program in PROGRAMS.items()},
}
