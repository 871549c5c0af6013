"""Leader side of a worker group: connects workers, exchanges messages and detects failures.

The leader does not compute and is not a member of the workers' `jax.distributed` group.
"""

import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from minillama.errors import FormatError, MinillamaError, OptionError, ResourceError
from minillama.parallel.workers.addresses import Address
from minillama.parallel.workers.identity import local_identity, parse_identity
from minillama.parallel.workers.rendezvous import ProcessConfig, ReachedWorker, assign_processes
from minillama.parallel.workers.secret import is_loopback, verify_worker
from minillama.parallel.workers.wire import HANGUP_EVENTS, Connection, Message, encode

GATHER_SECONDS = 90.0
LEAVE_SECONDS = 6.0  # for workers to finish; a worker kills its process after half of it
_CONNECT_SECONDS = 10.0  # for a connection, and for each answer of a handshake
_SLOW_SECONDS = 5.0  # until a slow worker is logged
_ROOT_CAUSE_SECONDS = 1.0  # to find out whether the first failure is a consequence of another
_ABORT = -6  # SIGABRT: JAX aborts a process that has lost its coordinator


@dataclass(frozen=True)
class GroupMember:
    """A worker of a group, with its process configuration, JAX devices and platform."""

    reached: ReachedWorker
    place: ProcessConfig
    devices: int
    platform: str


class WorkerGroup:
    """A group of connected workers. As a context manager it ends their processes on exit.

    When a worker is lost, the group fails: pending and later calls raise the same ResourceError, and the other workers
    are released.
    """

    members: tuple[GroupMember, ...] = ()

    def __init__(self, connections: Sequence[Connection]) -> None:
        self.connections = tuple(connections)
        self._endings: dict[int, Message | None] = {}  # final message of each ended worker, None without one
        self._reading = tuple(
            threading.Lock() for _ in self.connections
        )  # reading and storing a final message is one step
        self._failure = ""
        self._failure_known = threading.Event()
        self._closed = False
        threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self) -> "WorkerGroup":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.connections)

    def send(self, message: Message, worker: int | None = None) -> None:
        """Send to one worker, or to all."""
        chosen = self.connections if worker is None else (self.connections[worker],)
        try:
            frame = encode(message)
            for connection in chosen:
                connection.send_frame(frame)
        except ResourceError as error:
            raise self._loss(error) from error

    def receive(self, worker: int = 0, timeout: float | None = None) -> Message:
        """Receive the next message of a worker.

        timeout: seconds; the ResourceError of a timeout does not fail the group.
        """
        connection = self.connections[worker]
        if timeout is not None and not connection.wait_readable(timeout):
            raise ResourceError(f"{connection.name} has not answered within {timeout:g} s")
        try:
            with self._reading[worker]:
                message = connection.receive()
                if message.op == "ended":
                    self._endings[worker] = message
        except ResourceError as error:
            raise self._loss(error) from error
        if message.op == "ended":
            raise self._loss(ResourceError(f"{connection.name} has ended"))
        return message

    def close(self) -> None:
        """End all worker processes and wait for them, up to LEAVE_SECONDS; idempotent."""
        if self._closed:
            return
        self._closed = True
        for connection in self.connections:
            with suppress(MinillamaError, OSError):
                connection.send(Message("leave"))
                connection.socket.shutdown(socket.SHUT_WR)
        until = time.monotonic() + LEAVE_SECONDS
        for connection in self.connections:
            connection.peer_closed(max(0.0, until - time.monotonic()))
            connection.close()

    def _loss(self, error: ResourceError) -> ResourceError:
        """Error of a failed call: names the lost worker, once that is known."""
        if not self._closed:
            self._failure_known.wait(3 * _ROOT_CAUSE_SECONDS)
        return ResourceError(self._failure) if self._failure else error

    def _watch(self) -> None:
        """Wait for the first failure, find its root cause, and fail the group."""
        poll = select.poll()
        numbers = {connection.socket.fileno(): number for number, connection in enumerate(self.connections)}
        for handle in numbers:
            poll.register(handle, HANGUP_EVENTS)
        events, until = poll.poll(), time.monotonic() + _ROOT_CAUSE_SECONDS
        while not self._closed:
            for handle, _ in events:
                poll.unregister(handle)
                number = numbers.pop(handle)
                with self._reading[number]:
                    self._endings[number] = self._endings.get(number) or self._final_message(number)
            ranks = {number: _root_cause_rank(message) for number, message in self._endings.copy().items()}
            first = min(ranks, key=ranks.__getitem__)
            if ranks[first] == 0 or not numbers or time.monotonic() > until:
                self._failure = self._failure_message(first)
                self._failure_known.set()
                for connection in self.connections:  # wakes waiting threads and releases the other workers
                    with suppress(OSError):
                        connection.socket.shutdown(socket.SHUT_RDWR)
                return
            events = poll.poll(100)

    def _final_message(self, number: int) -> Message | None:
        with suppress(MinillamaError):
            while True:
                message = self.connections[number].receive(0.0)
                if message.op == "ended":
                    return message
        return None

    def _failure_message(self, number: int) -> str:
        message, name = self._endings[number], self.connections[number].name
        if message is None:
            return f"{name} is lost: its connection has ended; the other workers are released"
        reason = f"{message.values.get('reason')!s:.300}"
        return f"{name} has failed: {reason}" + ("; the other workers are released" if len(self) > 1 else "")


def connect_workers(
    addresses: Sequence[Address],
    secret: bytes | None,
    *,
    log: Callable[[str], None],
    threads: int = 0,
    platform: str = "",
    timeout: float = GATHER_SECONDS,
) -> WorkerGroup:
    """Connect to workers and form a group; return when all have joined it.

    threads, platform: defaults for workers that set none; with 0 threads the workers of a machine share its cores
    evenly.
    timeout: seconds in total. log: prints a line about a slow worker.
    Raises OptionError for a worker on another machine without a secret, ResourceError naming a worker that is
    unreachable, busy, of another version, or without the secret.
    """
    until = time.monotonic() + timeout
    connected: list[tuple[Connection, ReachedWorker]] = []
    with ThreadPoolExecutor(len(addresses)) as pool:
        errors = []
        for future in [pool.submit(_connect, address, secret) for address in addresses]:
            try:
                connected.append(future.result())
            except MinillamaError as error:
                errors.append(error)
    try:
        if errors:
            raise errors[0]
        reached = [worker for _, worker in connected]
        places = assign_processes(reached, local_identity(), threads=threads, platform=platform)
    except MinillamaError:
        for connection, _ in connected:
            connection.close()
        raise
    group = WorkerGroup([connection for connection, _ in connected])
    try:
        for number, place in enumerate(places):
            group.send(place.message(), number)
        group.members = tuple(
            _wait_until_joined(group, number, GroupMember(worker, place, 0, ""), until, timeout, log)
            for number, (worker, place) in enumerate(zip(reached, places, strict=True))
        )
    except BaseException:
        group.close()
        raise
    return group


def _wait_until_joined(
    group: WorkerGroup, number: int, member: GroupMember, until: float, timeout: float, log: Callable[[str], None]
) -> GroupMember:
    """Wait until a worker has joined the group; return it as a member."""
    connection = group.connections[number]
    if not connection.wait_readable(min(_SLOW_SECONDS, max(0.0, until - time.monotonic()))):
        log(f"waiting for {connection.name} to start")
        if not connection.wait_readable(max(0.0, until - time.monotonic())):
            raise ResourceError(f"{connection.name} has not joined within {timeout:g} s; see its output there")
    message = group.receive(number)
    devices = message.values.get("devices")
    if message.op != "joined" or type(devices) is not int:
        raise FormatError(f"{connection.name} has sent {message.op[:20]!r}, expected 'joined'")
    return GroupMember(member.reached, member.place, devices, str(message.values.get("platform"))[:20])


def _connect(address: Address, secret: bytes | None) -> tuple[Connection, ReachedWorker]:
    """Connect to a worker, authenticate mutually and exchange identities."""
    try:
        opened = socket.create_connection((address.host, address.port), timeout=_CONNECT_SECONDS)
    except (OSError, UnicodeError) as error:
        reason = f"no answer within {_CONNECT_SECONDS:g} s" if isinstance(error, TimeoutError) else _error_text(error)
        raise ResourceError(
            f"worker {address} cannot be reached: {reason}; is `minillama worker` running there?"
        ) from error
    connection = Connection(opened, f"worker {address}")
    try:
        peer, local = opened.getpeername()[0], opened.getsockname()[0]
        if secret is None and not is_loopback(peer):
            raise OptionError(
                f"worker {address} is on another machine, which requires a secret; give the worker and this command "
                "the same one with --token-file or MINILLAMA_TOKEN"
            )
        verify_worker(connection, secret, _CONNECT_SECONDS, loopback=is_loopback(peer))
        connection.send(local_identity().message())
        answer = connection.receive(_CONNECT_SECONDS, head_limit=4096, arrays_limit=0)
        if answer.op == "refused":
            raise ResourceError(f"{connection.name}: {answer.values.get('reason')!s:.300}")
        return connection, ReachedWorker(address, parse_identity(answer, connection.name), peer, local)
    except BaseException:
        connection.close()
        raise


def _root_cause_rank(message: Message | None) -> int:
    """Rank a final message: the lower, the more likely this worker failed first.

    Order: killed by a signal, lost connection, its own error, another exit status, aborted by JAX.
    """
    if message is None:
        return 1
    status = message.values.get("status")
    if type(status) is not int:
        return 2
    return 4 if status == _ABORT else 0 if status < 0 else 2 if status == 2 else 3


def _error_text(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
