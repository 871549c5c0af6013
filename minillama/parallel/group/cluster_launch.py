"""Leaderless start of a process group: the same command runs on every host.

All processes run the same program with the same options, and therefore the same steps. Process 0 prints the output.
"""

import jax

from minillama.errors import OptionError, ResourceError, first_line
from minillama.parallel.group.gloo import start_gloo
from minillama.parallel.group.group_compile_cache import cache_compilations_of_every_process

JOIN_SECONDS = 120  # until all processes have joined


def join_cluster(coordinator: str | None, processes: int | None, process: int | None) -> int:
    """Join the `jax.distributed` group and return the index of this process.

    Call it before JAX's backend starts.

    coordinator: `host:port` of process 0. None for all three arguments: detect them from Slurm, Open MPI or a TPU pod.
    Raises OptionError if only some arguments are given, ResourceError if the group does not form within two minutes.
    """
    given = (coordinator, processes, process)
    if any(value is None for value in given) and any(value is not None for value in given):
        raise OptionError("coordinator, num_processes and process_id must be given together; give all three, or none")
    if processes is not None and process is not None and not 0 <= process < processes:
        raise OptionError(f"process_id is {process}; expected 0 to {processes - 1}")
    try:
        jax.distributed.initialize(coordinator, processes, process, initialization_timeout=JOIN_SECONDS)
    except (RuntimeError, ValueError) as error:
        reason = first_line(error, limit=200)
        where = coordinator or "the cluster (no Slurm or Open MPI environment found)"
        raise ResourceError(f"cannot join {where}: {reason}") from error
    start_gloo()
    cache_compilations_of_every_process()
    return jax.process_index()
