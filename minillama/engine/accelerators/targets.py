"""The accelerators that programs are compiled for here, without having one."""

import importlib.metadata
import importlib.util
import logging
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax

from minillama.errors import OptionError, ResourceError, first_line

H200 = Path(__file__).with_name("h200.txtpb")  # XLA's description of the device


@dataclass(frozen=True)
class Target:
    """An accelerator.

    platform: JAX's name of the platform when it lowers; backend: when it runs. module: of the compiler, `package` on
    PyPI. read_bytes: of its memory in a second, measured on such a device or the data sheet's.
    """

    title: str
    platform: str
    backend: str
    module: str
    package: str
    read_bytes: float


TARGETS = {
    "cuda": Target("NVIDIA H200", "cuda", "gpu", "jax_plugins.xla_cuda13", "jax-cuda13-pjrt", 4.3e12),
    "tpu": Target("TPU v5e", "tpu", "tpu", "libtpu", "libtpu", 0.819e12),
}


def target_named(name: str) -> Target:
    """A target by name; OptionError for an unknown one."""
    if name not in TARGETS:
        raise OptionError(f"unknown accelerator {name}; known: {', '.join(TARGETS)}")
    return TARGETS[name]


def is_installed(target: Target) -> bool:
    """Whether the compiler for an accelerator is installed."""
    try:
        return importlib.util.find_spec(target.module) is not None
    except ModuleNotFoundError:  # of its parent
        return False


def check_installed(target: Target) -> None:
    """Raise ResourceError where the compiler for an accelerator is not installed."""
    if not is_installed(target):
        raise ResourceError(
            f"the compiler for {target.title} is not installed: pip install --no-deps '{fitting_package(target)}'"
        )


def fitting_package(target: Target) -> str:
    """The compiler's package with the version for the installed jax, as pip takes it.

    That is the one that jax's own extra names, else jax's version.
    """
    for requirement in importlib.metadata.requires("jax") or ():
        wanted = requirement.partition(";")[0].strip()
        if re.match(rf"{re.escape(target.package)}\b(?!-)", wanted):
            return wanted
    return f"{target.package}=={jax.__version__}"


def compile_device(target: Target) -> Any:
    """A device to compile for, which nothing can run on; see `compile_devices`."""
    return compile_devices(target)[0]


@cache
def compile_devices(target: Target, gpus: int = 1) -> tuple[Any, ...]:
    """Devices to compile for, which nothing can run on.

    gpus: of one host. For a TPU v5e all four.
    Raises ResourceError where the compiler is not installed or does not start.
    """
    check_installed(target)
    from jax.experimental import topologies

    logging.getLogger("jax_plugins").setLevel(logging.ERROR)  # it says that there is no GPU
    try:
        if target.platform == "cuda":
            described = {"target_config": H200.read_text(), "topology": f"1x1x{gpus}"}
            topology = topologies.get_topology_desc(platform="cuda", topology_name="", **described)
        else:
            topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    except Exception as error:  # of many kinds, by the compiler
        raise ResourceError(f"the compiler for {target.title} does not start: {first_line(error)}") from error
    return tuple(topology.devices)
