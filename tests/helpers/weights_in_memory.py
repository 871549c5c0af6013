"""Weights in memory that looks like a mapped file."""

import jax
import numpy as np
from gguf import GGMLQuantizationType as Type

from minillama.kernels.cpu.mapped_weight import MappedWeight, map_weight


def in_file(raw: np.ndarray, kind: Type, shape: tuple[int, ...], offset: int = 96) -> MappedWeight:
    """A tensor at an offset of a page-aligned file."""
    room = np.zeros(raw.nbytes + offset + 8192, np.uint8)
    memory = room[-room.ctypes.data % 4096 :]
    memory[offset : offset + raw.nbytes] = raw.reshape(-1)
    return map_weight(jax.device_put(memory, jax.devices("cpu")[0]), offset, kind, shape)
