"""Choose and build the backend for a GGUF file.

Rare backends are imported where they are chosen, because a command on one device should start without them.
"""

import atexit
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from minillama.engine.backends.base import Backend
from minillama.engine.backends.local import LocalBackend
from minillama.engine.load_options import LoadOptions
from minillama.engine.loading.device_sharing import DeviceSharing, SplitMode
from minillama.engine.loading.layer_placement import (
    Placement,
    first_devices,
    place_layers,
    summed_shares,
    with_sources,
)
from minillama.engine.loading.load_params import Advance, load_params
from minillama.errors import OptionError
from minillama.gguf import GGUF
from minillama.gguf.memory_pages import start_prefault
from minillama.kernels import reads_in_place
from minillama.model import Config

logger = logging.getLogger("minillama")


def place(sharing: DeviceSharing, config: Config, n_gpu_layers: int | None) -> Placement:
    """The device of each layer here; a shared layer counts as the first device's."""
    if _in_cluster() or sharing.mode is SplitMode.TENSOR:
        return place_layers(config.block_count, n_gpu_layers, SplitMode.NONE)
    placement = place_layers(config.block_count, n_gpu_layers, sharing.mode, sharing.tensor_split, sharing.main_gpu)
    return with_sources(placement, config)


def prefault(sharing: DeviceSharing, file: GGUF, placement: Placement) -> Iterator[int] | None:
    """Prefault weights that are used in place, in a thread; None for others.

    Yields bytes, for `open_here`.
    """
    if _in_cluster() or sharing.mode is SplitMode.TENSOR or not any(map(reads_in_place, placement.devices)):
        return None
    return start_prefault(file.mapped.values())


def open_here(
    sharing: DeviceSharing,
    file: GGUF,
    config: Config,
    ctx_size: int,
    placement: Placement,
    *,
    progress: bool = False,
    prefaulted: Iterator[int] | None = None,
) -> Backend:
    """Load a file's weights to this process's devices.

    prefaulted: of `prefault`, if it has started; None to start now.
    Raises the errors of `load_params`, and OptionError where the heads do not divide among the devices.
    """
    total = sum(whole.nbytes for whole in file.mapped.values())
    with _bar("loading", total, shown=progress) as advance:
        backend = _open(sharing, file, config, ctx_size, placement, advance, prefaulted)
        jax.block_until_ready(backend.params)
    return backend


def _open(
    sharing: DeviceSharing,
    file: GGUF,
    config: Config,
    ctx_size: int,
    placement: Placement,
    advance: Advance,
    prefaulted: Iterator[int] | None,
) -> Backend:
    devices = first_devices(0 if sharing.tensor_parallel == 1 else sharing.tensor_parallel)
    if _in_cluster() and sharing.mode is SplitMode.LAYER:
        from minillama.engine.backends.pipeline import pipeline_of_processes

        return pipeline_of_processes(file, config, ctx_size, sharing.tensor_split, advance)
    if (_in_cluster() or sharing.mode is SplitMode.TENSOR) and len(devices) > 1:
        from minillama.engine.backends.tensor_parallel import tensor_parallel

        return tensor_parallel(file, config, ctx_size, devices, advance)
    if any(reads_in_place(device) for device in placement.devices):
        for size in prefaulted or start_prefault(file.mapped.values()):
            advance(size)
        params = load_params(file, config, ctx_size, placement.devices)
    else:
        params = load_params(file, config, ctx_size, placement.devices, advance)
    if placement.single is None:
        from minillama.engine.backends.pipeline import pipeline_of_devices

        return pipeline_of_devices(params, config, placement)
    return LocalBackend(params, config, placement.single)


def open_on_workers(options: LoadOptions, file: GGUF, config: Config, ctx_size: int) -> Backend:
    """Connect the workers, send the model where it is missing, and let them open it.

    Raises OptionError where the heads do not divide among them, before they are called, and ResourceError that
    names a worker which is missing or lost.
    """
    from minillama.engine.backends.remote import RemoteBackend
    from minillama.parallel.sharding.partition_specs import per_device_config
    from minillama.parallel.workers.addresses import parse_addresses
    from minillama.parallel.workers.leader import connect_workers
    from minillama.parallel.workers.model_transfer import send_model

    sharing = options.sharing
    addresses = parse_addresses(sharing.workers or "")
    if sharing.mode is SplitMode.NONE and len(addresses) > 1:
        raise OptionError(f"split_mode=none and {len(addresses)} workers contradict each other; name one of them")
    if sharing.mode is SplitMode.LAYER:
        summed_shares(len(addresses), sharing.tensor_split)
    elif sharing.tensor_split:
        raise OptionError("tensor_split needs split_mode=layer")
    else:
        per_device_config(config, len(addresses))
    with _bar("sending", None, shown=options.progress) as advance:
        group = connect_workers(
            addresses, sharing.secret, log=logger.warning, threads=sharing.threads, silence=options.worker_timeout
        )
        atexit.register(group.close)
        backend = RemoteBackend(group, config)
        try:
            send_model(group, list(file.mapped), advance)
            backend.open(
                ctx_size,
                layers=sharing.mode is SplitMode.LAYER,
                shares=sharing.tensor_split,
                use_mmap=options.use_mmap,
                use_mlock=options.use_mlock,
            )
        except BaseException:
            group.close()
            raise
    return backend


@contextmanager
def _bar(what: str, total: int | None, *, shown: bool) -> Iterator[Advance]:
    """A progress bar of bytes; tqdm is imported only where it is shown."""
    if not shown:
        yield lambda size: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=what, unit="B", unit_scale=True, delay=0.5, leave=False) as bar:
        yield bar.update


def _in_cluster() -> bool:
    return jax.process_count() > 1
