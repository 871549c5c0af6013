"""Start of a worker process: CPU cores, process group and JAX."""

import ctypes
import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from typing import TypeVar

from minillama import env
from minillama.errors import FormatError, ResourceError, first_line
from minillama.parallel.group.gloo import start_gloo
from minillama.parallel.group.group_compile_cache import cache_compilations_of_every_process
from minillama.parallel.workers.addresses import MAX_WORKERS
from minillama.parallel.workers.heartbeat import LEADER_PATIENCE, MOST_SILENCE, send_signs_of_life
from minillama.parallel.workers.wire import Connection, Message

JOIN_SECONDS = 60  # until all processes of a group have joined
_PATIENCE_SECONDS = 60  # until JAX reports a silent peer as lost, after the leader would have named it
_NO_LIMIT_SECONDS = 24 * 3600
SHUTDOWN_SECONDS = 3
PLATFORMS = ("", "cpu", "cuda", "tpu")
_MOST_CORES = 1 << 16

_PR_SET_PDEATHSIG = 1
_T = TypeVar("_T", int, str)


@dataclass(frozen=True)
class JoinedGroup:
    """Membership of this process in a group.

    connection: to the leader. index: number of this process; 0 hosts the coordinator. count: processes in the group.
    """

    connection: Connection
    index: int
    count: int


def join_group(fd: int) -> JoinedGroup:
    """Take over the connection to the leader and join the group that it assigns.

    Call it before JAX's backend starts.

    fd: the connected socket, inherited from the supervisor.
    Raises ResourceError if the group does not form within a minute.
    """
    exit_with_parent()
    connection = Connection(socket.socket(fileno=fd), "the leader")
    message = connection.receive(JOIN_SECONDS)
    if message.op != "join":
        raise FormatError(f"the leader has sent {message.op[:20]!r}, expected 'join'")
    silence = _silence(message)
    if silence:
        connection.expect_signs_of_life(LEADER_PATIENCE * silence, already=True)
        send_signs_of_life([connection], silence)
    count = _number(message, "count", 1, MAX_WORKERS)
    index = _number(message, "index", 0, count - 1)
    platform = _value(message, "platform", str)
    if platform not in PLATFORMS:
        raise FormatError(f"the leader has sent {platform!r:.40} as platform")
    env.prepare(
        threads=_number(message, "threads", 0, _MOST_CORES) or None,
        skip_cores=_number(message, "skip_cores", 0, _MOST_CORES * MAX_WORKERS),
        platform=platform or None,
    )
    import jax

    if count > 1:
        coordinator, host = _value(message, "coordinator", str), _value(message, "host", str)
        _initialize_distributed(index, count, coordinator, host, silence)
    try:
        devices = jax.local_devices()
    except RuntimeError as error:
        raise ResourceError(f"JAX cannot start in the group: {first_line(error, limit=200)}") from error
    connection.send(Message("joined", {"devices": len(devices), "platform": jax.default_backend()}))
    return JoinedGroup(connection, index, count)


def exit_with_parent() -> None:
    """Exit when the parent process exits.

    The parent holds the other end of standard input, which closes even when the parent is killed by SIGKILL.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


def _initialize_distributed(index: int, count: int, coordinator: str, host: str, silence: float) -> None:
    """Initialize `jax.distributed` in recoverable mode.

    The death of a peer is then an error of the collective that waits for it, within milliseconds because the connection
    breaks, and does not abort this process. The death of the coordinator still aborts it.

    silence: seconds after which the leader names a silent process; JAX, which names none, waits longer.
    """
    import jax

    for option, value in (("jax_enable_recoverability", True), ("jax_check_proxy_envs", False)):
        if option in jax.config.values:
            jax.config.update(option, value)
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            cluster_detection_method="deactivate",
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=_PATIENCE_SECONDS + 2 * int(silence) if silence else _NO_LIMIT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
            coordinator_bind_address=coordinator if _is_local_address(host) else None,
        )
    except RuntimeError as error:
        raise ResourceError(
            f"no group at {coordinator}: {first_line(error, limit=200)}; does a firewall block it?"
        ) from error
    start_gloo(host if _is_local_address(host) else None)
    cache_compilations_of_every_process()


def _is_local_address(host: str) -> bool:
    """Return True if an address belongs to this machine.

    With network address translation, the leader sees an address of the router.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def _number(message: Message, name: str, low: int, high: int) -> int:
    value = _value(message, name, int)
    if not low <= value <= high:
        raise FormatError(f"the leader has sent {value!r:.40} as {name}; expected {low} to {high}")
    return value


def _silence(message: Message) -> float:
    value = message.values.get("silence")
    if not isinstance(value, int | float) or not 0 <= value <= MOST_SILENCE:
        raise FormatError(f"the leader has sent {value!r:.40} as silence")
    return float(value)


def _value(message: Message, name: str, kind: type[_T]) -> _T:
    value = message.values.get(name)
    if type(value) is not kind:
        raise FormatError(f"the leader has sent {value!r:.40} as {name}")
    return value
