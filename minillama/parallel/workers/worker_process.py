"""The first steps of a process that follows a leader: its cores, its place in the group, JAX."""

import ctypes
import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from typing import TypeVar

from minillama import env
from minillama.errors import FormatError, ResourceError
from minillama.parallel.group.gloo import start_gloo
from minillama.parallel.group.group_compile_cache import cache_compilations_of_every_process
from minillama.parallel.workers.wire import Connection, Message

JOIN_SECONDS = 60  # for all processes of a group to find each other
HEARTBEAT_SECONDS = 20  # without a sign of a peer until JAX takes it for lost; TCP notices a dead process at once
SHUTDOWN_SECONDS = 3

_PR_SET_PDEATHSIG = 1
_T = TypeVar("_T", int, str)


@dataclass(frozen=True)
class JoinedGroup:
    """A place in a group: the way to the leader, number of this process (the coordinator is 0), how many there are."""

    connection: Connection
    index: int
    count: int


def join_group(fd: int) -> JoinedGroup:
    """Take over the connection to the leader and become the process of the group that the leader says.

    fd: the connected socket that the supervisor passed on. JAX's backend must not have started.
    Raises ResourceError, in one line, where the group does not come about within a minute.
    """
    exit_with_parent()
    connection = Connection(socket.socket(fileno=fd), "the leader")
    message = connection.receive(JOIN_SECONDS)
    if message.op != "join":
        raise FormatError(f"the leader says {message.op[:20]!r} where 'join' is due")
    index, count = _value(message, "index", int), _value(message, "count", int)
    env.prepare(
        threads=_value(message, "threads", int) or None,
        skip_cores=_value(message, "skip_cores", int),
        platform=_value(message, "platform", str) or None,
    )
    import jax

    if count > 1:
        _find_the_others(index, count, _value(message, "coordinator", str), _value(message, "host", str))
    try:
        devices = jax.local_devices()
    except RuntimeError as error:
        raise ResourceError(f"JAX does not start in the group: {_first_line(error)}") from error
    connection.send(Message("joined", {"devices": len(devices), "platform": jax.default_backend()}))
    return JoinedGroup(connection, index, count)


def exit_with_parent() -> None:
    """Let this process end when the one that started it does, even by kill -9: its standard input ends then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


def _find_the_others(index: int, count: int, coordinator: str, host: str) -> None:
    """Form the `jax.distributed` group.

    Recoverable, so that the death of a peer is an error of the collective that waits for it (in some milliseconds, for
    its connection breaks) and not the end of this process; the coordinator's death ends it all the same.
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
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
            coordinator_bind_address=coordinator if _is_ours(host) else None,
        )
    except RuntimeError as error:
        raise ResourceError(
            f"no group at {coordinator}: {_first_line(error)}; does a firewall stand between?"
        ) from error
    start_gloo(host if _is_ours(host) else None)
    cache_compilations_of_every_process()


def _is_ours(host: str) -> bool:
    """Whether an address belongs to this machine: behind a router the leader sees another one."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def _value(message: Message, name: str, kind: type[_T]) -> _T:
    value = message.values.get(name)
    if type(value) is not kind:
        raise FormatError(f"the leader says {value!r:.40} of {name}")
    return value


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
