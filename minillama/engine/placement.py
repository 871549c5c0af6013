"""Which device computes which layer: llama.cpp's `--n-gpu-layers`."""

import logging
from dataclasses import dataclass

import jax

from minillama.errors import OptionError

logger = logging.getLogger("minillama")


@dataclass(frozen=True)
class Segment:
    """Consecutive layers on one device."""

    device: jax.Device
    first: int
    last: int  # exclusive


@dataclass(frozen=True)
class Placement:
    """The device of each layer and, last, of the head."""

    devices: tuple[jax.Device, ...]

    @property
    def single(self) -> jax.Device | None:
        """The one device that does everything, or None."""
        return self.devices[0] if len(set(self.devices)) == 1 else None

    def segments(self) -> tuple[Segment, ...]:
        """The layers in runs of one device."""
        runs: list[Segment] = []
        for layer, device in enumerate(self.devices[:-1]):
            if runs and runs[-1].device == device:
                runs[-1] = Segment(device, runs[-1].first, layer + 1)
            else:
                runs.append(Segment(device, layer, layer + 1))
        return tuple(runs)


def place_layers(block_count: int, n_gpu_layers: int | None) -> Placement:
    """As many layers as asked for on the accelerator, counted from the end, the head as one more; the rest on the CPU.

    n_gpu_layers: None or negative for all. Without an accelerator everything is on the CPU, said in one line if some
    layers were asked for.
    """
    if n_gpu_layers is not None and not isinstance(n_gpu_layers, int):
        raise OptionError(f"n_gpu_layers is {n_gpu_layers!r}; expected a number of layers, or None for all")
    best = jax.devices()[0]
    if best.platform == "cpu":
        if n_gpu_layers:
            logger.warning(
                "n_gpu_layers=%d: JAX sees no GPU or TPU here, so all %d layers run on the CPU "
                "(for NVIDIA: pip install 'minillama[cuda]')", n_gpu_layers, block_count,
            )  # fmt: skip
        return Placement((best,) * (block_count + 1))
    return split_layers(block_count, n_gpu_layers, jax.devices("cpu")[0], best)


def split_layers(block_count: int, n_gpu_layers: int | None, host: jax.Device, accelerator: jax.Device) -> Placement:
    """The rule of `place_layers` for two given devices."""
    total = block_count + 1
    offloaded = total if n_gpu_layers is None or n_gpu_layers < 0 else min(n_gpu_layers, total)
    return Placement((host,) * (total - offloaded) + (accelerator,) * offloaded)


def first_devices(count: int) -> tuple[jax.Device, ...]:
    """The first devices of JAX's platform; raises OptionError where there are fewer."""
    if not isinstance(count, int) or count < 1:
        raise OptionError(f"tensor_parallel is {count!r}; expected a number of devices, 1 or more")
    devices = jax.devices()
    if count > len(devices):
        kind = devices[0].platform.upper()
        raise OptionError(
            f"tensor_parallel={count}, but JAX sees {len(devices)} {kind} device{'s' * (len(devices) > 1)}; "
            "use fewer, or env.prepare(cpu_devices=...) for virtual ones"
        )
    return tuple(devices[:count])
