"""Availability of the CPU kernels in this process."""

import logging
from collections.abc import Callable, Iterable
from functools import cache

import jax
from gguf import GGMLQuantizationType as Type

from minillama import env
from minillama.errors import OptionError, first_line
from minillama.kernels.target_platform import is_foreign

logger = logging.getLogger("minillama")


def reads_in_place(device: jax.Device, kind: Type | None = None) -> bool:
    """Whether this device multiplies weights in the mapped file, without a copy.

    kind: of a tensor; None for the kernels in general.
    """
    if device.platform != "cpu" or is_foreign():
        return False
    return (cpu_kernels_error() if kind is None else type_kernels_error(kind)) is None


@cache
def cpu_kernels_error() -> str | None:
    """Why the CPU kernels are not available, so that XLA multiplies; None if they are.

    Logs a warning once, unless they are switched off. Raises OptionError if the processor lacks the instruction set
    that the environment selects.
    """
    if env.cpu_kernels() == "off":
        return "switched off by MINILLAMA_CPU_KERNELS"

    def load() -> None:
        from minillama.kernels.cpu.runtime.registry import register

        register()

    return _load_error("the CPU kernels", load)


@cache
def type_kernels_error(kind: Type) -> str | None:
    """Why the CPU kernels of a tensor type are not available; None if they are."""

    def load() -> None:
        from minillama.kernels.cpu.runtime.registry import load_kernels

        load_kernels(kind)

    return cpu_kernels_error() or _load_error(f"the CPU kernels for {kind.name}", load)


def instruction_set() -> str:
    """The instruction set of the CPU kernels, or why they are not available."""
    if (error := cpu_kernels_error()) is not None:
        return error
    from minillama.kernels.cpu.runtime.registry import chosen_isa

    return chosen_isa().value


def loaded_kernels() -> tuple[tuple[Callable[..., None], object], ...]:
    """The kernels that this process has loaded: a function that loads one, and its specification."""
    if cpu_kernels_error() is not None:
        return ()
    from minillama.kernels.cpu.runtime.registry import loaded

    return tuple(loaded)


def load_again(kernels: Iterable[tuple[Callable[..., None], object]]) -> None:
    """Load the kernels that a cached executable calls."""
    for load, spec in kernels:
        load(spec)


def _load_error(name: str, load: Callable[[], None]) -> str | None:
    try:
        load()
    except OptionError:
        raise
    except Exception as error:  # of any kind: XLA can multiply instead
        reason = first_line(error, with_type=True)
        logger.warning("%s cannot run, so XLA multiplies, several times slower (%s)", name, reason)
        return reason
    return None
