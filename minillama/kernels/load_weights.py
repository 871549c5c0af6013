"""Load the bytes of a tensor as a weight on a device."""

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from gguf import GGMLQuantizationType as Type
from jax import Array

from minillama.array_types import Float, UInt8
from minillama.errors import FormatError, UnsupportedError
from minillama.gguf import Tensor
from minillama.gguf.types import BLOCKS, row_bytes
from minillama.kernels.cpu_available import reads_in_place
from minillama.kernels.decode_blocks import DECODERS
from minillama.kernels.weight import Dense, Portable, Weight, repack

ALIGNMENT = 64  # bytes; of memory that JAX uses without a copy
SUPPORTED = (Type.F32, Type.F16, Type.BF16, *DECODERS)

_repack = partial(jax.jit, static_argnames="kind")(repack)


class Files:
    """Mapped files, each as one array of a device that reads it in place."""

    def __init__(self, mapped: Mapping[Path, UInt8[np.ndarray, "bytes"]]) -> None:
        self._mapped = mapped
        self._placed: dict[tuple[Path, jax.Device], Array] = {}

    def on(self, device: jax.Device, file: Path) -> UInt8[Array, "bytes"]:
        """A whole file as an array, without a copy."""
        if (device, file) not in self._placed:
            self._placed[device, file] = jax.device_put(self._mapped[file], device)
        return self._placed[device, file]


def load_weight(tensor: Tensor, files: Files, device: jax.Device) -> Weight:
    """Load a matrix [N, K] or a stack of experts [E, N, K].

    On the CPU it stays in the mapped file, and the CPU kernels multiply it in place. On other devices, and if these
    kernels are not available, its bytes are copied and repacked on the device.
    Raises UnsupportedError for a type outside `SUPPORTED`.
    """
    kind = tensor.type
    check_supported(tensor)
    if reads_in_place(device, kind):
        return map_rows(tensor, 0, tensor.shape[-2], files.on(device, tensor.file))
    # read without the map, whose pages would count as memory in addition to the device's copy
    raw = np.fromfile(tensor.file, np.uint8, tensor.nbytes, offset=tensor.offset).reshape(tensor.data.shape)
    return portable_weight(raw, kind, device)


def check_supported(tensor: Tensor) -> None:
    """Raise UnsupportedError for a matrix of an unsupported type."""
    if tensor.type not in SUPPORTED:
        known = ", ".join(t.name for t in SUPPORTED)
        raise UnsupportedError(f"unsupported tensor type {tensor.type.name} in {tensor.name}; supported: {known}")


def map_rows(tensor: Tensor, first: int, rows: int, memory: UInt8[Array, "bytes"], shares: int = 1) -> Weight:
    """Map some rows of a matrix, or all rows of a stack of experts.

    memory: the whole file of the tensor. shares: number of devices that share the rows.
    """
    from minillama.kernels.cpu.mapped_weight import map_weight

    *experts, _, width = tensor.shape
    offset = tensor.offset + first * row_bytes(width, tensor.type)
    return map_weight(memory, offset, tensor.type, (*experts, rows, width), shares)


def place_weight(raw: UInt8[np.ndarray, "*experts N row_bytes"], kind: Type, device: jax.Device) -> Weight:
    """Copy rows in memory to a device, as a weight."""
    if not reads_in_place(device, kind):
        return portable_weight(raw, kind, device)
    from minillama.kernels.cpu.mapped_weight import map_weight

    block, size = BLOCKS[kind]
    shape = (*raw.shape[:-1], raw.shape[-1] // size * block)
    return map_weight(jax.device_put(_aligned(raw), device), 0, kind, shape)


def _aligned(raw: UInt8[np.ndarray, "*axes"]) -> UInt8[np.ndarray, "bytes"]:
    """Copy bytes to an aligned address, which JAX uses without another copy."""
    room = np.empty(raw.nbytes + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    room[start : start + raw.nbytes] = raw.reshape(-1)
    return room[start : start + raw.nbytes]


def portable_weight(raw: UInt8[np.ndarray, "*experts N row_bytes"], kind: Type, device: jax.Device) -> Portable:
    """Copy rows to a device and repack them for XLA."""
    if kind is Type.F32:
        return Dense(jax.device_put(raw.view(np.float32), device))
    # one at a time, or the bytes of several would be in memory together with their weights
    return jax.block_until_ready(_repack(jax.device_put(raw, device), kind))


def weight_of_zeros(shape: tuple[int, ...], kind: Type) -> Portable:
    """A weight of zero bytes [*experts, N, row_bytes] for XLA.

    Inside of `jax.eval_shape` it gives shapes and takes no memory.
    """
    if kind is Type.F32:
        return Dense(jnp.zeros((*shape[:-1], shape[-1] // 4), jnp.float32))
    return _repack(jnp.zeros(shape, jnp.uint8), kind)


def bytes_on(device: jax.Device, tensor: Tensor) -> int:
    """Bytes of a tensor on a device: as in the file, or repacked for XLA.

    There a code of a grid type becomes 4 or 8 bytes, so that IQ2_XXS takes four times its size in the file.
    """
    if len(tensor.shape) < 2 or tensor.type not in DECODERS or reads_in_place(device):
        return tensor.nbytes
    return tensor.nbytes // BLOCKS[tensor.type][1] * _repacked_block_bytes(tensor.type)


@cache
def _repacked_block_bytes(kind: Type) -> int:
    block = jax.ShapeDtypeStruct((1, BLOCKS[kind][1]), jnp.uint8)
    leaves = jax.eval_shape(lambda raw: jax.tree.leaves(repack(raw, kind)), block)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def load_vector(raw: UInt8[np.ndarray, "row_bytes"], kind: Type, name: str, device: jax.Device) -> Float[Array, "K"]:
    """Load norm weights, a bias or a table of factors on a device as float32.

    Raises FormatError for a quantised vector, which no converter writes.
    """
    dtypes = {Type.F32: np.float32, Type.F16: np.float16}
    if kind is Type.BF16:
        values = raw.view(np.uint16).astype(np.uint32) << 16
        return jax.device_put(values.view(np.float32), device)
    if kind not in dtypes:
        raise FormatError(f"{name} is a vector of type {kind.name}; expected F32, F16 or BF16")
    return jax.device_put(raw.view(dtypes[kind]).astype(jnp.float32), device)
