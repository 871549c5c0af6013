"""JAX's cache of compilations in the processes of a group."""

import logging
from functools import wraps

logger = logging.getLogger("minillama")


def cache_compilations_of_every_process() -> None:
    """Let this process write down what it compiles.

    JAX leaves that to process 0, for on GPUs all processes have the same programs; on processors each one's have a name
    of their own, so that all others would compile anew every time, which takes seconds. JAX has no public way to do
    this (0.10.2); where it is another JAX nothing happens.
    """
    try:
        from jax._src import compiler, distributed

        write, state = compiler._cache_write, distributed.global_state
    except (ImportError, AttributeError) as error:
        logger.debug("programs of this process are not kept: %s", error)
        return

    @wraps(write)
    def write_as_first(*arguments: object) -> None:
        index, state.process_id = state.process_id, 0
        try:
            write(*arguments)
        finally:
            state.process_id = index

    compiler._cache_write = write_as_first
