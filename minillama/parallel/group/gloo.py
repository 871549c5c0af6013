"""gloo, the collectives between processes on processors: at which address, and off the core that computes."""

import logging
import os
import sys
from contextlib import suppress
from functools import partial

logger = logging.getLogger("minillama")


def start_gloo(host: str | None = None) -> tuple[int, ...]:
    """Start gloo for the CPU backend that JAX has yet to start; the ids of its threads that were calmed.

    host: address of ours at which the other processes meet this one. Without it gloo takes what the host's name
    resolves to, which on many systems is 127.0.1.1 and reaches no other machine.
    Call it between `jax.distributed.initialize` and the backend's start. JAX has no public way to do this, and
    starts gloo by itself where nobody has (0.10.2).
    """
    try:
        from jax._src import distributed, xla_bridge
        from jax._src.lib import _jax

        before = _threads()
        collectives = _jax.make_gloo_tcp_collectives(distributed_client=distributed.global_state.client, hostname=host)
        threads = set_idle_priority(_threads() - before)
        factory = partial(xla_bridge.make_cpu_client, collectives)
        xla_bridge.register_backend_factory("cpu", factory, priority=0, fail_quietly=False)
    except (ImportError, AttributeError, TypeError) as error:
        logger.warning("this JAX starts gloo in another way (%s): collectives may be slow", error)
        return ()
    return threads


def set_idle_priority(threads: set[int]) -> tuple[int, ...]:
    """Let threads of this process run only when nothing else wants their core; those for which that worked.

    gloo's loop is level-triggered: while a computing thread has not yet picked up what arrived, epoll_wait returns at
    once, over and over, and where both are bound to one core the spinning keeps the very thread away that would end
    it. As SCHED_IDLE it gives way: an all-reduce of 2048 floats takes 0.15 ms instead of 3.9. The price is that another
    program on that core keeps gloo waiting: 6 to 11 ms beside one that computes without pause.
    Linux only; elsewhere nothing happens.
    """
    calmed = []
    for thread in sorted(threads):
        with suppress(OSError):
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
            calmed.append(thread)
    return tuple(calmed)


def _threads() -> set[int]:
    if sys.platform != "linux":
        return set()
    try:
        return {int(name) for name in os.listdir("/proc/self/task")}
    except OSError:
        return set()
