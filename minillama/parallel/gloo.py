"""Collectives between processes on processors: gloo's address, and its thread kept off the core that computes."""

import os
import platform
import sys
from pathlib import Path

_EPOLL_WAIT = {"x86_64": "232", "aarch64": "22"}  # number of the system call in which gloo's thread sleeps


def calm_gloo() -> int:
    """Let gloo's waiting threads run only when nothing else wants their core; returns how many were found.

    gloo's loop is level-triggered: while a computing thread has not yet picked up what arrived, epoll_wait returns at
    once, over and over, and where both are bound to one core the spinning keeps the very thread away that would end
    it. As SCHED_IDLE it gives way: an all-reduce of 2048 floats then takes 0.1 ms instead of 4.
    Linux only, after JAX's backend has started; does nothing elsewhere or where the system forbids it.
    """
    number = _EPOLL_WAIT.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return 0
    found, tasks = 0, Path("/proc/self/task")
    own = os.getpid()
    try:
        name = (tasks / str(own) / "comm").read_text()
        for task in tasks.iterdir():
            if int(task.name) == own or (task / "comm").read_text() != name:  # gRPC names its threads, gloo does not
                continue
            if (task / "syscall").read_text().split()[0] == number:
                os.sched_setscheduler(int(task.name), os.SCHED_IDLE, os.sched_param(0))
                found += 1
    except (OSError, IndexError):
        return found
    return found


def use_address(host: str) -> None:
    """Let gloo meet its peers at this address of ours; by itself it takes what the host's name resolves to, which on
    many systems is 127.0.1.1 and reaches no other machine.

    After `jax.distributed.initialize`, before the backend starts. JAX has no public setting for it (0.10 to 0.12).
    """
    from functools import partial

    from jax._src import distributed, xla_bridge
    from jax._src.lib import _jax

    client = distributed.global_state.client
    collectives = _jax.make_gloo_tcp_collectives(distributed_client=client, hostname=host)
    registration = xla_bridge._backend_factories["cpu"]
    registration.factory = partial(xla_bridge.make_cpu_client, collectives)
