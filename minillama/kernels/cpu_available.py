"""Whether the kernels of `kernels/cpu` can run in this process."""

import logging
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING

import jax
from gguf import GGMLQuantizationType as Type

from minillama import env
from minillama.errors import OptionError, first_line

if TYPE_CHECKING:
    from minillama.kernels.cpu.attention.attention_args import AttentionSpec

logger = logging.getLogger("minillama")


def reads_in_place(device: jax.Device, kind: Type | None = None) -> bool:
    """Whether weights of this device stay where the file is mapped or was read to; else the device has its own.

    kind: of one type of tensor; None for what holds of all types.
    """
    return device.platform == "cpu" and (cpu_kernels_error() if kind is None else type_kernels_error(kind)) is None


@cache
def cpu_kernels_error() -> str | None:
    """Why the processor's kernels do not serve, so that XLA's own products do; None if they serve.

    Said once as a warning, except where they were switched off. Raises OptionError where the environment asks for an
    instruction set that the processor lacks.
    """
    if env.cpu_kernels() == "off":
        return "switched off by MINILLAMA_CPU_KERNELS"

    def try_out() -> None:
        from minillama.kernels.cpu.runtime.registry import register

        register()

    return _problem("the processor's own kernels", try_out)


@cache
def type_kernels_error(kind: Type) -> str | None:
    """The same for the kernels of one type of tensor."""

    def try_out() -> None:
        from minillama.kernels.cpu.runtime.registry import load_kernels

        load_kernels(kind)

    return cpu_kernels_error() or _problem(f"the processor's own kernels for {kind.name}", try_out)


def instruction_set() -> str:
    """Which the processor's kernels are written for; why they do not serve, if they do not."""
    if (problem := cpu_kernels_error()) is not None:
        return problem
    from minillama.kernels.cpu.runtime.registry import chosen_isa

    return chosen_isa().value


def loaded_attention_specs() -> "tuple[AttentionSpec, ...]":
    """The sizes that attention has been made ready for in this process."""
    from minillama.kernels.cpu.runtime.registry import loaded_attention

    return () if cpu_kernels_error() is not None else tuple(loaded_attention)


def load_attention_specs(heads: "Iterable[AttentionSpec]") -> None:
    """Make attention ready for some sizes, as a compiled program expects it that was not traced here."""
    from minillama.kernels.cpu.runtime.registry import load_attention

    for each in heads:
        load_attention(each)


def _problem(what: str, try_out: Callable[[], None]) -> str | None:
    try:
        try_out()
    except OptionError:
        raise
    except Exception as problem:  # whatever it is, there is another way to multiply
        reason = first_line(problem, with_type=True)
        logger.warning("%s cannot run, so XLA multiplies, several times slower (%s)", what, reason)
        return reason
    return None
