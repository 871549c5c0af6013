"""The worker's side of `RemoteBackend`: open the leader's model, run its calls.

The table of programs is also the table of calls. It gives the kinds of their arguments, and nothing else can be
called. A value has the number that the leader gave it.
"""

import math
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from minillama import env
from minillama.engine.backends.base import Backend
from minillama.engine.backends.programs.program import Kind, Program
from minillama.engine.backends.programs.program_table import ALL_PROGRAMS
from minillama.engine.backends.remote_calls.remote_arguments import Arguments, instance
from minillama.engine.backends.remote_calls.remote_checks import (
    CHECKS,
    MOST_POSITIONS,
    HeldCache,
    check_new_cache,
    check_restore,
    check_shares,
    check_truncate,
    in_range,
)
from minillama.engine.backends.remote_calls.slot_checks import SLOT_CHECKS
from minillama.engine.compile.compile_timer import compile_seconds
from minillama.engine.loading.device_sharing import DeviceSharing
from minillama.engine.loading.memory_budget import give_back, lock_weights
from minillama.errors import FormatError
from minillama.gguf.kv_cache_types import read_cache_types
from minillama.parallel.workers.model_transfer import receive_model
from minillama.parallel.workers.wire import Connection, Message
from minillama.parallel.workers.worker_process import JoinedGroup

ALL_CHECKS = {**CHECKS, **SLOT_CHECKS}
CACHES = (Kind.CACHE, Kind.SAVED)
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
    while (message := connection.next_message(_POLL_SECONDS)) is None:
        if worker is not None:
            worker.check()
    return message


def _open(path: Path, values: Mapping[str, object]) -> tuple[Backend, Callable[[], None]]:
    """The backend of this process, and the check of its file.

    The backend is one part of its group's. The check raises ResourceError if the file has changed since.
    """
    from minillama.engine.backends.choose import open_here, place
    from minillama.engine.loading.load_params import config_of
    from minillama.gguf import open_gguf

    try:
        ctx_size = in_range(values.get("ctx_size"), "ctx_size", 1, MOST_POSITIONS)
        shares = check_shares(values.get("shares"))
    except ValueError as error:
        raise FormatError(f"the leader's open cannot be understood: {error}") from error
    file = open_gguf(path, use_mmap=values.get("use_mmap") is True)
    config = config_of(file)
    sharing = DeviceSharing("layer" if values.get("layers") is True else "tensor", shares)
    backend = open_here(sharing, file, config, ctx_size, place(sharing, config, None))
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
        self._values: dict[int, Any] = {}  # caches as HeldCache
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
            call(self, Arguments(message, self._values))
            for number in message.values.get("forget", ()):
                self.drop(number)
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise FormatError(f"the leader's {message.op} cannot be understood: {error!r:.100}") from error
        if compile_seconds() > self._trimmed:
            self._trimmed = compile_seconds()
            give_back()

    def check(self) -> None:
        """Raise the error that has ended the answering thread, if there is one."""
        if self._problem is not None:
            raise self._problem

    def store(self, number: int, value: Any) -> None:
        """Keep a result of a call."""
        self._values[number] = value

    def known(self, number: int) -> Any:
        """The value with a number."""
        return self._values[number]

    def drop(self, number: int) -> None:
        """Forget a value, if it is there."""
        self._values.pop(number, None)

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


def _chain(worker: RemoteWorker, given: Arguments) -> None:
    from minillama.sampling import Sampling

    given.of(())
    worker.check_file()
    options = dict(given.value("sampling"))
    options["logit_bias"] = [(token, -math.inf if bias is None else bias) for token, bias in options["logit_bias"]]
    is_shared = given.optional("is_shared") is True
    worker.store(given.number, worker.backend.chain(Sampling(**options), is_shared=is_shared))


def _new_cache(worker: RemoteWorker, given: Arguments) -> None:
    given.of(())
    worker.check_file()
    types = read_cache_types(*given.value("types"))
    config = worker.backend.config
    chunk = given.optional("chunk")
    capacity, batch = check_new_cache(config, given.value("capacity"), types, given.value("batch"), chunk)
    cache = worker.backend.new_cache(capacity, types, batch, chunk)
    worker.store(given.number, HeldCache(cache, types, np.zeros(batch, np.int32), chunk))


def _truncate(worker: RemoteWorker, given: Arguments) -> None:
    held, length = given.of((Kind.CACHE, Kind.COUNTS))
    lengths = check_truncate(held, length)
    worker.store(given.number, replace(held, cache=worker.backend.truncate(held.cache, length), lengths=lengths))


def _checkpoint(worker: RemoteWorker, given: Arguments) -> None:
    (held,) = given.of((Kind.CACHE,))
    worker.store(given.number, replace(held, cache=worker.backend.checkpoint(held.cache)))


def _restore(worker: RemoteWorker, given: Arguments) -> None:
    held, saved, length = given.of((Kind.CACHE, Kind.CACHE, Kind.COUNTS))
    lengths = check_restore(held, saved, length)
    cache = worker.backend.restore(held.cache, saved.cache, length)
    worker.store(given.number, replace(held, cache=cache, lengths=lengths))


def _ready(worker: RemoteWorker, given: Arguments) -> None:
    value = worker.known(given.whole("value"))
    worker.tell(given.number, value.cache if isinstance(value, HeldCache) else value, content=False)


def _fetch(worker: RemoteWorker, given: Arguments) -> None:
    array = instance(worker.known(given.whole("value")), jax.Array)
    if not (array.is_fully_addressable or array.is_fully_replicated):
        raise TypeError("a value that several workers share")
    worker.tell(given.number, array)


def _run_program(program: Program) -> Callable[[RemoteWorker, Arguments], None]:
    def run(worker: RemoteWorker, given: Arguments) -> None:
        args = given.of(program.takes)
        lengths = ALL_CHECKS[program.name](worker.backend.config, *args)
        held = next((arg for arg in args if isinstance(arg, HeldCache)), None)
        found = worker.backend.call(program, *(arg.cache if isinstance(arg, HeldCache) else arg for arg in args))
        for place in program.donated:
            worker.drop(given.args[place])
        results = found if len(program.gives) > 1 else (found,)
        for number, (kind, result) in enumerate(zip(program.gives, results, strict=True), given.number):
            worker.store(number, replace(held, cache=result, lengths=lengths) if kind in CACHES else result)
        if program.gives[0] is Kind.DRAFT:
            worker.tell(given.number, *jax.tree.leaves(results[0]))

    return run


CALLS: Mapping[str, Callable[[RemoteWorker, Arguments], None]] = {
    "chain": _chain,
    "new_cache": _new_cache,
    "truncate": _truncate,
    "checkpoint": _checkpoint,
    "restore": _restore,
    "ready": _ready,
    "fetch": _fetch,
    **{name: _run_program(program) for name, program in ALL_PROGRAMS.items()},
}
