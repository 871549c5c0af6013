"""All-reduce time of arrays of several sizes, between devices or processes."""

import time
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from minillama.array_types import Float32
from minillama.model.collectives import all_reduce
from minillama.parallel.group.cluster_launch import join_cluster
from minillama.parallel.sharding.partition_specs import AXIS, tensor_mesh

SUMS_PER_RUN = 8  # in one program, so that the time to start a program hardly counts


def all_reduce_seconds(mesh: Mesh, sizes: Sequence[int], *, repetitions: int = 24) -> dict[int, float]:
    """Seconds of one float32 all-reduce over a mesh, by payload size in bytes.

    Each layer of a tensor-parallel model runs such all-reduces. The result is the minimum of several runs, because
    devices wait for each other and other load slows all of them.
    """
    found = {}
    for size in sizes:
        whole = NamedSharding(mesh, PartitionSpec())
        x = jax.device_put(np.ones(max(size // 4, 1), np.float32), whole)
        program = jax.jit(partial(_chained_sums, mesh))
        program(x).block_until_ready()
        times = []
        for _ in range(repetitions):
            started = time.perf_counter()
            program(x).block_until_ready()
            times.append((time.perf_counter() - started) / SUMS_PER_RUN)
        found[size] = min(times)
    return found


def _chained_sums(mesh: Mesh, x: Float32[Array, "N"]) -> Float32[Array, "N"]:
    """All-reduces in a chain, scaled so that the values stay within float32."""
    share = jnp.float32(1 / mesh.size)

    def add_once(x: Float32[Array, "N"], _: None) -> tuple[Float32[Array, "N"], None]:
        return all_reduce(x * share, AXIS), None

    def local(x: Float32[Array, "N"]) -> Float32[Array, "N"]:
        return jax.lax.scan(add_once, x, None, length=SUMS_PER_RUN)[0]

    whole = PartitionSpec()
    return jax.shard_map(local, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)(x)


def join_and_time_all_reduce(address: str, processes: int, place: int, sizes: Sequence[int]) -> list[tuple[int, float]]:
    """Join a group of processes and time its all-reduces: (bytes, seconds) pairs.

    address: of the first process. place: rank of this process. JAX must not have started; the group is left at the end.
    """
    jax.config.update("jax_platforms", "cpu")
    join_cluster(address, processes, place)
    try:
        first = [jax.local_devices(process_index=other)[0] for other in range(processes)]
        return list(all_reduce_seconds(tensor_mesh(first), sizes).items())
    finally:
        jax.distributed.shutdown()
