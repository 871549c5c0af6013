"""Leader side of a worker group: connect workers and let them form a group.

The leader does not compute and is not a member of the workers' `jax.distributed` group.
"""

import socket
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from minillama.errors import FormatError, MinillamaError, OptionError, ResourceError
from minillama.parallel.workers.addresses import Address
from minillama.parallel.workers.identity import local_identity, parse_identity
from minillama.parallel.workers.rendezvous import ReachedWorker, assign_processes
from minillama.parallel.workers.secret import is_loopback, verify_worker
from minillama.parallel.workers.wire import Connection, close_after
from minillama.parallel.workers.worker_group import GroupMember, WorkerGroup
from minillama.printable_text import printable_line

GATHER_SECONDS = 90.0
_CONNECT_SECONDS = 10.0  # for a connection, and for each answer of a handshake
_HANDSHAKE_SECONDS = 30.0  # in total
_SLOW_SECONDS = 5.0  # until a slow worker is logged


def connect_workers(
    addresses: Sequence[Address],
    secret: bytes | None,
    *,
    log: Callable[[str], None],
    threads: int = 0,
    platform: str = "",
    timeout: float = GATHER_SECONDS,
    silence: float = 0.0,
) -> WorkerGroup:
    """Connect to workers and form a group; return when all have joined it.

    secret: None for this user's own, which only workers of this user on loopback have.
    threads, platform: defaults for workers that set none; with 0 threads the workers of a machine share its cores
    evenly.
    timeout: seconds in total. silence: seconds without a sign of life until a worker is lost; 0 for no limit.
    log: prints a line about a slow worker.
    Raises OptionError for a worker on another machine without a secret, ResourceError naming a worker that is
    unreachable, busy, of another version, or without the secret.
    """
    until = time.monotonic() + timeout
    connected = _connect_all(addresses, secret)
    try:
        reached = [worker for _, worker in connected]
        places = assign_processes(reached, local_identity(), threads=threads, platform=platform, silence=silence)
    except MinillamaError:
        for connection, _ in connected:
            connection.close()
        raise
    group = WorkerGroup([connection for connection, _ in connected], silence)
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


Connected = tuple[Connection, ReachedWorker]


def _connect_all(addresses: Sequence[Address], secret: bytes | None) -> list[Connected]:
    """Connect to all workers at once, in threads that an interrupt does not wait for."""
    results: SimpleQueue[tuple[int, Connected | Exception]] = SimpleQueue()
    is_abandoned = threading.Event()

    def connect(number: int, address: Address) -> None:
        try:
            found = _connect(address, secret)
        except Exception as error:
            results.put((number, error))
            return
        results.put((number, found))
        if is_abandoned.is_set():
            found[0].close()

    for number, address in enumerate(addresses):
        threading.Thread(target=connect, args=(number, address), daemon=True).start()
    found: dict[int, Connected | Exception] = {}
    try:
        while len(found) < len(addresses):
            number, result = results.get()
            found[number] = result
        for number in range(len(addresses)):
            if isinstance(error := found[number], Exception):
                raise error
    except BaseException:
        is_abandoned.set()
        while not results.empty():
            number, result = results.get()
            found[number] = result
        for result in found.values():
            if not isinstance(result, Exception):
                result[0].close()
        raise
    return [result for _, result in sorted(found.items()) if not isinstance(result, Exception)]


def _wait_until_joined(
    group: WorkerGroup, number: int, member: GroupMember, until: float, timeout: float, log: Callable[[str], None]
) -> GroupMember:
    """Wait until a worker has joined the group; return it as a member."""
    name = group.connections[number].name
    message = group.next_message(number, min(_SLOW_SECONDS, max(0.0, until - time.monotonic())))
    if message is None:
        log(f"waiting for {name} to start")
        message = group.next_message(number, max(0.0, until - time.monotonic()))
    if message is None:
        raise ResourceError(f"{name} has not joined within {timeout:g} s; see its output there")
    devices = message.values.get("devices")
    if message.op != "joined" or type(devices) is not int or devices < 1:
        raise FormatError(f"{name} has sent {message.op[:20]!r}, expected 'joined'")
    return GroupMember(member.reached, member.place, devices, printable_line(str(message.values.get("platform")), 20))


def _connect(address: Address, secret: bytes | None) -> Connected:
    """Connect to a worker, authenticate mutually and exchange identities."""
    try:
        opened = socket.create_connection((address.host, address.port), timeout=_CONNECT_SECONDS)
    except (OSError, UnicodeError) as error:
        reason = f"no answer within {_CONNECT_SECONDS:g} s" if isinstance(error, TimeoutError) else _error_text(error)
        raise ResourceError(
            f"worker {address} cannot be reached: {reason}; is `minillama worker` running there?"
        ) from error
    connection = Connection(opened, f"worker {address}")
    with close_after(connection, _HANDSHAKE_SECONDS):
        try:
            return connection, _handshake(connection, address, secret)
        except BaseException:
            connection.close()
            raise


def _handshake(connection: Connection, address: Address, secret: bytes | None) -> ReachedWorker:
    peer, local = connection.socket.getpeername()[0], connection.socket.getsockname()[0]
    if secret is None and not is_loopback(peer):
        raise OptionError(
            f"worker {address} is on another machine, which requires a secret; give the worker and this command "
            "the same one with --token-file or MINILLAMA_TOKEN"
        )
    verify_worker(connection, secret, _CONNECT_SECONDS, loopback=is_loopback(peer))
    connection.send(local_identity().message())
    answer = connection.receive(_CONNECT_SECONDS, head_limit=4096, arrays_limit=0)
    if answer.op == "refused":
        raise ResourceError(f"{connection.name}: {printable_line(str(answer.values.get('reason')), 300)}")
    return ReachedWorker(address, parse_identity(answer, connection.name), peer, local)


def _error_text(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
