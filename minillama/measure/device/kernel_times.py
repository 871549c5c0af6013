"""Times of kernels by name, from a trace of JAX's profiler."""

import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData

from minillama.errors import ResourceError

NUMBER = re.compile(r"([._]\d+)+$")  # of a kernel among those with its name
CPU_OP = "hlo_op"  # the statistic that marks an operation of XLA on a processor


@dataclass(frozen=True)
class KernelTime:
    """Kernels of one name: launches and seconds in all."""

    name: str
    launches: int
    seconds: float


def traced_kernels(run: Callable[[], object]) -> list[KernelTime]:
    """Kernels that a function launches, by time.

    The function must wait for the device before it returns.

    Raises ResourceError where JAX's profiler gives none.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        files = sorted(Path(folder).rglob("*.xplane.pb"))
        found = kernel_times(plane for file in files for plane in ProfileData.from_file(str(file)).planes)
    if not found:
        raise ResourceError(
            "JAX's profiler recorded no kernel here; with CUDA its library CUPTI must be installed and allowed"
        )
    return found


def kernel_times(planes: Iterable[Any]) -> list[KernelTime]:
    """Kernels of devices, else of the host; names without the number at their end."""
    planes = list(planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    events = list(_device_events(devices)) or list(_host_events(planes))
    launches, seconds = defaultdict(int), defaultdict(float)
    for event in events:
        name = NUMBER.sub("", event.name)
        launches[name] += 1
        seconds[name] += event.duration_ns / 1e9
    names = sorted(seconds, key=lambda name: (-seconds[name], name))
    return [KernelTime(name, launches[name], seconds[name]) for name in names]


def _device_events(planes: Iterable[Any]) -> Iterator[Any]:
    """Events of a GPU's streams or a TPU's operations; other lines repeat them in groups."""
    for plane in planes:
        for line in plane.lines:
            if line.name.startswith("Stream") or line.name == "XLA Ops":
                yield from line.events


def _host_events(planes: Iterable[Any]) -> Iterator[Any]:
    """Operations of XLA on the processor's threads."""
    for plane in planes:
        for line in plane.lines:
            for event in line.events:
                if any(name == CPU_OP for name, _ in event.stats):
                    yield event
