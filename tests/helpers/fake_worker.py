"""Fake worker process for the tests of minillama.parallel.

`python fake_worker.py [OPTION ...] --fd N`; options: `slow` starts late, `broken` fails at once, `plain` joins no JAX
group.
"""

import os
import socket
import sys
import time
from functools import partial

from minillama.errors import MinillamaError
from minillama.parallel.workers.wire import Connection, Message


def main() -> int:
    options, fd = sys.argv[1:-2], int(sys.argv[-1])
    if "broken" in options:
        print("minillama: error: the roof leaks", file=sys.stderr)
        return 2
    if "slow" in options:
        time.sleep(2)
    if "plain" in options:
        from minillama.parallel.workers.worker_process import exit_with_parent

        exit_with_parent()
        connection = Connection(socket.socket(fileno=fd), "the leader")
        silence = float(str(connection.receive(10).values["silence"]))
        if silence:
            from minillama.parallel.workers.heartbeat import LEADER_PATIENCE, send_signs_of_life

            connection.expect_signs_of_life(LEADER_PATIENCE * silence, already=True)
            send_signs_of_life([connection], silence)
        connection.send(Message("joined", {"devices": 1, "platform": "none"}))
    else:
        from minillama.parallel.workers.worker_process import join_group

        connection = join_group(fd).connection
    follow(connection)
    return 0


def follow(connection: Connection) -> None:
    for message in connection:
        if message.op == "echo":
            connection.send(message)
        elif message.op == "who":
            cores = sorted(os.sched_getaffinity(0))
            connection.send(Message("who", {"pid": os.getpid(), "cores": cores, "idle_threads": len(idle_threads())}))
        elif message.op == "sum":
            connection.send(Message("sum", {}, (sums(*message.arrays),)))
        elif message.op == "sums":  # indefinitely
            while True:
                sums(*message.arrays)
        elif message.op == "busy":  # computes, without reading messages
            until = time.monotonic() + float(str(message.values["seconds"]))
            while time.monotonic() < until:
                sum(range(1000))
        elif message.op == "sleep":
            time.sleep(60)
        elif message.op in ("idle", "normal"):
            connection.send(Message("scheduled", {"threads": reschedule(idle=message.op == "idle")}))
        elif message.op == "time":
            connection.send(Message("time", {"seconds": seconds_of_a_sum()}))
        elif message.op == "model":
            from pathlib import Path

            from minillama.parallel.workers.model_transfer import receive_model

            paths = receive_model(connection, message, Path(str(os.environ["MODELS"])))
            connection.send(Message("paths", {"paths": [str(path) for path in paths]}))


def compiled():  # type: ignore[no-untyped-def]
    import jax
    import numpy as np
    from jax.sharding import Mesh, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("t",))
    whole, parts = PartitionSpec(), PartitionSpec("t")

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=parts, out_specs=whole, check_vma=False)
    def total(x):  # type: ignore[no-untyped-def]
        return jax.lax.psum(x, "t")

    return total, jax.NamedSharding(mesh, parts)


_compiled = []
_idle_threads = []


def idle_threads() -> list[int]:
    """Threads of this process with SCHED_IDLE."""
    return [
        thread for thread in map(int, os.listdir("/proc/self/task")) if os.sched_getscheduler(thread) == os.SCHED_IDLE
    ]


def reschedule(*, idle: bool) -> int:
    """Set idle or normal priority for the idle threads; return their number."""
    if not _idle_threads:
        _idle_threads.extend(idle_threads())
    for thread in _idle_threads:
        os.sched_setscheduler(thread, os.SCHED_IDLE if idle else os.SCHED_OTHER, os.sched_param(0))
    return len(_idle_threads)


def sums(x):  # type: ignore[no-untyped-def]
    """All-reduce x over all processes."""
    import jax
    import numpy as np

    if not _compiled:
        _compiled.append(compiled())
    total, sharding = _compiled[0]
    whole = jax.make_array_from_single_device_arrays(
        (jax.process_count() * len(x),), sharding, [jax.device_put(x, jax.local_devices()[0])]
    )
    return np.asarray(total(whole).addressable_data(0))


def seconds_of_a_sum() -> float:
    import numpy as np

    x = np.ones(2048, np.float32)
    sums(x)
    started = time.perf_counter()
    for _ in range(50):
        sums(x)
    return (time.perf_counter() - started) / 50


if __name__ == "__main__":
    try:
        status = main()
    except MinillamaError as error:
        print(f"minillama: error: {error}", file=sys.stderr, flush=True)
        status = 2
    sys.stderr.flush()
    os._exit(status)
