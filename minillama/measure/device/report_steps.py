"""The steps of a device report, most important first, each with a limit of seconds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import jax

from minillama.errors import MinillamaError, OptionError, first_line
from minillama.measure.device.device_agreement import TYPES, agreement
from minillama.measure.device.device_roofs import device_roofs
from minillama.measure.device.model_speeds import (
    ModelBench,
    at_depth,
    half_offload,
    profile,
    prompt_and_tokens,
    several_texts,
)
from minillama.measure.device.report_rows import Sizes, Value

SMALLEST = "tiny"  # the shape that results are compared with
KIND = "Q4_0"  # of the model that has depth, several texts and a profile


@dataclass(frozen=True)
class Step:
    """A step: seconds at most, and the values that it measures.

    by_xla: whether XLA multiplies on the processor, too, in place of kernels that round activations to 8 bits.
    """

    name: str
    seconds: int
    run: Callable[[ModelBench], Iterator[Value]]
    by_xla: bool = False


def steps_of(sizes: Sizes) -> tuple[Step, ...]:
    """All steps; the order is that of their worth, as time may run out."""
    large, small = sizes.large, sizes.small

    def speed(shape: str, kind: str, seconds: int) -> Step:
        return Step(f"{shape}-{kind}", seconds, partial(prompt_and_tokens, shape=shape, kind=kind))

    def of_large(name: str, run: Callable[..., Iterator[Value]], seconds: int) -> Step:
        return Step(name, seconds, partial(run, shape=large, kind=KIND))

    steps = (
        Step("agreement", 90, _agreement, by_xla=True),
        Step("roofs", 60, _roofs),
        speed(large, KIND, 150),
        of_large("profile", profile, 60),
        of_large("depth", at_depth, 90),
        of_large("batch", several_texts, 90),
        speed(large, "Q4_K_M", 120),
        speed(small, KIND, 60),
        speed(small, "Q4_K_M", 60),
        of_large("half-offload", half_offload, 90),
        speed(large, "Q8_0", 90),
        speed(small, "Q8_0", 60),
        speed(large, "F16", 120),
        speed(small, "F16", 60),
    )
    return tuple({step.name: step for step in steps}.values())  # each name once


def steps_named(sizes: Sizes, names: Sequence[str]) -> list[Step]:
    """Some steps, in the report's order; all without names.

    Raises OptionError for an unknown name.
    """
    steps = steps_of(sizes)
    known = [step.name for step in steps]
    for name in names:
        if name not in known:
            raise OptionError(f"unknown step {name}; known: {', '.join(known)}")
    return [step for step in steps if not names or step.name in names]


def run_steps(steps: Sequence[Step], bench: ModelBench) -> Iterator[dict[str, object]]:
    """Run steps; events, as `limited_steps` reads them.

    A step that fails is refused with the first line of its error, and the next one runs.
    """
    for step in steps:
        yield {"event": "begin", "step": step.name}
        try:
            for value in step.run(bench):
                yield {"event": "value", "step": step.name, **value.as_dict()}
        except MinillamaError as error:
            yield {"event": "refused", "step": step.name, "reason": str(error)}
        except Exception as error:  # such as XLA's, out of memory
            bench.unload()
            yield {"event": "refused", "step": step.name, "reason": first_line(error, with_type=True, limit=300)}
        yield {"event": "end", "step": step.name}


def device_event() -> dict[str, object]:
    """JAX's first device, its memory in bytes where it is known, and jax's version."""
    device = jax.devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    found = {"device": device.device_kind, "platform": device.platform, "count": len(jax.devices())}
    return {"event": "device", **found, "memory": limit, "jax": jax.__version__}


def _agreement(bench: ModelBench) -> Iterator[Value]:
    for kind in TYPES:
        yield from agreement(bench.path(SMALLEST, kind), kind)


def _roofs(bench: ModelBench) -> Iterator[Value]:
    return device_roofs(bench.sizes)
