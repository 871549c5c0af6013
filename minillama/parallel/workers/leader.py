"""The leader: gathers workers into a group, speaks to all of them, and notices at once when one is lost.

It does not compute and is no process of the `jax.distributed` group that the workers form.
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
from minillama.parallel.group.rendezvous import ProcessConfig, ReachedWorker, assign_processes
from minillama.parallel.workers.addresses import Address
from minillama.parallel.workers.identity import local_identity, parse_identity
from minillama.parallel.workers.secret import is_loopback, verify_worker
from minillama.parallel.workers.wire import HANGUP_EVENTS, Connection, Message, encode

GATHER_SECONDS = 90.0
LEAVE_SECONDS = 6.0  # that workers have to end what they do; a worker ends its process itself after half of it
_CALL_SECONDS = 10.0  # to reach a worker, and for each answer of its handshake
_SLOW_SECONDS = 5.0  # after which a person is told who is awaited
_BLAME_SECONDS = 1.0  # to see whether the first that failed only failed because of another
_ABORT = -6  # how JAX ends a process that has lost its coordinator


@dataclass(frozen=True)
class GroupMember:
    """One worker of a group and the place of its process; devices and platform as JAX has them there."""

    reached: ReachedWorker
    place: ProcessConfig
    devices: int
    platform: str


class WorkerGroup:
    """Workers that follow. A context manager: leaving it lets their processes end.

    Once a worker is lost the group is over: whoever waits, and every later call, gets the same ResourceError, and the
    other workers are let go.
    """

    members: tuple[GroupMember, ...] = ()

    def __init__(self, connections: Sequence[Connection]) -> None:
        self.connections = tuple(connections)
        self._endings: dict[int, Message | None] = {}  # a worker's last words, None if it had none
        self._reading = tuple(threading.Lock() for _ in self.connections)  # so that last words are read and kept as one
        self._failure = ""
        self._judged = threading.Event()
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
        """The next message of a worker.

        timeout: seconds; the ResourceError after it leaves the group as it is.
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
        """Let all processes end, and wait for it, some seconds at most; does nothing the second time."""
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
        """What to say of a failed call: which worker was lost, once that is known."""
        if not self._closed:
            self._judged.wait(3 * _BLAME_SECONDS)
        return ResourceError(self._failure) if self._failure else error

    def _watch(self) -> None:
        """Wait for the first worker to end, find out which one began, and end the group."""
        poll = select.poll()
        numbers = {connection.socket.fileno(): number for number, connection in enumerate(self.connections)}
        for handle in numbers:
            poll.register(handle, HANGUP_EVENTS)
        events, until = poll.poll(), time.monotonic() + _BLAME_SECONDS
        while not self._closed:
            for handle, _ in events:
                poll.unregister(handle)
                number = numbers.pop(handle)
                with self._reading[number]:
                    self._endings[number] = self._endings.get(number) or self._last_words(number)
            guilt = {number: _guilt(message) for number, message in self._endings.copy().items()}
            first = min(guilt, key=guilt.__getitem__)
            if guilt[first] == 0 or not numbers or time.monotonic() > until:
                self._failure = self._verdict(first)
                self._judged.set()
                for connection in self.connections:  # wakes whoever waits, and lets the other workers end
                    with suppress(OSError):
                        connection.socket.shutdown(socket.SHUT_RDWR)
                return
            events = poll.poll(100)

    def _last_words(self, number: int) -> Message | None:
        with suppress(MinillamaError):
            while True:
                message = self.connections[number].receive(0.0)
                if message.op == "ended":
                    return message
        return None

    def _verdict(self, number: int) -> str:
        message, name = self._endings[number], self.connections[number].name
        if message is None:
            return f"{name} is lost: its connection has ended; the other workers are let go"
        reason = f"{message.values.get('reason')!s:.300}"
        return f"{name} has failed: {reason}" + ("; the other workers are let go" if len(self) > 1 else "")


def connect_workers(
    addresses: Sequence[Address],
    secret: bytes | None,
    *,
    log: Callable[[str], None],
    threads: int = 0,
    platform: str = "",
    timeout: float = GATHER_SECONDS,
) -> WorkerGroup:
    """Make a group of workers, all of which have started JAX and found each other when it returns.

    threads, platform: for workers that were started without; 0 shares a machine's cores out evenly.
    timeout: seconds for the whole. log: told about a worker that is slow.
    Raises OptionError for a worker elsewhere without a secret, ResourceError naming the worker that is not there, of
    another version, busy, or does not know the secret.
    """
    until = time.monotonic() + timeout
    calls: list[tuple[Connection, ReachedWorker]] = []
    with ThreadPoolExecutor(len(addresses)) as pool:
        errors = []
        for future in [pool.submit(_call, address, secret) for address in addresses]:
            try:
                calls.append(future.result())
            except MinillamaError as error:
                errors.append(error)
    try:
        if errors:
            raise errors[0]
        reached = [worker for _, worker in calls]
        places = assign_processes(reached, local_identity(), threads=threads, platform=platform)
    except MinillamaError:
        for connection, _ in calls:
            connection.close()
        raise
    group = WorkerGroup([connection for connection, _ in calls])
    try:
        for number, place in enumerate(places):
            group.send(place.message(), number)
        group.members = tuple(
            _await(group, number, GroupMember(worker, place, 0, ""), until, timeout, log)
            for number, (worker, place) in enumerate(zip(reached, places, strict=True))
        )
    except BaseException:
        group.close()
        raise
    return group


def _await(
    group: WorkerGroup, number: int, member: GroupMember, until: float, timeout: float, log: Callable[[str], None]
) -> GroupMember:
    """The member, once it has joined."""
    connection = group.connections[number]
    if not connection.wait_readable(min(_SLOW_SECONDS, max(0.0, until - time.monotonic()))):
        log(f"waiting for {connection.name} to start")
        if not connection.wait_readable(max(0.0, until - time.monotonic())):
            raise ResourceError(f"{connection.name} has not joined within {timeout:g} s; see what it says there")
    message = group.receive(number)
    devices = message.values.get("devices")
    if message.op != "joined" or type(devices) is not int:
        raise FormatError(f"{connection.name} says {message.op[:20]!r} where 'joined' is due")
    return GroupMember(member.reached, member.place, devices, str(message.values.get("platform"))[:20])


def _call(address: Address, secret: bytes | None) -> tuple[Connection, ReachedWorker]:
    """Reach a worker and make sure of each other."""
    try:
        opened = socket.create_connection((address.host, address.port), timeout=_CALL_SECONDS)
    except (OSError, UnicodeError) as error:
        reason = f"no answer within {_CALL_SECONDS:g} s" if isinstance(error, TimeoutError) else _words(error)
        raise ResourceError(
            f"worker {address} cannot be reached: {reason}; is `minillama worker` running there?"
        ) from error
    connection = Connection(opened, f"worker {address}")
    try:
        peer, local = opened.getpeername()[0], opened.getsockname()[0]
        if secret is None and not is_loopback(peer):
            raise OptionError(
                f"worker {address} is on another machine, which needs a secret; give the worker and this command the "
                "same one with --token-file or MINILLAMA_TOKEN"
            )
        verify_worker(connection, secret, _CALL_SECONDS, loopback=is_loopback(peer))
        connection.send(local_identity().message())
        answer = connection.receive(_CALL_SECONDS, head_limit=4096, arrays_limit=0)
        if answer.op == "refused":
            raise ResourceError(f"{connection.name}: {answer.values.get('reason')!s:.300}")
        return connection, ReachedWorker(address, parse_identity(answer, connection.name), peer, local)
    except BaseException:
        connection.close()
        raise


def _guilt(message: Message | None) -> int:
    """Lower where last words are more likely those of the first to fail: killed, vanished, an own error, JAX's."""
    if message is None:
        return 1
    status = message.values.get("status")
    if type(status) is not int:
        return 2
    return 4 if status == _ABORT else 0 if status < 0 else 2 if status == 2 else 3


def _words(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
