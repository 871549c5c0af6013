"""Several virtual devices in a separate process: the backend of this one has started with one.

Checks are functions of test modules; what they raise comes back as if they had run here.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

Check = Callable[..., Any]
COUNT = 4


@contextmanager
def process_with_devices(kernels: str = "auto", *, optimised: bool = False) -> Iterator[Check]:
    """Yield a function that runs a check there; the process starts with the first check.

    optimised: compile as for users, and not as for tests.
    """
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (kernels, optimised))
    with pool:
        yield lambda check, *arguments: pool.submit(_run, check, *arguments).result(300)


def _begin(kernels: str, optimised: bool) -> None:
    import os

    os.environ["MINILLAMA_CPU_KERNELS"] = kernels
    if optimised:
        os.environ["XLA_FLAGS"] = ""
    import strict_jax  # noqa: F401  (strict JAX and checked shapes)

    from minillama import env

    env.prepare(cpu_devices=COUNT, threads=1)


def _run(check: Check, *arguments: Any) -> Any:
    from memory_bound import bound_memory

    bound_memory()
    return check(*arguments)
