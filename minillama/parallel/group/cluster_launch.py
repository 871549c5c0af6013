"""One command on every host of a cluster: the processes find each other as `jax.distributed` has it, without a leader.

All of them run the same program with the same options, and so take the same steps; the first one speaks.
"""

import jax

from minillama.errors import OptionError, ResourceError
from minillama.parallel.group.gloo import start_gloo
from minillama.parallel.group.group_compile_cache import cache_compilations_of_every_process

JOIN_SECONDS = 120  # for all processes to find each other


def join_cluster(coordinator: str | None, processes: int | None, process: int | None) -> int:
    """Become one of several processes; the number of this one. JAX's backend must not have started.

    coordinator: `host:port` of process 0; None, as the other two, for what Slurm, Open MPI or a TPU pod says.
    Raises OptionError where something is missing, ResourceError where the others are not found in two minutes.
    """
    given = (coordinator, processes, process)
    if any(value is None for value in given) and any(value is not None for value in given):
        raise OptionError("coordinator, num_processes and process_id belong together; give all three, or none")
    if processes is not None and process is not None and not 0 <= process < processes:
        raise OptionError(f"process_id is {process}; {processes} processes are counted from 0")
    try:
        jax.distributed.initialize(coordinator, processes, process, initialization_timeout=JOIN_SECONDS)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        where = coordinator or "the cluster, which neither Slurm nor Open MPI describes here"
        raise ResourceError(f"cannot join {where}: {reason}") from error
    start_gloo()
    cache_compilations_of_every_process()
    return jax.process_index()
