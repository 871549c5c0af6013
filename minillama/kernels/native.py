"""Whether the kernels of `kernels/cpu` can run in this process."""

import logging
from functools import cache

import jax

from minillama import env

logger = logging.getLogger("minillama")


def reads_in_place(device: jax.Device) -> bool:
    """Whether weights of this device stay where the file is mapped or was read to; else the device has its own."""
    return device.platform == "cpu" and native_problem() is None


@cache
def native_problem() -> str | None:
    """Why the processor's kernels do not serve, so that XLA's own products do; None if they serve.

    Said once as a warning, except where they were switched off.
    """
    if env.cpu_kernels() == "off":
        return "switched off by MINILLAMA_CPU_KERNELS"
    try:
        from minillama.kernels.cpu.library import register

        register()
    except Exception as problem:  # whatever it is, there is another way to multiply
        reason = f"{type(problem).__name__}: {problem}".splitlines()[0]
        logger.warning("the processor's own kernels cannot run, so XLA multiplies, several times slower (%s)", reason)
        return reason
    return None
