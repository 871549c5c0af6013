"""Who shall compute an open file: this process's devices in one way or another, other processes with it, or workers.

What only some ways need is imported there, for a command on one device should start without it.
"""

import atexit
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import jax

from minillama.engine.executor import Executor, OnDevices
from minillama.engine.loader import Advance, load_params
from minillama.engine.placement import (
    Placement,
    SplitMode,
    first_devices,
    place_layers,
    read_split_mode,
    summed_shares,
)
from minillama.errors import OptionError
from minillama.gguf import GGUF
from minillama.model import Config

logger = logging.getLogger("minillama")


@dataclass(frozen=True)
class Sharing:
    """Who shares the work; the fields are those of `load`. Raises OptionError where they contradict each other."""

    split_mode: str | None
    tensor_split: Sequence[float]
    main_gpu: int
    tensor_parallel: int
    workers: str | None
    secret: bytes | None = field(repr=False)
    threads: int

    def __post_init__(self) -> None:
        if self.mode not in (None, SplitMode.TENSOR) and self.tensor_parallel != 1:
            raise OptionError(
                f"tensor_parallel={self.tensor_parallel} and split_mode={self.split_mode} contradict each other; "
                "use one of them"
            )
        if self.mode is SplitMode.TENSOR and self.tensor_split:
            raise OptionError("tensor_split has no meaning for split_mode=tensor, which cuts every layer evenly")

    @property
    def mode(self) -> SplitMode | None:
        """What split_mode says, or tensor_parallel alone implies."""
        mode = None if self.split_mode is None else read_split_mode(self.split_mode)
        if mode is SplitMode.ROW or (mode is None and self.tensor_parallel != 1):
            return SplitMode.TENSOR
        return mode

    def place(self, block_count: int, n_gpu_layers: int | None) -> Placement:
        """Where this process's devices would have the layers; what is cut within layers counts as the first's."""
        if self._in_cluster or self.mode is SplitMode.TENSOR:
            return place_layers(block_count, n_gpu_layers, SplitMode.NONE)
        return place_layers(block_count, n_gpu_layers, self.mode, self.tensor_split, self.main_gpu)

    def open(
        self, file: GGUF, config: Config, ctx_size: int, placement: Placement, advance: Advance = lambda size: None
    ) -> Executor:
        """Load a file's weights; raises what `load_params` does, and OptionError where the model does not divide."""
        if self._in_cluster and self.mode is SplitMode.LAYER:
            from minillama.engine.layered import layer_model

            return layer_model(file, config, ctx_size, self.tensor_split, advance)
        if self._in_cluster or self.mode is SplitMode.TENSOR:
            devices = first_devices(0 if self.tensor_parallel == 1 else self.tensor_parallel)
            if len(devices) > 1:
                from minillama.engine.spread import spread_model

                return spread_model(file, config, ctx_size, devices, advance)
        params = jax.block_until_ready(load_params(file, config, ctx_size, placement.devices, advance))
        return OnDevices(params, config, placement)

    def lead(
        self,
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
        from minillama.engine.remote import Remote
        from minillama.parallel.addresses import parse_addresses
        from minillama.parallel.leader import gather
        from minillama.parallel.shipping import offer
        from minillama.parallel.specs import divide

        addresses = parse_addresses(self.workers or "")
        if self.mode is SplitMode.NONE and len(addresses) > 1:
            raise OptionError(f"split_mode=none and {len(addresses)} workers contradict each other; name one of them")
        if self.mode is SplitMode.LAYER:
            summed_shares(len(addresses), self.tensor_split)
        elif self.tensor_split:
            raise OptionError("tensor_split needs split_mode=layer")
        else:
            divide(config, len(addresses))
        group = gather(addresses, self.secret, say=logger.warning, threads=self.threads)
        atexit.register(group.close)
        remote = Remote(group, config)
        try:
            offer(group, list(file.mapped), advance)
            layers = self.mode is SplitMode.LAYER
            remote.open(ctx_size, layers=layers, shares=self.tensor_split, use_mmap=use_mmap, use_mlock=use_mlock)
        except BaseException:
            group.close()
            raise
        return remote

    @property
    def _in_cluster(self) -> bool:
        return jax.process_count() > 1
