"""Who shall compute an open file: this process's devices in one way or another, other processes with it, or workers.

What only some ways need is imported there, for a command on one device should start without it.
"""

import atexit
import logging
from typing import TYPE_CHECKING

import jax

from minillama.engine.backends.base import Executor, OnDevices
from minillama.engine.loading.device_sharing import Sharing, SplitMode
from minillama.engine.loading.layer_placement import Placement, first_devices, place_layers, summed_shares
from minillama.engine.loading.load_params import Advance, load_params
from minillama.errors import OptionError
from minillama.gguf import GGUF
from minillama.gguf.memory_pages import prefault_pages
from minillama.kernels import reads_in_place
from minillama.model import Config

if TYPE_CHECKING:
    from minillama.engine.backends.pipeline import Layered
    from minillama.engine.backends.tensor_parallel import Spread

logger = logging.getLogger("minillama")


def place(sharing: Sharing, block_count: int, n_gpu_layers: int | None) -> Placement:
    """Where this process's devices would have the layers; what is cut within layers counts as the first's."""
    if _in_cluster() or sharing.mode is SplitMode.TENSOR:
        return place_layers(block_count, n_gpu_layers, SplitMode.NONE)
    return place_layers(block_count, n_gpu_layers, sharing.mode, sharing.tensor_split, sharing.main_gpu)


def open_here(
    sharing: Sharing,
    file: GGUF,
    config: Config,
    ctx_size: int,
    placement: Placement,
    advance: Advance = lambda size: None,
) -> Executor:
    """Load a file's weights; raises what `load_params` does, and OptionError where the model does not divide.

    advance: called with the bytes that were loaded, or mapped where the weights stay in the file.
    """
    executor: OnDevices | Spread | Layered
    devices = first_devices(0 if sharing.tensor_parallel == 1 else sharing.tensor_parallel)
    if _in_cluster() and sharing.mode is SplitMode.LAYER:
        from minillama.engine.backends.pipeline import layer_model

        executor = layer_model(file, config, ctx_size, sharing.tensor_split, advance)
    elif (_in_cluster() or sharing.mode is SplitMode.TENSOR) and len(devices) > 1:
        from minillama.engine.backends.tensor_parallel import spread_model

        executor = spread_model(file, config, ctx_size, devices, advance)
    elif any(reads_in_place(device) for device in placement.devices):
        for whole in file.mapped.values():
            for size in prefault_pages(whole):
                advance(size)
        executor = OnDevices(load_params(file, config, ctx_size, placement.devices), config, placement)
    else:
        executor = OnDevices(load_params(file, config, ctx_size, placement.devices, advance), config, placement)
    jax.block_until_ready(executor.params)
    return executor


def lead(
    sharing: Sharing,
    file: GGUF,
    config: Config,
    ctx_size: int,
    *,
    use_mmap: bool,
    use_mlock: bool,
    advance: Advance = lambda size: None,
) -> Executor:
    """Gather the workers, and let them open the model, which they are sent if they lack it.

    advance: called with the bytes that were sent.
    Raises OptionError where the model does not divide among them, before they are called, and ResourceError that
    names the worker which is not there, or is lost.
    """
    from minillama.engine.backends.remote import Remote
    from minillama.parallel.sharding.partition_specs import assign_heads
    from minillama.parallel.workers.addresses import parse_addresses
    from minillama.parallel.workers.leader import connect_workers
    from minillama.parallel.workers.model_transfer import send_model

    addresses = parse_addresses(sharing.workers or "")
    if sharing.mode is SplitMode.NONE and len(addresses) > 1:
        raise OptionError(f"split_mode=none and {len(addresses)} workers contradict each other; name one of them")
    if sharing.mode is SplitMode.LAYER:
        summed_shares(len(addresses), sharing.tensor_split)
    elif sharing.tensor_split:
        raise OptionError("tensor_split needs split_mode=layer")
    else:
        assign_heads(config, len(addresses))
    group = connect_workers(addresses, sharing.secret, log=logger.warning, threads=sharing.threads)
    atexit.register(group.close)
    remote = Remote(group, config)
    try:
        send_model(group, list(file.mapped), advance)
        layers = sharing.mode is SplitMode.LAYER
        remote.open(ctx_size, layers=layers, shares=sharing.tensor_split, use_mmap=use_mmap, use_mlock=use_mlock)
    except BaseException:
        group.close()
        raise
    return remote


def _in_cluster() -> bool:
    return jax.process_count() > 1
