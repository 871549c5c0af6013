"""The device of each layer: llama.cpp's `--n-gpu-layers`, `--split-mode`, `--tensor-split`, `--main-gpu`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import jax

from minillama.engine.loading.device_sharing import SplitMode
from minillama.errors import OptionError
from minillama.model import Config
from minillama.model.layer_kinds import source_of

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


def place_layers(
    block_count: int,
    n_gpu_layers: int | None,
    split_mode: SplitMode | None = None,
    tensor_split: Sequence[float] = (),
    main_gpu: int = 0,
) -> Placement:
    """Place the last layers and the head on the accelerators, the rest on the CPU.

    n_gpu_layers: None or negative for all. Without an accelerator everything is on the CPU, with a warning if
    n_gpu_layers is set. split_mode: NONE for the accelerator `main_gpu` alone, LAYER for all of them, in the shares
    of `tensor_split`; None for LAYER where there are several. Virtual CPU devices count for LAYER only.
    Raises OptionError for a device that is not there and for impossible shares.
    """
    if n_gpu_layers is not None and not isinstance(n_gpu_layers, int):
        raise OptionError(f"n_gpu_layers is {n_gpu_layers!r}; expected a number of layers, or None for all")
    devices = jax.local_devices()
    if not 0 <= main_gpu < len(devices):
        raise OptionError(f"main_gpu is {main_gpu}, but JAX sees {_count(devices)}; they are counted from 0")
    on_cpu = devices[0].platform == "cpu"
    if on_cpu and n_gpu_layers:
        logger.warning(
            "n_gpu_layers=%d: JAX sees no GPU or TPU here, so all %d layers run on the CPU "
            "(for NVIDIA: pip install 'minillama[cuda]')", n_gpu_layers, block_count,
        )  # fmt: skip
    alone = split_mode is SplitMode.NONE or (split_mode is None and on_cpu)
    chosen = [devices[main_gpu]] if alone else devices
    if tensor_split and alone:
        raise OptionError("tensor_split has no meaning for one device; give split_mode=layer as well")
    if on_cpu:
        n_gpu_layers = None
    return split_layers(block_count, n_gpu_layers, jax.devices("cpu")[0], chosen, tensor_split)


def split_layers(
    block_count: int,
    n_gpu_layers: int | None,
    host: jax.Device,
    accelerators: Sequence[jax.Device],
    shares: Sequence[float] = (),
) -> Placement:
    """The rule of `place_layers`: the first device whose cumulative share exceeds the layer."""
    total = block_count + 1
    offloaded = total if n_gpu_layers is None or n_gpu_layers < 0 else min(n_gpu_layers, total)
    ends = summed_shares(len(accelerators), shares)
    chosen = (
        next(device for end, device in zip(ends, accelerators, strict=True) if end > number / offloaded)
        for number in range(offloaded)
    )
    return Placement((host,) * (total - offloaded) + tuple(chosen))


def with_sources(placement: Placement, config: Config) -> Placement:
    """Put layers that read another one's keys and values on its device.

    All layers from the first that is read on go to the device of the last layer.
    """
    sources = [source for layer in config.layers if (source := source_of(layer)) is not None]
    if not sources:
        return placement
    first, (*layers, head) = min(sources), placement.devices
    return Placement((*layers[:first], *[layers[-1]] * (len(layers) - first), head))


def summed_shares(count: int, shares: Sequence[float]) -> tuple[float, ...]:
    """The cumulative share of each device, from 0 to 1; equal shares by default.

    Raises OptionError for more shares than devices, negative ones, and nothing but zeros.
    """
    if len(shares) > count:
        raise OptionError(f"tensor_split has {len(shares)} shares, but there are {count} devices")
    given = [*shares, *[0.0] * (count - len(shares))] if shares else [1.0] * count
    if min(given) < 0 or not 0 < sum(given) < float("inf"):
        raise OptionError(f"tensor_split is {','.join(map(str, shares))}; expected shares of 0 or more, as in 3,1")
    ends = [end / sum(given) for end in accumulate(given)]
    last = max(place for place, share in enumerate(given) if share)
    return (*ends[:last], *[1.0] * (count - last))  # the last one that gets something, whatever the rounding


def first_devices(count: int) -> tuple[jax.Device, ...]:
    """The first devices of JAX's platform, 0 for all; raises OptionError where there are fewer."""
    devices = jax.devices()
    if not isinstance(count, int) or count < 0:
        raise OptionError(f"tensor_parallel is {count!r}; expected a number of devices, or 0 for all")
    if count > len(devices):
        raise OptionError(
            f"tensor_parallel={count}, but JAX sees {_count(devices)}; "
            "use fewer, or env.prepare(cpu_devices=...) for virtual ones"
        )
    return tuple(devices[:count] if count else devices)


def _count(devices: Sequence[jax.Device]) -> str:
    return f"{len(devices)} {devices[0].platform.upper()} device{'s' * (len(devices) > 1)}"
