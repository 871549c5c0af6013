"""The devices that share a model: options, checked. Nothing here imports JAX."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from minillama.errors import OptionError


class SplitMode(Enum):
    """The ways in which devices share a model, under llama.cpp's names."""

    NONE = "none"  # one device has it all
    LAYER = "layer"  # each has some of the layers; they compute one after the other
    ROW = "row"  # as TENSOR; llama.cpp shards only matrix rows, and leaves attention to one device
    TENSOR = "tensor"  # each has a part of every layer; they compute together


@dataclass(frozen=True)
class DeviceSharing:
    """The options of `load` about sharing; the defaults use one device.

    Raises OptionError for an unknown mode, and for options that contradict each other.
    """

    split_mode: str | None = None
    tensor_split: Sequence[float] = ()
    main_gpu: int = 0
    tensor_parallel: int = 1
    workers: str | None = None
    secret: bytes | None = field(default=None, repr=False)
    threads: int = 0

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
        """The split_mode, also where tensor_parallel alone implies it."""
        mode = None if self.split_mode is None else _read(self.split_mode)
        if mode is SplitMode.ROW or (mode is None and self.tensor_parallel != 1):
            return SplitMode.TENSOR
        return mode


def _read(name: str) -> SplitMode:
    try:
        return SplitMode(name)
    except ValueError:
        known = ", ".join(mode.value for mode in SplitMode)
        raise OptionError(f"unknown split_mode {name!r}; use one of: {known}") from None
