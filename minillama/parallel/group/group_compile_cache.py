"""Persistent compilation cache in every process of a group."""

import logging
from functools import wraps

logger = logging.getLogger("minillama")


def cache_compilations_of_every_process() -> None:
    """Let every process write to JAX's persistent compilation cache.

    By default only process 0 writes, because on GPUs all processes compile the same programs. On CPUs each process has
    its own cache keys, so that all other processes would recompile at every start, which takes seconds. JAX (0.10.2)
    has no public API for this; with an incompatible version of JAX this is a no-op.
    """
    try:
        from jax._src import compiler, distributed

        write, state = compiler._cache_write, distributed.global_state
    except (ImportError, AttributeError) as error:
        logger.debug("this process does not write to the compilation cache: %s", error)
        return

    @wraps(write)
    def write_as_process_0(*arguments: object) -> None:
        index, state.process_id = state.process_id, 0
        try:
            write(*arguments)
        finally:
            state.process_id = index

    compiler._cache_write = write_as_process_0
